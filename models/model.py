"""The MatMul-free language model as a module whose state dict has the keys of the published checkpoints."""

from dataclasses import asdict, dataclass

import torch
from torch import nn

from sterna.models import layers


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Geometry of a model, with the names of the published config.json."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    intermediate_size: int
    rms_norm_eps: float = 1e-6

    def to_json(self):
        """The dictionary written as config.json, readable by tools that know model_type hgrn_bit."""
        return asdict(self) | {
            "architectures": ["HGRNBitForCausalLM"], "model_type": "hgrn_bit", "hidden_ratio": 4, "num_heads": 1,
            "expand_ratio": 1, "use_short_conv": False, "use_lower_bound": True, "hidden_act": "swish",
            "tie_word_embeddings": False, "torch_dtype": "bfloat16", "bos_token_id": 0, "eos_token_id": 0,
        }


class LanguageModel(nn.Module):
    """Token ids [N, T] and keep mask [N, T] -> logits [N * T, V].

    ``dropout`` acts in training mode, on the embedding and on what each block adds; no checkpoint holds it.
    """

    def __init__(self, config, dropout=0.0):
        super().__init__()
        self.config, self.dropout = config, dropout
        hidden, count = config.hidden_size, config.num_hidden_layers
        std = hidden**-0.5
        self.model = nn.Module()
        self.model.embeddings = nn.Embedding(config.vocab_size, hidden)
        nn.init.normal_(self.model.embeddings.weight, std=0.5)
        self.model.lower_bounds = nn.Parameter(torch.zeros(count, hidden))
        self.model.layers = nn.ModuleList(
            layers.Block(hidden, config.intermediate_size, config.rms_norm_eps, std, dropout) for _ in range(count))
        self.model.norm = layers._Scale(hidden)
        self.lm_head = layers.BitLinear(hidden, config.vocab_size, std)

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
