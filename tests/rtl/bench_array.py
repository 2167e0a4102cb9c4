"""Bench of the whole ternary array behind its gearbox: products of random matrices against NumPy.

Codes are arrays of B rows, one for each slot, with codes of its own.
"""

import math
import os

import bench
import cocotb
import numpy as np
from amaranth.hdl import signed
from amaranth.lib import data
from sterna.hw.array.array import Product
from sterna.hw.config import Config
from sterna.sim.golden.trits import pack_matrix
from streams import StreamDriver, StreamMonitor, pack

generator = np.random.default_rng(bench.SEED)
CONFIG = Config(**eval(os.environ["CONFIG"])) if "CONFIG" in os.environ else None  # repr of a dictionary
STALL = float(os.environ.get("STALL", "0"))


async def fill(dut, buffer, codes):
    """Writes the codes of all slots into an activation buffer."""
    lanes = CONFIG.lanes
    for first in range(0, codes.shape[1], lanes):
        dut.activation__valid.value, dut.activation__first.value = 1, int(first == 0)
        dut.activation__buffer.value = buffer
        part = [int(c) for c in codes[:, first:first + lanes].reshape(-1)]
        dut.activation__codes.value = pack(data.ArrayLayout(signed(8), len(part)), part)
        await bench.cycles(dut)
    dut.activation__valid.value = 0


def codes_of(count):
    """Random int8 codes of `count` places of each slot, the ends often."""
    shape = CONFIG.batch, count
    ends, inner = generator.choice([-127, 127, 0], shape), generator.integers(-127, 128, shape)
    return np.where(generator.random(shape) < 0.3, ends, inner)


