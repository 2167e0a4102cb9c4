"""Bench of the pipelined arithmetic units: one operand set per cycle, results compared with the golden functions."""

import os

import bench
import cocotb
import numpy as np
from sterna.sim.golden import fp24, rng, tables

generator = np.random.default_rng(bench.SEED)
INTERESTING = np.array([0, 1 << 15, 1, 127 << 15, 0x3F8000 | 1, 0x3FFFFF, 0x400000, 0x7FFFFF, 0x7F8000,
                        1 << 15 | 0x7FFF, 126 << 15, 128 << 15, 255 << 15, 64 << 15, 63 << 15 | 0x7FFF, 190 << 15,
                        191 << 15 | 0x4000])


def canonical(bits):
    """fp24 bits without zeros that carry a sign or fraction."""
    return np.where((bits >> 15 & 255) == 0, 0, bits)


def numbers(count):
    """fp24 bits: uniform, close to 1, few fraction bits (ties), and corner values with either sign."""
    wide = generator.integers(0, 1 << 24, count)
    near = generator.integers(120, 136, count) << 15 | generator.integers(0, 1 << 15, count)
    few = generator.integers(0, 4, count) << generator.integers(0, 14, count)
    few |= generator.integers(110, 144, count) << 15
    corner = generator.choice(INTERESTING, count)
    picked = np.choose(generator.integers(0, 4, count), [wide, near, few, corner])
    return canonical(picked & 0x7FFFFF | generator.integers(0, 2, count) << 23)


def float_pairs(count):
    """Pairs for sum and product: independent, close magnitudes (cancellation), and exponent gaps around 16 to 19."""
    a, b = numbers(count), numbers(count)
    exponent = np.clip((a >> 15 & 255) - generator.integers(-1, 21, count), 0, 255)
    close = exponent << 15 | (a & 0x7FFF) ^ (generator.integers(0, 8, count) * generator.integers(0, 2, count))
    related = canonical(close | generator.integers(0, 2, count) << 23)
    return a, np.where(generator.random(count) < 0.6, related, b)


def shuffled(a, b):
    """The pairs with a random sign for both operands, and in a random order."""
    sign, swap = generator.integers(0, 2, len(a)) << 23, generator.random(len(a)) < 0.5
    a, b = canonical(a ^ sign), canonical(b ^ sign)
    return np.where(swap, b, a), np.where(swap, a, b)


def sums_at_the_ends():
    """Pairs whose difference is about the smallest number, behind each shift of the normalisation,
    and pairs whose sum is about the largest.

    Nothing rounds a sum up to the smallest number: all numbers are multiples of 2^-141, and so a
    sum below 2^-126 has at most 15 bits and is exact. The carry in the adder's flush decides
    nothing, then.
    """
    a, b = [], []
    for exponent in range(1, 20):
        for first in exponent << 15 | np.array([0, 1, 0x7FFF, *generator.integers(0, 1 << 15, 2)]):
            x, unit = fp24.from_bits(first), 2.0 ** (exponent - 142)
            wanted = fp24.MIN * np.array([0.5, 1, 2]) + unit * np.array([[-2], [-1], [0], [1]])
            others = fp24.to_bits(fp24.round24(np.ravel(wanted) - x))
            a, b = a + [first] * len(others), b + others.tolist()
    for distance in range(18):
        fractions = np.array([0, 1, 0x7FFF, 0x4000, *generator.integers(0, 1 << 15, 2)])
        below = (255 - distance) << 15 | fractions
        a += [0x7FFFFF, 0x7FFFFE, 0x7F8000] * len(below)
        b += np.repeat(below, 3).tolist()
    return shuffled(np.array(a), np.array(b))


def products_at_the_ends():
    """Pairs whose product is about the smallest number or the largest; among them those that only
    the carry of the rounding makes large enough, and too large.
    """
    f = np.concatenate([[0, 1, 0x7FFF], generator.integers(0, 1 << 15, 12)])
    significand = 32768 + f
    carried = (1 << 31) // significand  # the product is just below 2, and some round to 2
    others = [np.full_like(f, 32768), np.full_like(f, 65535), generator.integers(32768, 65536, len(f))]
    g = np.concatenate([carried, carried + 1, carried - 1, *others]) - 32768
    f, g = np.resize(f, len(g)), np.clip(g, 0, 32767)
    a, b = [], []
    for exponents in (125, 126, 127, 128, 380, 381, 382, 383):
        first = generator.integers(max(1, exponents - 255), min(255, exponents - 1) + 1, len(f))
        a += (first << 15 | f).tolist()
        b += (exponents - first << 15 | g).tolist()
    return shuffled(np.array(a), np.array(b))


