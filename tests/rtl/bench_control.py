"""Bench of the sequencer and of the host registers."""

import os

import bench
import cocotb
from amaranth.lib import data
from sterna.firmware import isa
from sterna.firmware.assembler import Assembler
from sterna.hw.array.array import Product
from sterna.hw.config import Config
from sterna.hw.link.executor import Event, Request, Response
from sterna.hw.vector.issue import Command
from sterna.hw.memory.port import burst_layout, write_layout
from streams import StreamDriver, StreamMonitor

CONFIG = Config(**eval(os.environ["CONFIG"]))  # repr of a dictionary by the launcher
STALL = float(os.environ.get("STALL", "0"))
ADDRESS_BITS, PORT = CONFIG.word_address_bits, CONFIG.port_bytes
MASK = (1 << ADDRESS_BITS) - 1
NUMBER_BITS = CONFIG.register_bits  # of positions and tokens
BLOCK = data.StructLayout({"address": ADDRESS_BITS, "words": 24})
OUTPUTS = {"vector": Command, "product": Product, "fetch": BLOCK, "store": BLOCK, "section": None}


def random_program(random):
    """Every opcode; forward jumps of every condition, one strip loop and one layer loop; ends with HALT."""
    asm = Assembler(CONFIG.lanes, CONFIG.program_words)

    def straight(count):
        for _ in range(count):
            pick = random.randrange(11)
            areg = random.randrange(4)
            if pick == 0:
                asm.emit(isa.FETCH, areg=areg, words=random.randint(1, 5000))
            elif pick == 1:
                asm.emit(isa.SETA, areg=areg, value=random.getrandbits(ADDRESS_BITS))
            elif pick == 2:
                asm.emit(isa.ROWA, areg=areg, base=random.getrandbits(ADDRESS_BITS), stride=random.randint(1, 400))
            elif pick == 3:
                asm.emit(isa.MATVEC, buffer=random.randrange(2), rows=random.randint(1, 1 << 24) - 1,
                         chunks=random.randint(1, 1000))
            elif pick == 4:
                asm.emit(isa.STRIP, elements=random.randint(1, 900), strip=random.choice([16, 32, 200]))
            elif pick == 5:
                asm.emit(isa.WAITM)
            elif pick == 6:
                asm.emit(isa.STORE, areg=areg, words=random.randint(1, 5000))
            elif pick == 7:
                asm.emit(isa.SAMPLE, end=0)
            elif pick == 8:
                asm.emit(isa.JUMP, condition=random.randrange(5), target=f"after {len(asm)}")
                straight(random.randint(1, 2))
                asm.label(next(f["target"] for _, f, _ in reversed(asm._code) if f.get("target") and f["target"] not in asm.labels))
            else:
                a = random.choice([isa.ZERO, isa.ROW, isa.STREAM32, isa.STREAM8, isa.bank(1, 7, plus=True)])
                d = random.choice([isa.MEM, isa.to_scalar(5), isa.to_banks(3, 9, plus=True), isa.to_activation(1)])
                asm.vop(d, a, one=random.random() < 0.3)

    straight(6)
    asm.emit(isa.LOOP, count=random.randint(1, 3))
    asm.label("layer")
    straight(6)
    strip = random.choice([16, 32, 64])
    asm.emit(isa.STRIP, elements=random.randint(1, 4 * strip), strip=strip)
    asm.label("strip")
    asm.vop(isa.to_banks(1, 3, plus=True), isa.ROW)
    asm.emit(isa.NEXT, target="strip", strip=strip, step=random.randint(1, 9))
    asm.vop(isa.MEM, isa.STREAM32)
    asm.emit(isa.NEXT, target="strip", strip=strip, step=1)  # nothing is left: falls through
    asm.emit(isa.AGAIN, target="layer")
    straight(4)
    asm.emit(isa.SAMPLE, end=0)
    asm.emit(isa.SAMPLE, end=1)
    asm.emit(isa.HALT)
    return asm.words(auto_wait=False)