def tiles_of(trits, chunks):
    """Tiles of a matrix as numbers, in image order."""
    c = CONFIG
    run = pack_matrix(trits, c.rows, c.columns, c.weight_code)
    tiles = run.reshape(-1, c.tile_bytes)
    assert len(tiles) == -(-len(trits) // c.rows) * chunks
    return [int.from_bytes(t.tobytes(), "little") for t in tiles]


def beats_of(trits, codes):
    """Rows of a product as beats: for each slot up to V."""
    sums = codes @ trits.T.astype(np.int64)
    return [sums[:, k:k + CONFIG.lanes].tolist() for k in range(0, len(trits), CONFIG.lanes)]


def rows_of(dut, stall=0.0):
    """A monitor of the rows."""
    return StreamMonitor(dut, "rows", data.ArrayLayout(signed(24), CONFIG.lanes * CONFIG.batch), stall)


def compare(items, expected):
    """Received beats against expected ones, which may be shorter."""
    lanes = CONFIG.lanes
    assert len(items) == len(expected)
    for number, (got, want) in enumerate(zip(items, expected, strict=True)):
        for slot, part in enumerate(want):
            first = slot * lanes
            assert got[first:first + len(part)] == part, (number, slot, got, want)


class Flags:
    """Counts cycles of the status outputs and checks what they must mean."""

    def __init__(self, dut):
        self.dut, self.done, self.stall_stream, self.stall_rows, self.busy, self.taken = dut, 0, 0, 0, 0, []
        cocotb.start_soon(self._run())

    async def _run(self):
        cycle = 0
        while True:
            await bench.settled(self.dut)
            d = self.dut
            busy, done = int(d.busy.value), int(d.done.value)
            stream, rows = int(d.stall_stream.value), int(d.stall_rows.value)
            took = int(d.tiles__valid.value) and int(d.tiles__ready.value)
            assert not (stream and rows) and (busy or not (stream or rows or done or took))
            assert not (took and (stream or rows)) and (took or not done)
            self.done, self.busy = self.done + done, self.busy + busy
            self.stall_stream, self.stall_rows = self.stall_stream + stream, self.stall_rows + rows
            if took:
                self.taken.append(cycle)
            cycle += 1
            await bench.cycles(self.dut)


@cocotb.test()
async def products(dut):
    """Pairs of products, one of each buffer, queued together; the buffers are refilled between the pairs."""
    c = CONFIG
    random = bench.rng("products")
    dut.activation__valid.value = 0
    command = StreamDriver(dut, "command", Product, STALL)
    tiles = StreamDriver(dut, "tiles", None, STALL)
    rows = rows_of(dut, STALL)
    await bench.start(dut)
    flags = Flags(dut)
    expected, products = [], 0
    most_chunks = min(c.activation_words, 9)
    for _ in range(int(os.environ.get("PAIRS", "4"))):
        for buffer in range(2):
            chunks = random.choice([1, 1, 2, 3, random.randint(1, most_chunks)])
            count = random.randint(1, 5 * max(c.rows, c.lanes))
            codes = codes_of(chunks * c.columns)
            trits = generator.integers(-1, 2, (count, chunks * c.columns)).astype(np.int8)
            await fill(dut, buffer, codes)
            command.send({"buffer": buffer, "rows": count, "chunks": chunks})
            tiles.send(*tiles_of(trits, chunks))
            expected += beats_of(trits, codes)
            products += 1
        await rows.receive(len(expected))
        assert flags.done == products
    await bench.cycles(dut, 30)
    compare(rows.items, expected)
    assert flags.done == products and not int(dut.busy.value)
    # Where a tile has several groups a short row waits for the row queue.
    assert STALL or flags.stall_rows == 0 or c.rows > math.gcd(c.rows, c.lanes)


@cocotb.test()
async def largest_sums(dut):
    """Rows as long as a buffer takes, with the largest sum, the smallest and those beside them."""
    c = CONFIG
    dut.activation__valid.value = 0
    command, tiles = StreamDriver(dut, "command", Product), StreamDriver(dut, "tiles")
    rows = rows_of(dut)
    await bench.start(dut)
    length = c.columns * c.activation_words
    codes = generator.choice([-127, 127], (1, length)) * generator.choice([-1, 1], (c.batch, 1))
    trits = np.sign(codes[:1] * np.array([[1], [-1], [1], [-1]])).astype(np.int8)
    trits[2:, -1] *= -1
    await fill(dut, 1, codes)
    command.send({"buffer": 1, "rows": len(trits), "chunks": c.activation_words})
    tiles.send(*tiles_of(trits, c.activation_words))
    expected = beats_of(trits, codes)
    most = 127 * length
    assert {most, -most, most - 254} <= {*np.ravel(codes @ trits.T.astype(np.int64))}
    await rows.receive(len(expected))
    compare(rows.items, expected)


@cocotb.test()
async def fed(dut):
    """Behind the gearbox: matrices padded to words follow each other in one stream; rows must not mix."""
    c = CONFIG
    random = bench.rng("fed")
    dut.activation__valid.value = 0
    command, words = StreamDriver(dut, "command", Product, STALL), StreamDriver(dut, "words", None, STALL)
    rows = rows_of(dut, STALL)
    await bench.start(dut)
    codes = [codes_of(3 * c.columns) for _ in range(2)]
    for buffer in range(2):
        await fill(dut, buffer, codes[buffer])
    expected = []
    for _ in range(10):
        buffer, chunks, count = random.randrange(2), random.randint(1, 3), random.randint(1, 3 * max(c.rows, c.lanes))
        trits = generator.integers(-1, 2, (count, chunks * c.columns)).astype(np.int8)
        run = pack_matrix(trits, c.rows, c.columns, c.weight_code).tobytes()
        run += generator.bytes(-len(run) % c.port_bytes)
        words.send(*(int.from_bytes(run[k:k + c.port_bytes], "little") for k in range(0, len(run), c.port_bytes)))
        command.send({"buffer": buffer, "rows": count, "chunks": chunks})
        expected += beats_of(trits, codes[buffer][:, :chunks * c.columns])
    await rows.receive(len(expected))
    await words.drain(20)
    compare(rows.items, expected)


@cocotb.test()
async def back_to_back(dut):
    """Two products queued: a tile every cycle, across the border. Then the reader stops and the queue holds."""
    c = CONFIG
    dut.activation__valid.value = 0
    command = StreamDriver(dut, "command", Product)
    tiles = StreamDriver(dut, "tiles")
    rows = rows_of(dut)
    await bench.start(dut)
    flags = Flags(dut)
    chunks = max(2, c.rows // math.gcd(c.rows, c.lanes))
    codes = [codes_of(chunks * c.columns) for _ in range(2)]
    expected = []
    for buffer in range(2):
        await fill(dut, buffer, codes[buffer])
    for buffer in range(2):
        trits = generator.integers(-1, 2, (7 * max(c.rows, c.lanes) // 2 + 1, chunks * c.columns)).astype(np.int8)
        command.send({"buffer": buffer, "rows": len(trits), "chunks": chunks})
        expected += beats_of(trits, codes[buffer])
        tiles.items.extend(tiles_of(trits, chunks))
    await rows.receive(len(expected))
    assert flags.done == 2
    assert flags.taken == list(range(flags.taken[0], flags.taken[0] + len(flags.taken))), "a bubble between tiles"
    compare(rows.items, expected)

    rows.stall = 1.0
    await bench.cycles(dut)
    count = (c.row_words + 6) * c.lanes + 1
    trits = generator.integers(-1, 2, (count, c.columns)).astype(np.int8)
    for _ in range(2):
        command.send({"buffer": 1, "rows": count, "chunks": 1})
        expected += beats_of(trits, codes[1][:, :c.columns])
        tiles.items.extend(tiles_of(trits, 1))
    before = len(flags.taken)
    await bench.cycles(dut, 3 * c.row_words * (c.lanes // math.gcd(c.rows, c.lanes)) + 60)
    assert (len(flags.taken) - before) * c.rows <= c.row_words * c.lanes, "more tiles than the row queue can hold"
    assert (len(flags.taken) - before) * c.rows > (c.row_words - 1) * c.lanes - c.rows, "credits were lost"
    assert int(dut.stall_rows.value) and int(dut.busy.value)
    assert not command.items, "the second product must wait inside, not at the door"
    rows.stall = 0.3
    await rows.receive(len(expected))
    await bench.cycles(dut, 30)
    compare(rows.items, expected)
    assert flags.done == 4 and not int(dut.busy.value)
