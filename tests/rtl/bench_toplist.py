"""Bench of the list of the best rows: strips against sim.golden.toplist, and the cycles that they take."""

import os

import bench
import cocotb
import numpy as np
from sterna.sim.golden import fp24, toplist

LANES, DEPTH, BEATS, ROW_BITS, PARTS = (int(os.environ[name])
                                        for name in ("LANES", "DEPTH", "BEATS", "ROW_BITS", "PARTS"))
STRIP = LANES * BEATS
KINDS = ("plain", "wide", "bits", "edge", "large", "few", "equal", "ascending", "descending")
FILL = 3  # cycles from a score to the comparison of its key


def bits_of(generator, kind, count):
    """fp24 bits of `count` numbers that are hard in one way."""
    if kind == "bits":
        bits = generator.integers(0, 1 << 24, count)
        return np.where(bits >> 15 & 255, bits, 0)
    if kind == "large":  # a few numbers apart, or a few units, whatever their size
        return large(generator, count)
    if kind == "edge":  # about the ends of the numbers and of the weights
        return fp24.to_bits(fp24.round24(generator.choice(
            [1023.97, 1024, 1025, 2000, -1023.97, -1024, 1008, 1007.98, 1007.95, 2**-10, 2**-11, -2**-10, fp24.MAX,
             -fp24.MAX, fp24.MIN, 0], count)))
    if kind == "few":
        return fp24.to_bits(fp24.round24(generator.integers(-2, 3, count) / 2))
    if kind == "equal":
        return np.full(count, fp24.to_bits(generator.choice([0.0, -1.5, fp24.MAX, -fp24.MAX])))
    numbers = fp24.round24(generator.standard_normal(count) * {"wide": 20.0}.get(kind, 1.5))
    if kind in ("ascending", "descending"):
        numbers = np.sort(numbers) * (1 if kind == "ascending" else -1)
    return fp24.to_bits(numbers)


def large(generator, count):
    """fp24 bits of `count` numbers near a number of 2^2 or more in magnitude."""
    exponent = int(generator.choice([*range(2, 26), 60, 128]))
    factor = generator.choice([1, 1, 1.5, 2 - 2**-15, generator.uniform(1, 2)])
    base = generator.choice([-1, 1]) * 2.0**exponent * factor
    if generator.random() < 0.5:
        apart = generator.choice([1, 4, 8, 15, 16, 17, 32, 48, 63, 64, 65, 128], count)
        apart = apart * generator.integers(-1, 2, count) + generator.choice([0, 0, 1], count) / 7
        return fp24.to_bits(fp24.round24(base + apart))
    # Keys: integers in the order of the numbers.
    bits = int(fp24.to_bits(fp24.round24(base)))
    key = (bits & 0x7FFFFF) * (-1 if bits >> 23 else 1)
    keys = key + (generator.integers(-2, 3, count) << generator.integers(0, 18, count))
    keys += generator.integers(-1, 2, count)
    return np.clip(np.abs(keys), 1 << 15, 0x7FFFFF) | (keys < 0) << 23


