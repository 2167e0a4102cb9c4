"""Models with trees on --device cpu, layer by layer, beside the golden model: bit for bit."""

import numpy as np
import pytest
from extremes import KINDS, extreme
from sterna.sim.cpu.evaluate import evaluate
from sterna.sim.cpu.model import BLOCK, CpuModel
from sterna.sim.golden import gate
from sterna.sim.golden.geometry import TreeGeometry
from sterna.sim.golden.model import GoldenModel
from sterna.sim.golden.packed import pack, random_model
from test_golden_tree import sparse

# As in test_cpu.py; tests/unit/test_cpu_kernels.py sees the largest sums.
PATHS = ("native", *(pytest.param(path, marks=pytest.mark.rest) for path in ("plain", "avx2")))
SMALL = TreeGeometry(72, 3, 3, 5, 2, 33)
# One chain and one value; one deep tree; more trees than a task takes; always-on rows in two tasks; odd numbers, and
# hidden sizes beside and beyond a piece of 256 columns.
GEOMETRIES = [
    TreeGeometry(40, 1, 0, 0, 1, 17), TreeGeometry(30, 1, 11, 0, 2, 17), TreeGeometry(264, 8, 3, 5, 1, 17),
    TreeGeometry(100, 64, 1, 0, 1, 17), TreeGeometry(520, 3, 2, 1, 1, 17), TreeGeometry(256, 35, 2, 41, 1, 17)]
same = np.testing.assert_array_equal


def check_steps(packed, rng, path="native", threads=2, batch=3, steps=3):
    golden, found = GoldenModel(packed), CpuModel(packed, threads, path)
    state, other = golden.start(batch), found.start(batch)
    for ids in rng.integers(0, packed.geometry.vocab_size, (steps, batch)):
        head, theirs = golden.step(ids, state), found.step(ids, other)
        same(theirs.rows, head.rows)
        same(theirs.scale, head.scale)
        same(other, state)
    found.close()


@pytest.mark.parametrize("kind", KINDS)
def test_every_layer_equals_the_golden_model(rng, kind):
    packed = extreme(rng, kind, SMALL)
    golden, found = GoldenModel(packed), CpuModel(packed, 2)
    x = golden.embed([3, 4, 32])
    state, other = golden.start(3), found.start(3)
    for _ in range(4):
        for number in range(2):
            before = x
            x = golden.layer(number, before, state[number])
            same(found.layer(number, before, other[number]), x)
            same(other[number], state[number])
            assert not np.signbit(x[x == 0]).any()
    found.close()


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("path", PATHS)
def test_trees_of_many_shapes_in_slots_and_threads(rng, path, geometry):
    packed = random_model(rng, geometry)
    for threads, batch in ((1, 1), (2, int(rng.integers(2, 9))), (3, 32)):
        check_steps(packed, rng, path, threads, batch, 2)


@pytest.mark.parametrize("path", PATHS)
def test_sums_of_zero_go_left(rng, path):
    packed = pack(SMALL, sparse(rng, SMALL))
    check_steps(packed, rng, path, batch=7)


def test_prompts_and_stories_equal_single_tokens(rng):
    packed = random_model(rng, SMALL)
    golden, found = GoldenModel(packed), CpuModel(packed, 2)
    ids = rng.integers(0, 33, BLOCK + 17)
    state, other = golden.start(3), found.start(3)
    wanted = np.array([golden.logits([token], state[:, 1:2])[0] for token in ids])
    same(found.block_logits(ids, other, slot=1), wanted)
    same(other, state)
    options = {"seed": 5, "temperature": 0.8, "top_k": 5, "top_p": 0.9}
    assert found.generate([0, 3, 5], 12, **options) == golden.generate([0, 3, 5], 12, **options)
    stories = [np.array([0, *rng.integers(1, 33, n), 0]) for n in (3, 40, 1, BLOCK, 7)]
    nats, tokens = evaluate(found, stories)
    total, count = gate.evaluate(golden, stories)
    assert tokens == count and abs(nats - total) < 1e-12 * total
    found.close()


def test_a_token_reads_the_rows_that_it_visits(rng):
    geometry = TreeGeometry(300, 2, 3, 4, 3, 17)  # 12 of 34 neurons; rows of 128 bytes
    found = CpuModel(random_model(rng, geometry), 1)
    wide = 320
    size = 3 * (4 * wide * wide // 4 + 2 * 12 * 128) + 64 * wide // 4
    assert found.weight_bytes == size + 8 * (3 * 9 + 2) * wide + 300
    assert found._weights.matrix_bytes == size + 3 * 2 * 22 * 128
    found.close()
