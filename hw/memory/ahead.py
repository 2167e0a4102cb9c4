"""Places of flip-flops between a FIFO in block RAM and who takes its words."""

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from sterna.hw.memory.fetch import Second, ShiftQueue

PLACES = 2


class Ahead(wiring.Component):
    """Passes a stream through two places: what it offers comes from flip-flops, and what it takes does not depend on
    what is taken from it in the same cycle.

    Block RAM gives its data late in the cycle, and its addresses are far from where its words go. Throughput one word
    per cycle, latency one cycle; in ``pairs`` two words per cycle, as two queues take turns.

    Parameters
    ----------
    port_bytes : int
    pairs : bool

    Members
    -------
    words : In(stream of 8 * P); out : Out(stream of 8 * P)
    second : In(Second); out_second : Out(Second)
        Only in ``pairs``.
    """

    def __init__(self, *, port_bytes, pairs=False):
        self._bits, self._pairs = 8 * port_bytes, pairs
        word, second = stream.Signature(self._bits), Second(port_bytes)
        super().__init__({"words": In(word), "out": Out(word),
                          **({"second": In(second), "out_second": Out(second)} if pairs else {})})

    def elaborate(self, platform):
        m = Module()
        words, out = self.words, self.out
        if not self._pairs:
            m.submodules.queue = queue = ShiftQueue(self._bits, PLACES)
            m.d.comb += queue.between(words, out)
            return m
        second, out_second = self.second, self.out_second
        m.submodules.even, m.submodules.odd = even, odd = [ShiftQueue(self._bits, PLACES) for _ in range(2)]
        # The queue that takes the next word and the one that holds the first.
        write_odd, read_odd = Signal(), Signal()
        for queue, writes, reads in ((even, ~write_odd, ~read_odd), (odd, write_odd, read_odd)):
            m.d.comb += [
                queue.w_data.eq(Mux(writes, words.payload, second.payload)),
                queue.w_en.eq(Mux(writes, words.valid, second.take)),
                queue.r_en.eq(Mux(reads, out.ready, out_second.take)),
            ]
        takes, leaves = words.valid & words.ready, out.valid & out.ready
        m.d.comb += [
            words.ready.eq(Mux(write_odd, odd.w_rdy, even.w_rdy)),
            second.take.eq(words.valid & second.valid & even.w_rdy & odd.w_rdy),
            out.payload.eq(Mux(read_odd, odd.r_data, even.r_data)),
            out.valid.eq(Mux(read_odd, odd.r_rdy, even.r_rdy)),
            out_second.payload.eq(Mux(read_odd, even.r_data, odd.r_data)),
            out_second.valid.eq(even.r_rdy & odd.r_rdy),
        ]
        m.d.sync += [write_odd.eq(write_odd ^ (takes & ~second.take)),
                     read_odd.eq(read_odd ^ (leaves & ~out_second.take))]
        return m
