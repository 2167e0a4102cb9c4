"""Bench of the array's side of trees behind its gearbox: matrices, walks and gathers against the layer's definition.

Everything of a record is made here from what a layer is: rows of trits, codes, sums. Codes and trits are arrays with
one row for each slot. A record's trits are cut into tiles of R C in their order, and padded to words with anything.
"""

import os

import bench
import cocotb
import numpy as np
from amaranth.hdl import signed
from amaranth.lib import data
from sterna.hw.array.array import Product
from sterna.hw.config import Config, most_visits
from sterna.sim.golden.trits import encode_trits, pack_matrix
from streams import StreamDriver, StreamMonitor, pack

generator = np.random.default_rng(bench.SEED)
CONFIG = Config(**eval(os.environ["CONFIG"]))  # repr of a dictionary
STALL = float(os.environ.get("STALL", "0"))
DENSE, WALK, GATHER = range(3)
ROWS, COLUMNS, LANES, BATCH = CONFIG.rows, CONFIG.columns, CONFIG.lanes, CONFIG.batch
SIZE = ROWS * COLUMNS
MOST = most_visits(CONFIG)
LONGEST = min(CONFIG.activation_words * COLUMNS, CONFIG.vector_words * LANES)  # of a row


class Bench:
    """The device with its drivers and monitors, and what it has to give."""

    def __init__(self, dut, stall=STALL):
        self.dut, self.random = dut, bench.rng("trees")
        self.beats, self.signs, self.seen, self.records, self.sections = [], [], [], [], []
        self.record_count = 0
        dut.activation__valid.value = 0
        dut.active.value = (1 << BATCH) - 1
        self.command = StreamDriver(dut, "command", Product, stall)
        self.words = StreamDriver(dut, "words", None, stall)
        self.rows = StreamMonitor(dut, "rows", data.ArrayLayout(signed(24), LANES * BATCH), stall)
        self.codes = np.zeros((2, BATCH, 0), int)
        self.active = list(range(BATCH))
        self.cycle = 0

    async def start(self):
        await bench.start(self.dut)
        cocotb.start_soon(self._watch())

    async def _watch(self):
        d = self.dut
        while True:
            await bench.settled(d)
            sign = d.sign.value  # a structure of two bits; `positive` may be undefined where it is not valid
            if int(sign[0]):
                self.seen.append(int(sign[1]))
            if int(d.record_done.value):
                self.records.append(self.cycle)
            if int(d.done.value):
                assert int(d.record_done.value)
                self.sections.append(self.cycle)
            assert int(d.busy.value) or not (int(d.stall_stream.value) or int(d.stall_rows.value))
            self.cycle += 1
            await bench.cycles(d)

    async def fill(self, codes):
        """Writes the codes int [2, B, count] into the buffers; count is a multiple of V."""
        self.codes = codes
        for buffer in range(2):
            for first in range(0, codes.shape[2], LANES):
                part = [int(c) for c in codes[buffer, :, first:first + LANES].reshape(-1)]
                self.dut.activation__valid.value, self.dut.activation__first.value = 1, int(first == 0)
                self.dut.activation__buffer.value = buffer
                self.dut.activation__codes.value = pack(data.ArrayLayout(signed(8), len(part)), part)
                await bench.cycles(self.dut)
        self.dut.activation__valid.value = 0

    def choose(self, active):
        """Makes these slots the active ones."""
        self.active = sorted(active)
        self.dut.active.value = sum(1 << slot for slot in active)

    def _send(self, run):
        run = bytes(run)
        run += generator.bytes(-len(run) % CONFIG.port_bytes)
        self.words.send(*(int.from_bytes(run[k:k + CONFIG.port_bytes], "little")
                          for k in range(0, len(run), CONFIG.port_bytes)))

    def matrix(self, buffer, trits):
        """Queues a product of a matrix int8 [rows, chunks * C]."""
        chunks = trits.shape[1] // COLUMNS
        self._send(pack_matrix(trits, ROWS, COLUMNS, CONFIG.weight_code).tobytes())
        self.command.send({"mode": DENSE, "buffer": buffer, "rows": len(trits), "chunks": chunks})
        self._expect(self.codes[buffer, :, :trits.shape[1]] @ trits.T.astype(int), range(BATCH))
        self.record_count += 1

    def walk(self, buffer, trits):
        """Queues a walk along rows of trits int8 [N, B, H]."""
        length = trits.shape[2]
        codes = self.codes[buffer, :, :length]
        self._records(trits)
        self.command.send({"mode": WALK, "buffer": buffer, "rows": len(trits), "chunks": -(-length // SIZE)})
        sums = np.einsum("sj,isj->si", codes, trits.astype(int))
        self._expect(sums, self.active)
        self.signs += [int(sums[slot, i] > 0) for i in range(len(trits)) for slot in self.active]
        return sums

    def gather(self, buffer, trits):
        """Queues a gather of rows of trits int8 [N, B, H]."""
        count, _, length = trits.shape
        self._records(trits)
        self.command.send({"mode": GATHER, "buffer": buffer, "rows": count, "chunks": -(-length // SIZE),
                           "length": length})
        sums = np.einsum("si,isj->sj", self.codes[buffer, :, :count], trits.astype(int))
        self._expect(sums, self.active)
        return sums

    def _records(self, trits):
        for row in trits:
            for slot in self.active:
                tiles = np.pad(row[slot], (0, -len(row[slot]) % SIZE)).reshape(-1, SIZE)
                self._send(encode_trits(tiles, CONFIG.weight_code).tobytes())
                self.record_count += 1

    def _expect(self, sums, slots):
        sums = np.where(np.isin(np.arange(BATCH), list(slots))[:, None], sums, 0)
        self.beats += [sums[:, k:k + LANES].tolist() for k in range(0, sums.shape[1], LANES)]

    async def check(self):
        """Waits for all that was queued and compares it."""
        await self.rows.receive(len(self.beats))
        await bench.cycles(self.dut, 40)
        assert len(self.rows.items) == len(self.beats)
        for number, (got, want) in enumerate(zip(self.rows.items, self.beats, strict=True)):
            for slot, part in enumerate(want):
                assert got[slot * LANES:slot * LANES + len(part)] == part, (number, slot, got, want)
        assert self.seen == self.signs
        assert len(self.records) == self.record_count
        assert not int(self.dut.busy.value) and not self.words.items


def trits_of(*shape):
    """Random trits."""
    return generator.integers(-1, 2, shape).astype(np.int8)


def codes_of(count):
    """Random codes of both buffers and all slots, int [2, B, count], the ends often."""
    shape = 2, BATCH, -(-count // LANES) * LANES
    ends, inner = generator.choice([-127, 127, 0], shape), generator.integers(-127, 128, shape)
    return np.where(generator.random(shape) < 0.3, ends, inner)


def rows_of(count, length, codes):
    """Rows int8 [count, B, length]; in some the sum with the codes [B, length] is 0, or as large as can be."""
    rows = trits_of(count, BATCH, length)
    kind = generator.integers(0, 8, (count, BATCH))
    rows[kind == 0] = 0
    sign = np.sign(codes[:, :length]).astype(np.int8)
    for i, slot in zip(*np.nonzero(kind == 1), strict=True):
        rows[i, slot] = sign[slot]
    for i, slot in zip(*np.nonzero(kind == 2), strict=True):
        rows[i, slot] = -sign[slot]
    for i, slot in zip(*np.nonzero(kind == 3), strict=True):  # two equal codes cancel
        equal = np.nonzero(codes[slot, :length] == codes[slot, 0])[0]
        rows[i, slot] = 0
        if len(equal) > 1:
            rows[i, slot, [0, equal[-1]]] = 1, -1
    rows[kind == 4] = 1
    return rows


@cocotb.test()
async def queued(dut):
    """Matrices, walks and gathers in any order in one stream of words, slots that are not active, all stalls."""
    b = Bench(dut)
    await b.start()
    longest = min(LONGEST, int(os.environ.get("TILES", "6")) * SIZE)
    for _ in range(int(os.environ.get("ROUNDS", "6"))):
        count = b.random.randint(1, BATCH)
        b.choose(b.random.sample(range(BATCH), count))
        most = min(MOST, int(os.environ.get("VISITS", "20")))
        codes = codes_of(max(longest, min(CONFIG.activation_words * COLUMNS, MOST + 3 * LANES)))
        await b.fill(codes)
        for mode in b.random.choices([DENSE, DENSE, WALK, GATHER], k=6):
            buffer, length = b.random.randrange(2), b.random.randint(1, longest)
            if b.random.random() < 0.3:
                length = b.random.choice([1, SIZE, SIZE + 1, min(longest, 2 * SIZE), longest])
                length = min(longest, length)
            visits = b.random.choice([1, most, b.random.randint(1, most)])
            if mode == DENSE:
                rows = b.random.randint(1, 3 * max(ROWS, LANES))
                b.matrix(buffer, trits_of(rows, b.random.randint(1, -(-length // COLUMNS)) * COLUMNS))
            elif mode == WALK:
                b.walk(buffer, rows_of(visits, length, codes[buffer]))
            else:
                b.gather(buffer, rows_of(visits, length, codes[buffer]))
        await b.check()


@cocotb.test()
async def largest(dut):
    """Sums of the longest rows and of most rows, at both ends."""
    b = Bench(dut, 0.0)
    await b.start()
    length = LONGEST
    signs = generator.choice([-1, 1], (2, BATCH, -(-max(length, MOST) // LANES) * LANES))
    codes = 127 * signs
    await b.fill(codes)
    row = signs[0, :, :length].astype(np.int8)
    rows = np.stack([row, -row, row, -row])
    rows[2:, :, -1] *= -1
    sums = b.walk(0, rows)
    assert {*np.abs(np.ravel(sums))} == {127 * length, 127 * length - 254}
    length = min(LONGEST, 2 * SIZE)
    way = signs[1, :, :MOST].T[:, :, None].astype(np.int8)
    rows = way * np.where(np.arange(length) % 2, 1, -1).astype(np.int8)
    rows[0, :, 2:] *= -1
    sums = b.gather(1, rows)
    assert {127 * MOST, -127 * MOST} <= {*np.ravel(sums)}
    await b.check()


@cocotb.test()
async def rate(dut):
    """Words always at hand: no cycle is lost between records, and a gather's sums leave one word after another."""
    b = Bench(dut, 0.0)
    await b.start()
    tiles = min(9, LONGEST // SIZE)
    await b.fill(codes_of(min(tiles * SIZE, CONFIG.activation_words * COLUMNS)))
    words = -(-tiles * CONFIG.tile_bytes // CONFIG.port_bytes)
    visits = min(MOST, 7)
    for queue in (b.walk, b.gather):
        first = len(b.records)
        queue(1, trits_of(visits, BATCH, tiles * SIZE - 1))
        beats = len(b.rows.items)
        while len(b.records) - first < visits * BATCH:
            await bench.cycles(dut)
        times = np.diff(b.records[first:])
        assert max(times) <= max(tiles, words) + (CONFIG.port_bytes % CONFIG.tile_bytes != 0), times
        assert sum(times) <= max(tiles, words) * len(times) + 1, times
        if queue == b.gather:
            at = b.cycle
            await b.rows.receive(len(b.beats))
            assert len(b.rows.items) - beats == len(b.beats) - beats
            drain = -(-(tiles * SIZE - 1) // LANES) * BATCH
            assert b.cycle - at <= drain + 16, (b.cycle - at, drain)
        else:
            await b.rows.receive(len(b.beats))
    await b.check()


@cocotb.test()
async def stopped(dut):
    """The reader stops: a walk and a gather wait for room in the row queue and lose nothing."""
    b = Bench(dut, 0.0)
    await b.start()
    length = min(LONGEST, (CONFIG.row_words + 9) * LANES)
    await b.fill(codes_of(min(max(length, SIZE), CONFIG.activation_words * COLUMNS)))
    b.rows.stall = 1.0
    await bench.cycles(dut)
    visits = MOST
    for queue in (b.gather, b.walk):
        rows = trits_of(2 if queue == b.gather else visits, BATCH, length if queue == b.gather else 1)
        queue(0, rows)
        beats = -(-(length if queue == b.gather else visits) // LANES)
        waits = 0
        while waits < 30 and not (beats <= CONFIG.row_words and not int(dut.busy.value)):
            await bench.settled(dut)
            waits = waits + 1 if int(dut.stall_rows.value) else 0
            await bench.cycles(dut)
        b.rows.stall = 0.3
        await b.rows.receive(len(b.beats))
        b.rows.stall = 1.0
        await bench.cycles(dut, 3)
    await b.check()


@cocotb.test()
async def short_records(dut):
    """Gathers of records with one tile and a few: every record waits for the sums of the one before it."""
    b = Bench(dut, 0.0)
    await b.start()
    await b.fill(codes_of(MOST))
    for tiles in range(1, min(7, LONGEST // SIZE) + 1):
        b.gather(tiles % 2, rows_of(min(MOST, 12), tiles * SIZE, b.codes[tiles % 2][:, :1].repeat(tiles * SIZE, 1)))
    await b.check()