class Model:
    """What docs/isa.md says that a program sends to each output."""

    def __init__(self):
        self.sent = {name: [] for name in OUTPUTS}
        self.a, self.off, self.left, self.vl, self.loop, self.samples = [0] * 4, 0, 0, 0, 0, 0

    def run(self, program, token, position, start, prompt_end, greedy):
        """One token; returns True if it ends with HALT, False with a fault."""
        pc = 0
        while True:
            try:
                opcode, f = isa.decode(program[pc])
            except isa.IsaError:
                return False
            pc += 1
            if opcode == isa.HALT:
                return True
            if opcode == isa.VOP:
                if f["a_kind"] in (isa.A_STREAM32, isa.A_STREAM8):
                    self.sent["section"].append(0)
                self.sent["vector"].append({"word": program[pc - 1], "count": self.vl, "offset": self.off, "start": 0})
            elif opcode == isa.MATVEC:
                self.sent["section"].append(1)
                self.sent["product"].append(f)
            elif opcode in (isa.FETCH, isa.STORE):
                name = "fetch" if opcode == isa.FETCH else "store"
                self.sent[name].append({"address": self.a[f["areg"]], "words": f["words"]})
                self.a[f["areg"]] = self.a[f["areg"]] + f["words"] & MASK
            elif opcode == isa.SETA:
                self.a[f["areg"]] = f["value"] & MASK
            elif opcode == isa.ROWA:
                self.a[f["areg"]] = f["base"] + token * f["stride"] & MASK
            elif opcode == isa.STRIP:
                self.left, self.off, self.vl = f["elements"], 0, min(f["elements"], f["strip"])
            elif opcode == isa.NEXT:
                self.left = max(0, self.left - f["strip"])
                self.off += f["step"]
                if self.left:
                    self.vl, pc = min(f["strip"], self.left), f["target"]
            elif opcode == isa.LOOP:
                self.loop = f["count"]
            elif opcode == isa.AGAIN:
                self.loop -= 1
                pc = f["target"] if self.loop > 0 else pc
            elif opcode == isa.JUMP:
                if f["condition"] > isa.AT_START:
                    return False
                taken = (True, self.loop == 1, position + 1 < prompt_end, greedy, position == start)[f["condition"]]
                pc = f["target"] if taken else pc
            elif opcode == isa.SAMPLE and f["end"]:
                self.samples += 1
            elif opcode == isa.SAMPLE:
                self.sent["vector"].append({"word": program[pc - 1], "count": self.vl, "offset": self.off, "start": 1})
            elif opcode == isa.WALK:
                return False


async def write_program(dut, program):
    """Loads the program memory."""
    for address, word in enumerate(program):
        for lane in range(3):
            dut.program_write__valid.value, dut.program_write__address.value = 1, address
            dut.program_write__lane.value, dut.program_write__data.value = lane, word >> 32 * lane & 0xFFFFFFFF
            await bench.cycles(dut)
    dut.program_write__valid.value = 0


class Engines:
    """Drives the busy inputs at random, answers samples, and checks what must not happen while an engine is busy."""

    def __init__(self, dut, program):
        self.dut, self.samples, self.halts, self.random = dut, 0, 0, bench.rng("engines")
        dut.vector_busy.value = dut.array_busy.value = dut.sample_taken.value = 0
        dut.store_idle.value = 1
        cocotb.start_soon(self._run())

    async def _run(self):
        d = self.dut
        while True:
            await bench.cycles(d)
            # An idle vector engine stays idle while it is sent nothing, as behind a product that is offered.
            busy = int(self.random.random() < STALL and not int(d.product__valid.value))
            d.vector_busy.value, d.array_busy.value = busy, int(self.random.random() < STALL)
            d.store_idle.value = int(self.random.random() >= STALL)
            d.sample_taken.value = 0
            await bench.settled(d)
            if int(d.sample_done.value):
                assert not busy
            if int(d.halted.value):
                self.halts += 1
                assert not busy and not int(d.array_busy.value) and int(d.store_idle.value) and int(d.running.value)
            offered = int(d.sample_done.value) and self.random.random() >= STALL
            if offered and not busy:
                # the registers answer within the cycle
                d.sample_taken.value = 1
                self.samples += 1


@cocotb.test()
async def sequencer(dut):
    """Random programs and tokens against the model, with back-pressure on every output."""
    random = bench.rng("sequencer")
    dut.program_write__valid.value = dut.go.value = 0
    for name in ("token", "position", "start", "prompt_end", "greedy"):
        getattr(dut, name).value = 0
    monitors = {name: StreamMonitor(dut, name, shape, STALL) for name, shape in OUTPUTS.items()}
    engines = Engines(dut, None)
    await bench.start(dut)
    model = Model()
    for _ in range(int(os.environ.get("PROGRAMS", "6"))):
        program = random_program(random)
        await write_program(dut, program)
        for _ in range(3):
            position = random.randrange(20)
            state = {"token": random.choice([0, 1, random.getrandbits(NUMBER_BITS)]), "position": position,
                     "start": random.choice([position, position + 1, (1 << NUMBER_BITS) - 1]), "prompt_end": position + random.randrange(3),
                     "greedy": random.randrange(2)}
            for name, value in state.items():
                getattr(dut, name).value = value
            halts = engines.halts
            dut.go.value = 1
            await bench.cycles(dut, 2)
            dut.go.value = 0
            await bench.until(dut, lambda seen=halts: engines.halts > seen, 30_000, "HALT")
            assert model.run(program, **state)
            for name, monitor in monitors.items():
                assert monitor.items == model.sent[name], (name, state)
            assert engines.samples == model.samples and engines.halts == halts + 1
            await bench.settled(dut)
            assert not int(dut.running.value) and not int(dut.fault.value)
            await bench.cycles(dut)


