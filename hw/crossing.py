"""Clock domains and the way between two of them.

`DOMAINS` and `CROSSINGS` list what a board has at most; `tests/rtl/test_crossing.py` compares them with the gateware.
The accelerator itself has one domain. A memory controller with a clock of its own is crossed to at the memory port,
with `StreamCrossing`; single levels, such as a serial line's input, go through `amaranth.lib.cdc.FFSynchronizer`, and
the reset of a domain comes from `amaranth.lib.cdc.ResetSynchronizer`.
"""

from amaranth import Module, Value
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import AsyncFIFO
from amaranth.lib.wiring import In, Out

DOMAINS = {"sync": "link, core and memory port", "memory": "controller of an SDRAM with a clock of its own"}
CROSSINGS = (  # (from, to, name within hw.memory.external, what)
    ("sync", "memory", "requests", "reads and writes of the memory port, in one order"),
    ("memory", "sync", "returned", "words that were read"),
    ("memory", "sync", "refreshing", "a level, for the counters"),
)


class StreamCrossing(wiring.Component):
    """A stream from one clock domain to another, through a FIFO with Gray pointers.

    Order is kept, nothing is lost or doubled, whatever the clocks' phases and frequencies are. Throughput one item
    per cycle of the slower clock with 8 places or more. Latency: an item is offered 2 to 3 cycles of the reading
    clock after the writing edge; a place is free again as long after it has been read. Back-pressure: `input.ready`
    falls while all places are taken. A reset of the writing domain empties the FIFO; one of the reading domain alone
    must not happen. A board holds both until both clocks run.

    Two crossings keep no order between them: reads and writes of a memory port, where a read must see the writes
    accepted before it, have to share one.

    Parameters
    ----------
    shape : shape-like
        Shape of the payload.
    writing, reading : str
        Clock domains of `input` and `output`.
    places : int
        Items that the FIFO holds, a power of two, at least 4.

    Members
    -------
    input : In(stream of shape), in the domain `writing`
    output : Out(stream of shape), in the domain `reading`
    """

    def __init__(self, shape, *, writing, reading, places=8):
        if places < 4 or places & (places - 1):
            raise ValueError(f"places {places!r}: use a power of two, at least 4")
        if writing == reading:
            raise ValueError(f"domain {writing!r} on both sides: connect the streams instead")
        self._writing, self._reading, self._places = writing, reading, places
        super().__init__({"input": In(stream.Signature(shape)), "output": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.fifo = fifo = AsyncFIFO(width=len(Value.cast(self.input.payload)), depth=self._places,
                                             w_domain=self._writing, r_domain=self._reading)
        m.d.comb += [
            fifo.w_data.eq(self.input.payload), fifo.w_en.eq(self.input.valid), self.input.ready.eq(fifo.w_rdy),
            self.output.payload.eq(fifo.r_data), self.output.valid.eq(fifo.r_rdy), fifo.r_en.eq(self.output.ready),
        ]
        return m
