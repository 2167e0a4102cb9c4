"""Top-k and top-p: against section 8 of docs/numerics.md in whole numbers, and against the softmax in floats."""

from decimal import Decimal, getcontext
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from sterna.sim.golden import rng as numbers
from sterna.sim.golden import tables, toplist
from sterna.sim.golden.fp24 import MAX, MIN, add, from_bits, mac, mul, round24
from sterna.sim.golden.model import GoldenModel, Rows
from sterna.sim.golden.packed import Geometry, random_model

# ---- Section 8, in the order of the text, with fractions and decimals ----


def plain_exp(i, divisor):
    """min(65535, floor(2^16 e^(-i / divisor) + 1/2))."""
    getcontext().prec = 60
    return min(65535, int(2**16 * (-Decimal(i) / divisor).exp() + Decimal("0.5")))


def plain_weight(d):
    return 0 if d >= 2**14 else plain_exp(d // 128, 8) * plain_exp(d % 128, 1024) // 2**16


def plain_fix(t):
    size = abs(Fraction(float(t))) * 1024
    return (1 if t > 0 else -1) * (size.numerator // size.denominator)


def plain_choose(t, scores, k, p_code):
    """The row, and the rows that take part."""
    entries = sorted(range(len(t)), key=lambda row: (-Fraction(float(t[row])), row))[:k]
    q = [plain_weight(plain_fix(t[entries[0]]) - plain_fix(t[row])) for row in entries]
    part = [row for j, row in enumerate(entries) if not p_code or j == 0 or 2**16 * sum(q[:j]) < p_code * sum(q)]
    best = max(scores[row] for row in part)
    return next(row for row in part if scores[row] == best), part


def softmax(t):
    q = np.exp(t - np.max(t))
    return q / q.sum()


def values(rng, kind, count):
    """Arrays of fp24 values that are hard in one way."""
    if kind == "plain":
        return round24(rng.standard_normal(count) * 3)
    if kind == "ties":
        return round24(rng.integers(-2, 3, count) / 2)
    if kind == "equal":
        return np.full(count, round24(rng.choice([0.0, -1.5, 700.0, MAX, -MAX])))
    if kind == "bits":
        bits = rng.integers(0, 1 << 24, count)
        return from_bits(np.where(bits >> 15 & 255, bits, 0))
    if kind == "edge":  # around the end of the weights, and the ends of the numbers
        return round24(rng.choice([1023.9, 1024, 1025, 2000, -1023.9, -1024, 1008, 1007.98, MAX, -MAX, MIN, 0],
                                  count))
    if kind == "large":  # close to each other, whatever their size
        base = rng.choice([-1, 1]) * 2.0 ** rng.integers(3, 24)
        return round24(base + rng.integers(-40, 41, count) / 2)
    raise ValueError(kind)


KINDS = ["plain", "ties", "equal", "bits", "edge", "large"]


@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_text(rng, kind):
    for _ in range(150):
        rows = int(rng.integers(1, 40))
        t, scores = values(rng, kind, rows), values(rng, rng.choice(KINDS), rows)
        k = int(rng.choice([1, 2, rows, rows + 5, *rng.integers(1, 65, 3)]))
        p_code = int(rng.choice([0, 1, 65535, 32768, *rng.integers(1, 65536, 4)]))
        assert toplist.choose(t, scores, k, p_code) == plain_choose(t, scores, k, p_code)[0]
        assert toplist.taking_part(t[toplist.best_rows(t, k)], p_code) == len(plain_choose(t, scores, k, p_code)[1])


def test_every_order_of_few_values():
    for t in product((-1.0, 0.0, 0.5), repeat=4):
        for scores in product((0.0, 1.0), repeat=4):
            for k, p_code in product((1, 2, 3, 4, 9), (0, 1, 20000, 65535)):
                assert toplist.choose(t, scores, k, p_code) == plain_choose(t, scores, k, p_code)[0]


def test_ties_go_to_the_lower_row_in_list_and_choice():
    assert toplist.best_rows([1, 2, 2, 1, 2], 4).tolist() == [1, 2, 4, 0]
    assert toplist.choose([1, 2, 2, 1, 2], [9, 1, 1, 9, 1], 3, 0) == 1
    # Of equal scores the one earlier in the list, not the lower row.
    assert toplist.choose([1.0, 2.0], [5.0, 5.0], 2, 0) == 1


def test_tables():
    coarse, fine = toplist.weight_tables()
    assert coarse == tuple(plain_exp(i, 8) for i in range(128))
    assert fine == tuple(plain_exp(i, 1024) for i in range(128))
    assert toplist.weight_words() == [*coarse, *fine] and max(toplist.weight_words()) < 1 << 16
    d = np.arange(1 << 14)
    exact = np.exp(-d / 1024) * 2**16
    assert np.abs(exact - [toplist.weight(int(one)) for one in d]).max() < 3
    assert toplist.weight(0) == 65534 and toplist.weight(1 << 14) == 0


def test_fix():
    cases = {0.0: 0, 1.0: 1024, -1.0: -1024, 0.0009765: 0, -0.0009765: 0, 1.99999: 2047, 1023.99: (1 << 20) - 11,
             1024.0: 1 << 20, -1024.0: -1 << 20, MAX: 65535 << 123, -MAX: -65535 << 123, MIN: 0}
    for value, code in cases.items():
        assert toplist.fix(value) == code


def test_p_codes():
    assert [toplist.p_code_of(p) for p in (0.5, 0.9, 1e-9, 1 - 1e-9, 2**-16)] == [32768, 58982, 1, 65535, 1]
    for p in (0, 1, 1.5, -0.1, float("nan")):
        with pytest.raises(ValueError, match="between 0 and 1"):
            toplist.p_code_of(p)
    with pytest.raises(ValueError, match="at least 1 row"):
        toplist.choose([1.0], [1.0], 0, 0)
    with pytest.raises(ValueError, match="P 65536"):
        toplist.choose([1.0], [1.0], 1, 65536)


@pytest.mark.parametrize("size", [0, 30, 300, 1030, 5000, *(2.0**k for k in (15, 17, 19, 21, 60))])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_share_that_takes_part_is_the_softmax_share(rng, size, sign):
    some = 0
    for _ in range(60):
        k = int(rng.integers(1, 65))
        spread = rng.standard_normal(k) * rng.choice([0.3, 1, 4, 20])
        t = np.sort(round24(sign * size + spread))[::-1]
        p_code = int(rng.integers(1, 65536))
        before = np.concatenate([[0], np.cumsum(softmax(t))[:-1]])
        part = toplist.taking_part(t, p_code)
        # A difference of logarithms is off by at most a unit of 2^-10, a weight by three of 2^-16.
        assert (before[1:part] < p_code / 2**16 + 0.003).all()
        assert (before[part:] > p_code / 2**16 - 0.003).all()
        some += 1 < part < k
    assert some > 10 or size > 2**20  # neighbours are 32 apart there


@pytest.mark.parametrize("temperature, share, count", [
    (1.0, 0.7, 2), (1.0, 0.9, 3), (1e-3, 0.4, 1), (1e-3, 0.9, 2), (1e-6, 0.9, 2), (1e-36, 0.9, 2)])
def test_cold_samplings(temperature, share, count):
    """Two equal best rows over a small temperature have all of the share, of whatever size they are."""
    logits = np.array([22.0, 22.0, 21.5, 20.0, -3.0])
    exact = np.cumsum(softmax(logits / temperature))
    assert count == np.searchsorted(exact, share) + 1
    t = mul(logits, round24(1 / temperature))
    assert toplist.taking_part(t, toplist.p_code_of(share)) == count


# ---- The model's sampling ----


def heads(rng, batch, rows):
    return Rows(round24(rng.integers(-2000, 2000, (batch, rows))), round24(rng.uniform(0.001, 0.003, batch)))


def test_one_row_is_greedy(rng):
    head = heads(rng, 20, 50)
    greedy = GoldenModel.sample(head).tolist()
    for top_p in (1.0, 0.3):
        assert GoldenModel.sample(head, 3, 4, 0.9, top_k=1, top_p=top_p).tolist() == greedy
    assert GoldenModel.sample(head, 3, 4, 0.9, top_k=40, top_p=1e-6).tolist() == greedy
    assert GoldenModel.sample(head, 3, 4, 0.0, top_k=40, top_p=0.5).tolist() == greedy


def test_all_rows_are_plain_sampling(rng):
    head = heads(rng, 40, 50)
    plain = GoldenModel.sample(head, np.arange(40), 4, 0.9).tolist()
    assert len({*plain}) > 5
    for top_k in (50, 64, 1000):
        assert GoldenModel.sample(head, np.arange(40), 4, 0.9, top_k=top_k).tolist() == plain


def test_sampling_follows_the_text(rng):
    head = heads(rng, 2, 40)
    ln2 = round24(np.log(2))
    for top_k, top_p in ((3, 1.0), (8, 0.6), (40, 0.9), (64, 0.99)):
        picked = GoldenModel.sample(head, seed=[5, 6], position=9, temperature=0.7, top_k=top_k, top_p=top_p)
        for b, seed in enumerate((5, 6)):
            t, scores = [], []
            for row in range(40):
                v, n = numbers.row_random(numbers.key(seed, 9), row)
                x = mac(v, tables.log1m(v), mul(n, ln2))
                t.append(mul(mul(head.rows[b, row], head.scale[b]), round24(1 / 0.7)))
                scores.append(mac(-add(tables.exponent(x), tables.log2(x)), ln2, t[-1]))
            p_code = 0 if top_p == 1 else round(65536 * top_p)
            assert picked[b] == plain_choose(t, scores, top_k, p_code)[0]


@pytest.mark.parametrize("top_k, top_p", [(3, 1.0), (6, 0.8), (6, 0.5), (2, 0.99)])
def test_samples_follow_the_softmax_of_the_rows_that_take_part(top_k, top_p):
    logits, draws = np.array([0.0, 1.0, 2.0, -1.0, 1.5, 1.25]), 20000
    head = Rows(np.tile(round24(logits), (draws, 1)), np.ones(draws))
    picked = GoldenModel.sample(head, seed=1, position=np.arange(draws), temperature=0.8, top_k=top_k, top_p=top_p)
    order = np.argsort(-logits, kind="stable")[:top_k]
    q = softmax(logits[order] / 0.8)
    order = order[:np.searchsorted(np.cumsum(q), top_p) + 1]
    expected = softmax(logits[order] / 0.8) * draws
    counts = np.bincount(picked, minlength=6)
    assert counts[order].sum() == draws and 1 < len(order) < 6
    assert ((counts[order] - expected) ** 2 / expected).sum() < 25  # at most 5 degrees of freedom


def test_generate_passes_them_on(rng):
    golden = GoldenModel(random_model(rng, Geometry(20, 24, 2, 17)))
    plain = golden.generate([0, 3], 12, 5, 1.0)
    assert golden.generate([0, 3], 12, 5, 1.0, top_k=17) == plain
    assert golden.generate([0, 3], 12, 5, 1.0, top_k=1) == golden.generate([0, 3], 12)
    assert golden.generate([0, 3], 12, 5, 1.0, top_k=17, top_p=0.3) != plain


@pytest.mark.parametrize("options, text", [
    ({"top_k": -1}, "top-k -1"), ({"top_k": 4, "top_p": 0.0}, "top-p 0.0"), ({"top_k": 4, "top_p": 1.1}, "top-p 1.1"),
    ({"top_p": 0.9}, "give top-k as well")])
def test_refusals(options, text):
    with pytest.raises(ValueError, match=text):
        GoldenModel.sample(Rows(np.ones((1, 3)), np.ones(1)), temperature=1.0, **options)
