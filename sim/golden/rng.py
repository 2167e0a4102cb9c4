"""Counter-based random numbers of the sampler (docs/numerics.md, section 8): functions of (seed, position, row)."""

import numpy as np

from sterna.sim.golden.fp24 import LN2, mul, round24

ZEROS_LN2 = mul(np.arange(11.0), LN2)  # -ln 2^-n for the leading zeros n = 0..10 of a random number, as fp24 values


def mix(x):
    """The 32-bit mixing function, on uint32 arrays or integers (taken modulo 2^32)."""
    # 64-bit words hold every intermediate product; the mask keeps the arithmetic modulo 2^32.
    mask = np.uint64(0xFFFFFFFF)
    x = np.asarray(x).astype(np.uint64) & mask
    x = x ^ x >> np.uint64(16)
    x = x * np.uint64(0x7FEB352D) & mask
    x = x ^ x >> np.uint64(15)
    x = x * np.uint64(0x846CA68B) & mask
    return (x ^ x >> np.uint64(16)).astype(np.uint32)[()]


def key(seed, position):
    """uint32 key of the token at ``position`` (the token being read); arrays broadcast."""
    return mix((np.asarray(seed, np.int64) & 0xFFFFFFFF) ^ mix(position).astype(np.int64))


def row_random(key, rows):
    """Random numbers of head rows.

    Parameters
    ----------
    key, rows : integer arrays
        Broadcast against each other: one key with rows [V], or keys [B, 1] with rows [V].

    Returns
    -------
    v : float64
        fp24 values in (0, 1/2].
    n : int64
        Leading zeros of the upper 10 bits, 0 to 10. ``2^-n (1 - v)`` is uniform on (0, 1).
    """
    bits = mix(np.asarray(key, np.int64) + np.asarray(rows, np.int64)).astype(np.int64)
    # frexp of an integer below 2^10 gives its bit length, exactly.
    n = 10 - np.frexp((bits >> 22).astype(np.float64))[1].astype(np.int64)
    return round24((2 * (bits & 0x3FFFFF) + 1) * 2.0**-24), n
