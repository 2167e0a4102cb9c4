"""The functions of the kernels of --device cpu beside those of the golden model: bit for bit."""

import ctypes
from ctypes import POINTER, c_int8, c_int32

import numpy as np
import pytest
from sterna.sim.cpu import build, structures
from sterna.sim.cpu.structures import pointer, table_structure
from sterna.sim.cpu.weights import PADDING
from sterna.sim.golden import model as golden_model, tables
from sterna.sim.golden.fp24 import MAX, MIN, add, mac, mul, round24

# Code for other machines: in `make test` that without vector instructions and its arithmetic, in the rest all of it.
AVX2 = pytest.param("avx2", marks=pytest.mark.rest)
PATHS = ("native", "plain", AVX2)
TABLES = table_structure()
same = np.testing.assert_array_equal


def numbers(rng, count=4096):
    """float64 [count]: every size that sums and products of fp24 numbers have, ties, zeros, the ends of the range."""
    out = rng.choice([-1.0, 1.0], count) * np.ldexp(rng.uniform(1, 2, count), rng.integers(-260, 260, count))
    near = np.ldexp(rng.uniform(1, 2, count), rng.integers(-20, 20, count))
    out = np.where(rng.random(count) < 0.5, out, near * rng.choice([-1.0, 1.0], count))
    ties = np.ldexp(2 * rng.integers(1 << 15, 1 << 16, count) + 1.0, rng.integers(-160, 130, count) - 16)
    out = np.where(rng.random(count) < 0.2, ties, out)
    edges = [0.0, -0.0, MIN, -MIN, MIN * (1 - 2.0**-16), MIN * (1 - 2.0**-18), MIN / 2, MAX, -MAX,
             MAX * (1 + 2.0**-17), MAX * (1 + 2.0**-16), MAX * 2, 1e300, -1e300, 2.0**-1000, 16.0, -16.0, 15.9999,
             1.0, -1.0]
    out[:len(edges)] = edges
    return out


def attempt(path, what, a, b=None, c=None, extra=0):
    """What function ``what`` of try.h gives on arrays of whole blocks."""
    given = [np.zeros(len(a)) if v is None else np.ascontiguousarray(v, np.float64) for v in (a, b, c)]
    out = np.zeros(len(a) + extra)
    assert not len(a) % PADDING
    library = structures.declare(build.kernels(path))
    library.sterna_try(what, ctypes.byref(TABLES), *map(pointer, given), pointer(out), len(a))
    return out


@pytest.mark.parametrize("path", PATHS)
def test_functions_equal_those_of_the_golden_model(rng, path):
    x = numbers(rng)
    same(attempt(path, 0, x), round24(x))
    same(attempt(path, 7, x), round24(x))
    assert not np.signbit(attempt(path, 0, x)[round24(x) == 0]).any()
    a, b, c = (round24(numbers(rng)) for _ in range(3))
    c[:512] = -mul(a, b)[:512]  # sums that cancel
    c[512:1024] = -mul(a, b)[512:1024] * (1 + 2.0**-15)
    c = round24(c)
    same(attempt(path, 1, a, b), mul(a, b))
    same(attempt(path, 2, a, b, c), mac(a, b, c))
    same(attempt(path, 3, a), tables.sigmoid(a))
    segments = round24(np.arange(-2048, 2048) / 128)  # every entry of the table, and its edges
    same(attempt(path, 3, segments), tables.sigmoid(segments))
    size = np.abs(a)
    same(attempt(path, 4, size), add(tables.exponent(size), tables.log2(size)))
    same(attempt(path, 8, size), tables.recip(size))
    same(attempt(path, 9, size), tables.rsqrt(size))
    same(attempt(path, 10, size), golden_model.rsq(size))
    half = round24(rng.uniform(0, 0.5, 4096))
    half[:3] = 0, 0.5, MIN
    same(attempt(path, 5, half), tables.log1m(half))
    low = np.concatenate([rng.uniform(-750, 0, 4000), [0, -0.0, -1e300, -np.inf], np.zeros(92)])
    np.testing.assert_allclose(attempt(path, 6, low), np.where(low < -700, 0, np.exp(low)), rtol=1e-15)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("scale", [0, 2.0**62, 2.0**-64, MAX, 1])
