"""L1 against L0 in made cases, in which each constant and each step of the arithmetic takes part in
the result.

Every fault of `FAULTS` is planted into one of the two levels, and the comparison of its case must
see it.
"""

import os

import numpy as np
import pytest
from sterna.sim.golden import model, reference, tables
from sterna.sim.golden.fp24 import MAX, mul, round24
from sterna.sim.golden.model import GoldenModel
from sterna.sim.golden.packed import Geometry, pack, quantise_embedding, random_tensors
from sterna.sim.golden.reference import Reference
from test_reference import CASES, made_case, run

SEED = int(os.environ.get("STERNA_SEED", "1"))
UNIT = 2.0**-16  # half the distance of two fp24 numbers just above 1


def compare_models(case, tolerance, inner=1.0):
    """Logits of whole models in a case of test_reference, with inner norm weights scaled besides.

    A code at an edge may flip, which moves a token's logits by a few percent of the largest. A
    wrong constant moves nearly all of them.
    """
    geometry, tensors, ids = made_case(np.random.default_rng(SEED), **CASES[case])
    # An embedding that L1 has exactly, so that only the arithmetic is compared.
    codes, scale = quantise_embedding(tensors["model.embeddings.weight"])
    tensors["model.embeddings.weight"] = (codes * scale[:, None]).astype(np.float32)
    for name, value in tensors.items():
        if name.endswith(".norm.weight") and name != "model.norm.weight":
            value *= inner
    golden = GoldenModel(pack(geometry, tensors))
    state = golden.start(ids.shape[1])
    exact = run(Reference((geometry, tensors)), ids)
    found = np.array([golden.logits(row, state) for row in ids])
    assert np.isfinite(exact).all() and exact.any() == (case != "zero")
    assert np.mean(np.abs(found - exact).max(-1) <= tolerance * np.abs(exact).max()) > 0.85


def heads(x):
    """Logits of L0 and of L1 behind a last layer's output x [B, H], with norm weights of 1: each
    logit is the code of an element times the step.
    """
    geometry = Geometry(x.shape[1], 8, 1, x.shape[1])
    tensors = random_tensors(np.random.default_rng(1), geometry)
    for name in ("model.norm.weight", "lm_head.norm.weight"):
        tensors[name] = np.ones_like(tensors[name])
    tensors["lm_head.weight"] = np.eye(x.shape[1], dtype=np.float32) * 127
    rows, scale = GoldenModel(pack(geometry, tensors)).head(round24(x))
    return Reference((geometry, tensors)).head(x), mul(rows, scale[:, None])


def compare_norms():
    """Elements of one magnitude: codes of 127 and -127, so that the logits say how exact 1/sqrt is."""
    sizes = np.concatenate([(1 + np.arange(128) / 128) * 2.0**k for k in (-1, 0, 6)])
    exact, found = heads(sizes[:, None] * np.resize([1, -1, 1], 64))
    assert np.abs(found / exact - 1).max() < 3 * UNIT


def compare_codes():
    """Elements close to where the code changes, at many peaks, say how exact 1/peak is."""
    x = np.zeros((64, 128))
    x[:, 0] = 1 + np.arange(64) / 64
    for k in range(63):
        for place, side in ((2 * k + 1, 1), (2 * k + 2, -1)):
            element = round24(x[:, 0] * (64.5 + k + side * 0.0075) / 127)
            distance = np.abs(element * 127 / x[:, 0] - (64.5 + k))
            x[:, place] = np.where((0.006 < distance) & (distance < 0.009), element, 0)
    exact, found = (np.rint(v * 127 / np.abs(v).max(1, keepdims=True)) for v in heads(x))
    assert np.count_nonzero(x) > 0.9 * x.size
    np.testing.assert_array_equal(found, exact)


def compare_halves():
    """The quantisers alone, on exact halves: in a model the float one's own rounding decides there."""
    halves = np.array([0.5, 1.5, 2.5, 3.5, 62.5, 125.5, 126.5])
    y = np.concatenate([[127], halves, -halves, [0]]) * 2.0 ** np.arange(-20, 21)[:, None]
    exact, step = reference.quantise(y)
    scale, qm = model.matrix_scalars(np.abs(y).max(1), 1.0, 1.0)
    np.testing.assert_array_equal(model.codes(y, qm), exact)
    np.testing.assert_array_equal(scale, 127 * step[:, 0])
    # The published code rounds halves away from zero.
    away = np.concatenate([[127], halves + 0.5, -halves - 0.5, [0]])
    np.testing.assert_array_equal(exact, np.broadcast_to(away, exact.shape))


COMPARISONS = {
    **{case: (compare_models, case, 0.03) for case in CASES},
    "coarse codes": (compare_models, "ordinary", 0.03, 3e-7),  # at the peak's floor
    "norms": (compare_norms,), "codes": (compare_codes,), "halves": (compare_halves,),
}


@pytest.mark.parametrize("case", COMPARISONS)
def test_the_hardware_follows_the_float_model(case):
    compare, *arguments = COMPARISONS[case]
    compare(*arguments)


def scalars_of(recip=None, floor=model._FLOOR, large=model._LARGE):
    """`matrix_scalars` with another reciprocal, floor or limit."""
    def scalars(peak, r, ws):
        z = tables.recip(peak)
        z = recip(peak) if recip else mul(z, model.mac(-peak, z, 2.0))
        return mul(np.maximum(mul(peak, r), floor), ws), np.minimum(mul(z, 127.0), mul(r, large))
    return scalars


def always(value):
    """An attribute that keeps a value, whatever is written to it."""
    return property(lambda _: value, lambda _, __: None)


def even_codes(u, qm):
    return np.clip(np.rint(u * qm[..., None]), -127, 127).astype(np.float32)


FAULTS = {  # case, object, attribute, planted value
    "L1: no Newton step in rsqrt": ("norms", model, "rsq", tables.rsqrt),
    "L1: no Newton step in the reciprocal":
        ("codes", model, "matrix_scalars", scalars_of(tables.recip)),
    "L1: no floor of the peak":
        ("coarse codes", model, "matrix_scalars", scalars_of(floor=0.0, large=MAX)),
    "L1: no floor of the peak in the scale":
        ("coarse codes", model, "matrix_scalars", scalars_of(floor=0.0)),
    "L1: no floor of the peak in the codes":
        ("coarse codes", model, "matrix_scalars", scalars_of(large=MAX)),
    "L1: no outer eps": ("outer eps", GoldenModel, "_outer_eps", always(0.0)),
    "L1: no inner eps": ("inner eps", model, "_INNER_EPS", 0.0),
    "L1: halves to even": ("halves", model, "codes", even_codes),
    "L0: no floor of the peak": ("coarse codes", reference, "PEAK_FLOOR", 1e-30),
    "L0: no outer eps": ("outer eps", Reference, "_eps", always(1e-30)),
    "L0: no inner eps": ("inner eps", reference, "INNER_EPS", 1e-30),
    "L0: halves to even": ("halves", reference, "half_away", np.rint),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_seen(fault, monkeypatch):
    case, *planted = FAULTS[fault]
    monkeypatch.setattr(*planted, raising=False)  # attributes of instances too
    compare, *arguments = COMPARISONS[case]
    with pytest.raises(AssertionError):
        compare(*arguments)
