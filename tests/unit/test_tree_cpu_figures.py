"""The figures of trees on --device cpu: its models, its table."""

import numpy as np
import pytest
from docs.figures.tree import cpu, shapes
from sterna.sim.cpu.model import CpuModel
from sterna.sim.golden.model import GoldenModel
from sterna.sim.golden.packed import eager

pytestmark = pytest.mark.rest  # figures of the documentation


@pytest.fixture(autouse=True)
def small(monkeypatch):
    for name, value in (("HIDDEN", 72), ("INNER", 96), ("VOCABULARY", 40)):
        monkeypatch.setattr(shapes, name, value)


@pytest.mark.parametrize("shape", ["glu", "8x9"])
def test_random_models_are_models_and_their_tokens_walk_different_paths(shape):
    whole = eager(cpu.packed(shape, layers=2))
    golden, found = GoldenModel(whole), CpuModel(whole, 1)
    state, other = golden.start(9), found.start(9)
    for ids in np.random.default_rng(1).integers(0, 40, (2, 9)):
        np.testing.assert_array_equal(found.logits(ids, other), golden.logits(ids, state))
    assert np.abs(state).max() > 1e-3
    if shape != "glu":
        x, visited = golden.embed(np.arange(9)), []
        walk = golden._layers[0].trees.walk
        golden._layers[0].trees.walk = lambda codes: visited.append(walk(codes)) or visited[0]
        golden.layer(0, x, np.zeros((9, 72)))
        assert len(np.unique(visited[0][1][:, -8:])) > 8 * 4
    found.close()


def test_a_measurement_and_its_table():
    found = cpu.measure(layers=1, rounds=2)
    assert found["glu.token.gain"] == found["glu.prompt.gain"] == 1
    for shape in cpu.MIXERS:
        for kind in cpu.KINDS:
            assert 0 < found[f"{shape}.{kind}.least"] <= found[f"{shape}.{kind}"]
    assert found["1x11.bytes"] < found["128x5.bytes"] and "measured on" in found["how"]
    text = cpu.tables({cpu.STEP: found})["table.tree.cpu"]
    assert len(text.splitlines()) == 2 + len(cpu.MIXERS) and f"{1 / found['8x9.slots']:,.1f}" in text
    assert cpu.tables({}) == {}


def test_a_gain_is_of_the_unit_over_the_trees(monkeypatch):
    monkeypatch.setattr(cpu.Player, "seconds", lambda self, kind: self.model.weight_bytes * 1e-9)
    found = cpu.measure(layers=1, rounds=1)
    for kind in cpu.KINDS:
        assert found[f"1x11.{kind}.gain"] == pytest.approx(found["glu.bytes"] / found["1x11.bytes"])
