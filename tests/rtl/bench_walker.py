"""Bench of the walker in its fetch engine: walks, gathers and linear reads on a model memory, against places found
in Python.
"""

import os
import zlib
from collections import deque

import bench
import cocotb
from bench_memory import BURST, MASK, ModelMemory, idle_cycles, mixed
from sterna.firmware import isa
from sterna.hw.memory.port import MAX_BURST_WORDS, read_layout
from streams import StreamDriver, StreamMonitor

ADDRESS_BITS, STALL = int(os.environ.get("ADDRESS_BITS", "12")), float(os.environ.get("STALL", "0"))
BATCH, TREE_ROWS = int(os.environ.get("BATCH", "1")), int(os.environ.get("TREE_ROWS", "40"))
RECORD_BITS, DEPTH = int(os.environ.get("RECORD_BITS", "6")), int(os.environ.get("DEPTH", "64"))
COMMAND = read_layout(ADDRESS_BITS, TREE_ROWS)


def goes_right(address, salt):
    """The sign of the row of a record (bool)."""
    return bool(zlib.crc32(f"{address & MASK} {salt}".encode()) & 16)


def visits(command, slots, salt):
    """Records (their number within the table) that a walk reads, in order: the rows of docs/image-format.md."""
    trees, levels, always = command["trees"], command["levels"], command["always"]
    nodes, words = (1 << levels) - 1, command["words"]
    found = [row for row in range(always) for _ in range(slots)]
    at = [[0] * slots for _ in range(trees)]
    for _ in range(levels):
        for tree in range(trees):
            for slot in range(slots):
                row = always + tree * nodes + at[tree][slot]
                found.append(row)
                right = goes_right(command["address"] + row * words, (salt, slot))
                at[tree][slot] = 2 * at[tree][slot] + 1 + right
    return found


