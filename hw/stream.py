"""Streams between stations: a queue, a second word beside the one offered, a skid buffer, a queue
between two clocks, and a gearbox; `i` in, `o` out.
"""

from math import gcd

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.fifo import AsyncFIFO
from amaranth.lib.wiring import In, Out, connect, flipped

SKID_DEPTH = 2  # places with which a stream whose ready comes from flip-flops keeps its full rate


def delayed(m, value, cycles, name, reset=False):
    """``value`` some cycles later, behind registers called ``name`` and a number.

    They need no ``reset`` where bits that have one mark what the value is for.
    """
    for k in range(cycles):
        register = Signal.like(value, name=f"{name}_late{k}", reset_less=not reset)
        m.d.sync += register.eq(value)
        value = register
    return value


class Queue(wiring.Component):
    """A short queue in flip-flops whose items move down to the output when one leaves: smaller than
    a memory with a read multiplexer.

    Throughput one item per cycle, with a depth of 1 every other cycle; latency one cycle.
    Back-pressure: ``i.ready`` falls while all places are taken, and does not depend on ``o.ready``.

    Parameters
    ----------
    shape : shape-like
        Shape of the payload.
    depth : int
        Items that the queue holds, at least 1.

    Members
    -------
    i : In(stream of shape); o : Out(stream of shape)
    """

    def __init__(self, shape, depth):
        self._depth = depth
        super().__init__(
            {
                "i": In(stream.Signature(shape)),
                "o": Out(stream.Signature(shape)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        arriving = Value.cast(self.i.payload)
        words = [Signal(len(arriving), name=f"word{k}") for k in range(self._depth)]
        full = Signal(self._depth)  # bit k: place k holds an item; no gaps
        leaves = self.o.valid & self.o.ready
        enters = self.i.ready & self.i.valid
        m.d.comb += [
            Value.cast(self.o.payload).eq(words[0]),
            self.o.valid.eq(full[0]),
            self.i.ready.eq(~full[-1]),
        ]
        for k, word in enumerate(words):
            above = words[k + 1] if k + 1 < self._depth else arriving
            with m.If(leaves | ~full[k]):
                m.d.sync += word.eq(Mux(full[k + 1] if k + 1 < self._depth else 0, above, arriving))
        with m.If(enters & ~leaves):
            m.d.sync += full.eq(Cat(1, full[:-1]))
        with m.Elif(leaves & ~enters):
            m.d.sync += full.eq(full >> 1)
        return m


class Second(wiring.Signature):
    """The word behind the one that a stream of words of P bytes offers: a consumer that takes that
    one may ``take`` this one with it, if ``valid``.
    """

    def __init__(self, port_bytes):
        super().__init__(
            {
                "payload": Out(8 * port_bytes),
                "valid": Out(1),
                "take": In(1),
            }
        )


class SkidBuffer(wiring.Component):
    """Two places of flip-flops between a queue in block RAM and who takes its words: what it offers
    comes from flip-flops, and what it takes does not depend on what is taken from it in the same
    cycle.

    Block RAM gives its data late in the cycle, and its addresses are far from where its words go.
    Throughput one word per cycle, latency one cycle; in ``pairs`` two words per cycle, as two
    queues take turns.

    Parameters
    ----------
    port_bytes : int
    pairs : bool

    Members
    -------
    i : In(stream of 8 * P); o : Out(stream of 8 * P)
    i_second : In(Second); o_second : Out(Second)
        Only in ``pairs``.
    """

    def __init__(self, *, port_bytes, pairs=False):
        self._bits, self._pairs = 8 * port_bytes, pairs
        word, second = stream.Signature(self._bits), Second(port_bytes)
        members = {
            "i": In(word),
            "o": Out(word),
        }
        if pairs:
            members |= {
                "i_second": In(second),
                "o_second": Out(second),
            }
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        words, out = self.i, self.o
        if not self._pairs:
            m.submodules.queue = queue = Queue(self._bits, SKID_DEPTH)
            connect(m, flipped(words), queue.i)
            connect(m, queue.o, flipped(out))
            return m
        second, out_second = self.i_second, self.o_second
        m.submodules.even, m.submodules.odd = even, odd = [
            Queue(self._bits, SKID_DEPTH) for _ in range(2)
        ]
        # The queue that takes the next word and the one that holds the first.
        write_odd, read_odd = Signal(), Signal()
        for queue, writes, reads in ((even, ~write_odd, ~read_odd), (odd, write_odd, read_odd)):
            m.d.comb += [
                queue.i.payload.eq(Mux(writes, words.payload, second.payload)),
                queue.i.valid.eq(Mux(writes, words.valid, second.take)),
                queue.o.ready.eq(Mux(reads, out.ready, out_second.take)),
            ]
        takes, leaves = words.valid & words.ready, out.valid & out.ready
        m.d.comb += [
            words.ready.eq(Mux(write_odd, odd.i.ready, even.i.ready)),
            second.take.eq(words.valid & second.valid & even.i.ready & odd.i.ready),
            out.payload.eq(Mux(read_odd, odd.o.payload, even.o.payload)),
            out.valid.eq(Mux(read_odd, odd.o.valid, even.o.valid)),
            out_second.payload.eq(Mux(read_odd, even.o.payload, odd.o.payload)),
            out_second.valid.eq(even.o.valid & odd.o.valid),
        ]
        m.d.sync += [
            write_odd.eq(write_odd ^ (takes & ~second.take)),
            read_odd.eq(read_odd ^ (leaves & ~out_second.take)),
        ]
        return m


class AsyncQueue(wiring.Component):
    """A stream from one clock domain to another, through a FIFO with Gray pointers.

    Order is kept, nothing is lost or doubled, whatever the clocks' phases and frequencies are.
    Throughput one item per cycle of the slower clock with 8 places or more. Latency: an item is
    offered 2 to 3 cycles of the reading clock after the writing edge; a place is free again as long
    after it has been read. Back-pressure: `i.ready` falls while all places are taken. A reset of
    the writing domain empties the FIFO; one of the reading domain alone must not happen. A board
    holds both until both clocks run.

    Two crossings keep no order between them: reads and writes of a memory port, where a read must
    see the writes accepted before it, have to share one.

    Parameters
    ----------
    shape : shape-like
        Shape of the payload.
    i_domain, o_domain : str
        Clock domains of `i` and `o`.
    depth : int
        Items that the queue holds, a power of two, at least 4.

    Members
    -------
    i : In(stream of shape), in the domain `i_domain`
    o : Out(stream of shape), in the domain `o_domain`
    """

    def __init__(self, shape, *, i_domain, o_domain, depth=8):
        if depth < 4 or depth & (depth - 1):
            raise ValueError(f"depth {depth!r}: use a power of two, at least 4")
        if i_domain == o_domain:
            raise ValueError(f"domain {i_domain!r} on both sides: connect the streams instead")
        self._i_domain, self._o_domain, self._depth = i_domain, o_domain, depth
        super().__init__(
            {
                "i": In(stream.Signature(shape)),
                "o": Out(stream.Signature(shape)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.fifo = fifo = AsyncFIFO(
            width=len(Value.cast(self.i.payload)),
            depth=self._depth,
            w_domain=self._i_domain,
            r_domain=self._o_domain,
        )
        m.d.comb += [
            fifo.w_data.eq(self.i.payload),
            fifo.w_en.eq(self.i.valid),
            self.i.ready.eq(fifo.w_rdy),
            self.o.payload.eq(fifo.r_data),
            self.o.valid.eq(fifo.r_rdy),
            fifo.r_en.eq(self.o.ready),
        ]
        return m


class Gearbox(wiring.Component):
    """A run of bytes in memory words of P to the same bytes in weight tiles of T, for any pair of
    sizes.

    When P = T a word is a tile. Otherwise a shift register of P + T bytes gives a tile whenever it
    holds T bytes and takes a word only when the next tile needs it, so it never reaches into the
    section behind. Up to one tile and one word per cycle or, where T > P, two words: then a tile
    per cycle as long as T <= 2 P. ``drop``, with the last tile of a section, forgets what is left
    of the last word. With ``records`` a section may be of many runs that begin at a word each:
    ``drop`` comes with the last tile of each, and unless it ``ends`` the section too, the next run
    begins in the same cycle.

    Parameters
    ----------
    port_bytes, tile_bytes : int
        P and T.
    records : bool

    Members
    -------
    i : In(stream of 8 * P)
        Words.
    i_second : In(Second)
        Only where T > P.
    o : Out(stream of 8 * T)
        Tiles.
    drop : In(1)
    ends : In(1)
        Only with ``records``.
    """

    def __init__(self, *, port_bytes, tile_bytes, records=False):
        self._port, self._tile, self._records = port_bytes, tile_bytes, records
        super().__init__(
            {
                "i": In(stream.Signature(8 * port_bytes)),
                **({"i_second": In(Second(port_bytes))} if tile_bytes > port_bytes else {}),
                "o": Out(stream.Signature(8 * tile_bytes)),
                "drop": In(1),
                **({"ends": In(1)} if records else {}),
            }
        )

    def elaborate(self, platform):
        m = Module()
        port, tile = self._port, self._tile
        if port == tile:
            wiring.connect(m, wiring.flipped(self.i), wiring.flipped(self.o))
            return m
        size, step = port + tile, gcd(port, tile)
        held = Signal(8 * size)
        level, after = Signal(range(size + 1)), Signal(range(size + 1))
        rest = Signal(8 * size)
        gives = self.o.valid & self.o.ready
        takes = self.i.valid & self.i.ready
        m.d.comb += [
            self.o.payload.eq(held[: 8 * tile]),
            self.o.valid.eq(level >= tile),
            self.i.ready.eq((after < tile) & ~(self.ends if self._records else self.drop)),
            after.eq(Mux(gives, level - tile, level)),
            rest.eq(Mux(gives, held >> (8 * tile), held)),
        ]
        if self._records:
            with m.If(self.drop):
                m.d.comb += after.eq(0)
        arriving, added = self.i.payload, takes * port
        if tile > port:
            second = self.i_second
            m.d.comb += second.take.eq(takes & second.valid & (after < tile - port))
            arriving, added = Cat(arriving, second.payload), added + second.take * port
        m.d.sync += [
            held.eq(rest),
            level.eq(Mux(self.ends if self._records else self.drop, 0, after + added)),
        ]
        with m.If(takes):
            with m.Switch(after):
                for k in range(0, tile, step):
                    with m.Case(k):
                        m.d.sync += held.eq(Cat(rest[: 8 * k], arriving))
        return m
