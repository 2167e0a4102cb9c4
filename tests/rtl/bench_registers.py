"""Bench of the host registers, the token ring and the run control."""

import os

import bench
import cocotb
from register_host import Host
from sterna.hw.config import Config
from sterna.hw.link.executor import Event
from sterna.hw.protocol import FLAT, VERSIONS, wide
from streams import StreamMonitor

CONFIG = Config(**eval(os.environ["CONFIG"]))  # repr of a dictionary by the launcher
STALL = float(os.environ.get("STALL", "0"))
NUMBER_BITS = CONFIG.register_bits  # of positions and tokens
REGISTERS, RING, PROGRAM, SCALARS = 0x90000000, 0xB0000000, 0x80000000, 0xA0000000
PULSES = {"program_write": ("address", "lane", "data"), "scalar_write": ("slot", "address", "data")}


def quiet_inputs(dut):
    """Inputs of the registers that a bench does not use."""
    pacing = ("running", "halted", "sample_done", "fault", "best", *["sequencer_slot"] * (CONFIG.batch > 1))
    for name in ("values", "frames_bad", "frames_lost", "line_errors", *(f"pacing__{name}" for name in pacing)):
        getattr(dut, name).value = 0
    dut.scalar_ready.value = 1
    if CONFIG.batch > 1:
        dut.program_ready.value = 1


async def own_registers(dut, host, random):
    """The registers of the run control for B = 1, and the conditions that it makes of them."""
    c = CONFIG
    assert await host.read(REGISTERS + 0x60) == ((1 << NUMBER_BITS) - 1 if c.counters else 0)  # stop: none
    written = {o: random.getrandbits(32) for o in (0x48, 0x4C, 0x50, 0x54, 0x58, 0x60)} | {0x5C: 1}
    for offset, value in written.items():
        await host.write(REGISTERS + offset, value)
    written = {o: v if o == 0x58 else v & (1 << NUMBER_BITS) - 1 for o, v in written.items()}
    for offset, value in written.items():
        assert await host.read(REGISTERS + offset) == (value if c.counters or offset == 0x48 else 0), hex(offset)
    for offset, name in ((0x58, "seeds"), (0x48, "positions")):
        assert int(getattr(dut, f"pacing__{name}").value) == written[offset]
    assert not int(dut.pacing__greedy.value)
    top = random.getrandbits(32)
    await host.write(REGISTERS + 0x64, top)
    assert await host.read(REGISTERS + 0x64) == (top & 0xFFFF00FF if c.top_k else 0)
    if c.top_k:
        assert int(dut.pacing__tops.value) == top & 0xFF | top >> 16 << 8
    for k in range(2 * NUMBER_BITS):
        start, prompt_end = random.getrandbits(NUMBER_BITS), random.randrange(2, 1 << NUMBER_BITS)
        position = start ^ 1 << k if k < NUMBER_BITS else random.choice([start, prompt_end - 1, prompt_end - 2])
        for offset, value in ((0x4C, start), (0x54, prompt_end), (0x48, position)):
            await host.write(REGISTERS + offset, value)
        await bench.settled(dut)
        assert int(dut.pacing__at_start.value) == (position == start), (start, position)
        # A position that no limit lets through is none.
        assert position == (1 << NUMBER_BITS) - 1 or int(dut.pacing__unwanted.value) == (position + 1 < prompt_end)
        await bench.cycles(dut)
    await host.write(REGISTERS + 0x48, written[0x48])
    dut.pacing__running.value = 1
    await host.write(REGISTERS + 0x48, 1)
    assert await host.read(REGISTERS + 0x48) == written[0x48], "position must not change while running"
    dut.pacing__running.value = 0
    await host.write(REGISTERS + 0x48, 0)


