"""The fetch engine: long reads cut into bursts, run ahead into the stream FIFO."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from sterna.hw.memory.port import MAX_BURST_WORDS, burst_layout

QUEUED_FETCHES = 4


class ShiftQueue(wiring.Component):
    """A short queue whose words move down to the output when one leaves: smaller than a memory of flip-flops with a read
    multiplexer. One word in and one out per cycle; ports as those of `amaranth.lib.fifo.SyncFIFO`.
    """

    def __init__(self, width, depth):
        self._width, self._depth = width, depth
        super().__init__({"w_data": In(width), "w_en": In(1), "w_rdy": Out(1), "r_data": Out(width), "r_en": In(1), "r_rdy": Out(1)})

    def elaborate(self, platform):
        m = Module()
        words = [Signal(self._width, name=f"word{k}") for k in range(self._depth)]
        full = Signal(self._depth)  # bit k: place k holds a word; no gaps
        leaves = self.r_rdy & self.r_en
        enters = self.w_rdy & self.w_en
        m.d.comb += [self.r_data.eq(words[0]), self.r_rdy.eq(full[0]), self.w_rdy.eq(~full[-1])]
        for k, word in enumerate(words):
            above = words[k + 1] if k + 1 < self._depth else self.w_data
            with m.If(leaves | ~full[k]):
                m.d.sync += word.eq(Mux(full[k + 1] if k + 1 < self._depth else 0, above, self.w_data))
        with m.If(enters & ~leaves):
            m.d.sync += full.eq(Cat(1, full[:-1]))
        with m.Elif(leaves & ~enters):
            m.d.sync += full.eq(full >> 1)
        return m


class Fetch(wiring.Component):
    """Queues long reads and turns them into one stream of words, in order.

    A burst is commanded only when the FIFO has room for all of it, so returning words never wait. Throughput one word per
    cycle; the read-ahead is the FIFO's depth.

    Parameters
    ----------
    address_bits, port_bytes, fifo_words : int

    Members
    -------
    command : In(stream of {address, words})
        Up to QUEUED_FETCHES wait behind the running one; a length of 0 words is not allowed.
    bursts : Out(stream of burst_layout)
    arriving : In(stream of 8 * P)
        Words of the bursts, always accepted.
    words : Out(stream of 8 * P)
    idle : Out(1)
        Nothing is queued, under way or waiting in the FIFO.
    """

    def __init__(self, *, address_bits, port_bytes, fifo_words):
        if fifo_words < 4:
            raise ValueError(f"fifo_words {fifo_words}: at least 4")
        self._address_bits, self._port_bytes, self._fifo_words = address_bits, port_bytes, fifo_words
        self._command = data.StructLayout({"address": address_bits, "words": 24})
        super().__init__({
            "command": In(stream.Signature(self._command)),
            "bursts": Out(stream.Signature(burst_layout(address_bits))),
            "arriving": In(stream.Signature(8 * port_bytes)),
            "words": Out(stream.Signature(8 * port_bytes)),
            "idle": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        depth = self._fifo_words
        burst = min(MAX_BURST_WORDS, depth // 4)
        # No read is longer than the memory, so the counter needs one bit more than an address.
        words_bits = min(24, self._address_bits + 1)
        held = data.StructLayout({"address": self._address_bits, "words": words_bits})
        m.submodules.queue = queue = ShiftQueue(held.size, QUEUED_FETCHES)
        m.submodules.fifo = fifo = SyncFIFOBuffered(width=8 * self._port_bytes, depth=depth)
        waiting, asked = data.View(held, queue.r_data), data.View(held, queue.w_data)
        address = Signal(self._address_bits)
        left = Signal(words_bits)
        room = Signal(range(depth + 1), init=depth)  # words not promised to any burst
        length = Signal(8)
        taken = fifo.r_en & fifo.r_rdy
        issued = Signal()
        m.d.comb += [
            asked.address.eq(self.command.payload.address), asked.words.eq(self.command.payload.words),
            queue.w_en.eq(self.command.valid),
            self.command.ready.eq(queue.w_rdy),
            length.eq(Mux(left < burst, left, burst)),
            self.bursts.payload.address.eq(address),
            self.bursts.payload.length.eq(length),
            self.bursts.valid.eq((left != 0) & (room >= burst)),
            issued.eq(self.bursts.valid & self.bursts.ready),
            self.arriving.ready.eq(1),
            fifo.w_data.eq(self.arriving.payload),
            fifo.w_en.eq(self.arriving.valid),
            self.words.payload.eq(fifo.r_data),
            self.words.valid.eq(fifo.r_rdy),
            fifo.r_en.eq(self.words.ready),
            self.idle.eq((left == 0) & ~queue.r_rdy & (room == depth)),
        ]
        m.d.sync += room.eq(room - Mux(issued, length, 0) + taken)
        with m.If(issued):
            m.d.sync += [address.eq(address + length), left.eq(left - length)]
        m.d.comb += queue.r_en.eq((left == 0) | (issued & (left == length)))
        with m.If(queue.r_en & queue.r_rdy):
            m.d.sync += [address.eq(waiting.address), left.eq(waiting.words)]
        return m
