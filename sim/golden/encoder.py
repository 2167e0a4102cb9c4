"""An encoder of the crammedBERT kind with fast feedforward layers (UltraFastBERT, arXiv 2311.10770): inference in
NumPy that reads only the visited neurons.

Pre-norm layers x += attention(norm1(x)); x += ffn(norm2(x)), LayerNorm of eps 1e-12; attention and decoder without
biases; embedding + scale * sinusoids and a norm in front, a norm behind; a decoder whose matrix is the embedding.

The feedforward is one of

    fff     a_n = <linear_in.weight[n], x> + linear_in.bias[n];  y = sum over visited n of gelu(a_n) linear_out[:, n]
    dense   y = dense_out gelu(dense_in x), no biases; ``narrow`` is the same with as many neurons as fff visits
    none    y = 0

with the GELU of the error function. K trees of depth D: row k (2^(D+1) - 1) + n of ``linear_in`` is node n of tree k.
The order is the heap's and a positive sum goes right: n = 2 n + 1 + (a_n > 0), so zero goes left; all D + 1 visited
neurons add to the output, the leaf too. So it is in training/cramming/architectures/fff.py of
github.com/pbelcak/UltraFastBERT (commit 993e00e): the decision is ``logits > 0``; a node's place in level d, node -
(2^d - 1), doubles, and the decision and 2^(d+1) - 1, the first node of the level below, are added: 2 n + 1 +
decision. benchmark_cpu/fff.cpp (commit d3d01b4) walks the same way, by the value behind the GELU, whose sign is the
sum's.
"""

import math

import numpy as np

from sterna.sim.golden.encoder_checkpoint import EPS
from sterna.sim.golden.geometry import PackError


def sinusoids(length, hidden):
    """[length, hidden] float32: sin of position * 10000^(-c / hidden) in an even channel c, its cos in c + 1."""
    angle = np.arange(length)[:, None] * np.exp(np.arange(0, hidden, 2) * (-math.log(10000.0) / hidden))
    out = np.empty((length, hidden), np.float32)
    out[:, 0::2] = np.sin(angle)
    out[:, 1::2] = np.cos(angle)
    return out


def erf(x):
    """The error function of an array: exact to rounding in float64; in float32 by formula 7.1.26 of Abramowitz and
    Stegun, within 1e-6.
    """
    if x.dtype == np.float64:
        return np.frompyfunc(math.erf, 1, 1)(x).astype(np.float64)
    t = 1 / (1 + np.float32(0.3275911) * np.abs(x))
    series = np.zeros_like(x)
    for c in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = (series + np.float32(c)) * t
    return np.copysign(1 - series * np.exp(-x * x), x)


def gelu(x):
    """x (1 + erf(x / sqrt 2)) / 2 of an array."""
    return x * (1 + erf(x * x.dtype.type(0.5**0.5))) * x.dtype.type(0.5)


def layer_norm(x, weight, bias):
    """LayerNorm over the last dimension."""
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + x.dtype.type(EPS)) * weight + bias