class Unit:
    """The device, and what it has been given since the last start."""

    def __init__(self, dut):
        self.dut = dut
        self.random = bench.rng("toplist")
        self.numbers = np.random.default_rng(bench.SEED)
        self.k = self.p = 0
        self.keys, self.scores = [], []
        for name in ("start", "keys", "scores", "mask", "values", "k", "p"):
            getattr(dut, name).value = 0

    async def start(self, k, p):
        """A new sampling; k and p count in the cycle of `start` alone."""
        dut = self.dut
        dut.start.value, dut.k.value, dut.p.value = 1, k, p
        await self.cycle()
        dut.start.value = 0
        dut.k.value, dut.p.value = self.random.getrandbits(8), self.random.getrandbits(16)
        self.k, self.p, self.keys, self.scores = min(k, DEPTH), p, [], []

    async def cycle(self, member=None):
        """One cycle, in which a beat may be offered; what is not offered is noise."""
        dut = self.dut
        if member:
            getattr(dut, member).value = 1
        else:
            dut.values.value, dut.mask.value = self.random.getrandbits(24 * LANES), self.random.getrandbits(LANES)
        await bench.cycles(dut)
        dut.keys.value = dut.scores.value = 0

    async def offer(self, member, numbers, stall=0.0):
        """Beats of keys or scores; those of a strip are given without pause unless it stalls."""
        dut = self.dut
        for at in range(0, len(numbers), LANES):
            part = [int(number) for number in numbers[at:at + LANES]]
            while self.random.random() < stall:
                await self.cycle()
            noise = [self.random.getrandbits(24) for _ in range(LANES - len(part))]
            dut.values.value = sum(number << 24 * lane for lane, number in enumerate(part + noise))
            dut.mask.value = (1 << len(part)) - 1
            await self.cycle(member)

    async def strip(self, keys, scores, stall=0.0):
        """The keys of a strip, once the queue is free, and its scores."""
        await self.until("pending")
        await self.offer("keys", keys, stall)
        while self.random.random() < stall:
            await self.cycle()
        await bench.settled(self.dut)
        assert int(self.dut.pending.value) == (self.k > 0)
        await bench.cycles(self.dut)
        await self.offer("scores", scores, stall)
        self.keys += [int(key) for key in keys]
        self.scores += [int(score) for score in scores]

    async def until(self, member, then=None):
        """Cycles until `pending` or `busy` is 0; calls ``then`` in that cycle, and returns behind it."""
        bound = STRIP * (DEPTH + 2) + 3 * DEPTH + 100
        for waited in range(bound):
            await bench.settled(self.dut)
            low = not int(getattr(self.dut, member).value)
            if low and then:
                then()
            await bench.cycles(self.dut)
            if low:
                return waited
        raise AssertionError(f"{member} after {bound} cycles")

    def _compare(self):
        dut = self.dut
        assert not int(dut.pending.value)
        assert int(dut.holds.value) == (self.k > 0 and len(self.keys) > 0)
        if int(dut.holds.value):
            expected = toplist.choose(fp24.from_bits(self.keys), fp24.from_bits(self.scores), self.k, self.p)
            assert int(dut.best.value) == expected, (self.k, self.p, int(dut.best.value), expected, len(self.keys))

    async def check(self):
        """Waits for the choice, compares it and returns the cycles waited."""
        return await self.until("busy", self._compare)

    def settings(self):
        """k and P of a sampling."""
        k = self.random.choice([1, 2, DEPTH, 255, self.random.randint(1, DEPTH), self.random.randint(1, DEPTH)])
        p = self.random.choice([0, 0, 1, 65535, 32768, *(self.random.randint(low, 65535) for low in (1, 50000))])
        return min(k, 255), p

    def rows(self, count, noise=None):
        """Keys and scores of `count` rows."""
        keys = bits_of(self.numbers, self.random.choice(KINDS), count)
        if noise or self.random.random() < 0.6:
            gumbel = fp24.round24(self.numbers.gumbel(size=count))
            return keys, fp24.to_bits(fp24.add(fp24.from_bits(keys), gumbel))
        return keys, bits_of(self.numbers, self.random.choice(KINDS), count)


def cost(keys, k):
    """Cycles that the elements of a strip take, on a list that was empty."""
    held, cycles, settles = [], 0, 0
    for key in (float(number) for number in fp24.from_bits(keys)):
        cycles += 1 + settles
        settles = len(held) < k or key > held[-1]  # a cycle before the next element is compared
        if settles:
            place = sum(other >= key for other in held)
            cycles += min(len(held), k - 1) - place + 1
            held = [*held[:place], key, *held[place:]][:k]
    return cycles


