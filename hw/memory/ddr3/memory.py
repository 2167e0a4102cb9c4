"""The memory of a board with DDR3 SDRAM: controller and leveller, in a clock domain of their own,
behind the memory port.
"""

from amaranth import Cat, DomainRenamer, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out, connect, flipped

from sterna.hw.memory.chips import DDR3_CHIPS
from sterna.hw.memory.ddr3.controller import Ddr3Controller, request_layout
from sterna.hw.memory.ddr3.dfi import BURST_BITS, BURST_BYTES, Ddr3Pins, Levelled
from sterna.hw.memory.ddr3.level import Leveller
from sterna.hw.memory.port import MemoryPort
from sterna.hw.stream import AsyncQueue, Queue

# Depths of the crossings
REQUESTS, RETURNED = 8, 16


class Join(wiring.Component):
    """Makes one word of ``count`` bursts, the first of them lowest. Latency 1; output.ready has no
    effect.
    """

    def __init__(self, count):
        self._count = count
        super().__init__(
            {
                "input": In(stream.Signature(BURST_BITS)),
                "output": Out(stream.Signature(BURST_BITS * count)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        number, output = Signal(range(self._count)), self.output
        m.d.comb += self.input.ready.eq(1)
        m.d.sync += output.valid.eq(self.input.valid & (number == self._count - 1))
        with m.If(self.input.valid):
            m.d.sync += [
                number.eq(number + 1),
                output.payload.eq(Cat(output.payload[BURST_BITS:], self.input.payload)),
            ]
        return m


class Ddr3Memory(wiring.Component):
    """Memory port on a DDR3 SDRAM of 16 bits with a clock of its own.

        port (sync) -- reads and writes in one order --> crossing --> leveller --> controller
        port (sync) <-- crossing <- words of the port <- leveller <- bursts of 16 bytes -- dfi

    Reads and writes share one crossing, so a read sees the writes accepted before it. While both
    wait, writes go first. The accelerator takes a word of the port in every cycle and the chip
    gives no more, so none is lost.

    Throughput: that of the controller. Latency: from a read of an open row to its first word about
    30 cycles of the controller and 6 of the accelerator. Back-pressure: 9 requests wait in the
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
        m.submodules.controller = controller = in_memory(
            Ddr3Controller(chip, cfg.memory_hz, count)
        )
        m.submodules.level = level = in_memory(Leveller(chip.address_bits, count))
        connect(m, level.asks, controller.requests)
        connect(m, controller.words, level.given)
        words = level.words
        if count > 1:
            m.submodules.join = join = in_memory(Join(count))
            connect(m, level.words, join.input)
            words = join.output

        layout = request_layout(chip.address_bits, count)
        request = stream.Signature(layout).create()
        reads, writes = port.read_command.payload, port.write.payload
        bits = count.bit_length() - 1  # of the bursts within a word of the port
        m.d.comb += [
            request.payload.write.eq(port.write.valid),
            request.payload.address.eq(
                Mux(port.write.valid, writes.address, reads.address) << bits
            ),
            request.payload.length.eq(reads.length << bits),
            request.payload.data.eq(writes.data),
            request.payload.mask.eq(writes.mask),
            request.valid.eq(port.write.valid | port.read_command.valid),
            port.write.ready.eq(request.ready),
            port.read_command.ready.eq(request.ready & ~port.write.valid),
        ]
        m.submodules.requests = asks = AsyncQueue(
            layout, i_domain="sync", o_domain="memory", depth=REQUESTS
        )
        m.submodules.returned = back = AsyncQueue(
            BURST_BITS * count, i_domain="memory", o_domain="sync", depth=RETURNED
        )
        m.submodules.refreshing = FFSynchronizer(controller.refreshing, port.refreshing)
        connect(m, request, asks.i)
        # From a place of its own: the pointers of the crossing stay where its memory is.
        m.submodules.request = place = in_memory(Queue(layout, 1))
        connect(m, asks.o, place.i)
        connect(m, place.o, level.requests)
        connect(m, words, back.i)
        connect(m, back.o, flipped(port.read_data))
        connect(m, controller.dfi, flipped(self.pins.dfi))
        connect(m, level.trim, flipped(self.pins.trim))
        m.d.comb += [
            level.start.eq(controller.ready),
            self.levelled.done.eq(level.done),
            self.levelled.failed.eq(level.failed),
            self.levelled.good.eq(level.good),
        ]
        return m