@cocotb.test()
async def matvec_waits(dut):
    """A product is not offered while the vector engine, which may still write its codes, is busy."""
    for name in ("token", "position", "start", "prompt_end", "greedy", "go", "sample_taken", "array_busy"):
        getattr(dut, name).value = 0
    dut.vector_busy.value = dut.store_idle.value = 1
    product, section = StreamMonitor(dut, "product", Product), StreamMonitor(dut, "section")
    await bench.start(dut)
    await write_program(dut, [isa.encode(isa.MATVEC, rows=5, chunks=1), isa.encode(isa.HALT)])
    dut.go.value = 1
    await bench.cycles(dut, 2)
    dut.go.value = 0
    await bench.cycles(dut, 30)
    assert section.items == [1] and not product.items
    dut.vector_busy.value = 0
    await product.receive(1, 10)


@cocotb.test()
async def faults(dut):
    """WALK, the undefined opcode and undefined conditions stop the sequencer for good and are reported."""
    for name in ("token", "position", "start", "prompt_end", "greedy", "go", "sample_taken", "array_busy", "vector_busy"):
        getattr(dut, name).value = 0
    dut.program_write__valid.value = 0
    dut.store_idle.value = 1
    fetch = StreamMonitor(dut, "fetch", BLOCK)
    await bench.start(dut)
    for word in (isa.encode(isa.WALK), 15, isa.encode(isa.JUMP, condition=5), isa.encode(isa.JUMP, condition=15)):
        dut.rst.value = 1
        await bench.cycles(dut, 2)
        dut.rst.value = 0
        count = len(fetch.items)
        program = [isa.encode(isa.SETA, areg=2, value=9), isa.encode(isa.FETCH, areg=2, words=4), word,
                   isa.encode(isa.FETCH, areg=2, words=4), isa.encode(isa.HALT)]
        await write_program(dut, program)
        dut.go.value = 1
        await bench.until(dut, lambda: int(dut.fault.value) == 1, 50, f"the fault of {word:#x}")
        await bench.cycles(dut, 30)
        await bench.settled(dut)
        assert int(dut.fault.value) == 1 and not int(dut.running.value)
        await bench.cycles(dut)
        assert fetch.items[count:] == [{"address": 9, "words": 4}]


class Host:
    """Requests and answers of the host against a memory model behind the arbiter's host side."""

    def __init__(self, dut):
        self.dut, self.random, self.words = dut, bench.rng("host"), {}
        self.request = StreamDriver(dut, "request", Request, STALL)
        self.response = StreamMonitor(dut, "response", Response, STALL)
        self.bursts = StreamMonitor(dut, "host_bursts", burst_layout(ADDRESS_BITS), STALL)
        self.writes = StreamMonitor(dut, "host_write", write_layout(ADDRESS_BITS, PORT), STALL)
        dut.host_words__valid.value = 0
        cocotb.start_soon(self._memory())

    async def _memory(self):
        seen = written = 0
        d = self.dut
        while True:
            await bench.cycles(d)
            for write in self.writes.items[written:]:
                old = self.words.get(write["address"], 0)
                for k in range(PORT):
                    if write["mask"] >> k & 1:
                        old = old & ~(0xFF << 8 * k) | write["data"] & 0xFF << 8 * k
                self.words[write["address"]] = old
            written = len(self.writes.items)
            for burst in self.bursts.items[seen:]:
                seen += 1
                await bench.cycles(d, self.random.randint(1, 6))
                for k in range(burst["length"]):
                    while self.random.random() < STALL:
                        await bench.cycles(d)
                    d.host_words__valid.value = 1
                    d.host_words__payload.value = self.words.get(burst["address"] + k, 0)
                    await bench.cycles(d)
                    d.host_words__valid.value = 0

    async def call(self, write, address, value=0):
        """(data, error) of one request."""
        count = len(self.response.items)
        self.request.send({"write": int(write), "address": address, "data": value})
        answer = (await self.response.receive(count + 1, 2000))[count]
        return answer["data"], answer["error"]

    async def write(self, address, value):
        assert (await self.call(True, address, value))[1] == 0, hex(address)

    async def read(self, address):
        value, error = await self.call(False, address)
        assert not error, hex(address)
        return value


