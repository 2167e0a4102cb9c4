"""The memory of a board with SDR SDRAM: its controller, in a clock domain of its own, behind the
memory port.
"""

from amaranth import Cat, DomainRenamer, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out, connect, flipped

from sterna.hw.memory.chips import CHIPS, DATA_BYTES
from sterna.hw.memory.pins import DATA_BITS, SdramPins
from sterna.hw.memory.port import MemoryPort
from sterna.hw.memory.sdram import SdramController, request_layout
from sterna.hw.stream import AsyncQueue, Queue

REQUESTS, RETURNED = 8, 16  # depths of the crossings
# Clock domains that a board has at most, and the ways between them; tests compare them with the
# gateware. The accelerator itself has one domain. Single levels, such as a serial line's input, go
# through `amaranth.lib.cdc.FFSynchronizer`, and the reset of a domain comes from
# `amaranth.lib.cdc.ResetSynchronizer`.
DOMAINS = {
    "sync": "link, core and memory port",
    "memory": "controller of an SDRAM with a clock of its own",
}
CROSSINGS = (  # (from, to, name within SdramMemory, what)
    ("sync", "memory", "requests", "reads and writes of the memory port, in one order"),
    ("memory", "sync", "returned", "words that were read"),
    ("memory", "sync", "refreshing", "a level, for the counters"),
)


class Gather(wiring.Component):
    """Makes one word of ``count`` words of 16 bits, the first of them lowest. A word per ``count``
    cycles, latency 1; output.ready has no effect.
    """

    def __init__(self, count):
        self._count = count
        super().__init__(
            {
                "input": In(stream.Signature(DATA_BITS)),
                "output": Out(stream.Signature(DATA_BITS * count)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        number = Signal(range(self._count))
        m.d.comb += self.input.ready.eq(1)
        m.d.sync += self.output.valid.eq(self.input.valid & (number == self._count - 1))
        with m.If(self.input.valid):
            m.d.sync += [
                number.eq(number + 1),
                self.output.payload.eq(Cat(self.output.payload[DATA_BITS:], self.input.payload)),
            ]
        return m


class SdramMemory(wiring.Component):
    """Memory port on an SDR SDRAM of 16 bits, whose controller may have a clock of its own.

        port (sync) -- reads and writes in one order --> crossing --> controller --> pins (memory)
        port (sync) <-- crossing <------- words of the port <--- gathered words of 16 bits

    Reads and writes share one crossing, so a read sees the writes accepted before it. While both
    wait, writes go first. The accelerator takes a word of the port in every cycle and the chip
    gives fewer, so none is lost.

    Throughput: that of the controller. Latency: its own, about 4 cycles of its clock there and 3 of
    the accelerator's back. Back-pressure: 9 requests wait in the crossing.

    Parameters
    ----------
    config : sterna.hw.config.Config
        With ``sdram``, the chip, and ``memory_hz``, its clock; if that is the accelerator's own,
        all is in ``sync``.

    Members
    -------
    port : In(MemoryPort), in the domain ``sync``
    pins : Out(SdramPins), in the domain ``memory`` (or ``sync``)
    ready : Out(1)
        The chip is initialised; in the controller's domain.
    """

    def __init__(self, config):
        self._config, self._chip = config, CHIPS[config.sdram]
        super().__init__(
            {
                "port": In(MemoryPort(config.word_address_bits, config.port_bytes)),
                "pins": Out(SdramPins(self._chip.row_bits)),
                "ready": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        cfg, port, own = self._config, self.port, self._config.own_memory_clock
        count = cfg.port_bytes // DATA_BYTES
        clock_hz = cfg.memory_hz if own else cfg.clock_hz
        in_domain = DomainRenamer("memory") if own else (lambda component: component)
        m.submodules.controller = controller = in_domain(
            SdramController(self._chip, clock_hz, count)
        )
        words = controller.words
        if count > 1:
            m.submodules.gather = gather = in_domain(Gather(count))
            connect(m, controller.words, gather.input)
            words = gather.output
        layout = request_layout(self._chip.address_bits, count)
        request = stream.Signature(layout).create()
        reads = port.read_command.payload
        number_bits = count.bit_length() - 1  # of the words of 16 bits within one of the port
        m.d.comb += [
            request.payload.write.eq(port.write.valid),
            request.payload.address.eq(
                Mux(port.write.valid, port.write.payload.address, reads.address) << number_bits
            ),
            request.payload.length.eq(reads.length << number_bits),
            request.payload.data.eq(port.write.payload.data),
            request.payload.mask.eq(port.write.payload.mask),
            request.valid.eq(port.write.valid | port.read_command.valid),
            port.write.ready.eq(request.ready),
            port.read_command.ready.eq(request.ready & ~port.write.valid),
            self.ready.eq(controller.ready),
        ]
        if own:
            m.submodules.requests = asks = AsyncQueue(
                layout, i_domain="sync", o_domain="memory", depth=REQUESTS
            )
            m.submodules.returned = back = AsyncQueue(
                DATA_BITS * count, i_domain="memory", o_domain="sync", depth=RETURNED
            )
            m.submodules.refreshing = FFSynchronizer(controller.refreshing, port.refreshing)
            connect(m, request, asks.i)
            # From a place of its own: the pointers of the crossing stay where its memory is.
            m.submodules.request = place = in_domain(Queue(layout, 1))
            connect(m, asks.o, place.i)
            connect(m, place.o, controller.requests)
            connect(m, words, back.i)
            connect(m, back.o, flipped(port.read_data))
        else:
            connect(m, request, controller.requests)
            connect(m, words, flipped(port.read_data))
            m.d.comb += port.refreshing.eq(controller.refreshing)
        connect(m, controller.pins, flipped(self.pins))
        return m