class Encoder:
    """Inference of one sequence at a time in NumPy; an fff layer reads the visited neurons' rows alone.

    Parameters
    ----------
    geometry : EncoderGeometry
    tensors : mapping of str to float32 array
        By ``geometry.tensors()``; ``EncoderTensors``, for one.
    dtype : NumPy dtype
        float32 or float64.

    Attributes
    ----------
    margin : float
        The least |a| that decided a branch since it was last set to infinity. Where it is within the rounding of a
        sum, another order of summation may walk another way.
    """

    def __init__(self, geometry, tensors, dtype=np.float32):
        self.geometry, self.dtype, self.margin = geometry, np.dtype(dtype), math.inf
        self._tensors = {}
        for name, _ in geometry.tensors():
            if name == "decoder.weight":
                continue
            data = np.asarray(tensors[name], self.dtype)
            # A neuron's output is a row: it is read as one piece.
            self._tensors[name] = np.ascontiguousarray(data.T) if name.endswith("linear_out.weight") else data
        if not geometry.classes and not np.array_equal(tensors["decoder.weight"],
                                                       tensors["encoder.embedding.word_embedding.weight"]):
            raise PackError("tensor 'decoder.weight' differs from 'encoder.embedding.word_embedding.weight': the two "
                            "are one matrix in this encoder")
        scale = self._tensors["encoder.embedding.pos_embedding.scale_factor"]
        self._positions = scale * sinusoids(geometry.length, geometry.hidden_size).astype(self.dtype)

    def _of(self, name):
        return self._tensors[name]

    def _normed(self, name, x):
        return layer_norm(x, self._of(f"{name}.weight"), self._of(f"{name}.bias"))

    def hidden(self, ids):
        """[T, H] states behind the final norm of token ids [T]; PackError for ids or a length that it has not."""
        ids = np.asarray(ids)
        geometry = self.geometry
        if ids.ndim != 1 or not 0 < len(ids) <= geometry.length:
            raise PackError(f"{ids.size} tokens: this encoder takes 1 to {geometry.length}")
        if ids.min() < 0 or ids.max() >= geometry.vocab_size:
            raise PackError(f"token {ids.max() if ids.max() >= geometry.vocab_size else ids.min()}: this encoder has "
                            f"tokens 0 to {geometry.vocab_size - 1}")
        x = self._of("encoder.embedding.word_embedding.weight")[ids] + self._positions[:len(ids)]
        x = self._normed("encoder.embedding.norm", x)
        for layer in range(geometry.num_hidden_layers):
            at = f"encoder.layers.{layer}."
            x = x + self._attention(f"{at}attn.", self._normed(f"{at}norm1", x))
            if geometry.feedforward != "none":
                x = x + self.feedforward(layer, self._normed(f"{at}norm2", x))
        return self._normed("encoder.final_norm", x)

    def _attention(self, at, x):
        """Softmax attention; of each head's 3 W rows of ``query_key_value`` W are queries, W keys, W values."""
        count, heads, width = len(x), self.geometry.num_attention_heads, self.geometry.head_width
        mixed = x @ self._of(f"{at}self_attention.query_key_value.weight").T
        query, key, value = mixed.reshape(count, heads, 3, width).transpose(2, 1, 0, 3)
        scores = query @ key.transpose(0, 2, 1) * self._of(f"{at}self_attention.norm_factor")
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        return (scores @ value).transpose(1, 0, 2).reshape(count, -1) @ self._of(f"{at}dense.weight").T

    def visit(self, layer, x):
        """The walk of a layer's trees for inputs [T, H]: neurons (rows of the tables) and sums, both [T, N], level by
        level, tree fastest.
        """
        geometry = self.geometry
        weight = self._of(f"encoder.layers.{layer}.ffn.linear_in.weight")
        bias = self._of(f"encoder.layers.{layer}.ffn.linear_in.bias")
        first = np.arange(geometry.trees) * geometry.nodes
        node = np.zeros((len(x), geometry.trees), np.intp)
        rows, sums = [], []
        for level in range(geometry.levels):
            row = first + node
            a = (weight[row] @ x[:, :, None])[:, :, 0] + bias[row]
            rows.append(row)
            sums.append(a)
            if level < geometry.tree_depth:
                self.margin = min(self.margin, float(np.abs(a).min()))
                node = 2 * node + 1 + (a > 0)
        return np.concatenate(rows, 1), np.concatenate(sums, 1)

    def feedforward(self, layer, x):
        """What a layer's feedforward makes of normed inputs [T, H]: [T, H]."""
        at = f"encoder.layers.{layer}.ffn."
        if self.geometry.feedforward == "fff":
            rows, sums = self.visit(layer, x)
            return (gelu(sums)[:, None, :] @ self._of(f"{at}linear_out.weight")[rows])[:, 0]
        return gelu(x @ self._of(f"{at}dense_in.weight").T) @ self._of(f"{at}dense_out.weight").T

    def logits(self, ids):
        """[T, V] of the vocabulary behind every token of ids [T], or [classes] of the whole text."""
        states = self.hidden(ids)
        if not self.geometry.classes:
            return states @ self._of("encoder.embedding.word_embedding.weight").T
        pooled = np.tanh(self._of("pooler.dense.weight") @ states[0] + self._of("pooler.dense.bias"))
        return self._of("head.weight") @ pooled + self._of("head.bias")
