"""Bench of AxiMemory on cocotbext-axi's AxiRam: random traffic, latency, pauses, answers out of order, errors.

AxiRam samples at the rising edge, where Verilator shows what comes behind it. So it has pins of its own, and `Wires`
carries the values of a settled cycle from one side to the other: what AxiRam finds at an edge is what the device has.
"""

import os
from collections import deque

import bench
import cocotb
import numpy as np
from cocotb.triggers import RisingEdge, Timer
from cocotbext.axi import AxiBus, AxiRam
from sterna.hw.memory.axi import layout
from sterna.hw.memory.axi.bus import Axi4
from sterna.hw.memory.port import burst_layout, write_layout
from streams import StreamDriver

PORTS, BEAT, BLOCK = (int(os.environ.get(name, "0")) for name in ("PORTS", "BEAT", "BLOCK"))
ADDRESS_BITS, BASE = int(os.environ.get("ADDRESS_BITS", "0")), int(os.environ.get("BASE", "0"))
LATENCY, PAUSE, REORDER = int(os.environ.get("LATENCY", "0")), float(os.environ.get("PAUSE", "0")), int(
    os.environ.get("REORDER", "0"))
WORDS, WORD_BYTES = 1 << ADDRESS_BITS, PORTS * BEAT
SHAPE = {"ports": PORTS, "beat_bytes": BEAT, "block_bytes": BLOCK}
RULES = [name for name in os.environ.get("RULES", "").split(",") if name]