async def compare(dut, inputs, output, latency, expected, late=()):
    """Feeds one set per cycle; inputs named in ``late`` come one cycle later. Compares after ``latency`` cycles."""
    count = len(expected)
    await bench.start(dut)
    wrong = []
    for cycle in range(count + latency):
        for name, values in inputs.items():
            k = cycle - (name in late)
            getattr(dut, name).value = int(values[k]) if 0 <= k < count else 0
        await bench.settled(dut)
        if cycle >= latency:
            k = cycle - latency
            got = int(getattr(dut, output).value)
            if got != int(expected[k]):
                wrong.append(({name: hex(int(v[k])) for name, v in inputs.items()}, hex(got), hex(int(expected[k]))))
        await bench.cycles(dut)
    assert not wrong, f"{len(wrong)} of {count} wrong, e.g. {wrong[:5]}"


COUNT = int(os.environ.get("COUNT", "4000"))
LATENCY = int(os.environ.get("LATENCY", "0"))


@cocotb.test()
async def adder(dut):
    a, b = map(np.concatenate, zip(float_pairs(COUNT), sums_at_the_ends(), strict=True))
    expected = fp24.to_bits(fp24.add(fp24.from_bits(a), fp24.from_bits(b)))
    await compare(dut, {"a": a, "b": b}, "sum", LATENCY, expected)


@cocotb.test()
async def multiplier(dut):
    a, b = numbers(COUNT), numbers(COUNT)
    quantise = generator.integers(0, 2, COUNT)
    # Products between 2^-3 and 2^9, where codes change, with many halves.
    aimed = np.clip(254 + generator.integers(-4, 10, COUNT) - (a >> 15 & 255), 1, 255) << 15
    aimed |= np.where(generator.random(COUNT) < 0.5, 0, generator.integers(0, 1 << 15, COUNT))
    b = canonical(np.where((generator.random(COUNT) < 0.8) & (quantise == 1), aimed, b))
    a, b = map(np.concatenate, zip((a, b), products_at_the_ends(), strict=True))
    quantise = np.concatenate([quantise, np.zeros(len(a) - COUNT, np.int64)])
    u, v = fp24.from_bits(a), fp24.from_bits(b)
    exact = u * v
    code = np.minimum(127, np.floor(np.abs(exact) + 0.5)).astype(np.int64)
    sign = (a ^ b) >> 23
    expected = np.where(quantise == 1, sign << 23 | 128 << 15 | code << 8, fp24.to_bits(fp24.mul(u, v)))
    await compare(dut, {"a": a, "b": b, "quantise": quantise}, "product", LATENCY, expected, late=("quantise",))


