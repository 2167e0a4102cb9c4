"""Ternary weights: scale and trits of a matrix, from stored numbers of 16 or 32 bits (docs/numerics.md, section 5).

The mean is that of the exact sum, so it depends on no order, no pieces and no library. Numbers of
16 bits are counted by their 65,536 patterns, which gives the sum, the largest and every check at
once; float32 numbers are taken apart into multiples of few units, whose sums float64 holds exactly.
"""

import math
from functools import cache

import numpy as np

FLOOR = 1e-5  # of mean|W|, in the derivation of the trits
BLOCK = 1 << 20  # numbers that are looked at together
_PATTERNS, _SIGN = 1 << 16, 1 << 15
_UNIT_BITS = 32  # of a number in `_parts_of`: float64 holds sums of 2^20 of them exactly


class NotFiniteError(ValueError):
    """A tensor that holds infinities or NaN."""


def float32_of(stored):
    """float32 array of stored numbers: float16, uint16 (the bits of bfloat16), or anything that becomes float32."""
    stored = np.asarray(stored)
    if stored.dtype == np.uint16:
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float32, copy=False)


def ternary_already(magnitude):
    """Whether a matrix is ternary already: it holds only -s, 0 and +s, and not zeros alone.

    This is the one definition of it, for every level and for training.

    Parameters
    ----------
    magnitude : ndarray or torch.Tensor
        |W|, of any shape.

    Returns
    -------
    s, found : scalar of the kind of ``magnitude``, and a boolean
        ``s`` is the largest magnitude.
    """
    top = magnitude.max()
    return top, (top > 0) & ((magnitude == top) | (magnitude == 0)).all()


def _blocks(flat):
    return (flat[at:at + BLOCK] for at in range(0, len(flat), BLOCK))


@cache
def _values(kind):
    """float32 [65536] of all patterns of "float16" or "uint16" (bfloat16)."""
    patterns = np.arange(_PATTERNS, dtype=np.uint16)
    values = float32_of(patterns if kind == "uint16" else patterns.view(np.float16))
    values.flags.writeable = False
    return values


def _parts_of(magnitude):
    """Floats whose exact sum is that of a block of float32 magnitudes: `_UNIT_BITS` of every number at a time."""
    left, parts = magnitude.astype(np.float64), []
    while top := float(max(left.max(initial=0.0), -left.min(initial=0.0))):
        push = math.ldexp(1.5, math.frexp(top)[1] - _UNIT_BITS + 52)
        upper = left + push
        upper -= push
        parts.append(float(upper.sum()))
        left -= upper
    return parts


def _scan_patterns(flat):
    """(largest magnitude, whether ternary already, sum of magnitudes) of numbers of 16 bits."""
    values = _values(flat.dtype.name)
    counts = np.zeros(_PATTERNS, np.int64)
    for block in _blocks(flat.view(np.uint16)):
        counts += np.bincount(block, minlength=_PATTERNS)
    used = np.flatnonzero(counts)
    held = np.abs(values[used])
    if not np.isfinite(held).all():
        raise NotFiniteError
    # A product of a count below 2^42 and a significand of 11 bits is exact.
    return *ternary_already(held), math.fsum(held.astype(np.float64) * counts[used])


def _scan_numbers(flat):
    """The same of float32 numbers."""
    top, parts = np.float32(0), []
    for block in _blocks(flat):
        magnitude = np.abs(block)
        largest = magnitude.max()
        if not np.isfinite(largest):
            raise NotFiniteError
        top = max(top, largest)
        parts += _parts_of(magnitude)
    # The blocks of hardly any matrix but a ternary one pass the first look.
    kept = top > 0 and all(((magnitude == top) | (magnitude == 0)).all() for magnitude in map(np.abs, _blocks(flat)))
    return top, kept, math.fsum(parts)


def _least(s):
    """The least float32 magnitude whose trit is not 0: rounding is monotonic, so it divides them all."""
    factor = np.float32(1) / np.float32(s)
    at = np.float32(0.5) / factor
    while np.rint(at * factor) >= 1:
        at = np.nextafter(at, np.float32(0))
    while np.rint(at * factor) < 1:
        at = np.nextafter(at, np.float32(np.inf))
    return at


def _trits(flat, least):
    """int8 trits of flat stored numbers: sign(W) where |W| is ``least`` (float32) or more."""
    out = np.empty(len(flat), np.int8)
    if flat.dtype == np.float32:
        bounds, flat = (least, -least), flat
        for block, to in zip(_blocks(flat), _blocks(out), strict=True):
            np.subtract((block >= bounds[0]).view(np.int8), (block <= bounds[1]).view(np.int8), out=to)
        return out
    # Magnitudes are in the order of their patterns.
    values = _values(flat.dtype.name)[:_SIGN]
    first = int(np.searchsorted(values[np.isfinite(values)], least))
    signed, unsigned = flat.view(np.int16), flat.view(np.uint16)
    for block, pattern, to in zip(_blocks(signed), _blocks(unsigned), _blocks(out), strict=True):
        np.subtract((block >= first).view(np.int8), (pattern >= first + _SIGN).view(np.int8), out=to)
    return out


def ternarise(weight):
    """Trits and scale of a weight: round-half-even of W (1 / s) in float32, s = max(mean|W|, 1e-5).

    Of a weight that is ternary already (`ternary_already`) trits and s are kept, because the mean
    over its zeros too would be a smaller scale.

    Parameters
    ----------
    weight : array
        float32, or stored numbers as `float32_of` takes them, of any shape.

    Returns
    -------
    trits : int8 array of the shape
    s : float
        The exact sum of |W| rounded to float64, over the count.

    Raises
    ------
    NotFiniteError
    """
    return derive(weight)[:2]


def derive(weight):
    """As `ternarise`, and whether the weight was ternary already (bool)."""
    weight = np.ascontiguousarray(weight if np.asarray(weight).dtype in (np.uint16, np.float16)
                                  else np.asarray(weight, np.float32))
    flat = weight.reshape(-1)
    top, kept, total = (_scan_numbers if weight.dtype == np.float32 else _scan_patterns)(flat)
    s = float(top) if kept else max(total / flat.size, FLOOR)
    return _trits(flat, np.float32(s) if kept else _least(s)).reshape(weight.shape), s, bool(kept)