def test_reductions_and_codes_equal_those_of_the_golden_model(rng, path, scale):
    for count in (PADDING, 5 * PADDING, 17 * PADDING):
        v, w = (round24(rng.standard_normal(count) * scale) for _ in range(2))
        w[::2] = round24(rng.standard_normal(w[::2].shape))
        v[-5:] = 0
        assert attempt(path, 11, v)[0] == golden_model.sumsq(v)
        assert attempt(path, 12, v, w)[0] == golden_model.sumsq(mul(v, w))
        assert attempt(path, 13, v)[0] == np.abs(v).max()
        same(attempt(path, 14, v, w, extra=1), [*mul(v, w), np.abs(mul(v, w)).max()])
        for qm in (0.0, round24(127 / (np.abs(v).max() or 1)), 1.0, MAX):
            wanted = golden_model.codes(v[None], np.array([qm]))[0]
            same(attempt(path, 15, v, np.full(count, qm), extra=1), [*wanted, wanted.sum()])
    halves = np.resize([0.5, -0.5, 1.5, 126.5, 130, -300, 0, 0.49998474121, 1e30, -1e30, -2.5], PADDING)
    same(attempt(path, 15, halves, np.ones(PADDING), extra=1)[:-1],
         golden_model.codes(halves[None], np.ones(1))[0])


@pytest.mark.parametrize("path", PATHS)
def test_products_are_exact(rng, path):
    library = structures.declare(build.kernels(path))
    for rows, columns in ((1, 1), (31, 64), (70, 700), (40, 132_104)):
        trits = rng.integers(-1, 2, (rows, columns), np.int8)
        codes = np.zeros((15, -(-columns // PADDING) * PADDING), np.int8)
        codes[:, :columns] = rng.integers(-127, 128, (15, columns))
        trits[0], codes[0, :columns] = 1, 127  # the largest sum of all
        codes[1, :columns] = -127
        matrix = np.zeros(library.sterna_matrix_bytes(rows, columns), np.uint8)
        library.sterna_pack(matrix.ctypes.data, pointer(trits, POINTER(c_int8)), rows, columns)
        wanted = codes[:, :columns].astype(np.float64) @ trits.T.astype(np.float64)
        wanted = np.pad(wanted, ((0, 0), (0, 64)))
        for count in (*range(1, 16),) if columns < 1000 else (1, 2, 13):
            for block in range(-(-rows // 32)):
                sums = np.zeros((count, 32), np.int32)
                library.sterna_try_rows(pointer(sums, POINTER(c_int32)), matrix.ctypes.data, block,
                                        pointer(codes, POINTER(c_int8)), codes.shape[1], count)
                found = sums - codes[:count].sum(1, dtype=np.int32)[:, None]
                same(found, wanted[:count, 32 * block:32 * block + 32])


@pytest.mark.parametrize("path", PATHS)
def test_rows_of_tables_are_exact(rng, path):
    library, kind = structures.declare(build.kernels(path)), POINTER(c_int32)
    for columns in (1, 64, 100, 256, 300, 2100):
        wide, pieces = -(-columns // PADDING) * PADDING, -(-columns // 256)
        trits = rng.integers(-1, 2, (300, columns), np.int8)
        trits[:2], trits[2] = 1, -1
        table = np.zeros(library.sterna_table_bytes(300, columns), np.uint8)
        library.sterna_pack_table(table.ctypes.data, pointer(trits, POINTER(c_int8)), 300, columns)

        def tried(gathers, rows, codes, out):
            library.sterna_try_table(gathers, pointer(out, kind), table.ctypes.data, columns, pointer(rows, kind),
                                     pointer(codes, POINTER(c_int8)), len(codes))
            return out

        # Of several tokens; behind the last one's codes and beyond a row's columns stands what must not count.
        store = np.full(8 * wide + 256, 99, np.int8)
        for count in range(1, 9):
            codes = store[:count * wide].reshape(count, wide)
            codes[:] = 0
            codes[:, :columns] = rng.integers(-127, 128, (count, columns))
            codes[0, :columns] = 127  # the largest sum of all
            codes[-1, :columns] = -127
            for row in (1, 2, int(rng.integers(300))):
                sums = tried(0, np.array([row], np.int32), codes, np.zeros(count, np.int32))
                same(sums - codes.sum(1, dtype=np.int32), codes[:, :columns].astype(np.int64) @ trits[row])
            store[count * wide:] = 99
        for count in (4, 8, 12, 132, 260):
            for codes in (rng.integers(-127, 128, count), np.full(count, 127), np.full(count, -127)):
                codes = codes.astype(np.int8)
                for rows in (rng.integers(0, 300, count), np.ones(count), np.full(count, 2)):
                    rows = rows.astype(np.int32)
                    sums = tried(1, rows, codes, np.zeros(256 * pieces, np.int32)) - codes.sum(dtype=np.int32)
                    same(sums[:columns], codes.astype(np.int64) @ trits[rows])
                    assert not sums[columns:wide].any()
