"""Bench of the sequencer."""

import os

import bench
import cocotb
from sequencer_model import Model, random_program
from sterna.firmware import isa
from sterna.hw.array.control import Product
from sterna.hw.config import Config
from sterna.hw.memory.port import read_layout
from sterna.hw.vector.operands import Command
from streams import StreamMonitor

CONFIG = Config(**eval(os.environ["CONFIG"]))  # repr of a dictionary by the launcher
STALL = float(os.environ.get("STALL", "0"))
NUMBER_BITS = CONFIG.register_bits  # of positions and tokens
BLOCK = read_layout(CONFIG.word_address_bits)
FETCH = read_layout(CONFIG.word_address_bits, CONFIG.tree_rows)
OUTPUTS = {"vector": Command, "product": Product, "fetch": FETCH, "store": BLOCK, "section": None}


def quiet_inputs(dut):
    """A token that is not offered, engines at rest and no write to the program."""
    for name in ("token", "token_valid", "unwanted", "at_start", "greedy", "go", "sample_taken", "array_busy",
                 "vector_busy", "program_write__valid", *((*isa.WHICH, "chained") if CONFIG.batch > 1 else ())):
        getattr(dut, name).value = 0
    dut.store_idle.value = 1


async def write_program(dut, program):
    """Loads the program memory."""
    for address, word in enumerate(program):
        for lane in range(3):
            dut.program_write__valid.value, dut.program_write__address.value = 1, address
            dut.program_write__lane.value, dut.program_write__data.value = lane, word >> 32 * lane & 0xFFFFFFFF
            await bench.cycles(dut)
    dut.program_write__valid.value = 0


class Engines:
    """Drives the token and the busy inputs at random, answers samples, and checks what a busy engine must hold up."""

    def __init__(self, dut):
        self.dut, self.samples, self.halts, self.random = dut, 0, 0, bench.rng("engines")
        self.tokens = [0] * CONFIG.batch
        cocotb.start_soon(self._run())

    async def _run(self):
        d, slot = self.dut, 0
        while True:
            await bench.cycles(d)
            # An idle vector engine stays idle while it is sent nothing, as behind a product that is offered.
            busy = int(self.random.random() < STALL and not int(d.product__valid.value))
            d.vector_busy.value, d.array_busy.value = busy, int(self.random.random() < STALL)
            d.store_idle.value = int(self.random.random() >= STALL)
            here = self.random.random() >= STALL
            d.token_valid.value = int(here)
            # As a memory gives it: that of the slot in the cycle before.
            d.token.value = self.tokens[slot] if here else self.random.getrandbits(NUMBER_BITS)
            d.sample_taken.value = 0
            await bench.settled(d)
            slot = int(d.slot.value) if CONFIG.batch > 1 else 0
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
    quiet_inputs(dut)
    monitors = {name: StreamMonitor(dut, name, shape, STALL) for name, shape in OUTPUTS.items()}
    engines = Engines(dut)
    await bench.start(dut)
    model = Model(CONFIG)
    for _ in range(int(os.environ.get("PROGRAMS", "4"))):
        program = random_program(random, CONFIG)
        await write_program(dut, program)
        for _ in range(3):
            state = {name: random.randrange(2) for name in ("unwanted", "at_start", "greedy")}
            for name, value in state.items():
                getattr(dut, name).value = value
            engines.tokens = [random.choice([0, 1, random.getrandbits(NUMBER_BITS)]) for _ in range(CONFIG.batch)]
            if CONFIG.batch > 1:
                masks = {name: random.getrandbits(CONFIG.batch) for name in isa.WHICH}
                for name, value in masks.items():
                    getattr(dut, name).value = value
                dut.chained.value = state["chained"] = random.randrange(2)
                state["masks"] = masks
            halts = engines.halts
            dut.go.value = 1
            await bench.cycles(dut, 2)
            dut.go.value = 0
            await bench.until(dut, lambda seen=halts: engines.halts > seen, 30_000, "HALT")
            assert model.run(program, engines.tokens, **state)
            for name, monitor in monitors.items():
                assert monitor.items == model.sent[name], (name, state)
            assert engines.samples == model.samples and engines.halts == halts + 1
            await bench.settled(dut)
            assert not int(dut.running.value) and not int(dut.fault.value)
            await bench.cycles(dut)


