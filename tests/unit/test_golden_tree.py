"""L1 of models with trees: the batched walk against docs/numerics.md written out one operation at a time."""

import numpy as np
import pytest
from extremes import KINDS, extreme
from plain import Plain
from sterna.sim.golden import tree
from sterna.sim.golden.fp24 import round24
from sterna.sim.golden.geometry import PackError, TreeGeometry
from sterna.sim.golden.model import GoldenModel
from sterna.sim.golden.packed import pack, random_model, random_tensors

SMALL = TreeGeometry(72, 3, 3, 5, 2, 33)


def sparse(rng, geometry):
    """Random tensors whose input rows hold few trits that are not 0, in few channels: their sums are often 0."""
    tensors = random_tensors(rng, geometry)
    for name, value in tensors.items():
        if name.endswith("tree_in.weight"):
            value[:] = rng.integers(-1, 2, value.shape) * (rng.random(value.shape) < 2.5 / value.shape[1])
            value[0, 0] = 1  # not zeros alone
    return tensors


def check_against_text(packed, rng, batch=3, tokens=4):
    """The walks of every sequence (lists of those of `Plain`), once all numbers are equal."""
    golden, plain = GoldenModel(packed), [Plain(packed) for _ in range(batch)]
    state = golden.start(batch)
    for ids in rng.integers(0, packed.geometry.vocab_size, (tokens, batch)):
        head = golden.step(ids, state)
        for b, (one, token) in enumerate(zip(plain, ids, strict=True)):
            rows, scale = one.token(token)
            np.testing.assert_array_equal(head.rows[b], rows)
            assert head.scale[b] == scale
            np.testing.assert_array_equal(state[:, b], one.h)
    np.testing.assert_array_equal(state, round24(state))
    return [one.walks for one in plain]


@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_text_bit_for_bit(rng, kind):
    check_against_text(extreme(rng, kind, SMALL), rng)


@pytest.mark.parametrize("geometry", [
    TreeGeometry(40, 1, 0, 0, 1, 17), TreeGeometry(40, 1, 6, 0, 2, 17), TreeGeometry(40, 2, 2, 0, 3, 17),
    # Sums of 530 and of 522 products: they are rounded in fp24, and a walk of more than 64 values.
    TreeGeometry(530, 2, 4, 1, 1, 17), TreeGeometry(24, 128, 3, 10, 1, 17)])
def test_counts_and_depths(rng, geometry):
    walks = check_against_text(random_model(rng, geometry), rng)
    paths = [[row for row, _, _ in layer] for layers in walks for layer in layers]
    assert all(len(path) == geometry.visits == len(set(path)) for path in paths)
    assert geometry.visits == geometry.tree_always + geometry.trees * (geometry.tree_depth + 1)
    # Sequences of a batch walk different paths, where there are any.
    assert (len(set(map(tuple, paths))) > 3) == (geometry.tree_depth > 0)


def test_a_sum_of_zero_goes_left(rng):
    geometry = TreeGeometry(40, 6, 3, 2, 2, 17)
    tensors = sparse(rng, geometry)
    packed = pack(geometry, tensors)
    walks = [layer for layers in check_against_text(packed, rng) for layer in layers]
    zeros = [(row, branches) for walk in walks for row, a, branches in walk if a == 0]
    rows = {row for row, branches in zeros if branches}
    used = np.concatenate([layer.tree_in for layer in packed.layers]).any(1).reshape(2, -1).all(0)
    assert len(rows) > 5 and any(used[row] for row in rows)  # not those of rows of zeros alone
    assert any(a > 0 for walk in walks for _, a, branches in walk if branches)
    into = [layer.tree_in for layer in packed.layers]
    found, path = tree.Trees(geometry, into[0], into[1]).walk(np.zeros((2, 40), np.float32))
    assert not found.any() and (path[:, -6:] == 2 + 15 * np.arange(6) + 7).all()  # the leftmost leaves