def random_walk(random):
    """A shape of trees with at most TREE_ROWS visited rows, often with just as many."""
    levels = random.choice([1, 1, 2, 3, random.randint(1, 10)])
    trees = random.randint(1, max(1, min(TREE_ROWS // levels, random.choice([1, 3, TREE_ROWS]))))
    rest = TREE_ROWS - trees * levels
    return {"trees": trees, "levels": levels, "always": random.choice([0, 0, 1, rest, random.randint(0, rest)])}


class Consumer:
    """Stands for the array: the signs of a walk's records, in order, some cycles after their last words."""

    def __init__(self, dut, words, delay):
        self.dut, self.words, self.delay, self.random = dut, words, delay, bench.rng("signs")
        self.records = deque()  # (words of the stream up to its end, sign)
        dut.sign.value = 0
        cocotb.start_soon(self._run())

    async def _run(self):
        cycle, due, last = 0, deque(), 0
        while True:
            await bench.cycles(self.dut)
            cycle += 1
            while self.records and self.records[0][0] <= len(self.words.items):
                last = max(last + 1, cycle + self.random.randint(0, self.delay))
                due.append((last, self.records.popleft()[1]))
            gives = due and due[0][0] <= cycle
            positive = due.popleft()[1] if gives else self.random.getrandbits(1)
            self.dut.sign.value = bool(gives) | positive << 1


class Stream:
    """What the words of a sequence of commands are, and the signs that they bring."""

    def __init__(self, driver, consumer):
        self.driver, self.consumer = driver, consumer
        self.words, self.path, self.salt = [], [], 0
        self.parts = []  # (address, words) that no burst may reach beyond

    def read(self, address, words):
        self.parts.append((address & MASK, words))
        self.words += [mixed((address + k) & MASK) for k in range(words)]

    def linear(self, address, words):
        self.driver.send({"kind": isa.KIND_LINEAR, "address": address, "words": words})
        self.read(address, words)

    def walk(self, address, words, slots, shape):
        command = {"kind": isa.KIND_WALK, "address": address, "words": words} | shape
        self.salt += 1
        self.path = visits(command, slots, self.salt)
        self.driver.send(command)
        for k, row in enumerate(self.path):
            place = address + row * words
            self.read(place, words)
            self.consumer.records.append((len(self.words), goes_right(place, (self.salt, k % slots))))

    def gather(self, address, words):
        self.driver.send({"kind": isa.KIND_GATHER, "address": address, "words": words})
        for row in self.path:
            self.read(address + row * words, words)


def begin(dut, stall, latency, delay):
    driver = StreamDriver(dut, "command", COMMAND, stall)
    bursts = StreamMonitor(dut, "bursts", BURST, stall)
    words = StreamMonitor(dut, "words", None, stall)
    ModelMemory(dut, bursts, "arriving", latency)
    consumer = Consumer(dut, words, delay)
    return Stream(driver, consumer), bursts, words


def covered(bursts, parts):
    """Whether the bursts are those of the parts, in order: none reaches into the next part."""
    limit, left = min(MAX_BURST_WORDS, DEPTH // 4), deque(bursts)
    for address, words in parts:
        while words:
            burst = left.popleft()
            assert (burst["address"], burst["length"]) == (address & MASK, min(words, limit))
            address, words = address + burst["length"], words - burst["length"]
    return not left


@cocotb.test()
async def walks(dut):
    """Random walks and gathers between linear reads: every word in its place, for any time of a sign."""
    random = bench.rng("walks")
    stream, bursts, words = begin(dut, STALL, int(os.environ["LATENCY"]), int(os.environ["DELAY"]))
    await bench.start(dut)
    for _ in range(int(os.environ.get("PARTS", "5"))):
        slots = 1
        if BATCH > 1:
            active = random.choice([(1 << BATCH) - 1, random.randrange(1, 1 << BATCH)])
            dut.active.value, slots = active, active.bit_count()
        for _ in range(4):
            if random.random() < 0.7:
                stream.linear(random.getrandbits(ADDRESS_BITS), random.choice([1, 2, random.randint(1, 2 * DEPTH)]))
            shape = random_walk(random)
            records = slots * (shape["always"] + shape["trees"] * shape["levels"])
            size = random.choice([1, 2, random.randint(1, min((1 << RECORD_BITS) - 1, 2 + 600 // records))])
            stream.walk(random.getrandbits(ADDRESS_BITS), size, slots, shape)
            for _ in range(random.choice([0, 1, 1, 2])):  # one in a program; any number of tables has these places
                stream.gather(random.getrandbits(ADDRESS_BITS), size)
        if random.random() < 0.5:
            stream.linear(random.getrandbits(ADDRESS_BITS), random.randint(1, DEPTH))
        await words.receive(len(stream.words), 40_000)
        await idle_cycles(dut, 30)
        await bench.settled(dut)
        assert int(dut.idle.value)
        await bench.cycles(dut)
        assert words.items == stream.words
    assert covered(bursts.items, stream.parts)


@cocotb.test()
async def timing(dut):
    """A child's burst is offered in the cycle behind its sign; a gather asks for a record every third cycle."""
    stream, bursts, words = begin(dut, 0.0, 3, 0)
    await bench.start(dut)
    shape = {"trees": 1, "levels": 6, "always": 0}
    stream.walk(100, 3, 1, shape)
    waited = []
    sign = None
    for cycle in range(300):
        await bench.settled(dut)
        if int(dut.bursts__valid.value) and sign is not None:
            waited.append(cycle - sign)
            sign = None
        if int(dut.sign.value) & 1:
            sign = cycle
        await bench.cycles(dut)
    assert waited == 5 * [1] and words.items == stream.words  # the last sign is a leaf's
    stream.walk(0, 1, 1, {"trees": 13, "levels": 3, "always": 1})
    await words.receive(len(stream.words))
    await idle_cycles(dut, 20)
    before = len(bursts.items)
    stream.gather(7, 1)
    cycles = 0
    while len(bursts.items) < before + 40:
        await bench.cycles(dut)
        cycles += 1
    assert cycles <= 3 * 40 + 8, cycles
    await words.receive(len(stream.words))
    assert words.items == stream.words
