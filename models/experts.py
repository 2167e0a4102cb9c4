"""A mixture of experts as a channel mixer: the control beside trees, of the same parts (no device runs it)."""

import torch
from torch import nn

from sterna.models import layers, tree


class Experts(nn.Module):
    """x [T, H] -> [T, H]: ``used`` of ``experts`` experts of ``size`` neurons, chosen per token by a ternary router.

    With the tables, rounding and norm of ``sterna.models.tree``. Neurons are weighted by their expert's share in the
    softmax over the chosen logits, so the router learns through the weights; the norm takes their scale away.

    Parameters
    ----------
    hidden, experts, used, size : int
    std : float
        Of the first weights.
    balance : float
        Weight of ``penalty`` in the loss.

    Attributes
    ----------
    leaves : int64 tensor [T, used]
        Behind a forward pass in evaluation mode, the chosen experts.
    penalty : tensor or None
        Behind a forward pass in training mode with ``balance`` above 0: experts times the sum over them of (share of
        choices)(mean softmax weight), 1 where they are used alike (arXiv 2101.03961, section 2.2).
    """

    def __init__(self, hidden, experts, used, size, std, balance=0.0):
        super().__init__()
        self.experts, self.used, self.size, self.balance = experts, used, size, balance
        self.router = layers.BitLinear(hidden, experts, std)
        self.tree_in = layers.BitLinear(hidden, experts * size, std)
        self.tree_out = nn.Module()
        self.tree_out.weight = nn.Parameter(torch.randn(experts * size, hidden) * std)
        self.leaves = self.penalty = None

    @property
    def choices(self):
        """Things of which a token chooses several."""
        return 1, self.experts

    def forward(self, x):
        logits = self.router(x)
        top, chosen = logits.topk(self.used, -1)
        weights = torch.zeros_like(logits).scatter(-1, chosen, torch.softmax(top, -1))
        if self.training and self.balance:
            share = (weights.detach() > 0).to(x.dtype).mean(0) / self.used
            self.penalty = self.experts * (share * torch.softmax(logits, -1).mean(0)).sum()
        if not self.training:
            self.leaves = chosen
        y = tree.masked(self.tree_in(x), weights.repeat_interleave(self.size, -1), self.used * self.size)
        return layers.TernaryProduct.apply(y, self.tree_out.weight.t(), self.tree_in.products)
