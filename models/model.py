"""The MatMul-free language model as a module whose state dict has the keys of the published checkpoints."""

from dataclasses import asdict, dataclass

import torch
from torch import nn

from sterna.models import layers
from sterna.models.experts import Experts
from sterna.models.tree import Tree, TreeOptions

# Entries of config.json by channel mixer. "none" and "experts" are controls: nothing but this package runs them.
MIXERS = {"glu": ("intermediate_size",), "tree": ("trees", "tree_depth", "tree_always"), "none": (),
          "experts": ("experts", "experts_used", "expert_size")}


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Geometry of a model, with the names of config.json; those of another channel mixer are 0."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    rms_norm_eps: float = 1e-6
    channel_mixer: str = "glu"
    intermediate_size: int = 0
    trees: int = 0
    tree_depth: int = 0
    tree_always: int = 0
    experts: int = 0
    experts_used: int = 0
    expert_size: int = 0

    @classmethod
    def of(cls, values):
        """That of a mapping or object that has the names, of which others are left out."""
        values = values if isinstance(values, dict) else asdict(values) | {
            "channel_mixer": getattr(values, "mixer", None) or getattr(values, "channel_mixer", "glu")}
        return cls(**{name: values[name] for name in cls.__dataclass_fields__ if name in values})

    def to_json(self):
        """The dictionary written as config.json, readable by tools that know model_type hgrn_bit."""
        other = {name for names in MIXERS.values() for name in names} - set(MIXERS[self.channel_mixer])
        other |= {"channel_mixer"} if self.channel_mixer == "glu" else set()  # as such models were published
        return {name: value for name, value in asdict(self).items() if name not in other} | {
            "architectures": ["HGRNBitForCausalLM"], "model_type": "hgrn_bit", "hidden_ratio": 4, "num_heads": 1,
            "expand_ratio": 1, "use_short_conv": False, "use_lower_bound": True, "hidden_act": "swish",
            "tie_word_embeddings": False, "torch_dtype": "bfloat16", "bos_token_id": 0, "eos_token_id": 0,
        }


def _mixer(config, std, options):
    """The channel mixer of one block, None for none."""
    hidden = config.hidden_size
    if config.channel_mixer == "tree":
        return Tree(hidden, config.trees, config.tree_depth, config.tree_always, std, options)
    if config.channel_mixer == "experts":
        return Experts(hidden, config.experts, config.experts_used, config.expert_size, std, options.balance)
    return layers.GluMixer(hidden, config.intermediate_size, std) if config.channel_mixer == "glu" else None


class LanguageModel(nn.Module):
    """Token ids [N, T] and keep mask [N, T] -> logits [N * T, V].

    ``dropout`` acts in training mode, on the embedding and on what each block adds; no checkpoint holds it. Nor does
    one hold ``options``, a TreeOptions.
    """

    def __init__(self, config, dropout=0.0, options=None):
        super().__init__()
        self.config, self.dropout = config, dropout
        hidden, count = config.hidden_size, config.num_hidden_layers
        std = hidden**-0.5
        self.model = nn.Module()
        self.model.embeddings = nn.Embedding(config.vocab_size, hidden)
        nn.init.normal_(self.model.embeddings.weight, std=0.5)
        self.model.lower_bounds = nn.Parameter(torch.zeros(count, hidden))
        self.model.layers = nn.ModuleList(
            layers.Block(hidden, lambda: _mixer(config, std, options or TreeOptions()), config.rms_norm_eps, std,
                         dropout) for _ in range(count))
        self.model.norm = layers._Scale(hidden)
        self.lm_head = layers.BitLinear(hidden, config.vocab_size, std)

    def routed(self):
        """The channel mixers (list) that choose: trees with branches, and experts."""
        return [block.mlp for block in self.model.layers if isinstance(block.mlp, Experts)
                or isinstance(block.mlp, Tree) and block.mlp.depth]

    def penalty(self):
        """The weighted balance penalties of the last forward pass, or 0."""
        return sum(mixer.balance * mixer.penalty for mixer in self.routed() if mixer.penalty is not None)

    def set_products(self, products):
        """Choose the matrix arithmetic of every ternary layer: "int8", "bf16" or "fp32"."""
        for module in self.modules():
            if isinstance(module, layers.BitLinear):
                module.products = products

    def lower_bounds(self):
        """[L, H] constants lb: a cumulative softmax over the layers less its first row."""
        share = torch.softmax(self.model.lower_bounds, 0)
        return torch.cumsum(share, 0) - share[0]

    def forward(self, ids, keep):
        x = self.model.embeddings(ids)
        if self.dropout:
            x = nn.functional.dropout(x, self.dropout, self.training)
        keep = keep.unsqueeze(-1).to(x.dtype)
        for block, lower in zip(self.model.layers, self.lower_bounds(), strict=True):
            x = block(x, lower, keep)
        x = x.reshape(-1, self.config.hidden_size)
        return self.lm_head(layers.rms_norm(x, self.model.norm.weight, self.config.rms_norm_eps))