@cocotb.test()
async def address_map(dut):
    """Memory words of every size, registers, program, scalars, ring, counters and addresses outside."""
    random = bench.rng("map")
    quiet_inputs(dut)
    events = StreamMonitor(dut, "event", Event)
    host = Host(dut, CONFIG, STALL)
    await bench.start(dut)
    c = CONFIG
    model = {}

    def at(place):
        """An address of a place in the memory: where there are two, either."""
        if not wide(c.memory_bytes):
            return place
        return place if place < 1 << 31 and random.random() < 0.5 else place | FLAT

    for _ in range(60):
        last = c.memory_bytes // 4 - 1
        place = 4 * random.choice([random.randrange(last + 1), random.randrange(16), last])
        if random.random() < 0.5 or place not in model:
            model[place] = random.getrandbits(32)
            await host.write(at(place), model[place])
        place = random.choice(list(model))
        assert await host.read(at(place)) == model[place], hex(place)
    outside = [at(c.memory_bytes), at(c.memory_bytes + 4), 0x7FFFFFFC, 0xC0000000, 0xFFFFFFFC, 0xD0000010]
    if wide(c.memory_bytes):
        outside += [FLAT - 4, 1 << 32, 3 << 33 | REGISTERS, REGISTERS | 1 << 34, 2 * FLAT - 4]
    for address in outside:
        if address < 1 << 31 and address < c.memory_bytes:
            continue
        for write in (False, True):
            assert (await host.call(write, address, 1))[1] == 1, hex(address)
    for address in (PROGRAM, SCALARS):
        assert (await host.call(False, address))[1] == 1, "write only"
    versions = int.from_bytes(VERSIONS[k] for k in ("image", "numerics", "isa", "protocol"))
    constants = {0x00: 0x4E525453, 0x04: versions, 0x08: c.rows | c.columns << 16,
                 0x14: c.memory_bytes // 64, 0x20: c.clock_hz,
                 0x0C: c.lanes | c.batch << 8 | (c.weight_code == "bit2") << 16 | (c.memory == "onchip") << 17
                       | c.register_bits << 18 | c.credits << 24,
                 0x10: c.port_bytes | c.strip << 16, 0x18: c.vector_words | c.program_words << 16,
                 0x1C: c.activation_words | c.ring << 16, 0x24: int(c.digest[:8], 16), 0x28: c.top_k,
                 0x2C: c.tree_rows}
    for offset, value in constants.items():
        assert await host.read(REGISTERS + offset) == value, hex(offset)
        await host.write(REGISTERS + offset, 0)
        assert await host.read(REGISTERS + offset) == value, hex(offset)
    if c.batch == 1:
        await own_registers(dut, host, random)
    counts = [random.getrandbits(32 if k not in (8, 9, 10) else c.frame_counter_bits) for k in range(13)]
    dut.values.value = sum(v << 32 * k for k, v in enumerate(counts[:8] + counts[11:]))
    dut.frames_bad.value, dut.frames_lost.value, dut.line_errors.value = counts[8:11]
    for k, value in enumerate(counts):
        assert await host.read(REGISTERS + 0x80 + 4 * k) == (value if c.counters or k in (8, 9, 10) else 0)
    ring = {}
    for _ in range(40):
        entry = random.randrange(c.batch * c.ring)
        ring[entry] = random.getrandbits(NUMBER_BITS)
        await host.write(RING + 4 * entry, ring[entry])
    for entry, value in ring.items():
        assert await host.read(RING + 4 * entry) == value

    seen = []

    async def writes():
        while True:
            await bench.settled(dut)
            for name, parts in PULSES.items():
                if int(getattr(dut, f"{name}__valid").value):
                    seen.append((name, *(int(getattr(dut, f"{name}__{p}").value) for p in parts)))
            await bench.cycles(dut)

    cocotb.start_soon(writes())
    expected = []
    for _ in range(20):
        value = random.getrandbits(32)
        slot, lane, scalar = random.randrange(c.program_words), random.randrange(3), random.randrange(32)
        await host.write(PROGRAM + 16 * slot + 4 * lane, value)
        of = random.randrange(c.batch)
        await host.write(SCALARS + 128 * of + 4 * scalar, value)
        expected += [("program_write", slot, lane, value), ("scalar_write", of, scalar, value & 0xFFFFFF)]
    assert seen == expected and not events.items


