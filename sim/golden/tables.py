"""The function tables and the functions they give (docs/numerics.md, section 2).

The entries come from 50-digit decimal arithmetic, whose every operation is correctly rounded, so they are the same on
every machine; no function of the C library is involved.
"""

import functools
import hashlib
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Context, Decimal, localcontext

import numpy as np

from sterna.sim.golden.fp24 import MAX, from_bits, mac, round24, to_bits

WORDS = 512
SIGMOID, RECIP, RSQRT, LOG2, LOG1M, END = 0, 256, 288, 352, 416, 480  # first word of each function
_POINTS = 17


def _round(x):
    """A decimal rounded to fp24, as a float (exact)."""
    if not x:
        return 0.0
    # The float only finds the exponent; the loops repair a guess that is off by one.
    exponent = np.frexp(float(abs(x)))[1] - 1
    while abs(x) < Decimal(2) ** int(exponent):
        exponent -= 1
    while abs(x) >= Decimal(2) ** int(exponent + 1):
        exponent += 1
    units = (x * Decimal(2) ** int(15 - exponent)).to_integral_value(ROUND_HALF_EVEN)
    return float(np.ldexp(float(units), int(exponent) - 15))


def _segment(g, x0, x1):
    """(c1, c0) of the segment [x0, x1] of the function g of decimals."""
    step = (x1 - x0) / 16
    xs = [x0 + k * step for k in range(_POINTS)]
    ys = [g(x) for x in xs]
    c1 = _round((ys[-1] - ys[0]) / (x1 - x0))
    rest = [y - Decimal(c1) * x for x, y in zip(xs, ys, strict=True)]
    return c1, _round((max(rest) + min(rest)) / 2)


@functools.cache
def _entries():
    """Slopes [512], intercepts [512] (float64, fp24 values) and complements [256] (uint16)."""
    slope, intercept = np.zeros(WORDS), np.zeros(WORDS)
    # A context of its own: the caller's precision, rounding and traps have no part in the table.
    with localcontext(Context(prec=50, rounding=ROUND_HALF_EVEN)):
        one, ln2 = Decimal(1), Decimal(2).ln()

        def fill(base, g, segments):
            for k, (x0, x1) in enumerate(segments):
                slope[base + k], intercept[base + k] = _segment(g, x0, x1)

        def even(first, width, count):
            return [(first + k * width, first + (k + 1) * width) for k in range(count)]

        fill(SIGMOID, lambda x: one / (one + x.exp()), even(Decimal(0), one / 16, 256))
        fill(RECIP, lambda x: one / x, even(one, one / 32, 32))
        fill(RSQRT, lambda x: one / x.sqrt(), even(one, one / 32, 32) + even(one * 2, one / 16, 32))
        fill(LOG2, lambda x: x.ln() / ln2, even(one, one / 64, 64))
        fill(LOG1M, lambda x: -(one - x).ln() / x if x else one, even(Decimal(0), one / 128, 64))
        complement = []
        for c0 in intercept[SIGMOID:RECIP]:
            units = ((2 * (1 - Decimal(c0)) - 1) * 2**15).to_integral_value(ROUND_HALF_UP)
            complement.append(min(32767, int(units)))
    for array in (slope, intercept):
        array.flags.writeable = False
    return slope, intercept, np.array(complement, np.uint16)


def table_words():
    """The ROM: 512 uint64 words of 48 bits, c0 in bits 23:0 and c1 in bits 47:24."""
    slope, intercept, _ = _entries()
    return to_bits(slope).astype(np.uint64) << np.uint64(24) | to_bits(intercept)


def complements():
    """256 uint16: the 15 fraction bits of the complements cc, whose exponent field is 126."""
    return _entries()[2].copy()


def digest():
    """Hex SHA-256 of the table: the words as 8 little-endian bytes each, then the complements as 2 bytes each."""
    return hashlib.sha256(table_words().astype("<u8").tobytes() + complements().astype("<u2").tobytes()).hexdigest()


def entries():
    """Slopes and intercepts (c1, c0) of the ROM, float64 [512], in its order; both are read-only."""
    return _entries()[:2]


@functools.cache
def sigmoid_entries():
    """(c1, c0) of SIGMOID, float64 [514]: entry 257 (a >= 0) + min(256, floor(16 |a|)); entry 256 is |a| >= 16."""
    slope, intercept, complement = _entries()
    cc = from_bits(126 << 15 | complement.astype(np.int64))
    c1 = np.concatenate([slope[:256], [0.0], -slope[:256], [0.0]])
    c0 = np.concatenate([intercept[:256], [0.0], cc, [1.0]])
    return c1, c0


def _parts(a):
    """E (int64) and F (int64) of |a|; both are those of 1.0 where a is 0."""
    bits = np.where(a == 0, 1.0, np.abs(a)).view(np.int64)
    return (bits >> 52) - 1023, bits >> 37 & 0x7FFF


def _apply(index, d, shift=0, force=None, value=0.0):
    """mac(c1, d, c0) of the entries, their exponents lowered by shift; ``value`` where ``force`` holds."""
    slope, intercept, _ = _entries()
    # Coefficients have 16-bit significands, so round24 only flushes or saturates here, as the scaling rule says.
    c1, c0 = (round24(np.ldexp(c[index], -shift)) for c in (slope, intercept))
    if force is not None:
        c1, c0 = np.where(force, 0.0, c1), np.where(force, value, c0)
    return mac(c1, d, c0)


def _array(a):
    return np.atleast_1d(np.asarray(a, np.float64))


def sigmoid(a):
    """SIGMOID of fp24 values (float64, any shape): 1 / (1 + e^-a)."""
    c1, c0 = sigmoid_entries()
    magnitude = np.abs(a)
    index = np.minimum(magnitude * 16, 256).astype(np.intp) + np.where(np.asarray(a) >= 0, 257, 0)
    return mac(c1[index], magnitude, c0[index])


def recip(a):
    """RECIP of fp24 values: about 1 / |a|; MAX at 0."""
    v = _array(a)
    exponent, fraction = _parts(v)
    out = _apply(RECIP + (fraction >> 10), 1 + fraction * 2.0**-15, exponent, v == 0, MAX)
    return out.reshape(np.shape(a))[()]


def rsqrt(a):
    """RSQRT of fp24 values: about 1 / sqrt|a|; MAX at 0."""
    v = _array(a)
    exponent, fraction = _parts(v)
    odd = exponent & 1
    d = (1 + fraction * 2.0**-15) * (1 + odd)
    out = _apply(RSQRT + 32 * odd + (fraction >> 10), d, exponent >> 1, v == 0, MAX)
    return out.reshape(np.shape(a))[()]


def log2(a):
    """LOG2 of fp24 values: log2 of the significand, 0 to 1; a = 0 counts as 1.0."""
    _, fraction = _parts(_array(a))
    return _apply(LOG2 + (fraction >> 9), 1 + fraction * 2.0**-15).reshape(np.shape(a))[()]


def log1m(a):
    """LOG1M of fp24 values: -ln(1 - x) / x at x = |a| in [0, 1/2)."""
    d = np.abs(_array(a))
    return _apply(LOG1M + np.minimum(63, d * 128).astype(np.intp), d).reshape(np.shape(a))[()]


def exponent(a):
    """EXPONENT of fp24 values: the unbiased exponent as a number; -127 at 0."""
    v = _array(a)
    return np.where(v == 0, -127.0, _parts(v)[0].astype(np.float64)).reshape(np.shape(a))[()]
