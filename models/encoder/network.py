"""The encoder of `sterna.sim.golden.encoder` in PyTorch; its state dict has the keys of the published checkpoint."""

import torch
from torch import nn
from torch.nn import functional

from sterna.sim.golden.encoder import sinusoids
from sterna.sim.golden.encoder_checkpoint import EPS

STD = 0.02  # of the first weights; the published code gives it to the trees too, and zero to their biases


class Trees(nn.Module):
    """Fast feedforward: inputs [..., H] -> [..., H] of K trees of depth D; all sums are computed, the visited used.

    The order of rows and the side of a branch are those of `sterna.sim.golden.encoder`. The gradient takes the path
    as it is: none flows through the decisions.

    Attributes
    ----------
    watch : callable or None
        Called with the rows that were visited, [B, K, D + 1] node numbers of each tree, at every forward.
    """

    def __init__(self, hidden, trees, depth):
        super().__init__()
        self.trees, self.depth, self.watch = trees, depth, None
        self.nodes = 2 ** (depth + 1) - 1
        self.linear_in = nn.Linear(hidden, trees * self.nodes)
        self.linear_out = nn.Linear(trees * self.nodes, hidden, bias=False)

    @torch.no_grad()
    def path(self, sums):
        """The node numbers [B, K, D + 1] that sums [B, K, nodes] lead through."""
        node = sums.new_zeros(sums.shape[:2] + (1,), dtype=torch.long)
        path = [node]
        for _ in range(self.depth):
            node = 2 * node + 1 + (sums.gather(2, node) > 0)
            path.append(node)
        return torch.cat(path, 2)

    def forward(self, x):
        sums = self.linear_in(x).reshape(-1, self.trees, self.nodes)
        path = self.path(sums)
        if self.watch:
            self.watch(path)
        used = functional.gelu(sums.gather(2, path))
        values = torch.zeros_like(sums).scatter(2, path, used)
        return self.linear_out(values.flatten(1)).reshape(x.shape)


class Dense(nn.Module):
    """dense_out gelu(dense_in x), without biases."""

    def __init__(self, hidden, inner):
        super().__init__()
        self.dense_in = nn.Linear(hidden, inner, bias=False)
        self.dense_out = nn.Linear(inner, hidden, bias=False)

    def forward(self, x):
        return self.dense_out(functional.gelu(self.dense_in(x)))


def feedforward(geometry):
    """The feedforward module of a layer, None if it has none."""
    if geometry.feedforward == "fff":
        return Trees(geometry.hidden_size, geometry.trees, geometry.tree_depth)
    return Dense(geometry.hidden_size, geometry.neurons) if geometry.neurons else None


class Attention(nn.Module):
    """Self-attention: x [B, T, H], keep [B, T] (bool) or None -> [B, T, H]."""

    def __init__(self, geometry):
        super().__init__()
        hidden, self.heads, self.width = geometry.hidden_size, geometry.num_attention_heads, geometry.head_width
        self.self_attention = nn.Module()
        self.self_attention.query_key_value = nn.Linear(hidden, 3 * hidden, bias=False)
        self.self_attention.register_buffer("norm_factor", torch.tensor(float(self.width)).rsqrt())
        self.dense = nn.Linear(hidden, hidden, bias=False)

    def forward(self, x, keep, dropout):
        batch, count, hidden = x.shape
        mixed = self.self_attention.query_key_value(x).view(batch, count, self.heads, 3, self.width)
        query, key, value = mixed.permute(3, 0, 2, 1, 4)
        mask = None if keep is None else keep[:, None, None, :]
        out = functional.scaled_dot_product_attention(query, key, value, mask, dropout if self.training else 0.0,
                                                      scale=float(self.self_attention.norm_factor))
        return self.dense(out.transpose(1, 2).reshape(batch, count, hidden))


class Layer(nn.Module):
    """x += attention(norm1(x)); x += ffn(norm2(x))."""

    def __init__(self, geometry):
        super().__init__()
        self.norm1 = nn.LayerNorm(geometry.hidden_size, EPS)
        self.norm2 = nn.LayerNorm(geometry.hidden_size, EPS)
        self.attn = Attention(geometry)
        self.ffn = feedforward(geometry)

    def forward(self, x, keep, dropout):
        x = x + functional.dropout(self.attn(self.norm1(x), keep, dropout), dropout, self.training)
        if self.ffn is None:
            return x
        return x + functional.dropout(self.ffn(self.norm2(x)), dropout, self.training)


class Encoder(nn.Module):
    """Token ids [B, T] and keep [B, T] (bool, None: all) -> logits.

    They are [B, T, V] of the vocabulary, or [B, classes] where the geometry has classes. ``dropout`` acts in training
    mode only, on the embedding, on attention, on what each block adds and in front of the classes.

    Raises
    ------
    PackError
        Of ``EncoderGeometry``.
    """

    def __init__(self, geometry, dropout=0.0):
        super().__init__()
        self.geometry, self.dropout = geometry, dropout
        hidden = geometry.hidden_size
        self.encoder = nn.Module()
        embedding = self.encoder.embedding = nn.Module()
        embedding.word_embedding = nn.Embedding(geometry.vocab_size, hidden)
        embedding.pos_embedding = nn.Module()
        embedding.pos_embedding.scale_factor = nn.Parameter(torch.tensor([hidden**-0.5]))
        embedding.norm = nn.LayerNorm(hidden, EPS)
        self.register_buffer("positions", self.sinusoids(geometry), persistent=False)
        self.encoder.layers = nn.ModuleList(Layer(geometry) for _ in range(geometry.num_hidden_layers))
        self.encoder.final_norm = nn.LayerNorm(hidden, EPS)
        if geometry.classes:
            self.pooler = nn.Module()
            self.pooler.dense = nn.Linear(hidden, geometry.head_size)
            self.head = nn.Linear(geometry.head_size, geometry.classes)
        else:
            self.decoder = nn.Linear(hidden, geometry.vocab_size, bias=False)
            self.decoder.weight = embedding.word_embedding.weight
        self._first_weights()

    @staticmethod
    def sinusoids(geometry):
        """[length, H] of the positions, unscaled."""
        return torch.from_numpy(sinusoids(geometry.length, geometry.hidden_size))

    def _first_weights(self):
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=STD)
                if getattr(module, "bias", None) is not None:
                    nn.init.zeros_(module.bias)

    def states(self, ids, keep=None):
        """[B, T, H] behind the final norm."""
        embedding = self.encoder.embedding
        x = embedding.word_embedding(ids) + embedding.pos_embedding.scale_factor * self.positions[:ids.shape[1]]
        x = functional.dropout(embedding.norm(x), self.dropout, self.training)
        for layer in self.encoder.layers:
            x = layer(x, keep, self.dropout)
        return self.encoder.final_norm(x)

    def forward(self, ids, keep=None):
        states = self.states(ids, keep)
        if not self.geometry.classes:
            return self.decoder(states)
        pooled = torch.tanh(self.pooler.dense(states[:, 0]))
        return self.head(functional.dropout(pooled, self.dropout, self.training))

    def trees(self):
        """The layers' Trees, none if the feedforward is another."""
        return [layer.ffn for layer in self.encoder.layers if isinstance(layer.ffn, Trees)]
