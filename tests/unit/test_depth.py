"""Comparisons of large models: a layer over a whole sequence, repetition, and texts of L1 and L0."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from docs.figures import depth as pages_depth
from docs.figures import figures
from sterna.sim.cpu.model import CpuModel
from sterna.sim.golden import depth, model, product, tables
from sterna.sim.golden.gate import layerwise
from sterna.sim.golden.model import GoldenModel
from sterna.sim.golden.packed import Geometry, eager, pack, random_tensors
from sterna.sim.golden.reference import Reference

GEOMETRY = Geometry(40, 24, 3, 31)
IDS = np.array([3, 30, 7, 7, 0, 12, 5, 1, 9])


@pytest.fixture(scope="module")
def tensors():
    return random_tensors(np.random.default_rng(5), GEOMETRY)


def large(monkeypatch):
    """All models are too large to be held."""
    monkeypatch.setattr(product, "HELD_WEIGHTS", 0)
    monkeypatch.setattr(product, "BLOCK_WEIGHTS", 100)


@pytest.mark.parametrize("kind", ["l1", "l0", "float32"])
def test_a_layer_over_a_sequence_is_a_layer_token_by_token(tensors, kind):
    one = GoldenModel(pack(GEOMETRY, tensors)) if kind == "l1" else \
        Reference((GEOMETRY, tensors), np.float64 if kind == "l0" else np.float32)
    x = np.random.default_rng(6).standard_normal((20, 40)).astype(np.float16).astype(one.start(1).dtype)
    for number in range(3):
        h, state = one.start(1)[0], one.start(1)[0, 0]
        out, states = one.layer_over(number, x, state)
        assert np.array_equal(states[-1], state)
        for token in range(len(x)):
            alone = one.layer(number, x[token:token + 1], h)
            close = np.array_equal if kind == "l1" else np.allclose  # float sums depend on the shape
            assert close(out[token], alone[0]) and close(states[token], h[0])
        x = out


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_reference_too_large_to_hold_computes_the_same(tensors, dtype, monkeypatch):
    held = Reference((GEOMETRY, tensors), dtype)
    large(monkeypatch)
    for kept in (True, False):
        other = Reference((GEOMETRY, tensors), dtype, kept)
        states = held.start(2), other.start(2)
        for row in IDS[:8].reshape(4, 2):
            np.testing.assert_array_equal(held.step(row, states[0]), other.step(row, states[1]))


def test_layers_over_a_sequence_are_those_of_the_gate(tensors, monkeypatch):
    """The same cosines as token by token, in models that are not held too."""
    wanted = layerwise(GEOMETRY, tensors, IDS[:, None])
    for _ in range(2):
        told = []
        found = depth.layers_over(GEOMETRY, tensors, IDS, progress=lambda done, total: told.append((done, total)))
        assert told == [(1, 3), (2, 3), (3, 3)]
        for row, want in zip(found, wanted, strict=True):
            for name, old in (("l1.mean", "added_mean"), ("l1.worst", "added_worst"),
                              ("float32.mean", "float32_added_mean"), ("float32.worst", "float32_added_worst")):
                assert row[name] == pytest.approx(want[old], abs=1e-9)
            assert 0 < row["float32.state"] < row["l1.state"] < 0.1
            assert row["l1.largest_h"] == pytest.approx(row["l0.largest_h"], rel=0.1)
            assert row["l1.largest_x"] == pytest.approx(row["l0.largest_x"], rel=0.1)
        large(monkeypatch)
    assert 0.999 < found[0]["embedding.worst"] <= found[0]["embedding.mean"] < 1
    assert len(depth.layers_over(GEOMETRY, tensors, IDS, 1)) == 1


def test_a_wrong_layer_is_seen(tensors, monkeypatch):
    monkeypatch.setattr(tables, "sigmoid", lambda a: np.full(np.shape(a), 0.5))
    assert min(row["l1.mean"] for row in depth.layers_over(GEOMETRY, tensors, IDS)) < 0.99


def test_a_state_that_runs_away_is_seen(tensors, monkeypatch):
    monkeypatch.setattr(model, "_advanced", lambda k, c, h: c + h)
    rows = depth.layers_over(GEOMETRY, tensors, IDS)
    assert min(row["l1.state"] for row in rows) > 0.5
    assert max(row["l1.largest_h"] / row["l0.largest_h"] for row in rows) > 1.5


@pytest.mark.parametrize("tokens, distinct, run, commonest, returning", [
    ([], 0, 0, 0.0, 0.0), ([7], 1, 1, 1.0, 0.0), ([5] * 10, 1, 10, 1.0, 6 / 7), (range(10), 10, 1, 0.1, 0.0),
    ([1, 2, 3, 4] * 3, 4, 1, 0.25, 5 / 9), ([1, 1, 2, 2, 2, 3], 3, 3, 0.5, 0.0)])
def test_repetition(tokens, distinct, run, commonest, returning):
    assert depth.repetition(np.array(tokens, int)) == pytest.approx(
        {"distinct": distinct, "longest_run": run, "commonest.share": commonest, "returning.share": returning})


@pytest.mark.parametrize("kind", [GoldenModel, CpuModel, "l0"])
def test_greedy(tensors, kind):
    packed = eager(pack(GEOMETRY, tensors))
    one = Reference((GEOMETRY, tensors)) if kind == "l0" else kind(packed)
    prompts, told = IDS[:6].reshape(3, 2), []
    tokens, *largest = depth.greedy(one, prompts, 5, lambda done, total: told.append((done, total)))
    assert tokens.shape == (5, 2) and told == [(k, 7) for k in range(1, 8)]
    sizes = np.zeros((2, 3))
    for column in range(2):
        state, text = one.start(1), [*prompts[:, column], *tokens[:-1, column]]
        wanted = [int(np.argmax(one.logits([token], state)[0])) for token in text]
        assert wanted[2:] == tokens[:, column].tolist()
        if kind != CpuModel:  # whose vectors are those of GoldenModel
            _, *seen = depth.follow(one, one.embed(text))
            sizes = np.maximum(sizes, seen)
    golden = GoldenModel(packed) if kind == CpuModel else one
    for found, want in zip(largest, depth.greedy(golden, prompts, 5)[1:] if kind == CpuModel else sizes, strict=True):
        np.testing.assert_allclose(found, want)


def test_follow(tensors):
    exact = Reference((GEOMETRY, tensors))
    state, sizes = exact.start(1), []
    wanted = []
    for token in IDS:
        wanted.append(exact.logits([token], state)[0])
        sizes.append(np.abs(state).max((1, 2)))
    logits, largest_h, largest_x = depth.follow(exact, exact.embedding[IDS])
    np.testing.assert_allclose(logits, wanted, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(largest_h, np.max(sizes, 0))
    golden = GoldenModel(pack(GEOMETRY, tensors))
    logits, _, outputs = depth.follow(golden, golden.embed(IDS))
    np.testing.assert_allclose(outputs, largest_x, rtol=0.1)
    state = golden.start(1)
    assert all(np.array_equal(golden.logits([token], state)[0], row) for token, row in zip(IDS, logits, strict=True))


def test_causes():
    """An outlier channel in the embedding costs its int8 codes more than the arithmetic does."""
    geometry = Geometry(64, 96, 2, 50)
    tensors = random_tensors(np.random.default_rng(5), geometry)
    for outlier in (False, True):
        if outlier:
            tensors["model.embeddings.weight"][:, 7] *= 20
        found = depth.causes(geometry, tensors, np.arange(50))
        assert found["float32.kl_nats"] < found["arithmetic.kl_nats"] < 0.1
        assert found["embedding.kl_nats"] <= 1.5 * found["l1.kl_nats"]
        assert (found["embedding.kl_nats"] > 5 * found["arithmetic.kl_nats"]) == outlier


def test_agreement():
    exact = np.log([[0.5, 0.3, 0.2], [0.25, 0.5, 0.25], [0.41, 0.4, 0.19], [0.1, 0.1, 0.8]])
    found = exact.copy()
    found[2, 1] += 0.1  # no clear case
    found[3] = np.log([0.6, 0.3, 0.1])
    got = depth.agreement(exact + 3, found)
    assert (got["top1"], got["clear.share"], got["top1_clear"]) == (0.5, 0.75, pytest.approx(2 / 3))
    assert got["kl_nats"] == pytest.approx((0.8 * np.log(8) - 0.1 * np.log(6) - 0.1 * np.log(3)) / 4, abs=1e-3)
    assert depth.agreement(exact, exact)["kl_nats"] == 0


def test_a_text_without_l0(tmp_path, monkeypatch):
    """As the page has the largest size, and as its step is run unless the environment asks for more."""
    size, other = "64,96,3,300", argparse.Namespace(model=Path("m"), checkpoint=Path("c"), text=Path("t"), stories=0)
    monkeypatch.delenv(pages_depth.L0_TEXTS, raising=False)
    before = figures.steps(other)["depth.text.2.7b"]
    assert not pages_depth.with_l0("2.7b") and pages_depth.with_l0("370m")
    monkeypatch.setattr(pages_depth, "Reference", None)
    monkeypatch.setattr(pages_depth, "L1_ALONE", (size, "2.7b"))
    said = pages_depth.texts(size, tmp_path, figures.VALIDATION, 6, 8)
    assert (said["made"], said["long"]) == (6, 8) and not any(key.startswith(("l0", "same")) for key in said)
    assert said["how"].endswith("without L0, which takes long here (STERNA_L0_TEXTS=1 runs it)")
    monkeypatch.setenv("STERNA_L0_TEXTS", "1")
    assert pages_depth.with_l0("2.7b") and figures.steps(other)["depth.text.2.7b"].key() != before.key()


def test_figures_of_a_small_model(tmp_path):
    """The same code as of the full sizes."""
    size, text = "64,96,3,300", figures.VALIDATION
    found = pages_depth.layers(size, tmp_path, text, 2, 20)
    assert (found["layers"], found["tokens"]) == (2, 20) and {found["worst.layer"]} <= {0, 1}
    for number in range(2):
        assert 0 < found[f"{number}.l1.mean"] < pages_depth.LIMIT
        assert found[f"{number}.float32.mean"] < found[f"{number}.l1.mean"] < found[f"{number}.l1.worst"]
    values = {"depth.1.3b": found, "depth.causes": pages_depth.causes(size, tmp_path, text, 20),
              "depth.text.2.7b": pages_depth.texts(size, tmp_path, text, 12, 24)}
    said = values["depth.text.2.7b"]
    assert (said["made"], said["long"], said["prompts"]) == (12, 24, 4)
    assert all(1 <= said[f"{name}.distinct"] <= 24 for name in ("l0", "l1", "long"))
    for key in ("largest_h", "largest_x"):
        assert 1 / 4 < said[f"long.{key}"] / said[f"l0.{key}"] < 4  # of other texts
    assert not any(tmp_path.iterdir())
    shown = pages_depth.tables(values)
    assert shown["table.depth"].count("\n") == 3 and "| 1.3B | 0" in shown["table.depth"]
    assert "OVER THE LIMIT" not in shown["table.depth"]
    worse = values | {"depth.370m": found | {"1.l1.mean": 1.1 * pages_depth.LIMIT}}
    assert pages_depth.tables(worse)["table.depth"].count("OVER THE LIMIT") == 1
    assert shown["table.depth.causes"].count("\n") == 5
    assert "| longest run of one token |" in shown["table.depth.text.2.7b"]
    assert "not run" not in shown["table.depth.text.2.7b"]
    partial = {key: value for key, value in said.items() if not key.startswith("l0.")}
    assert "not run" in pages_depth.tables({"depth.text.2.7b": partial})["table.depth.text.2.7b"]
    assert json.loads(json.dumps(values)) == values
