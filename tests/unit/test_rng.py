"""The sampler's random numbers against plain integer arithmetic."""

import numpy as np
from sterna.sim.golden import rng as golden
from sterna.sim.golden.fp24 import round24


def mix(x):
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1)):
        x = (x ^ x >> shift) * factor % 2**32
    return x


def test_mix_and_key(rng):
    xs = [0, 1, 2**32 - 1, *map(int, rng.integers(0, 2**32, 200))]
    assert golden.mix(np.array(xs)).tolist() == [mix(x) for x in xs]
    assert golden.mix(2**32 + 5) == mix(5) and golden.mix(-1) == mix(2**32 - 1)
    assert golden.key(7, 9) == mix(7 ^ mix(9)) and golden.key(2**32 - 1, 0) == mix(2**32 - 1 ^ mix(0))


def test_row_random(rng):
    key = int(rng.integers(2**32 - 500, 2**32))  # key + row wraps
    rows = np.arange(3000)
    v, n = golden.row_random(key, rows)
    for row in rows:
        bits = mix((key + int(row)) % 2**32)
        assert n[row] == 10 - (bits >> 22).bit_length()
        assert v[row] == round24((2 * (bits % 2**22) + 1) * 2.0**-24)
    grid, _ = golden.row_random(np.array([[5], [key]]), rows)
    np.testing.assert_array_equal(grid[1], v)


def test_u_is_uniform_and_never_0_or_1():
    v, n = golden.row_random(golden.key(3, 4), np.arange(200000))
    u = 2.0**-n * (1 - v)
    assert 0 < u.min() and u.max() < 1 and v.min() > 0 and v.max() <= 0.5 and n.min() == 0 and n.max() == 10
    counts = np.histogram(u, 32, (0, 1))[0]
    assert ((counts - 6250) ** 2 / 6250).sum() < 80  # 31 degrees of freedom: p about 1e-6