@cocotb.test()
async def matvec_waits(dut):
    """A product is not offered while the vector engine, which may still write its codes, is busy."""
    quiet_inputs(dut)
    dut.vector_busy.value = 1
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
async def memory_waits(dut):
    """WAITM lets nothing pass while a result or a store is under way; HALT waits for the array as well."""
    quiet_inputs(dut)
    fetch = StreamMonitor(dut, "fetch", FETCH)
    await bench.start(dut)
    await write_program(dut, [isa.encode(isa.WAITM), isa.encode(isa.FETCH, words=4), isa.encode(isa.HALT)])
    rest = {"vector_busy": 0, "store_idle": 1, "array_busy": 0}
    dut.vector_busy.value = dut.go.value = 1
    await bench.cycles(dut, 2)
    dut.go.value = 0
    for held in ("vector_busy", "store_idle"):
        for name, value in rest.items():
            getattr(dut, name).value = value ^ (name == held)
        await bench.cycles(dut, 20)
        assert not fetch.items, f"WAITM does not wait for {held}"
    dut.store_idle.value = 1
    await fetch.receive(1, 10)
    for held in rest:
        for name, value in rest.items():
            getattr(dut, name).value = value ^ (name == held)
        for _ in range(10):
            await bench.cycles(dut)
            await bench.settled(dut)
            assert not int(dut.halted.value), f"HALT does not wait for {held}"
        await bench.cycles(dut)
    for name, value in rest.items():
        getattr(dut, name).value = value
    await bench.until(dut, lambda: int(dut.halted.value), 10, "HALT")


@cocotb.test()
async def faults(dut):
    """Walks that are not built in, SLOT with B = 1, and undefined conditions stop the sequencer for good and are
    reported.
    """
    quiet_inputs(dut)
    fetch = StreamMonitor(dut, "fetch", FETCH)
    await bench.start(dut)
    condition = isa.CHAINED + (CONFIG.batch > 1)
    walks = [isa.encode(isa.WALK), *(isa.encode(isa.FETCH, areg=2, kind=kind, words=4, trees=1, levels=1)
                                     for kind in (isa.KIND_WALK, isa.KIND_GATHER))]
    if CONFIG.batch > 1:  # also where it is not for the slot, here for none
        walks.append([isa.encode(isa.SLOT, which=isa.FIRST), walks[-1]])
    dut.product__ready.value = dut.section__ready.value = 1
    for word in (*([] if CONFIG.tree_rows else walks), *([isa.encode(isa.SLOT)] if CONFIG.batch == 1 else ()),
                 isa.encode(isa.JUMP, condition=condition), isa.encode(isa.JUMP, condition=15)):
        dut.rst.value = 1
        await bench.cycles(dut, 2)
        dut.rst.value = 0
        count = len(fetch.items)
        fault = word if isinstance(word, list) else [word]
        program = [isa.encode(isa.SETA, areg=2, value=9), isa.encode(isa.FETCH, areg=2, words=4), *fault,
                   isa.encode(isa.FETCH, areg=2, words=4), isa.encode(isa.HALT)]
        await write_program(dut, program)
        dut.go.value = 1
        await bench.until(dut, lambda: int(dut.fault.value) == 1, 50, f"the fault of {fault}")
        dut.go.value = 0  # with B = 1 no run is under way while the next program is written
        await bench.cycles(dut, 30)
        await bench.settled(dut)
        assert int(dut.fault.value) == 1 and not int(dut.running.value)
        await bench.cycles(dut)
        assert [(f["address"], f["words"]) for f in fetch.items[count:]] == [(9, 4)]