@cocotb.test()
async def from_int(dut):
    for mode in ("int", "raw", "fraction"):
        n = generator.integers(-1 << 23, 1 << 23, COUNT // 3) >> generator.integers(0, 24, COUNT // 3)
        n[:6] = [0, 1, -1, (1 << 23) - 1, -1 << 23, (1 << 23) - 128]
        if mode == "fraction":
            n = np.abs(n) & 0x7FFFFF | 1
        bits = n & 0xFFFFFF
        expected = {"int": fp24.to_bits(fp24.from_int(n)), "raw": bits,
                    "fraction": fp24.to_bits(fp24.round24(n * 2.0**-24))}[mode]
        dut.raw.value, dut.fraction.value = int(mode == "raw"), int(mode == "fraction")
        await compare(dut, {"x": bits}, "y", LATENCY, expected)


@cocotb.test()
async def serial(dut):
    random = bench.rng("serial")
    dut.offered.value, dut.pull.value, dut.release.value = 0, 0, 0
    await bench.start(dut)
    for mode in ("int", "raw", "fraction"):
        n = generator.integers(-1 << 15, 1 << 15, 300) >> generator.integers(0, 16, 300)
        n[:8] = [0, 1, -1, 2, -2, (1 << 15) - 1, -1 << 15, 255]
        if mode == "fraction":
            n = generator.integers(0, 1 << 23, 300) >> generator.integers(0, 23, 300) | 1
        if mode == "raw":
            n = numbers(300)
        expected = {"int": lambda: fp24.to_bits(fp24.from_int(n)), "raw": lambda: n,
                    "fraction": lambda: fp24.to_bits(fp24.round24(n * 2.0**-24))}[mode]()
        dut.raw.value, dut.fraction.value = int(mode == "raw"), int(mode == "fraction")
        taken, used, release_in = 0, 0, 0
        for _ in range(40 * len(n)):
            dut.x.value = int(n[taken]) & 0xFFFFFF if taken < len(n) else random.getrandbits(24)
            dut.offered.value = int(taken < len(n) and random.random() < 0.8)
            dut.release.value = int(release_in == 1)
            dut.pull.value = 0
            await bench.settled(dut)
            pull = bool(int(dut.valid.value)) and random.random() < 0.7
            dut.pull.value = int(pull)
            if int(dut.take.value):
                assert taken == used or release_in == 1, "an operand was taken over the one before"
                taken += 1
            if release_in or pull:
                # What was pulled stands until it is released, two cycles later.
                assert int(dut.y.value) == int(expected[used]), (mode, hex(int(n[used])), hex(int(dut.y.value)))
            if release_in == 1:
                used += 1
            release_in = max(0, release_in - 1)
            if pull:
                release_in = 2
            await bench.cycles(dut)
            if used == len(n):
                break
        assert used == len(n), (mode, used)


@cocotb.test()
async def lane(dut):
    functions = (None, tables.sigmoid, tables.recip, tables.rsqrt, tables.log2, tables.log1m, tables.exponent)
    for table, function in enumerate(functions):
        a, b, c = numbers(COUNT // 7), numbers(COUNT // 7), numbers(COUNT // 7)
        if table in (1, 5):
            edge = generator.integers(112, 132, len(a)) << 15 | generator.integers(0, 1 << 15, len(a))
            a = np.where(generator.random(len(a)) < 0.8, edge | a & 1 << 23, a)
        for negate in range(4):
            sign_p, sign_c = (-1.0 if negate & 1 else 1.0), (-1.0 if negate & 2 else 1.0)
            x, y, z = (fp24.from_bits(v) for v in (a, b, c))
            if 1 <= table <= 5:
                # Both signs flipped flips the result; with one flipped the parts are not visible in the function.
                if negate in (1, 2):
                    continue
                expected = fp24.to_bits(np.asarray(function(x)) * sign_p + 0.0)
            else:
                x = x if function is None else function(x)
                expected = fp24.to_bits(fp24.add(sign_p * fp24.mul(x, y) + 0.0, sign_c * z + 0.0))
            dut.table.value, dut.negate_product.value, dut.negate_c.value = table, negate & 1, negate >> 1
            dut.quantise.value = 0
            await compare(dut, {"a": a, "b": b, "c": c}, "r", LATENCY, expected, late=("b", "c"))


@cocotb.test()
async def random(dut):
    lanes = int(os.environ["LANES"])
    for seed, position, first in ((0, 0, 0), (0x12345678, 77, 1000), (0xFFFFFFFF, 0xFFFFFFFF, (1 << 24) - 9)):
        dut.take.value, dut.restart.value, dut.rekey.value = 0, 0, 0
        await bench.start(dut)
        dut.seed.value, dut.position.value, dut.rekey.value = seed, position, 1
        await bench.cycles(dut)
        dut.rekey.value = 0
        waited = await bench.until(dut, lambda: not int(dut.key_busy.value), 20)
        assert waited <= 10, waited
        stall = bench.rng("random")
        for base in (first, 5):
            dut.restart.value, dut.row.value = 1, base
            await bench.cycles(dut)
            dut.restart.value = 0
            got = []
            while len(got) < 60:
                await bench.settled(dut)
                take = int(dut.valid.value) and stall.random() < 0.5
                if take:
                    beat = int(dut.beat.value)
                    for k in range(lanes):
                        number = beat >> 26 * k & (1 << 26) - 1
                        got.append((number & (1 << 22) - 1, number >> 22))
                dut.take.value = int(take)
                await bench.cycles(dut)
                dut.take.value = 0
            rows = (base + np.arange(len(got))) % (1 << 24)
            v, n = rng.row_random(rng.key(seed, position), rows)
            assert [z for _, z in got] == list(n)
            assert list(fp24.round24((2 * np.array([f for f, _ in got]) + 1) * 2.0**-24)) == list(v)