class Late:
    """In place of a channel's ``recv``: bursts are taken at once and given later, in any order if ``reorder``."""

    def __init__(self, dut, channel, random, reorder):
        self.dut, self.take, self.random, self.reorder = dut, channel.recv, random, reorder
        self.pool, self.cycle = [], 0
        channel.recv = self.recv
        cocotb.start_soon(self._count())
        cocotb.start_soon(self._pump())

    async def _count(self):
        while True:
            await RisingEdge(self.dut.clk)
            self.cycle += 1

    async def _pump(self):
        while True:
            item = await self.take()
            self.pool.append((self.cycle + self.random.randint(LATENCY // 2, LATENCY), item))

    async def recv(self):
        """The next burst, when it is due."""
        while True:
            if self.pool and self.reorder:
                due = [k for k, (when, _) in enumerate(self.pool) if when <= self.cycle]
                if due:
                    return self.pool.pop(self.random.choice(due))[1]
            elif self.pool and self.pool[0][0] <= self.cycle:
                return self.pool.pop(0)[1]
            await RisingEdge(self.dut.clk)


class Wires:
    """All AxiRams of a device, and the wires between; checks the rules in every cycle (``broken``)."""

    def __init__(self, dut):
        self.dut, self.random = dut, bench.rng("wires")
        self.rams = []
        inputs = []
        for k in range(PORTS):
            members = Axi4(data_bytes=BEAT, id_bits=4).members
            from_memory = [name for name, member in members.items() if member.flow.name == "In"]
            for name in members:
                getattr(dut, f"s{k}_{name}").value = 0
                if name in from_memory:
                    getattr(dut, f"m{k}_{name}").value = 0
            inputs += [(getattr(dut, f"s{k}_{name}"), getattr(dut, f"m{k}_{name}")) for name in from_memory]
            inputs += [(getattr(dut, f"m{k}_{name}"), getattr(dut, f"s{k}_{name}")) for name in members
                       if name not in from_memory]
        self.wires = inputs

    def connect(self):
        """Behind the reset: the memories and their delays."""
        for k in range(PORTS):
            ram = AxiRam(AxiBus.from_prefix(self.dut, f"s{k}"), self.dut.clk, size=BASE + WORDS * WORD_BYTES,
                         mem=self.rams[0].mem if self.rams else None)
            Late(self.dut, ram.read_if.ar_channel, self.random, REORDER)
            Late(self.dut, ram.write_if.aw_channel, self.random, False)
            if PAUSE:
                for channel in (ram.read_if.ar_channel, ram.read_if.r_channel, ram.write_if.aw_channel,
                                ram.write_if.w_channel, ram.write_if.b_channel):
                    channel.set_pause_generator(self._pauses())
            self.rams.append(ram)
        cocotb.start_soon(self._run())

    def _pauses(self):
        while True:
            yield self.random.random() < PAUSE

    async def _run(self):
        last = {}
        while True:
            await bench.settled(self.dut)
            for source, target in self.wires:
                value = source.value
                if last.get(target) != value:
                    target.value = last[target] = value
            await Timer(2, "ns")  # the rules look at what the next edge finds
            broken = int(self.dut.broken.value)
            assert not broken, f"broken: {', '.join(name for k, name in enumerate(RULES) if broken >> k & 1)}"

    def memory(self):
        """The model's bytes that lie in the memory (uint8 array)."""
        ram = self.rams[0]
        data = np.frombuffer(bytes(ram.read(BASE, WORDS * WORD_BYTES)), np.uint8)
        return layout.restored(data, **SHAPE)


class Words:
    """What the device gives, compared word by word with what is due."""

    def __init__(self, dut):
        self.dut, self.due, self.count = dut, deque(), 0
        dut.port__read_data__ready.value = 1
        cocotb.start_soon(self._run())

    async def _run(self):
        while True:
            await bench.settled(self.dut)
            if int(self.dut.port__read_data__valid.value):
                address, wanted = self.due.popleft()
                found = int(self.dut.port__read_data__payload.value)
                assert found == wanted, f"word {address:#x}: {found:#x}, written was {wanted:#x}"
                self.count += 1
            await bench.cycles(self.dut)


async def prepared(dut, stall):
    """(Wires, Words, driver of reads, driver of writes, the model's words as a list) behind the reset."""
    wires = Wires(dut)
    reads = StreamDriver(dut, "port__read_command", burst_layout(ADDRESS_BITS), stall)
    writes = StreamDriver(dut, "port__write", write_layout(ADDRESS_BITS, WORD_BYTES), stall)
    words = Words(dut)
    await bench.start(dut)
    wires.connect()
    data = np.random.default_rng(bench.SEED).integers(0, 256, WORDS * WORD_BYTES, np.uint8)
    wires.rams[0].write(BASE, layout.permuted(data, **SHAPE).tobytes())
    model = [int.from_bytes(word.tobytes(), "little") for word in data.reshape(WORDS, WORD_BYTES)]
    return wires, words, reads, writes, model


async def emptied(dut, words, limit=20_000):
    """Waits until every word that is due has come."""
    await bench.until(dut, lambda: not words.due, limit, "the last word")


@cocotb.test()
async def traffic(dut):
    """Reads and writes among few blocks: reads see the writes accepted before, however late these are; at the end the
    memory holds what was written, where the layout says.
    """
    wires, words, reads, writes, model = await prepared(dut, 0.3)
    random = bench.rng("traffic")
    await bench.cycles(dut, 5)
    place = 0
    for _ in range(int(os.environ.get("STEPS", "300"))):
        if random.random() < 0.1:
            place = random.randrange(WORDS)
        address = min(WORDS - 1, max(0, place + random.randint(-8, 24)))
        if random.random() < 0.5:
            count = random.choice([1, 1, 2, 5, 20])
            for k in range(min(count, WORDS - address)):
                while any(wanted == address + k for wanted, _ in words.due):  # a read of it is under way
                    await bench.cycles(dut)
                mask = random.choice([(1 << WORD_BYTES) - 1, random.getrandbits(WORD_BYTES)])
                word = random.getrandbits(8 * WORD_BYTES)
                kept = sum(0xFF << 8 * j for j in range(WORD_BYTES) if not mask >> j & 1)
                model[address + k] = model[address + k] & kept | word & ~kept
                writes.send({"address": address + k, "data": word, "mask": mask})
        else:
            await writes.drain()
            length = min(random.choice([1, 3, 16, 32]), WORDS - address)
            words.due.extend((address + k, model[address + k]) for k in range(length))
            reads.send({"address": address, "length": length})
        await bench.cycles(dut, random.choice([0, 0, 0, 1, 5, 50]))
    await reads.drain()
    await writes.drain()
    await emptied(dut, words)
    await bench.cycles(dut, 100 + 4 * LATENCY + int(100 * PAUSE))  # for the last response
    found = wires.memory()
    wanted = b"".join(word.to_bytes(WORD_BYTES, "little") for word in model)
    assert found.tobytes() == wanted, "the memory does not hold what was written"
    assert not int(dut.error.value)
    assert words.count > 500


@cocotb.test()
async def rate(dut):
    """A linear stream: a word per cycle behind the latency."""
    _, words, reads, _, model = await prepared(dut, 0)
    count = min(WORDS, 1024)
    words.due.extend((k, model[k]) for k in range(count))
    for address in range(3, count, 32):  # at any place of a block
        reads.send({"address": address, "length": min(32, count - address)})
    for _ in range(3):
        words.due.popleft()
    waited = await bench.until(dut, lambda: not words.due, 10_000, "the last word")
    assert waited < count + LATENCY + 40, f"{count - 3} words took {waited} cycles"


@cocotb.test()
async def wrong_answers(dut):
    """An answer with an error: no word of it, and none behind it, reaches the accelerator; it is told and stays."""
    wires, words, reads, writes, model = await prepared(dut, 0)
    of_write = os.environ["ERROR"] == "write"
    bad = BLOCK * (PORTS * 5 + PORTS - 1)  # group 5 of the last port
    target = wires.rams[-1].write_if if of_write else wires.rams[-1].read_if
    name = "_write" if of_write else "_read"
    right = getattr(target, name)

    async def sometimes(address, what):
        if BASE + bad <= address < BASE + bad + BLOCK:
            raise ValueError("this place of the memory answers with an error")
        return await right(address, what)

    setattr(target, name, sometimes)
    block = BLOCK // BEAT
    if of_write:
        writes.send({"address": 5 * block, "data": 1, "mask": (1 << WORD_BYTES) - 1})
        await writes.drain()
        await bench.until(dut, lambda: int(dut.error.value), 1000, "the error")
    good = 0 if of_write else 5 * block
    words.due.extend((k, model[k]) for k in range(good))
    for address in range(0, 8 * block, min(block, 32)):
        reads.send({"address": address, "length": min(block, 32)})
    await bench.cycles(dut, 600 + 4 * LATENCY)
    assert int(dut.error.value) and not words.due
