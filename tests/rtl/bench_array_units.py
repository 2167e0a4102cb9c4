"""Bench of the parts of the ternary array: decoder, row accumulator, activation buffers, row queue."""

import math
import os

import bench
import cocotb
import numpy as np
from amaranth.hdl import signed
from amaranth.lib import data
from sterna.sim.golden.trits import decode_trits, encode_trits
from streams import StreamMonitor, pack, unpack

generator = np.random.default_rng(bench.SEED)
TRITS, LATENCY, COLUMNS, ROWS, LANES, DEPTH, WORDS, BATCH, BITS = (
    int(os.environ.get(name, "0")) for name in ("TRITS", "LATENCY", "COLUMNS", "ROWS", "LANES", "DEPTH", "WORDS",
                                                "BATCH", "BITS"))


def codes_of(*shape):
    """Random int8 codes from -127 to 127, the ends often."""
    wide = generator.integers(-127, 128, shape)
    return np.where(generator.random(shape) < 0.3, generator.choice([-127, 127, 0], shape), wide)


def trit_bits(trits):
    """Flat number of decoded trits: nonzero in bit 2 k, negative in bit 2 k + 1."""
    return sum(((t != 0) | (t < 0) << 1) << 2 * k for k, t in enumerate(int(t) for t in trits))


@cocotb.test()
async def decoder(dut):
    """Every byte in every place (trit5), every trit in every place (bit2), a tile per cycle or with gaps."""
    code = os.environ["CODE"]
    tile_bytes = len(dut.tile) // 8
    if code == "trit5":
        tiles = np.stack([np.roll(generator.permutation(256), k) for k in range(tile_bytes)], 1).astype(np.uint8)
    else:
        tiles = encode_trits(generator.integers(-1, 2, (256, TRITS)).astype(np.int8), code)
    expected = decode_trits(tiles, TRITS, code)
    assert set(np.unique(expected)) == {-1, 0, 1}
    await bench.start(dut)
    entered, leaves = 0, []  # tiles given; (cycle, tile) at which each is seen
    for cycle in range(3 * len(tiles)):
        valid = entered < len(tiles) and (entered < 64 or generator.random() < 0.7)
        tile = tiles[entered] if valid else generator.integers(0, 256, tile_bytes, np.uint8)
        dut.tile.value, dut.valid.value = int.from_bytes(tile.tobytes(), "little"), int(valid)
        if valid:
            leaves.append((cycle + LATENCY, entered))
            entered += 1
        await bench.settled(dut)
        if leaves and leaves[0][0] == cycle:
            at = leaves.pop(0)[1]
            assert int(dut.trits.value) == trit_bits(expected[at]), (cycle, tiles[at])
        await bench.cycles(dut)
    assert entered == len(tiles) and not leaves


@cocotb.test()
async def row_accumulator(dut):
    """Rows of 1 to many chunks, back to back or with gaps in enable; garbage on the inputs in the
    gaps. Two of the longest rows have the largest sum and the smallest.
    """
    beats = []  # (codes, trits, enable, last, total of the row that ends here)
    for row in range(120):
        chunks = int(generator.choice([1, 1, 2, 3, 17]))
        if row in (60, 61):
            chunks = WORDS
        codes, trits = codes_of(chunks, COLUMNS), generator.integers(-1, 2, (chunks, COLUMNS))
        if row in (60, 61):
            trits = generator.choice([-1, 1], trits.shape)
            codes = trits * (127 if row == 60 else -127)
        for k in range(chunks):
            while row % 3 and generator.random() < 0.3:
                noise = codes_of(COLUMNS), generator.integers(-1, 2, COLUMNS)
                beats.append((*noise, 0, int(generator.integers(2)), None))
            last = k == chunks - 1
            beats.append((codes[k], trits[k], 1, int(last), int((codes * trits).sum()) if last else None))
    await bench.start(dut)
    latency, held = LATENCY, None
    for cycle in range(len(beats) + latency):
        codes, trits, enable, last, _ = beats[min(cycle, len(beats) - 1)]
        dut.activations.value = pack(data.ArrayLayout(signed(8), COLUMNS), [int(c) for c in codes])
        dut.trits.value = trit_bits(trits)
        dut.enable.value, dut.last.value = enable if cycle < len(beats) else 0, last
        await bench.settled(dut)
        if cycle >= latency:
            total = beats[cycle - latency][4]
            held = total if total is not None else held
            if held is not None:
                assert unpack(signed(BITS), int(dut.sum.value)) == held, (cycle, held)
        await bench.cycles(dut)


