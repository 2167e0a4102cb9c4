"""The older fast feedforward layer: mixture, hardening, and the hard walk, against plain loops."""

import os

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from sterna.models.softtree import SoftTree  # noqa: E402

SEED = int(os.environ.get("STERNA_SEED", "1"))


def made(depth=3, **options):
    torch.manual_seed(SEED)
    tree = SoftTree(6, 4, 5, depth, **options).double()
    with torch.no_grad():
        for p in (tree.router_bias, tree.inner_bias, tree.outer_bias):
            p.normal_(std=0.2)
    return tree, torch.randn(30, 6, dtype=torch.float64)


def loop(tree, x, choose):
    """out [outputs] of one input, by recursion; ``choose`` gives (weight left, weight right) of c."""
    def below(node, d):
        if d == tree.depth:
            leaf = node - (2**d - 1)
            hidden = np.maximum(tree.inner[leaf].numpy() @ x + tree.inner_bias[leaf].numpy(), 0)
            return tree.outer[leaf].numpy() @ hidden + tree.outer_bias[leaf].numpy()
        c = 1 / (1 + np.exp(-(tree.router[node].numpy() @ x + tree.router_bias[node].item())))
        left, right = choose(c)
        return left * below(2 * node + 1, d + 1) + right * below(2 * node + 2, d + 1)
    return below(0, 0)


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_mixture_and_hard_path_equal_a_recursion(depth):
    tree, x = made(depth)
    with torch.no_grad():
        soft, hard = tree.train()(x), tree.eval()(x)
        for row, of_soft, of_hard in zip(x.numpy(), soft.numpy(), hard.numpy(), strict=True):
            np.testing.assert_allclose(of_soft, loop(tree, row, lambda c: (1 - c, c)), rtol=1e-10)
            np.testing.assert_allclose(of_hard, loop(tree, row, lambda c: (c <= 0.5, c > 0.5)), rtol=1e-10)
    assert len(tree.leaf(x).unique()) > 2**depth // 4


def test_weights_of_the_leaves_add_up_to_one_and_the_hard_leaf_has_the_likely_turns():
    tree, x = made()
    weights = tree.weights(x)
    torch.testing.assert_close(weights.sum(-1), torch.ones(30, dtype=torch.float64))
    assert (weights > 0).all()
    with torch.no_grad():
        tree.router *= 200
        tree.router_bias *= 200
    assert torch.equal(tree.weights(x).argmax(-1), tree.leaf(x))


def test_hard_and_soft_agree_where_decisions_are_saturated():
    tree, x = made()
    with torch.no_grad():
        before = (tree.train()(x) - tree.eval()(x)).abs().max()
        tree.router *= 1e6
        tree.router_bias *= 1e6
        soft = tree.train()(x)
        assert tree.hardening < 1e-6
        torch.testing.assert_close(soft, tree.eval()(x))
    assert before > 0.1
    assert tree.hardening is None


def test_hardening_drives_the_entropy_down_and_gradients_reach_everything():
    tree, x = made()
    optimiser = torch.optim.SGD(tree.parameters(), lr=4.0)
    tree(x).square().sum().backward()
    assert all((p.grad != 0).flatten(1).any(1).all() for p in tree.parameters() if p.ndim > 1)
    c = torch.sigmoid(x @ tree.router.t() + tree.router_bias)
    torch.testing.assert_close(tree.hardening, -(c * c.log() + (1 - c) * (1 - c).log()).mean())
    seen = []
    for _ in range(40):
        optimiser.zero_grad()
        tree(x)
        tree.hardening.backward()
        optimiser.step()
        seen.append(tree.hardening.item())
    assert seen[0] > 0.3 and seen[-1] < 0.5 * seen[0]
    assert seen == sorted(seen, reverse=True)


def test_hardening_of_saturated_routers_is_finite():
    tree, x = made()
    with torch.no_grad():
        tree.router *= 1e30
    tree(x)
    tree.hardening.backward()
    assert all(torch.isfinite(p.grad).all() for p in (tree.router, tree.router_bias))


def test_shapes_and_modes():
    tree, x = made(hard=True)
    assert torch.equal(tree.train()(x), tree.eval()(x))
    assert tree(x.view(5, 6, 6)).shape == (5, 6, 5)
    tree, x = made(hard=False)
    assert torch.equal(tree.train()(x), tree.eval()(x))


@pytest.mark.parametrize("sizes, message", [
    ((0, 1, 1, 1), "inputs 0: use 1 or more"), ((1, 0, 1, 1), "width 0: use 1 or more"),
    ((1, 1, 0, 1), "outputs 0: use 1 or more"), ((1, 1, 1, 21), "depth 21: use 0 to 20"),
    ((1, 1, 1, -1), "depth -1: use 0 to 20")])
def test_wrong_sizes(sizes, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        SoftTree(*sizes)