def test_the_branch_is_that_of_the_integer_even_where_its_scale_vanishes(rng):
    tensors = random_tensors(rng, SMALL)
    tensors = {name: np.sign(value) * np.float32(2**-125) if name.endswith("tree_in.weight") else value
               for name, value in tensors.items()}
    packed = pack(SMALL, tensors)
    assert packed.layers[0].ws_tree_in == 0 and packed.layers[0].tree_in.all()  # ternary already, and hardly there
    walks = check_against_text(packed, rng)
    assert len({tuple(row for row, _, _ in layer) for layers in walks for layer in layers}) > 3


def test_the_order_of_a_visit():
    geometry = TreeGeometry(4, 2, 1, 1, 1, 8)
    into = np.zeros((7, 4), np.int8)
    into[0, 0], into[1, 1], into[4, 2], into[3, 3] = 1, 1, -1, 1
    sums, path = tree.Trees(geometry, into, into).walk(np.array([[3, 5, 7, 9], [3, -5, -7, 9]], np.float32))
    assert path.tolist() == [[0, 1, 4, 3, 5], [0, 1, 4, 2, 6]]
    assert sums.tolist() == [[3, 5, -7, 9, 0], [3, -5, 7, 0, 0]]


def test_large_batches_are_taken_in_pieces(rng, monkeypatch):
    packed = random_model(rng, SMALL)
    whole = GoldenModel(packed)
    ids = rng.integers(0, 33, 9)
    logits = whole.logits(ids, whole.start(9))
    monkeypatch.setattr(tree, "BLOCK_WEIGHTS", 500)
    monkeypatch.setattr("sterna.sim.golden.product.HELD_WEIGHTS", 0)  # nothing is held either
    pieces = GoldenModel(packed)
    np.testing.assert_array_equal(pieces.logits(ids, pieces.start(9)), logits)
    x, h = whole.embed(ids), np.zeros(72)
    one_by_one = [whole.layer(0, row[None], h[None])[0] for row in x]
    other = np.zeros(72)
    np.testing.assert_array_equal(whole.layer_over(0, x, other)[0], one_by_one)
    np.testing.assert_array_equal(h, other)


@pytest.mark.parametrize("values, text", [
    ((0, 1, 0), "trees is 0: must be a whole number from 1 to 4095"), ((4096, 1, 0), "trees is 4096: must be"),
    ((1, -1, 0), "tree_depth is -1: must be a whole number from 0 to 30"), ((1, 31, 0), "tree_depth is 31: must"),
    ((1, 2, -1), "tree_always is -1: must be a whole number from 0 to 4095"),
    ((1, 2.0, 0), "tree_depth is 2.0: must"), ((True, 2, 0), "trees is True: must"),
    ((1, 2, None), "tree_always is None: must"),
    ((2, 30, 0), "2 trees of tree_depth 30 have 4294967294 neurons: must be at most 2147483647: use fewer trees, ")])
def test_trees_that_no_model_has(values, text):
    with pytest.raises(PackError) as error:
        TreeGeometry(40, *values, 1, 17)
    assert str(error.value).startswith(text) and "\n" not in str(error.value)


def test_numbers_of_a_geometry():
    geometry = TreeGeometry(2048, 1, 11, 4, 24, 32000)
    assert (geometry.levels, geometry.nodes, geometry.neurons, geometry.visits) == (12, 4095, 4099, 16)
    assert geometry.ternary_weights == 24 * (4 * 2048 ** 2 + 2 * 4099 * 2048) + 32000 * 2048
    assert geometry.read_weights == 24 * (4 * 2048 ** 2 + 2 * 16 * 2048) + 32000 * 2048
    assert geometry.matrices == 6 * 24 + 1
    shapes = TreeGeometry(8, 2, 1, 3, 2, 32).shapes()
    assert {name: shape for name, shape in shapes.items() if name.startswith("model.layers.1.mlp.")} == {
        "model.layers.1.mlp.tree_in.weight": (9, 8), "model.layers.1.mlp.tree_in.norm.weight": (8,),
        "model.layers.1.mlp.tree_out.weight": (9, 8)}
    assert TreeGeometry(8, 4095, 18, 4095, 1, 32).visits * 127 < 1 << 24  # float32 sums them exactly
