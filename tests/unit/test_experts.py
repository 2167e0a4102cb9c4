"""The mixture of experts that trees are compared with."""

import os

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from sterna.models import layers  # noqa: E402
from sterna.models.experts import Experts  # noqa: E402

SEED = int(os.environ.get("STERNA_SEED", "1"))
HIDDEN, TOKENS = 24, 30


def test_experts_equal_a_loop_and_their_router_learns():
    torch.manual_seed(SEED)
    mixer, x = Experts(HIDDEN, 5, 2, 3, HIDDEN**-0.5, balance=0.5), torch.randn(TOKENS, HIDDEN)
    found = mixer(x)
    logits, t = mixer.router(x).detach(), mixer.tree_in(x).detach()
    z = torch.zeros(TOKENS, 15)
    for n, row in enumerate(logits.numpy()):
        first, second = np.argsort(-row)[:2]
        share = 1 / (1 + np.exp(row[second] - row[first]))
        for expert, weight in ((first, share), (second, 1 - share)):
            at = slice(3 * expert, 3 * expert + 3)
            z[n, at] = torch.nn.functional.silu(t[n, at]) * weight
    y = z / (z.square().sum(-1, keepdim=True) / 6 + 1e-6).sqrt()  # of 2 experts of 3
    expected = layers.TernaryProduct.apply(y, mixer.tree_out.weight.t(), "fp32")
    assert ((found - expected).abs().amax(-1) > 1e-3).sum() <= 1
    (found.square().sum() + mixer.balance * mixer.penalty).backward()
    assert mixer.router.weight.grad.abs().sum() > 0 and 0.9 < mixer.penalty.item() < 5
    mixer.eval()(x)
    assert mixer.leaves.shape == (TOKENS, 2) and mixer.choices == (1, 5)