UNKNOWN = 999  # a code that has not been written


@cocotb.test()
async def activation_buffers(dut):
    """Writes to one buffer while the other (and finished words of the same) are read; gaps between beats."""
    model = np.full((2, BATCH, WORDS, COLUMNS), UNKNOWN, np.int64)
    shape = data.ArrayLayout(signed(8), BATCH * LANES)
    random = bench.rng("buffers")
    await bench.start(dut)
    pending = []  # expected words, two cycles later

    async def cycle(buffer, address):
        dut.buffer.value, dut.address.value = buffer, address
        pending.append(model[buffer, :, address].flatten())
        await bench.settled(dut)
        if len(pending) > 2:
            got = unpack(data.ArrayLayout(signed(8), BATCH * COLUMNS), int(dut.word.value))
            assert all(c in (g, UNKNOWN) for g, c in zip(got, pending[-3], strict=True)), (buffer, address)
        await bench.cycles(dut)

    for _ in range(10):
        target = random.randrange(2)
        count = random.randint(1, WORDS * COLUMNS // LANES)
        for beat in range(count):
            while random.random() < 0.3:
                dut.write__valid.value = 0
                dut.write__first.value, dut.write__buffer.value = random.randrange(2), random.randrange(2)
                await cycle(1 - target, random.randrange(WORDS))
            codes = codes_of(BATCH, LANES)
            dut.write__valid.value, dut.write__first.value, dut.write__buffer.value = 1, int(beat == 0), target
            dut.write__codes.value = pack(shape, [int(c) for c in codes.reshape(-1)])
            await cycle(1 - target, random.randrange(WORDS))
            model[target].reshape(BATCH, -1)[:, beat * LANES:(beat + 1) * LANES] = codes
        dut.write__valid.value = 0
        for address in range(WORDS):
            await cycle(target, address)


@cocotb.test()
async def row_queue(dut):
    """Tiles as dense as allowed under the credit rule, partial last tiles, a stalled reader."""
    random = bench.rng("queue")
    group = math.gcd(ROWS, LANES)
    per_tile = ROWS // group
    dut.tile_valid.value = 0
    rows = StreamMonitor(dut, "rows", data.ArrayLayout(signed(24), BATCH * LANES), stall=float(os.environ["STALL"]))
    await bench.start(dut)
    expected = []
    promised = 0
    for _ in range(30):
        count = random.randint(1, 6 * max(ROWS, LANES))
        matrix = generator.integers(-(1 << 23), 1 << 23, (BATCH, count))
        beats = [matrix[:, k:k + LANES] for k in range(0, count, LANES)]
        expected += beats
        for first in range(0, count, ROWS):
            end = min(count, first + ROWS)
            words = -(-end // LANES) - -(-first // LANES)  # that begin with this tile
            while promised + words - len(rows.items) > DEPTH:
                await bench.cycles(dut)
            promised += words
            tile = np.pad(matrix[:, first:end], ((0, 0), (0, ROWS - (end - first))), "wrap").reshape(-1)
            dut.tile.value = pack(data.ArrayLayout(signed(24), BATCH * ROWS), [int(v) for v in tile])
            dut.tile_valid.value, dut.last.value, dut.groups.value = 1, int(end == count), -(-(end - first) // group)
            await bench.cycles(dut)
            dut.tile_valid.value = 0
            await bench.cycles(dut, per_tile - 1 + (random.randint(0, 2) if random.random() < 0.3 else 0))
    await rows.receive(len(expected))
    await bench.cycles(dut, 20)
    assert len(rows.items) == len(expected)
    for got, beat in zip(rows.items, expected, strict=True):
        assert np.array_equal(np.reshape(got, (BATCH, LANES))[:, :beat.shape[1]], beat)