@cocotb.test()
async def samplings(dut):
    """Samplings one after the other, some cut off, with strips of any length at any moment."""
    unit = Unit(dut)
    await bench.start(dut)
    for part in range(PARTS):
        await unit.start(*unit.settings())
        stall = unit.random.choice([0.0, 0.0, 0.5])
        for _ in range(unit.random.randint(1, 6)):
            count = unit.random.choice([1, LANES, STRIP, STRIP, unit.random.randint(1, STRIP)])
            await unit.strip(*unit.rows(count), stall)
            move = unit.random.random()
            if move < 0.3:
                await unit.check()
            elif move < 0.6:  # the next strip comes some time into the insertions or the choice
                await unit.until("pending")
                for _ in range(unit.random.randint(0, 4 * DEPTH + 40)):
                    await unit.cycle()
        if part % 4:
            await unit.check()
        elif part % 8:  # the next start comes between keys and scores
            await unit.until("pending")
            await unit.offer("keys", unit.rows(STRIP)[0])


@cocotb.test()
async def cut_off(dut):
    """A start at every moment of a strip's insertions, and a beat at every moment of a choice."""
    unit = Unit(dut)
    await bench.start(dut)
    for wait in range(6 * LANES + 12):
        await unit.start(DEPTH, 0)
        keys = bits_of(unit.numbers, "ascending", STRIP)
        await unit.strip(keys, keys)
        for _ in range(wait):
            await unit.cycle()
        await unit.start(*unit.settings())
        await unit.strip(*unit.rows(LANES + 1 if BEATS > 1 else 1))
        await unit.check()
    for wait in range(3 * min(DEPTH, STRIP) + 40):
        await unit.start(DEPTH, 50000)
        await unit.strip(*unit.rows(STRIP, noise=True))
        await unit.until("pending")
        for _ in range(wait + STRIP // 2):
            await unit.cycle()
        await unit.strip(*unit.rows(1))
        await unit.check()


@cocotb.test()
async def every_k_and_p(dut):
    """Every k, and small and large P, on samplings of a few strips that fill the list."""
    unit = Unit(dut)
    await bench.start(dut)
    ps = [0, 1, 2, 65534, 65535, *(unit.random.randint(1, 65535) for _ in range(3))]
    for k in range(1, DEPTH + 1):
        await unit.start(k, ps[k % len(ps)])
        for _ in range(max(2, DEPTH // STRIP + 1)):
            await unit.strip(*unit.rows(STRIP, noise=True))
        await unit.check()


@cocotb.test()
async def edges_of_p(dut):
    """The largest P for which an entry does not take part and the next one, for which it does; also where the sums of
    both sides are equal, or differ by less than 2^16.
    """
    unit = Unit(dut)
    await bench.start(dut)
    wanted = {"equal": 2, "close": 2} if min(STRIP, DEPTH) > 2 else {}
    for part in range(20 * PARTS):
        kind = unit.random.choice(["edge", "few", "equal", "plain"])
        count = unit.random.choice([2, 4, unit.random.randint(1, STRIP)])
        keys = bits_of(unit.numbers, kind, min(count, STRIP))
        rows = toplist.best_rows(fp24.from_bits(keys), DEPTH)
        listed = fp24.from_bits(keys)[rows]
        weights = [toplist.weight(toplist.fix(listed[0]) - toplist.fix(t)) for t in listed]
        j = unit.random.randint(0, len(rows) - 1)
        p = (sum(weights[:j]) << 16) // sum(weights)
        rest = p * sum(weights) - (sum(weights[:j]) << 16), (p + 1) * sum(weights) - (sum(weights[:j]) << 16)
        found = "equal" if j and rest[0] == 0 else "close" if 0 < rest[1] < 1 << 15 else None
        if part >= PARTS and not wanted.get(found):
            continue
        if wanted.get(found):
            wanted[found] -= 1
        # The later in the list, the better.
        scores = np.zeros(len(keys), np.int64)
        scores[rows] = fp24.to_bits(np.arange(len(rows)) + 1.0)
        for code in (p, p + 1):
            if 1 <= code <= 65535:
                await unit.start(DEPTH, code)
                await unit.strip(keys, scores)
                await unit.check()
    assert not any(wanted.values()), wanted


@cocotb.test()
async def large_numbers(dut):
    """Entries at either side of every distance where a weight begins, ends or would begin again,
    for first entries of every size.
    """
    unit = Unit(dut)
    await bench.start(dut)
    places = min(STRIP, DEPTH)
    if places < 8:
        return
    most = 2 - 2.0**-15
    firsts = [sign * factor * 2.0**e for sign in (1, -1) for factor in (1, most)
              for e in (4, 5, 6, 19, 20, 21)]
    firsts += [unit.random.choice([-1, 1]) * unit.random.choice([1, 1.5, most]) * 2.0**e
               for e in (-12, -11, -1, 0, 3, 10, 14, 18, 22, 26, 64, 127, 128)]
    distances = [15.9, 16, 16.1, 31.9, 32, 33, 47, 48, 63.9, 64, 64.5, 79, 80, 127.9, 128, 129, 192,
                 1024.5, *(2.0**k + k % 2 for k in range(16, 40))]
    for first in firsts:
        steps = [0, 2.0**-11, 2.0**-10, 0.5, 1, 8, *unit.numbers.choice(distances, 40)]
        others = fp24.round24(first - np.array(steps))[:places - 1]
        keys = fp24.to_bits(np.concatenate([unit.numbers.permutation(others), [first]]))
        listed = fp24.from_bits(keys)[toplist.best_rows(fp24.from_bits(keys), DEPTH)]
        weights = [toplist.weight(toplist.fix(listed[0]) - toplist.fix(t)) for t in listed]
        # The limits of P move with any weight, and the later in the list, the better is the score.
        scores = np.zeros(len(keys), np.int64)
        order = toplist.best_rows(fp24.from_bits(keys), len(keys))
        scores[order] = fp24.to_bits(np.arange(len(keys)) + 1.0)
        count = sum(w > 0 for w in weights)
        for part in {1, count, min(len(weights), count + 1)}:
            limit = (sum(weights[:part]) << 16) // sum(weights)
            for code in (limit, limit + 1):
                if 1 <= code <= 65535:
                    await unit.start(DEPTH, code)
                    await unit.strip(keys, scores)
                    await unit.check()


@cocotb.test()
async def times(dut):
    """The cycles of elements and choice are those that the docstrings state."""
    unit = Unit(dut)
    await bench.start(dut)
    for kind in KINDS:
        for k, p in ((DEPTH, 0), (1, 0), (max(1, DEPTH // 2), 65535), (DEPTH, 40000), unit.settings()):
            await unit.start(k, p)
            keys = bits_of(unit.numbers, kind, STRIP)
            await unit.strip(keys, keys)
            n = min(unit.k, STRIP)
            listed = fp24.from_bits(keys)[toplist.best_rows(fp24.from_bits(keys), unit.k)]
            passes = n + 3 if not p else 2 * n + toplist.taking_part(listed, p) + 37
            waited = await unit.check()
            assert BEATS + waited == FILL + cost(keys, unit.k) + passes, (kind, k, p, waited)


@cocotb.test()
async def without_list(dut):
    """k = 0 drops all beats, and scores without keys are dropped."""
    unit = Unit(dut)
    await bench.start(dut)
    await unit.start(0, 0)
    for _ in range(3):
        await unit.strip(*unit.rows(STRIP))
        assert not await unit.check()
    for k in (DEPTH, 1):
        await unit.start(k, 0)
        await unit.offer("scores", unit.rows(STRIP)[1])
        await unit.check()
        await unit.strip(*unit.rows(STRIP))
        await unit.check()
