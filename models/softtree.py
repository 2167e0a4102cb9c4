"""The older fast feedforward layer (arXiv 2308.14711): a tree of routers over leaves that are small networks.

Float weights, and no device here runs it: it is for people who have such networks, and for comparisons.
"""

import torch
from torch import nn


class SoftTree(nn.Module):
    """x [..., inputs] -> [..., outputs]: a mixture of all leaves in training mode, one of them in evaluation mode.

    A tree of depth D has 2^D - 1 routers in heap order, each one linear neuron, and 2^D leaves, each a network
    inputs -> width -> outputs with an activation in between. With c[n] = sigmoid(router n of x):

        weight of a leaf = product over its path of c[n] where it goes right and of 1 - c[n] where left
        training:   out = sum over the leaves of weight * leaf(x)
        evaluation: out = leaf(x) of the leaf that is reached by going right where c[n] > 1/2

    Parameters
    ----------
    inputs, width, outputs, depth : int
        Depth 0 is one leaf.
    activation : callable, optional
        Default: ReLU.
    hard : bool or None, optional
        True: one leaf in training mode too; False: the mixture always. None: as above.

    Attributes
    ----------
    hardening : tensor or None
        Behind a forward pass of the mixture, the mean over inputs and routers of the entropy of c in nats. Its
        weight in the loss ("hardening", 0 to about 3 in the paper) makes decisions sharp, so that evaluation agrees.

    Raises
    ------
    ValueError
        A size below 1, or a depth that is not 0 to 20.
    """

    def __init__(self, inputs, width, outputs, depth, activation=torch.relu, hard=None):
        super().__init__()
        for name, value in (("inputs", inputs), ("width", width), ("outputs", outputs)):
            if value < 1:
                raise ValueError(f"{name} {value}: use 1 or more")
        if not 0 <= depth <= 20:
            raise ValueError(f"depth {depth}: use 0 to 20")
        self.depth, self.activation, self.hard = depth, activation, hard
        leaves = 2**depth
        self.router = nn.Parameter(torch.randn(leaves - 1, inputs) * inputs**-0.5)
        self.router_bias = nn.Parameter(torch.zeros(leaves - 1))
        self.inner = nn.Parameter(torch.randn(leaves, width, inputs) * inputs**-0.5)
        self.inner_bias = nn.Parameter(torch.zeros(leaves, width))
        self.outer = nn.Parameter(torch.randn(leaves, outputs, width) * width**-0.5)
        self.outer_bias = nn.Parameter(torch.zeros(leaves, outputs))
        self.hardening = None

    def forward(self, x):
        flat = x.reshape(-1, x.shape[-1])
        hard = not self.training if self.hard is None else self.hard
        out = self._hard(flat) if hard else self._soft(flat)
        return out.view(*x.shape[:-1], -1)

    def weights(self, x):
        """Weights of the leaves [T, 2^D] of inputs [T, inputs], from left to right; they add up to 1."""
        return self._weights(torch.sigmoid(x @ self.router.t() + self.router_bias))

    def _weights(self, c):
        weights = torch.ones_like(c[:, :1]) if self.depth else c.new_ones(len(c), 1)
        for d in range(self.depth):
            here = c[:, 2**d - 1:2**(d + 1) - 1]
            weights = torch.stack((weights * (1 - here), weights * here), -1).flatten(1)
        return weights

    def leaf(self, x):
        """The leaf (int64 [T], from left to right) of evaluation mode."""
        node = torch.zeros(len(x), dtype=torch.long, device=x.device)
        for _ in range(self.depth):
            logit = (x * self.router[node]).sum(-1) + self.router_bias[node]
            node = 2 * node + 1 + (logit > 0).long()
        return node - (2**self.depth - 1)

    def _soft(self, x):
        logits = x @ self.router.t() + self.router_bias
        c = torch.sigmoid(logits)
        # -log c and -log(1 - c) from the logits, or a saturated one would give 0 times infinity.
        entropy = c * nn.functional.softplus(-logits) + (1 - c) * nn.functional.softplus(logits)
        self.hardening = entropy.mean() if self.depth else entropy.sum()
        hidden = self.activation(torch.einsum("ti,lwi->tlw", x, self.inner) + self.inner_bias)
        leaves = torch.einsum("tlw,low->tlo", hidden, self.outer) + self.outer_bias
        return (self._weights(c).unsqueeze(-1) * leaves).sum(1)

    def _hard(self, x):
        """Tokens grouped by leaf, so that a leaf's weights are read once for all of its tokens."""
        self.hardening, leaves = None, self.leaf(x)
        out = x.new_zeros(len(x), self.outer.shape[1])
        for leaf in leaves.unique().tolist():
            at = (leaves == leaf).nonzero().squeeze(1)
            hidden = self.activation(x[at] @ self.inner[leaf].t() + self.inner_bias[leaf])
            out = out.index_copy(0, at, hidden @ self.outer[leaf].t() + self.outer_bias[leaf])
        return out
