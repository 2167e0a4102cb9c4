"""fp24 arithmetic on float64 arrays that hold only fp24 values (docs/numerics.md, section 1).

A product of two 16-bit significands is exact in float64. A sum that float64 cannot hold exactly has operands whose
exponents differ by more than 37, and then both the exact sum and the float64 one round to the larger operand. So one
float64 operation followed by ``round24`` is the correctly rounded fp24 operation.
"""

import numpy as np

MAX = float(2**129 - 2**113)  # 0x7FFFFF, the largest magnitude
MIN = 2.0**-126  # the smallest magnitude that is not zero
LN2 = float.fromhex("0x1.62e4p-1")  # ln 2, rounded
PARTIAL_SUMS = 64  # virtual partial sums of a reduction (docs/numerics.md, section 3)
_DROPPED = 52 - 15  # fraction bits of float64 below those of fp24
_EXPONENT = np.int64(0x7FF << 52)
_PUSH = 1.5 * 2.0**_DROPPED
_TOP = 2.0**128


def round24_into(x):
    """Round a float64 array to fp24 in place and return it; ``x`` must be an array that the caller owns.

    With p = 1.5 2^(E+37), E being the exponent of x, the last bit of x + p weighs 2^(E-15), the unit of fp24, and p
    is an even number of such units. So (x + p) - p leaves x rounded to 16 bits, ties to even, and -0 becomes +0.
    """
    push = np.bitwise_and(x.view(np.int64), _EXPONENT).view(np.float64)
    if not push.size:
        return x
    # Only arrays that hold extreme numbers or zeros pay for the special cases.
    small = push.min() < MIN
    if push.max() >= _TOP:
        np.clip(x, -MAX, MAX, out=x)  # what is beyond MAX ends there, rounded before or after
        push = np.bitwise_and(x.view(np.int64), _EXPONENT).view(np.float64)
    push *= _PUSH
    x += push
    x -= push
    if small:
        np.copyto(x, 0.0, where=np.abs(x) < MIN)
    return x


def round24(x):
    """fp24 value nearest to x, ties to even; flushes below 2^-126 to +0 and saturates at MAX.

    Parameters
    ----------
    x : array_like
        Real numbers, no NaN.

    Returns
    -------
    ndarray or float64
        float64 of the shape of x, with fp24 values only.
    """
    return round24_into(np.array(x, np.float64, ndmin=1)).reshape(np.shape(x))[()]


def mul(a, b):
    """MUL: round(a b) of fp24 values, float64 in and out."""
    return round24(np.multiply(a, b))


def add(a, b):
    """ADD: round(a + b) of fp24 values, float64 in and out."""
    return round24(np.add(a, b))


def mac(a, b, c):
    """ADD(MUL(a, b), c): two roundings, never fused."""
    return add(mul(a, b), c)


def from_int(n):
    """FROMINT: the signed integers n (at most 24 bits) as fp24."""
    return round24(n)


def to_bits(x):
    """The 24-bit codes (uint32) of fp24 values; ValueError if a value is not one."""
    x = np.asarray(x, np.float64)
    word = x.view(np.uint64) if x.ndim else np.uint64(x[()].view(np.uint64))
    exponent = ((word >> np.uint64(52)) & np.uint64(0x7FF)).astype(np.int64) - 1023 + 127
    fraction = (word >> np.uint64(_DROPPED)) & np.uint64(0x7FFF)
    code = (word >> np.uint64(63) << np.uint64(23)) | (exponent.astype(np.uint64) << np.uint64(15)) | fraction
    zero = word == 0
    bad = ~zero & ((exponent < 1) | (exponent > 255) | (word & np.uint64((1 << _DROPPED) - 1) != 0))
    if np.any(bad):
        raise ValueError(f"not an fp24 value: {np.extract(bad, x)[0]!r}: round it with round24 first")
    return np.where(zero, 0, code).astype(np.uint32)[()]


def from_bits(code):
    """fp24 values (float64) of 24-bit codes; an exponent field of 0 is zero."""
    code = np.asarray(code, np.int64)
    exponent = code >> 15 & 255
    significand = np.where(code >> 23 & 1, -1.0, 1.0) * (32768 + (code & 0x7FFF))
    return np.where(exponent == 0, 0.0, np.ldexp(significand, exponent - 127 - 15))[()]
