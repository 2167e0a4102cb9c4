"""L1: the batched model against docs/numerics.md written out one operation at a time, and its distance from L0."""

import numpy as np
import pytest
from extremes import KINDS, extreme
from plain import Plain, plain_sumsq
from sterna.sim.golden import gate, model, rng as numbers, tables
from sterna.sim.golden.fp24 import MAX, add, from_int, mac, mul, round24
from sterna.sim.golden.gate import adversarial, evaluate, layerwise
from sterna.sim.golden.model import GoldenModel, Rows
from sterna.sim.golden.packed import Geometry, pack, random_model, random_tensors
from sterna.sim.golden.reference import Reference


@pytest.mark.parametrize("kind", [kind if kind in ("plain", "tiny", "huge") else
                                  pytest.param(kind, marks=pytest.mark.rest) for kind in KINDS])
def test_equals_the_text_bit_for_bit(rng, kind):
    packed = extreme(rng, kind)
    golden, state = GoldenModel(packed), GoldenModel(packed).start(3)
    plain = [Plain(packed) for _ in range(3)]
    for ids in rng.integers(0, 33, (5, 3)):
        head = golden.step(ids, state)
        for b, (one, token) in enumerate(zip(plain, ids, strict=True)):
            rows, scale = one.token(token)
            np.testing.assert_array_equal(head.rows[b], rows)
            assert head.scale[b] == scale
            np.testing.assert_array_equal(state[:, b], one.h)
    assert not np.signbit(state[state == 0]).any()
    np.testing.assert_array_equal(state, round24(state))


def test_logits_are_scaled_rows(rng):
    packed = random_model(rng, Geometry(20, 24, 2, 17))
    golden = GoldenModel(packed)
    head, logits = golden.step([3, 4], golden.start(2)), golden.logits([3, 4], golden.start(2))
    np.testing.assert_array_equal(logits, mul(head.rows, head.scale[:, None]))


@pytest.mark.parametrize("count", [1, 63, 64, 65, 200, 800])
def test_sumsq_order(rng, count):
    v = round24(rng.standard_normal((4, count)) * 2.0 ** rng.integers(-9, 9, (4, count)))
    np.testing.assert_array_equal(model.sumsq(v), [plain_sumsq(row) for row in v])


def test_sumsq_saturates_and_flushes():
    assert model.sumsq(np.full((1, 70), MAX))[0] == MAX
    assert model.sumsq(np.full((1, 70), 2.0**-64))[0] == 0


def test_codes_take_halves_away_from_zero():
    u = np.array([[0.5, -0.5, 1.5, 126.5, 130.0, -300.0, 0.0, 0.49998474121]])
    assert model.codes(round24(u), np.array([1.0]))[0].tolist() == [1, -1, 2, 127, 127, -127, 0, 0]


def test_greedy_ties_go_to_the_lowest_row():
    rows = np.array([[1.0, 5, 5, 2], [-3, -3, -9, -3]])
    assert GoldenModel.sample(Rows(rows, np.array([0.5, 2.0]))).tolist() == [1, 0]


def test_temperature_scores_follow_section_8(rng):
    rows, scale = from_int(rng.integers(-2000, 2000, (2, 40))), round24([0.01, 0.002])
    picked = GoldenModel.sample(Rows(rows, scale), seed=[5, 6], position=9, temperature=0.7)
    ln2 = round24(np.log(2))
    for b, seed in enumerate((5, 6)):
        scores = []
        for row in range(40):
            v, n = numbers.row_random(numbers.key(seed, 9), row)
            x = mac(v, tables.log1m(v), mul(from_int(n), ln2))
            log = add(tables.exponent(x), tables.log2(x))
            scores.append(mac(-log, ln2, mul(mul(rows[b, row], scale[b]), round24(1 / 0.7))))
        assert picked[b] == int(np.argmax(scores))


def test_samples_follow_the_softmax():
    logits = np.array([0.0, 1.0, 2.0, -1.0])
    draws = 20000
    head = Rows(np.tile(round24(logits), (draws, 1)), np.ones(draws))
    picked = GoldenModel.sample(head, seed=1, position=np.arange(draws), temperature=0.5)
    expected = np.exp(logits / 0.5) / np.exp(logits / 0.5).sum() * draws
    assert ((np.bincount(picked, minlength=4) - expected) ** 2 / expected).sum() < 25  # 3 degrees of freedom


def test_generate_continues_where_it_stopped(rng):
    golden = GoldenModel(random_model(rng, Geometry(20, 24, 2, 17)))
    for temperature in (0.0, 1.0):
        whole = golden.generate([0, 3, 5], 12, seed=4, temperature=temperature)
        state = golden.start(1)
        first = golden.generate([0, 3, 5], 5, 4, temperature, state)
        rest = golden.generate(first[-1:], 7, 4, temperature, state, start_position=7)
        assert first + rest == whole and len(whole) == 12
    assert golden.generate([0], 12, 5, 1.0) != golden.generate([0], 12, 6, 1.0)
    stop = whole[4]
    assert golden.generate([0, 3, 5], 12, 4, 1.0, stop=stop) == whole[:whole.index(stop) + 1]
    with pytest.raises(ValueError, match="prompt is empty"):
        golden.generate([], 1)


