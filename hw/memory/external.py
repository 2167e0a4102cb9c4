"""The memory of a board with SDR SDRAM: its controller, in a clock domain of its own, behind the
memory port.
"""

from amaranth import DomainRenamer, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from sterna.hw.memory.chips import CHIPS, DATA_BYTES
from sterna.hw.memory.crossing import Gather, cross, requests_of
from sterna.hw.memory.pins import DATA_BITS, SdramPins
from sterna.hw.memory.port import MemoryPort
from sterna.hw.memory.sdram import SdramController

# Clock domains that a board has at most, and the ways between them; tests compare them with the
# gateware. The accelerator itself has one domain. Single levels, such as a serial line's input, go
# through `amaranth.lib.cdc.FFSynchronizer`, and the reset of a domain comes from
# `amaranth.lib.cdc.ResetSynchronizer`.
DOMAINS = {
    "sync": "link, core and memory port",
    "memory": "controller of an SDRAM or a DDR3 SDRAM with a clock of its own",
}
# A DDR3 SDRAM adds these in the gateware around: the cells at its pins take levels of `memory` with
# the edges that both clocks share, and what `init` says are levels that stand for cycles, and
# resets.
DDR3_DOMAINS = {
    "memory2x": "cells at the pins of a DDR3 SDRAM, at its clock; no flip-flop of the fabric",
    "init": "start of these cells, at the oscillator's clock",
}
CROSSINGS = (  # (from, to, name within SdramMemory, Ddr3Memory or LitedramMemory, what)
    ("sync", "memory", "requests", "reads and writes of the memory port, in one order"),
    ("memory", "sync", "returned", "words that were read"),
    ("memory", "sync", "refreshing", "a level, for the counters"),
)


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
            m.submodules.gather = gather = in_domain(Gather(count, DATA_BITS))
            connect(m, controller.words, gather.input)
            words = gather.output
        request = requests_of(m, port, self._chip.address_bits, count)
        m.d.comb += self.ready.eq(controller.ready)
        if own:
            asked = cross(m, in_domain, request, port, words, controller.refreshing)
            connect(m, asked, controller.requests)
        else:
            connect(m, request, controller.requests)
            connect(m, words, flipped(port.read_data))
            m.d.comb += port.refreshing.eq(controller.refreshing)
        connect(m, controller.pins, flipped(self.pins))
        return m
