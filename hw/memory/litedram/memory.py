"""The memory of a board with DDR3 SDRAM behind the memory port, by LiteDRAM."""

from amaranth import DomainRenamer, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from sterna.hw.memory.crossing import cross, requests_of
from sterna.hw.memory.ddr3.dfi import BURST_BYTES, CellsStart, Levelled
from sterna.hw.memory.ddr3.level import Leveller
from sterna.hw.memory.ddr3.phy import Ddr3Pads
from sterna.hw.memory.ddr3.start import Start
from sterna.hw.memory.litedram.core import LitedramCore, Steps
from sterna.hw.memory.litedram.native import NativeAdapter
from sterna.hw.memory.litedram.verilog import latencies
from sterna.hw.memory.port import MemoryPort


class LitedramMemory(wiring.Component):
    """Memory port on a DDR3 SDRAM of 16 bits through LiteDRAM, in place of ``Ddr3Memory``.

        port (sync) -- reads and writes in one order --> crossing --> leveller --> adapter --> core
        port (sync) <-- crossing <-- leveller <-- adapter <-- core (memory, memory2x, init) -- pads

    The chip is brought up and its reads are levelled as with the own cells, by ``Start`` and
    ``Leveller``; ``Steps`` turns the leveller's settings into the steps of LiteDRAM's registers.

    Throughput: a burst per two cycles of ``memory`` less refresh and rows. Latency: LiteDRAM's own,
    about 25 cycles of ``memory``, and both ways through the crossing. Back-pressure: 9 requests
    wait in the crossing; none is taken before the reads are levelled.

    Parameters
    ----------
    chip : sterna.hw.memory.chips.Ddr3Chip
    memory_hz : int
        Of the controller, half of the chip's.
    address_bits : int
        Of the memory port, whose words are bursts of the chip, 16 bytes.

    Members
    -------
    port : In(MemoryPort), in the domain ``sync``
    pads : Out(Ddr3Pads)
    levelled : Out(Levelled), in the domain ``memory``
    start : Out(CellsStart), in the domain ``init``
    """

    def __init__(self, chip, memory_hz, address_bits):
        self._chip, self._memory_hz = chip, memory_hz
        super().__init__(
            {
                "port": In(MemoryPort(address_bits, BURST_BYTES)),
                "pads": Out(Ddr3Pads(chip.row_bits)),
                "levelled": Out(Levelled()),
                "start": Out(CellsStart()),
            }
        )

    def elaborate(self, platform):
        m = Module()
        chip, hz, port = self._chip, self._memory_hz, self.port
        in_memory = DomainRenamer("memory")
        m.submodules.core = core = LitedramCore(chip, hz)
        m.submodules.adapter = adapter = in_memory(NativeAdapter(chip.address_bits))
        # A new setting comes in the middle of the pause
        levels = Leveller(chip.address_bits, 1, pause=2 * Steps.CYCLES + 16)
        m.submodules.level = level = in_memory(levels)
        m.submodules.steps = steps = in_memory(Steps())
        m.submodules.start = start = in_memory(Start(chip, hz, *latencies(hz)))
        connect(m, adapter.native, core.native)
        connect(m, level.asks, adapter.requests)
        connect(m, adapter.words, level.given)
        connect(m, level.trim, steps.trim)
        request = requests_of(m, port, chip.address_bits, 1)
        asked = cross(m, in_memory, request, port, level.words, core.refreshing)
        connect(m, asked, level.requests)
        connect(m, core.pads, flipped(self.pads))
        for name in ("command", "bank", "address", "reset_n", "cke"):
            m.d.comb += getattr(core, name).eq(getattr(start, name))
        for name in ("sel", "delay_inc", "slip_inc", "clear"):
            m.d.comb += getattr(core, name).eq(getattr(steps, name))
        was_paused = Signal()
        m.d.init += was_paused.eq(core.pause)
        with m.If(was_paused & ~core.pause):
            m.d.init += self.start.done.eq(1)
        m.d.comb += [
            steps.seen.eq(core.seen),
            core.started.eq(start.done),
            level.start.eq(start.done),
            self.levelled.done.eq(level.done),
            self.levelled.failed.eq(level.failed),
            self.levelled.good.eq(level.good),
            self.start.stop.eq(core.stop),
            self.start.reset.eq(core.reset),
        ]
        return m