@cocotb.test()
async def pacing(dut):
    """Runs token by token: ring, limit, samples with a busy link, stop token, fault, soft reset."""
    random = bench.rng("pacing")
    c = CONFIG
    quiet_inputs(dut)
    events = StreamMonitor(dut, "event", Event, stall=max(STALL, 0.3))
    host = Host(dut, CONFIG, STALL)
    await bench.start(dut)
    processed, sampled = [], {}
    stop = 0xABCD
    resets = []

    async def device():
        # A stand-in for the sequencer: takes some cycles per token, samples behind the prompt.
        d = dut
        while True:
            await bench.settled(d)
            go = int(d.pacing__go.value)
            if int(d.pacing__soft_reset.value):
                resets.append(1)
            await bench.cycles(d)
            if not go:
                continue
            d.pacing__running.value = 1
            await bench.cycles(d)
            tokens, left = set(), random.randint(1, 12)
            while left > 0 or not tokens:
                await bench.settled(d)
                position, left = int(d.pacing__positions.value), left - 1
                if int(d.pacing__token_valid.value):
                    tokens.add(int(d.pacing__token.value))
                await bench.cycles(d)
            assert len(tokens) == 1, f"the token of position {position} changes: {tokens}"
            await bench.settled(d)
            processed.append((position, *tokens))
            await bench.cycles(d)
            if not int(d.pacing__unwanted.value):
                best = stop if position == 29 else random.getrandbits(16)
                sampled[position + 1] = best
                d.pacing__best.value, d.pacing__sample_done.value = best, 1
                while True:
                    await bench.settled(d)
                    taken = int(d.pacing__sample_taken.value)
                    await bench.cycles(d)
                    if taken:
                        break
                d.pacing__sample_done.value = 0
            await bench.cycles(d, random.randint(0, 3))
            d.pacing__halted.value = 1
            await bench.cycles(d)
            d.pacing__halted.value = d.pacing__running.value = 0

    cocotb.start_soon(device())
    first = c.ring - 10  # across the end of the ring
    prompt = [random.getrandbits(16) for _ in range(6)]

    async def begin(position, tokens, limit):
        for k, token in enumerate(tokens):
            await host.write(RING + 4 * ((position + k) % c.ring), token)
        await host.write(REGISTERS + 0x48, position)
        await host.write(REGISTERS + 0x54, position + len(tokens))
        await host.write(REGISTERS + 0x50, limit)

    async def rest(count=250):
        await bench.cycles(dut, count)

    await begin(first, prompt, first + 12)
    await rest(40)
    assert not processed, "not enabled yet"
    await host.write(REGISTERS + 0x40, 1)
    while not len(events.items) == 7:
        await host.read(RING + 4 * random.randrange(c.ring))  # the ring serves both
    await rest()
    expected = [(first + k, prompt[k] if k < 6 else sampled[first + k]) for k in range(12)]
    assert processed == expected
    assert events.items == [{"slot": 0, "position": p, "token": t} for p, t in sampled.items()]
    assert await host.read(REGISTERS + 0x48) == first + 12
    assert await host.read(REGISTERS + 0x44) == 2
    for position, token in sampled.items():
        assert await host.read(RING + 4 * (position % c.ring)) == token
    await host.write(REGISTERS + 0x50, first + 14)  # more credit: it goes on
    await rest()
    assert processed[12:] == [(p, sampled[p]) for p in (first + 12, first + 13)]
    await host.write(REGISTERS + 0x40, 0)  # disabled: more credit changes nothing
    await host.write(REGISTERS + 0x50, first + 20)
    await rest()
    assert len(processed) == 14

    sampled.clear()
    processed.clear()
    await host.write(REGISTERS + 0x60, stop)
    await begin(26, [7], 60)
    await host.write(REGISTERS + 0x40, 1)
    await rest(600)
    assert [p for p, _ in processed] == [26, 27, 28, 29], "the stop token ends the run"
    assert await host.read(REGISTERS + 0x50) == (30 if c.counters else 0) and await host.read(REGISTERS + 0x48) == 30
    assert await host.read(RING + 4 * (30 % c.ring)) == stop
    assert events.items[-1] == {"slot": 0, "position": 30, "token": stop}

    dut.pacing__fault.value = 1
    await host.write(REGISTERS + 0x50, 40)
    await rest()
    assert len(processed) == 4, "nothing starts after a fault"
    assert await host.read(REGISTERS + 0x44) == 0x102
    resets.clear()
    await host.write(REGISTERS + 0x40, 2)
    await rest(10)
    assert len(resets) == 1, "the reset is one pulse"
    dut.pacing__fault.value = 0
    await rest()
    assert len(processed) == 4 and await host.read(REGISTERS + 0x44) == 0
    await host.write(RING + 4 * (30 % c.ring), 77)
    await host.write(REGISTERS + 0x40, 1)
    await rest()
    assert processed[4] == (30, 77)


@cocotb.test()
async def reset_race(dut):
    """A reset and a new position in any cycle around the start of a token: what was decided before starts
    no token.
    """
    quiet_inputs(dut)
    host = Host(dut, CONFIG, STALL)
    StreamMonitor(dut, "event", Event)
    await bench.start(dut)
    for entry in range(8):
        await host.write(RING + 4 * entry, 100 + entry)
    await host.write(REGISTERS + 0x54, 1000)
    beyond = []

    async def watch():
        while True:
            await bench.settled(dut)
            beyond.append(int(dut.pacing__go.value) and int(dut.pacing__positions.value) >= 50)
            await bench.cycles(dut)

    cocotb.start_soon(watch())
    for delay in range(8):
        await host.write(REGISTERS + 0x40, 2)
        await host.write(REGISTERS + 0x48, 3)
        await host.write(REGISTERS + 0x50, 0)
        await bench.cycles(dut, 4)
        host.request.send({"write": 1, "address": REGISTERS + 0x40, "data": 1})
        host.request.send({"write": 1, "address": REGISTERS + 0x50, "data": 50})
        await host.request.drain()
        await bench.cycles(dut, delay)
        await host.write(REGISTERS + 0x40, 2)
        await bench.cycles(dut, 8)
        await bench.settled(dut)
        assert not int(dut.pacing__go.value), f"a token waits; the run was reset {delay} cycles behind its release"
        await bench.cycles(dut)
        await host.write(REGISTERS + 0x48, 5)
        await host.write(REGISTERS + 0x40, 1)
        await bench.until(dut, lambda: int(dut.pacing__go.value), 20, "go")
        await host.write(REGISTERS + 0x48, 6)
        await bench.cycles(dut, 6)
        await bench.settled(dut)
        assert int(dut.pacing__go.value)
        assert int(dut.pacing__token.value) == 106, "the token of the position written last"
        await bench.cycles(dut)
        await host.write(REGISTERS + 0x48, 50)
        assert not any(beyond), "a token starts at the limit"