def test_long_rows_are_rounded_after_an_exact_sum():
    trits = np.ones((2, 6912), np.int8)
    trits[1, 0] = -1
    rows = model._Matrix(trits, 1.0).rows(np.full((1, 6912), 127, np.float32))
    assert rows.tolist() == [[877824, 877568]]  # 877570 is no multiple of 16, the unit there
    assert rows.tolist() == [from_int([877824, 877570]).tolist()]


def test_columns_that_float32_could_not_sum():
    with pytest.raises(ValueError, match="200000 columns: at most"):
        model._Matrix(np.zeros((1, 200000), np.int8), 1.0)


# ---- Distance from L0 ----


def stories(rng, vocab=33):
    return [np.array([0, *rng.integers(1, vocab, n), 0]) for n in (3, 9, 1, 5, 7)]


def test_evaluate_sums_every_story_from_its_own_start(rng):
    packed = random_model(rng, Geometry(40, 24, 2, 33))
    golden, total = GoldenModel(packed), 0.0
    for story in (texts := stories(rng)):
        state = golden.start(1)
        for token, target in zip(story[:-1], story[1:], strict=True):
            logits = golden.logits([token], state)[0]
            total -= logits[target] - np.log(np.exp(logits).sum())
    nll, tokens = evaluate(golden, texts, batch=2)
    assert tokens == 30 and abs(nll - total) < 1e-8 * total
    with pytest.raises(ValueError, match="fewer than two tokens"):
        evaluate(golden, [np.array([0])])


def test_gate_of_a_model_with_itself_is_exact(write_checkpoint, rng):
    folder, _ = write_checkpoint(Geometry(40, 24, 2, 33))
    one = Reference(folder)
    report = gate.compare(one, {"same": one}, stories(rng))
    same = report["same"]
    assert same == {"perplexity": report["perplexity"], "perplexity_change": 0, "kl_nats": 0, "top1_raw": 1,
                    "top1_clear": 1}
    assert report["tokens"] == 30 and 0.5 < report["clear_share"] <= 1


def test_gate_sees_a_worse_model(write_checkpoint, rng, monkeypatch):
    folder, _ = write_checkpoint(Geometry(40, 24, 2, 33))
    report = gate.gate(folder, texts := stories(rng))
    assert report["float32"]["kl_nats"] < 1e-3 and 0 < report["l1"]["kl_nats"] < 0.05
    right = model.codes
    monkeypatch.setattr(model, "codes", lambda u, qm: np.trunc(right(u, qm) / 8) * 8)
    worse = gate.gate(folder, texts)
    assert worse["l1"]["kl_nats"] > 10 * report["l1"]["kl_nats"] and worse["passed"] is False
    assert worse["float32"] == report["float32"]


@pytest.mark.parametrize("kind", ["", "outliers", "memory", "tiny", "huge"])
def test_layers_follow_l0_on_hard_weights(rng, kind):
    geometry = Geometry(240, 320, 3, 64)
    tensors = random_tensors(rng, geometry)
    if kind:
        tensors = adversarial(tensors, rng, kind)
    layers = layerwise(geometry, tensors, rng.integers(0, 64, (12, 6)))
    assert len(layers) == 3
    for key in ("mean", "added_mean"):
        assert np.mean([layer[key] for layer in layers]) >= 0.9995
        assert np.mean([layer["float32_" + key] for layer in layers]) >= 0.99999
    assert all(layer["worst"] <= layer["mean"] <= 1 + 1e-12 for layer in layers)


def test_layers_follow_l0_on_a_zero_vector(rng):
    geometry = Geometry(40, 24, 2, 17)
    tensors = random_tensors(rng, geometry)
    layers = layerwise(geometry, tensors, rng.integers(0, 17, (4, 3)), inputs=lambda x, t: np.zeros_like(x))
    assert all(layer["worst"] == 1 and layer["float32_added_worst"] == 1 for layer in layers)


def test_layerwise_sees_a_wrong_layer(rng, monkeypatch):
    geometry = Geometry(40, 24, 2, 17)
    tensors, ids = random_tensors(rng, geometry), rng.integers(0, 17, (4, 3))
    monkeypatch.setattr(tables, "sigmoid", lambda a: np.full(np.shape(a), 0.5))
    assert min(layer["added_mean"] for layer in layerwise(geometry, tensors, ids)) < 0.99


def test_a_model_too_large_to_hold_computes_the_same(rng, monkeypatch):
    geometry = Geometry(20, 24, 2, 17)
    tensors = random_tensors(rng, geometry)
    held = GoldenModel(pack(geometry, tensors))
    made = []
    monkeypatch.setattr("sterna.sim.golden.product.HELD_WEIGHTS", 0)
    monkeypatch.setattr("sterna.sim.golden.product.BLOCK_WEIGHTS", 50)
    monkeypatch.setattr("sterna.sim.golden.packed.SMALL_WEIGHTS", 0)
    packed = pack(geometry, tensors, made.append)
    monkeypatch.setattr(packed.layers, "_make", lambda number, make=packed.layers._make: made.append(number) or
                        make(number))
    golden = GoldenModel(packed)
    assert not made
    states = [model.start(3) for model in (held, golden)]
    for ids in ([1, 2, 16], [0, 3, 9]):
        np.testing.assert_array_equal(held.logits(ids, states[0]), golden.logits(ids, states[1]))
    np.testing.assert_array_equal(*states)
    assert made == [0, 1, 0, 1]  # a layer at a time, and none kept
