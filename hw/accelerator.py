"""The accelerator: everything between the byte link and the memory port, wired."""

from amaranth import Cat, Module, Mux, ResetInserter, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from sterna.hw.config import most_visits
from sterna.hw.control.counters import Counters
from sterna.hw.control.registers import Registers
from sterna.hw.control.sequencer import Sequencer
from sterna.hw.engines.engines import Engines
from sterna.hw.engines.stations import Stations
from sterna.hw.link.link import Link
from sterna.hw.memory.arbiter import Arbiter
from sterna.hw.memory.onchip import OnChipMemory
from sterna.hw.memory.port import MemoryPort
from sterna.hw.memory.store import Store
from sterna.hw.protocol import FAULT_MEMORY
from sterna.hw.vector.engine import Trace, VectorEngine

RESET_CYCLES = 32


class Accelerator(wiring.Component):
    """A complete MatMul-free language model engine.

      rx/tx -- link -- registers --+-- sequencer --> commands
                           |       |
        memory port -- arbiter -- fetch --> router --+-> gearbox --> ternary array --> row queue -+
                           ^                         +-------------------------> vector engine <--+
                           +---- store <---------------------------------------------- |  ^ codes
                                                           ternary array <-------------+

    With several ``config.engines`` all between memory ports and vector engine is in ``Engines``.

    Parameters
    ----------
    config : Config

    Members
    -------
    rx : In(stream of 8); tx : Out(stream of 8)
        The byte link; rx is always accepted.
    memory : Out(MemoryPort)
        Only when config.memory is "external"; with several engines a port of each, ``array(K)``.
    line_errors : In(frame_counter_bits)
        Bytes lost on the way to rx, as a ``Uart`` counts them; for the register of that name.
    memory_fault : In(1)
        Only with config.axi_ports: the memory answered with an error, and gives no more words.
    idle : Out(1)
        Nothing will happen until a byte arrives.
    trace : Out(Trace)
        What the vector engine writes back, for simulation; synthesis removes it.
    """

    def __init__(self, config):
        self._config = config
        members = {
            "rx": In(stream.Signature(8)),
            "tx": Out(stream.Signature(8)),
            "idle": Out(1),
            "line_errors": In(config.frame_counter_bits),
            "trace": Out(Trace(config.batch * config.lanes)),
        }
        if config.memory == "external":
            port = Out(MemoryPort(config.word_address_bits, config.port_bytes))
            members["memory"] = port if config.engines == 1 else port.array(config.engines)
        if config.axi_ports:
            members["memory_fault"] = In(1)
        super().__init__(members)

    def elaborate(self, platform):
        # Plan: link, registers and memory, which a soft reset leaves alone; that reset
        # (`resetting`, `held`) and the `engines` that it is for; then the wires: link and memory,
        # the streams of words between the engines, commands, single signals, conditions of a run;
        # at the end when the accelerator is `idle`, and the events that are counted.
        m = Module()
        cfg = self._config
        shape = {"address_bits": cfg.word_address_bits, "port_bytes": cfg.port_bytes}
        m.submodules.link = link = Link(cfg)
        m.submodules.registers = registers = Registers(cfg)
        pacing = registers.pacing
        m.submodules.counters = counters = Counters(cfg.counters)
        external, several = cfg.memory == "external", cfg.engines > 1
        if several:
            m.submodules.engines = memory = Engines(cfg)
        elif external:
            m.submodules.arbiter = memory = Arbiter(**shape)
        else:
            m.submodules.memory = memory = OnChipMemory(
                **shape, words=cfg.memory_bytes // cfg.port_bytes
            )

        # A soft reset lasts until no word is on its way that the fresh fetch engine would mistake
        # for its own.
        resetting = Signal(range(RESET_CYCLES + 1))
        with m.If(pacing.soft_reset):
            m.d.sync += resetting.eq(RESET_CYCLES)
        with m.Elif((resetting != 0) & memory.quiet):
            m.d.sync += resetting.eq(resetting - 1)
        # With a fast clock signals that go far start at a register.
        registered = not cfg.slow
        held = _registered(m, resetting != 0, "held", registered)
        engines = ResetInserter(held)
        m.submodules.sequencer = sequencer = engines(Sequencer(cfg))
        if several:
            front = memory
            m.d.comb += front.held.eq(held)
        else:
            stations = Stations.create(m, cfg, engines)
        m.submodules.vector = vector = engines(VectorEngine(cfg))
        if not several:
            m.submodules.store = store = engines(Store(**shape))
            front = stations.front(memory, store)

        # Link, and who reads and writes the memory.
        connect(m, flipped(self.rx), link.rx)
        connect(m, link.tx, flipped(self.tx))
        connect(m, link.request, registers.request)
        connect(m, registers.response, link.response)
        connect(m, registers.event, link.event)

        if not several:
            if external:
                connect(m, memory.port, flipped(self.memory))
            stations.from_memory(m, cfg, engines, memory)
            connect(m, store.write, memory.store)
        else:
            for inner, outer in zip(memory.memory, self.memory, strict=True):
                connect(m, inner, flipped(outer))
        connect(m, registers.host_bursts, memory.host_bursts)
        connect(m, memory.host_words, registers.host_words)
        connect(m, registers.host_write, memory.host_write)

        # From memory words to operands and tiles, from rows back to codes.
        if not several:
            stations.to_array(m, cfg, engines)
        connect(m, front.words, vector.stream)
        connect(m, front.rows, vector.rows)
        connect(m, vector.activation, front.activation)
        connect(m, vector.store, front.stored)
        connect(m, vector.trace, flipped(self.trace))

        # Commands, and what the host writes into the engines.
        connect(m, sequencer.vector, vector.command)
        connect(m, sequencer.product, front.product)
        connect(m, sequencer.fetch, front.fetch)
        connect(m, sequencer.store, front.store)
        connect(m, sequencer.section, front.section)
        connect(m, registers.program_write, sequencer.program_write)
        connect(m, registers.scalar_write, vector.scalar_write)

        # Single signals.
        m.d.comb += [
            registers.scalar_ready.eq(vector.scalar_ready),
            front.vector_done.eq(vector.stream_done),
            # What an instruction sets to work is busy before the next instruction is there.
            sequencer.vector_busy.eq(_registered(m, vector.busy, "vector_busy", registered)),
            sequencer.array_busy.eq(_registered(m, front.busy, "array_busy", registered)),
            sequencer.store_idle.eq(_registered(m, front.store_idle, "store_idle", registered)),
            vector.seed.eq(pacing.seeds),
            vector.position.eq(pacing.positions),
            pacing.best.eq(vector.best),
            registers.values.eq(counters.values),
            registers.frames_bad.eq(link.frames_bad),
            registers.frames_lost.eq(link.frames_lost),
            registers.line_errors.eq(self.line_errors),
            pacing.sample_done.eq(sequencer.sample_done),
            sequencer.sample_taken.eq(pacing.sample_taken),
            pacing.running.eq(sequencer.running),
            pacing.halted.eq(sequencer.halted),
            pacing.fault.eq(
                Mux(self.memory_fault, FAULT_MEMORY, sequencer.fault)
                if cfg.axi_ports
                else sequencer.fault
            ),
            sequencer.go.eq(pacing.go & ~(held | (resetting != 0) if registered else held)),
        ]
        if cfg.axi_ports:
            m.d.comb += registers.memory_fault.eq(self.memory_fault)
        if not several:
            stations.signals(m)
        if most_visits(cfg):
            stations.trees(m, cfg, pacing.active if cfg.batch > 1 else 1)
        running = sequencer.running
        m.d.comb += [
            sequencer.token.eq(pacing.token),
            sequencer.token_valid.eq(pacing.token_valid),
            # The conditions of a run stand when it begins.
            sequencer.unwanted.eq(_registered(m, pacing.unwanted, "unwanted", registered)),
            sequencer.at_start.eq(_registered(m, pacing.at_start, "at_start", registered)),
            sequencer.greedy.eq(_registered(m, pacing.greedy, "greedy", registered)),
        ]
        if cfg.batch > 1:
            m.d.comb += [
                sequencer.active.eq(pacing.active),
                sequencer.reads.eq(pacing.reads),
                sequencer.writes.eq(pacing.writes),
                sequencer.first.eq(pacing.first),
                sequencer.chained.eq(pacing.chained),
                pacing.sequencer_slot.eq(sequencer.slot),
                registers.program_ready.eq(sequencer.program_ready),
            ]
        if cfg.top_k:
            m.d.comb += vector.top.eq(pacing.tops)

        # The link has stages of its own, so quiet has to last a while before it counts as idle.
        quiet_cycles = Signal(8)
        active = (
            running
            | pacing.go
            | registers.busy
            | (resetting != 0)
            | self.rx.valid
            | self.tx.valid
            | link.request.valid
            | link.event.valid
        )
        m.d.sync += quiet_cycles.eq(Mux(active, 0, Mux(self.idle, quiet_cycles, quiet_cycles + 1)))

        # What is counted.
        refreshing = (front if several else self.memory).refreshing if external else 0
        # `lost`: cycles of the port
        lost = running & ~front.arrived & ~refreshing if external else 0
        m.d.comb += [
            counters.events.eq(
                Cat(
                    running,
                    front.arrived,
                    running & front.busy,
                    running & front.stall_stream,
                    running & front.stall_rows,
                    running & ~front.busy,
                    running & refreshing,
                    sequencer.halted,
                    *((lost & front.full, lost & front.empty) if external else ()),
                )
            ),
            self.idle.eq(quiet_cycles.all() & ~active),
        ]
        return m


def _registered(m, value, name, registered):
    """``value``, behind a register if ``registered``."""
    if not registered:
        return value
    register = Signal(name=name)
    m.d.sync += register.eq(value)
    return register