REGISTERS, RING, PROGRAM, SCALARS = 0x90000000, 0xB0000000, 0x80000000, 0xA0000000


def quiet_inputs(dut):
    """Inputs of the registers that a bench does not use."""
    for name in ("values", "frames_bad", "frames_lost", "running", "halted", "sample_done", "fault", "best"):
        getattr(dut, name).value = 0


@cocotb.test()
async def address_map(dut):
    """Memory words of every size, registers, program, scalars, ring, counters and addresses outside."""
    random = bench.rng("map")
    quiet_inputs(dut)
    events = StreamMonitor(dut, "event", Event)
    host = Host(dut)
    await bench.start(dut)
    c = CONFIG
    model = {}
    for _ in range(60):
        address = 4 * random.choice([random.randrange(c.memory_bytes // 4), random.randrange(16), c.memory_bytes // 4 - 1])
        if random.random() < 0.5 or address not in model:
            model[address] = random.getrandbits(32)
            await host.write(address, model[address])
        address = random.choice(list(model))
        assert await host.read(address) == model[address], hex(address)
    for address in (c.memory_bytes, c.memory_bytes + 4, 0x7FFFFFFC, 0xC0000000, 0xFFFFFFFC, 0xD0000010):
        if address < 1 << 31 and address < c.memory_bytes:
            continue
        for write in (False, True):
            assert (await host.call(write, address, 1))[1] == 1, hex(address)
    for address in (PROGRAM, SCALARS):
        assert (await host.call(False, address))[1] == 1, "write only"
    constants = {0x00: 0x4E525453, 0x04: 0x01010101, 0x08: c.rows | c.columns << 16, 0x14: c.memory_bytes, 0x20: c.clock_hz,
                 0x0C: c.lanes | c.batch << 8 | (c.weight_code == "bit2") << 16 | c.credits << 24,
                 0x10: c.port_bytes | c.strip << 16, 0x18: c.vector_words | c.program_words << 16,
                 0x1C: c.activation_words | c.ring << 16, 0x24: int(c.digest[:8], 16)}
    for offset, value in constants.items():
        assert await host.read(REGISTERS + offset) == value, hex(offset)
        await host.write(REGISTERS + offset, 0)
        assert await host.read(REGISTERS + offset) == value, hex(offset)
    assert await host.read(REGISTERS + 0x60) == (1 << NUMBER_BITS) - 1  # stop: none
    written = {o: random.getrandbits(32) for o in (0x48, 0x4C, 0x50, 0x54, 0x58, 0x60)} | {0x5C: 1}
    for offset, value in written.items():
        await host.write(REGISTERS + offset, value)
    written = {o: v if o == 0x58 else v & (1 << NUMBER_BITS) - 1 for o, v in written.items()}
    for offset, value in written.items():
        assert await host.read(REGISTERS + offset) == value, hex(offset)
    for offset, name in ((0x4C, "start"), (0x54, "prompt_end"), (0x58, "seed"), (0x48, "position")):
        assert int(getattr(dut, name).value) == written[offset]
    assert not int(dut.greedy.value)
    counts = [random.getrandbits(32) for _ in range(10)]
    dut.values.value = sum(v << 32 * k for k, v in enumerate(counts[:8]))
    dut.frames_bad.value, dut.frames_lost.value = counts[8:]
    for k, value in enumerate(counts):
        assert await host.read(REGISTERS + 0x80 + 4 * k) == (value if c.counters or k >= 8 else 0)
    dut.running.value = 1
    await host.write(REGISTERS + 0x48, 1)
    assert await host.read(REGISTERS + 0x48) == written[0x48], "position must not change while running"
    dut.running.value = 0
    await host.write(REGISTERS + 0x48, 0)
    ring = {}
    for _ in range(40):
        entry = random.randrange(c.ring)
        ring[entry] = random.getrandbits(NUMBER_BITS)
        await host.write(RING + 4 * entry, ring[entry])
    for entry, value in ring.items():
        assert await host.read(RING + 4 * entry) == value

    seen = []

    async def writes():
        while True:
            await bench.settled(dut)
            for name, parts in (("program_write", ("address", "lane", "data")), ("scalar_write", ("address", "data"))):
                if int(getattr(dut, f"{name}__valid").value):
                    seen.append((name, *(int(getattr(dut, f"{name}__{p}").value) for p in parts)))
            await bench.cycles(dut)

    cocotb.start_soon(writes())
    expected = []
    for _ in range(20):
        value = random.getrandbits(32)
        slot, lane, scalar = random.randrange(c.program_words), random.randrange(3), random.randrange(32)
        await host.write(PROGRAM + 16 * slot + 4 * lane, value)
        await host.write(SCALARS + 4 * scalar, value)
        expected += [("program_write", slot, lane, value), ("scalar_write", scalar, value & 0xFFFFFF)]
    assert seen == expected and not events.items


@cocotb.test()
async def pacing(dut):
    """Runs token by token: ring, limit, samples with a busy link, stop token, fault, soft reset."""
    random = bench.rng("pacing")
    c = CONFIG
    quiet_inputs(dut)
    events = StreamMonitor(dut, "event", Event, stall=max(STALL, 0.3))
    host = Host(dut)
    await bench.start(dut)
    processed, sampled = [], {}
    stop = 0xABCD
    resets = []

    async def device():
        # A stand-in for the sequencer: takes some cycles per token, samples behind the prompt.
        d = dut
        while True:
            await bench.settled(d)
            go = int(d.go.value)
            if int(d.soft_reset.value):
                resets.append(1)
            await bench.cycles(d)
            if not go:
                continue
            d.running.value = 1
            await bench.cycles(d, random.randint(1, 12))
            await bench.settled(d)
            position, token = int(d.position.value), int(d.token.value)
            assert not int(d.go.value) or not processed or True
            processed.append((position, token))
            await bench.cycles(d)
            if position + 1 >= int(d.prompt_end.value):
                best = stop if position == 29 else random.getrandbits(16)
                sampled[position + 1] = best
                d.best.value, d.sample_done.value = best, 1
                while True:
                    await bench.settled(d)
                    taken = int(d.sample_taken.value)
                    await bench.cycles(d)
                    if taken:
                        break
                d.sample_done.value = 0
            await bench.cycles(d, random.randint(0, 3))
            d.halted.value = 1
            await bench.cycles(d)
            d.halted.value = d.running.value = 0

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
    await rest()
    while not len(events.items) == 7:
        await host.read(RING + 4 * random.randrange(c.ring))  # the ring serves both
    await rest()
    expected = [(first + k, prompt[k] if k < 6 else sampled[first + k]) for k in range(12)]
    assert processed == expected
    assert events.items == [{"position": p, "token": t} for p, t in sampled.items()]
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
    assert await host.read(REGISTERS + 0x50) == 30 and await host.read(REGISTERS + 0x48) == 30
    assert await host.read(RING + 4 * (30 % c.ring)) == stop and events.items[-1] == {"position": 30, "token": stop}

    dut.fault.value = 1
    await host.write(REGISTERS + 0x50, 40)
    await rest()
    assert len(processed) == 4, "nothing starts after a fault"
    assert await host.read(REGISTERS + 0x44) == 0x102
    resets.clear()
    await host.write(REGISTERS + 0x40, 2)
    await rest(10)
    assert len(resets) == 1, "the reset is one pulse"
    dut.fault.value = 0
    await rest()
    assert len(processed) == 4 and await host.read(REGISTERS + 0x44) == 0
    await host.write(RING + 4 * (30 % c.ring), 77)
    await host.write(REGISTERS + 0x40, 1)
    await rest()
    assert processed[4] == (30, 77)


@cocotb.test()
async def reset_race(dut):
    """A reset and a new position in any cycle around the start of a token: no token starts with what was read before."""
    quiet_inputs(dut)
    host = Host(dut)
    StreamMonitor(dut, "event", Event)
    await bench.start(dut)
    for entry in range(8):
        await host.write(RING + 4 * entry, 100 + entry)
    await host.write(REGISTERS + 0x54, 1000)
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
        assert not int(dut.go.value), f"a token waits although the run was reset ({delay} cycles after it was released)"
        await bench.cycles(dut)
        await host.write(REGISTERS + 0x48, 5)
        await host.write(REGISTERS + 0x40, 1)
        await bench.until(dut, lambda: int(dut.go.value), 20, "go")
        await host.write(REGISTERS + 0x48, 6)
        await bench.cycles(dut, 6)
        await bench.settled(dut)
        assert int(dut.go.value) and int(dut.token.value) == 106, "the token of the position written last"
        await bench.cycles(dut)
