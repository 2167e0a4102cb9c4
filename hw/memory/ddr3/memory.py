"""The memory of a board with DDR3 SDRAM: controller and leveller, in a clock domain of their own,
behind the memory port.
"""

from amaranth import DomainRenamer, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from sterna.hw.memory.chips import DDR3_CHIPS
from sterna.hw.memory.crossing import Gather, cross, requests_of
from sterna.hw.memory.ddr3.controller import Ddr3Controller
from sterna.hw.memory.ddr3.dfi import BURST_BITS, BURST_BYTES, Ddr3Pins, Levelled
from sterna.hw.memory.ddr3.level import Leveller
from sterna.hw.memory.port import MemoryPort

# Depth of the crossing of requests: of as few as it may have, so that the pointers make no path of
# the controller's clock long. A read takes it many cycles, so no cycle is lost.
REQUESTS = 4


class Ddr3Memory(wiring.Component):
    """Memory port on a DDR3 SDRAM of 16 bits with a clock of its own.

        port (sync) -- reads and writes in one order --> crossing --> leveller --> controller
        port (sync) <-- crossing <- words of the port <- leveller <- bursts of 16 bytes -- dfi

    Reads and writes share one crossing, so a read sees the writes accepted before it. While both
    wait, writes go first. The accelerator takes a word of the port in every cycle and the chip
    gives no more, so none is lost.

    Throughput: that of the controller. Latency: from a read of an open row to its first word about
    30 cycles of the controller and 6 of the accelerator. Back-pressure: 5 requests wait in the
    crossing; none is taken before the reads are levelled.

    Parameters
    ----------
    config : sterna.hw.config.Config
        With ``ddr3``, the chip, and ``memory_hz``, the clock of its controller.

    Members
    -------
    port : In(MemoryPort), in the domain ``sync``
    pins : Out(Ddr3Pins), in the domain ``memory``
    levelled : Out(Levelled), in the domain ``memory``
    """

    def __init__(self, config):
        self._config, self._chip = config, DDR3_CHIPS[config.ddr3]
        super().__init__(
            {
                "port": In(MemoryPort(config.word_address_bits, config.port_bytes)),
                "pins": Out(Ddr3Pins(self._chip.row_bits)),
                "levelled": Out(Levelled()),
            }
        )

    def elaborate(self, platform):
        m = Module()
        cfg, port, chip = self._config, self.port, self._chip
        count = cfg.port_bytes // BURST_BYTES
        in_memory = DomainRenamer("memory")
        m.submodules.controller = controller = in_memory(Ddr3Controller(chip, cfg.memory_hz, count))
        m.submodules.level = level = in_memory(Leveller(chip.address_bits, count))
        connect(m, level.asks, controller.requests)
        connect(m, controller.words, level.given)
        words = level.words
        if count > 1:
            m.submodules.gather = gather = in_memory(Gather(count, BURST_BITS))
            connect(m, level.words, gather.input)
            words = gather.output

        request = requests_of(m, port, chip.address_bits, count)
        asked = cross(
            m, in_memory, request, port, words, controller.refreshing, requests=REQUESTS
        )
        connect(m, asked, level.requests)
        connect(m, controller.dfi, flipped(self.pins.dfi))
        connect(m, level.trim, flipped(self.pins.trim))
        m.d.comb += [
            level.start.eq(controller.ready),
            self.levelled.done.eq(level.done),
            self.levelled.failed.eq(level.failed),
            self.levelled.good.eq(level.good),
        ]
        return m
