"""fp24 against exact rational arithmetic."""

from fractions import Fraction

import numpy as np
import pytest
from sterna.sim.golden import fp24


def exact_round(x):
    """round() of docs/numerics.md on a Fraction, by definition."""
    if x == 0:
        return 0.0
    magnitude, exponent = abs(x), 0
    while magnitude >= 2:
        magnitude, exponent = magnitude / 2, exponent + 1
    while magnitude < 1:
        magnitude, exponent = magnitude * 2, exponent - 1
    units = round(magnitude * 32768)  # Fraction rounds halves to even
    if units == 65536:
        units, exponent = 32768, exponent + 1
    if exponent < -126:
        return 0.0
    value = fp24.MAX if exponent > 128 else float(Fraction(units) * Fraction(2) ** (exponent - 15))
    return value if x > 0 else -value


def random_codes(rng, count, low=0, high=256):
    """Codes with exponent fields low .. high-1 and fractions that favour ties and carries."""
    fraction = rng.integers(0, 1 << 15, count)
    fraction = np.where(rng.random(count) < 0.3, rng.choice([0, 1, 0x4000, 0x7FFF, 0x7FFE], count), fraction)
    return rng.integers(0, 2, count) << 23 | rng.integers(low, high, count) << 15 | fraction


@pytest.mark.parametrize("fields", [(0, 256), (100, 150), (120, 130), (0, 6), (250, 256), (54, 76), (180, 200)])
def test_operations_equal_exact_arithmetic(rng, fields):
    a, b = (fp24.from_bits(random_codes(rng, 400, *fields)) for _ in range(2))
    for op, exact in ((fp24.mul, lambda p, q: p * q), (fp24.add, lambda p, q: p + q)):
        expected = [exact_round(exact(Fraction(p), Fraction(q))) for p, q in zip(a, b, strict=True)]
        np.testing.assert_array_equal(op(a, b), expected)
        assert not np.signbit(op(a, b)[op(a, b) == 0]).any()


def test_ties_go_to_even_and_carry(rng):
    unit = 2.0**-15
    x = np.array([1 + unit / 2, 1 + 3 * unit / 2, 2 - unit / 2, -(1 + unit / 2), 1 + unit / 2 + 2**-40])
    np.testing.assert_array_equal(fp24.round24(x), [1, 1 + 2 * unit, 2, -1, 1 + unit])
    many = rng.standard_normal(300) * 2.0 ** rng.integers(-130, 131, 300)
    np.testing.assert_array_equal(fp24.round24(many), [exact_round(Fraction(v)) for v in many])


def test_limits():
    assert fp24.MAX == 2.0**128 * (2 - 2.0**-15)
    assert fp24.to_bits(fp24.MAX) == 0x7FFFFF and fp24.to_bits(-fp24.MAX) == 0xFFFFFF
    assert fp24.round24(2.0**129) == fp24.MAX and fp24.round24(-1e300) == -fp24.MAX
    assert fp24.round24(fp24.MAX + 2.0**112) == fp24.MAX  # rounds up to 2^129, which saturates
    assert fp24.round24(np.inf) == fp24.MAX
    assert fp24.round24(2.0**-126 * (1 - 2.0**-18)) == 2.0**-126  # flushed after rounding, not before
    assert fp24.round24(2.0**-126 * (1 - 2.0**-15)) == 0 and fp24.round24(5e-324) == 0
    assert not np.signbit(fp24.round24(-1e-300)) and not np.signbit(fp24.round24(-0.0))
    assert fp24.from_int(-65537) == -65536 and fp24.from_int(65539) == 65540


def test_mac_rounds_twice():
    a = 1 + 2.0**-15
    assert fp24.mac(a, a, -1.0) == 2.0**-14  # fused, 2^-30 would survive
    assert a * a - 1 != 2.0**-14


def test_codes_round_trip(rng):
    codes = rng.integers(0, 1 << 24, 5000)
    codes = np.concatenate([codes, [0, 0x7FFFFF, 0x008000, 0xBF8000]])
    expected = np.where(codes >> 15 & 255, codes, 0)  # only +0 exists
    np.testing.assert_array_equal(fp24.to_bits(fp24.from_bits(codes)), expected)
    assert fp24.from_bits(0xBF8000) == -1.0
    assert fp24.to_bits(fp24.from_bits(codes)).dtype == np.uint32


@pytest.mark.parametrize("value", [1 + 2.0**-16, 2.0**-127, 2.0**129, -0.0, np.inf])
def test_other_numbers_have_no_code(value):
    with pytest.raises(ValueError, match="not an fp24 value"):
        fp24.to_bits(np.array([1.0, value]))
