"""The function tables: contents, special arguments, accuracy."""

from decimal import ROUND_DOWN, getcontext, localcontext

import numpy as np
from sterna.sim.golden import tables
from sterna.sim.golden.fp24 import MAX, from_bits, round24

DIGEST = "de59fac9f60807408d9e923ef6cadfb6e44c38f8fba713cc3f42560aef56ba3a"


def test_digest():
    assert tables.digest() == DIGEST
    assert tables.table_words().shape == (512,) and tables.table_words().dtype == np.uint64
    assert not tables.table_words()[tables.END:].any() and tables.table_words().max() < 1 << 48


def test_the_callers_decimal_context_has_no_part():
    with localcontext() as context:
        context.prec, context.rounding = 5, ROUND_DOWN
        tables._entries.cache_clear()
        assert tables.digest() == DIGEST
        assert getcontext().prec == 5


def test_word_layout():
    words = tables.table_words()
    c0, c1 = from_bits(words & np.uint64(0xFFFFFF)), from_bits(words >> np.uint64(24))
    assert abs(c0[0] - 0.5) < 1e-3 and -0.25 < c1[0] < -0.249  # sigmoid: falls from 1/2
    assert abs(c0[256] + c1[256] - 1) < 1e-3 and c1[256] < -0.9  # 1/x at 1
    assert abs(c0[320] + 2 * c1[320] - 2**-0.5) < 1e-3  # 1/sqrt(x) at 2
    assert c0[416] == round24(c0[416]) and abs(c0[416] - 1) < 1e-3 and abs(c1[416] - 0.5) < 1e-2


def relative(got, exact):
    return np.abs(got / exact - 1).max()


def test_accuracy(rng):
    x = round24(rng.uniform(-15.9, 15.9, 20000))
    exact = 1 / (1 + np.exp(-x))
    assert np.abs(tables.sigmoid(x) - exact).max() < 5e-5 and relative(tables.sigmoid(x), exact) < 8e-4
    x = round24(np.exp(rng.uniform(-80, 80, 20000)))
    assert relative(tables.recip(x), 1 / x) < 1.5e-4
    assert relative(tables.rsqrt(-x), x**-0.5) < 8e-5
    assert np.abs(tables.log2(x) + tables.exponent(x) - np.log2(x)).max() < 5e-5
    x = round24(rng.uniform(1e-7, 0.5, 20000))
    assert relative(tables.log1m(x) * x, -np.log1p(-x)) < 5e-5


def test_special_arguments():
    x = np.array([16.0, -16.0, MAX, -MAX, 0.0])
    np.testing.assert_array_equal(tables.sigmoid(x), [1, 0, 1, 0, 0.5])
    assert tables.sigmoid(round24(-15.999)) > 0
    assert tables.recip(0.0) == MAX and tables.rsqrt(0.0) == MAX
    assert tables.exponent(0.0) == -127 and tables.log2(0.0) == tables.log2(1.0) == tables.log2(-4.0)
    assert tables.log1m(0.0) == 1 and tables.log1m(0.5) > 1.38
    assert tables.exponent(-MAX) == 128 and tables.exponent(2.0**-126) == -126


def test_scaling_flushes_and_saturates():
    # The slope's exponent field is 126, the intercept's 127: at 2^126 the slope is gone and the intercept stays.
    c1, c0 = tables._entries()[0][256], tables._entries()[1][256]
    assert 0.5 <= -c1 < 1 <= c0 < 2
    assert tables.recip(2.0**126) == c0 * 2.0**-126
    assert tables.recip(2.0**127) == 0 and tables.recip(MAX) == 0
    assert relative(tables.recip(2.0**-126), 2.0**126) < 1.5e-4
    assert relative(tables.rsqrt(2.0**-126), 2.0**63) < 8e-5


def test_shapes(rng):
    x = round24(rng.standard_normal((3, 5)))
    for function in (tables.sigmoid, tables.recip, tables.rsqrt, tables.log2, tables.log1m, tables.exponent):
        assert function(x).shape == (3, 5)
        assert np.shape(function(x[1, 2])) == () and function(x[1, 2]) == function(x)[1, 2]
