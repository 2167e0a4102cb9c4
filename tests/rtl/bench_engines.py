"""Bench of what stands between engines and the rest: rows, words and shares of several, under random stalls."""

import os
from itertools import islice

import cocotb
from bench import cycles, rng, settled, start
from sterna.firmware.layout import share
from streams import StreamDriver, StreamMonitor

ENGINES, UNIT, LANES = (int(os.environ[name]) for name in ("ENGINES", "UNIT", "LANES"))
PRODUCTS, SECTIONS = 8, 16
LAST = 1 << 15  # marks the last word of a section


def beats_of(random, rows):
    """Beats of a matrix, in its order, and what each engine's row queue gives for it."""
    beat_bits, turn = 24 * LANES, UNIT // LANES
    wanted = [random.getrandbits(beat_bits) for _ in range(-(-rows // LANES))]
    turns = [wanted[at:at + turn] for at in range(0, len(wanted), turn)]
    count = -(-share(rows, UNIT, ENGINES) // LANES)
    parts = []
    for k in range(ENGINES):
        part = [beat for one in turns[k::ENGINES] for beat in one]
        assert len(part) <= count
        parts.append(part + [random.getrandbits(beat_bits) for _ in range(count - len(part))])
    return wanted, parts


async def check(dut, stall):
    random = rng(stall)
    product = StreamDriver(dut, "product", stall=stall)
    queues = [StreamDriver(dut, f"queues__{k}", stall=random.random() * stall) for k in range(ENGINES)]
    rows = StreamMonitor(dut, "rows", stall=stall)
    parts = [StreamDriver(dut, f"parts__{k}", stall=random.random() * stall) for k in range(ENGINES)]
    words = StreamMonitor(dut, "words", stall=stall)
    await start(dut)
    wanted = []
    for _ in range(PRODUCTS):
        count = random.randint(1, random.choice([3, UNIT, 2 * UNIT * ENGINES]))
        beats, of_queues = beats_of(random, count)
        product.send(count)
        wanted += beats
        for queue, beats in zip(queues, of_queues, strict=True):
            queue.send(*beats)
    sections = []
    for _ in range(SECTIONS):
        section = [random.randrange(LAST) for _ in range(random.randint(1, 3 * ENGINES))]
        section[-1] |= LAST
        sections += section
        padded = iter([*section, *(random.getrandbits(16) for _ in range(-len(section) % ENGINES))])
        while turn := list(islice(padded, ENGINES)):
            for part, word in zip(parts, turn, strict=True):
                part.send(word)
    assert await rows.receive(len(wanted)) == wanted
    assert await words.receive(len(sections)) == sections
    for driver in (*queues, *parts):
        await driver.drain(1000)  # what no row or word stands for as well
    await cycles(dut, 3)
    await settled(dut)
    assert not int(dut.busy.value)
    assert len(rows.items) == len(wanted) and len(words.items) == len(sections)


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def rows_and_words_come_in_order(dut):
    await check(dut, 0.5)


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def and_without_stalls(dut):
    await check(dut, 0.0)


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def shares(dut):
    random = rng("shares")
    await start(dut)
    values = [0, 1, UNIT, UNIT + 1, UNIT * ENGINES, UNIT * ENGINES - 1, (1 << 24) - 1]
    values += [random.getrandbits(random.randint(1, 24)) for _ in range(20)]
    for value in values:
        dut.rows_of.value = value
        await cycles(dut, 2)
        await settled(dut)
        assert int(dut.share.value) == share(value, UNIT, ENGINES), value
