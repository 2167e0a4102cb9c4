"""The fetch engines: long reads cut into bursts that run ahead into a FIFO, and long reads of
on-chip memory.
"""

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO, SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from sterna.hw.memory.port import MAX_BURST_WORDS, burst_layout, read_layout
from sterna.hw.memory.ultra import UltraQueue, in_ultra
from sterna.hw.stream import Queue, Second
from sterna.hw.tree.walker import Walker

SHIFTED_FETCHES = 4  # most places for which shifting takes fewer cells than a memory


class Fetch(wiring.Component):
    """Queues long reads and turns them into one stream of words, in order.

    A burst is commanded only when the FIFO has room for all of it, so returning words never wait.
    Throughput one word per cycle in and, in ``pairs``, two out; the read-ahead is the FIFO's depth.

    Parameters
    ----------
    address_bits, port_bytes, fifo_words : int
    pairs : bool
        The FIFO has two halves, which take turns, so that two words can leave in a cycle: its depth
        must be even.
    queued : int
        Commands that can wait.
    tree_rows, record_bits, batch : int
        Of the `Walker`; without ``tree_rows`` there is none, and commands are linear reads.

    Members
    -------
    command : In(stream of read_layout)
        Up to ``queued`` wait behind the running one; a length of 0 words is not allowed.
    active : In(B); sign : In(Sign)
        Of the walker: the first with ``tree_rows`` and B > 1, the other with ``tree_rows``.
    bursts : Out(stream of burst_layout)
    arriving : In(stream of 8 * P)
        Words of the bursts, always accepted.
    words : Out(stream of 8 * P)
    second : Out(Second)
        Only in ``pairs``.
    idle : Out(1)
        Nothing is queued, under way or waiting in the FIFO.
    full, empty : Out(1)
        No burst can be commanded for want of room in the FIFO; nothing is left to be read. For
        counters.
    """

    def __init__(
        self,
        *,
        address_bits,
        port_bytes,
        fifo_words,
        pairs=False,
        queued=SHIFTED_FETCHES,
        tree_rows=0,
        record_bits=0,
        batch=1,
    ):
        if fifo_words < 4:
            raise ValueError(f"fifo_words {fifo_words}: at least 4")
        if pairs and fifo_words % 2:
            raise ValueError(f"fifo_words {fifo_words}: must be even to give pairs of words")
        self._address_bits, self._port_bytes, self._fifo_words = (
            address_bits,
            port_bytes,
            fifo_words,
        )
        self._pairs, self._queued = pairs, queued
        self._walker = tree_rows and Walker(
            address_bits=address_bits, tree_rows=tree_rows, batch=batch, record_bits=record_bits
        )
        self._tree_rows = tree_rows
        walker = self._walker.signature.members if tree_rows else {}
        super().__init__(
            {
                "command": In(stream.Signature(read_layout(address_bits, tree_rows))),
                **{name: walker[name] for name in ("active", "sign") if name in walker},
                "bursts": Out(stream.Signature(burst_layout(address_bits))),
                "arriving": In(stream.Signature(8 * port_bytes)),
                "words": Out(stream.Signature(8 * port_bytes)),
                **({"second": Out(Second(port_bytes))} if pairs else {}),
                "idle": Out(1),
                "full": Out(1),
                "empty": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        depth = self._fifo_words
        burst = min(MAX_BURST_WORDS, depth // 4)
        # No read is longer than the memory, so the counter needs one bit more than an address.
        words_bits = min(24, self._address_bits + 1)
        held = read_layout(self._address_bits, self._tree_rows, words_bits)
        if self._queued <= SHIFTED_FETCHES:
            m.submodules.queue = queue = Queue(held, self._queued)
            commands, queued = queue.i, queue.o
        else:
            m.submodules.queue = queue = SyncFIFO(width=held.size, depth=self._queued)
            commands, queued = queue.w_stream, queue.r_stream
        asked = data.View(held, Value.cast(commands.payload))
        address = Signal(self._address_bits)
        left = Signal(words_bits)
        room = Signal(range(depth + 1), init=depth)  # words not promised to any burst
        length = Signal(8)
        taken = self._fifo(m, platform)
        issued = Signal()
        waits = 0  # for the walker
        if self._tree_rows:
            m.submodules.walker = walker = self._walker
            m.d.comb += [
                walker.sign.eq(self.sign),
                Value.cast(walker.command.payload).eq(Value.cast(queued.payload)),
                walker.command.valid.eq(queued.valid),
                queued.ready.eq(walker.command.ready),
            ]
            if hasattr(self, "active"):
                m.d.comb += walker.active.eq(self.active)
            waits = ~walker.quiet
            reads, waiting = walker.request, walker.request.payload
        else:
            reads, waiting = queued, data.View(held, Value.cast(queued.payload))
        m.d.comb += [
            *(asked[name].eq(self.command.payload[name]) for name in held.members),
            commands.valid.eq(self.command.valid),
            self.command.ready.eq(commands.ready),
            length.eq(Mux(left < burst, left, burst)),
            self.bursts.payload.address.eq(address),
            self.bursts.payload.length.eq(length),
            self.bursts.valid.eq((left != 0) & (room >= burst)),
            issued.eq(self.bursts.valid & self.bursts.ready),
            self.arriving.ready.eq(1),
            self.full.eq((left != 0) & (room < burst)),
            self.empty.eq((left == 0) & ~queued.valid & ~waits),
            self.idle.eq(self.empty & (room == depth)),
        ]
        m.d.sync += room.eq(room - Mux(issued, length, 0) + taken)
        with m.If(issued):
            m.d.sync += [
                address.eq(address + length),
                left.eq(left - length),
            ]
        m.d.comb += reads.ready.eq((left == 0) | (issued & (left == length)))
        with m.If(reads.ready & reads.valid):
            m.d.sync += [
                address.eq(waiting.address),
                left.eq(waiting.words),
            ]
        return m

    def _fifo(self, m, platform):
        """Between ``arriving`` and ``words``; returns how many words leave in this cycle."""
        width, arriving, words = 8 * self._port_bytes, self.arriving, self.words
        depth = self._fifo_words // (2 if self._pairs else 1)
        fifo_of = UltraQueue if in_ultra(platform, depth - 1) else SyncFIFOBuffered
        if not self._pairs:
            m.submodules.fifo = fifo = fifo_of(width=width, depth=depth)
            m.d.comb += [
                fifo.w_data.eq(arriving.payload),
                fifo.w_en.eq(arriving.valid),
                fifo.r_en.eq(words.ready),
                words.payload.eq(fifo.r_data),
                words.valid.eq(fifo.r_rdy),
            ]
            return words.valid & words.ready
        second = self.second
        halves = [fifo_of(width=width, depth=depth) for _ in range(2)]
        m.submodules.even, m.submodules.odd = even, odd = halves
        # The half that takes the next word and the one that holds the first
        write_odd, read_odd = Signal(), Signal()
        leaves = words.valid & words.ready
        for half, writes, reads in ((even, ~write_odd, ~read_odd), (odd, write_odd, read_odd)):
            m.d.comb += [
                half.w_data.eq(arriving.payload),
                half.w_en.eq(arriving.valid & writes),
                half.r_en.eq(Mux(reads, words.ready, second.take)),
            ]
        m.d.comb += [
            words.payload.eq(Mux(read_odd, odd.r_data, even.r_data)),
            words.valid.eq(Mux(read_odd, odd.r_rdy, even.r_rdy)),
            second.payload.eq(Mux(read_odd, even.r_data, odd.r_data)),
            second.valid.eq(even.r_rdy & odd.r_rdy),
        ]
        m.d.sync += [
            write_odd.eq(write_odd ^ arriving.valid),
            read_odd.eq(read_odd ^ (leaves & ~second.take)),
        ]
        return leaves + second.take


class DirectFetch(wiring.Component):
    """Long reads of a memory that answers a read in the next cycle: single words, no queue of
    reads, no deep FIFO.

    A word is read only if the two places behind the memory have room for it, so returning words
    never wait. Throughput one word per cycle, latency two cycles; between two commands one cycle
    passes without a read. `words.ready` reaches `reads.valid` without a register, as it must for
    two places to do.

    Parameters
    ----------
    address_bits, port_bytes : int

    Members
    -------
    command : In(stream of {address, words})
        Accepted when the last word of the command before has been read; fewer words than the memory
        has, at least 1.
    reads : Out(stream of addresses)
    arriving : In(stream of 8 * P)
        The word of a read in the cycle behind the one that accepted it, always accepted.
    words : Out(stream of 8 * P)
    idle : Out(1)
        Nothing is under way or waiting.
    """

    def __init__(self, *, address_bits, port_bytes):
        self._address_bits, self._port_bytes = address_bits, port_bytes
        super().__init__(
            {
                "command": In(stream.Signature(read_layout(address_bits))),
                "reads": Out(stream.Signature(address_bits)),
                "arriving": In(stream.Signature(8 * port_bytes)),
                "words": Out(stream.Signature(8 * port_bytes)),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        # Comparing with the end of the read takes half the cells of a second counter.
        address = Signal(self._address_bits)
        end = Signal(self._address_bits)
        running = address != end
        places = [Signal(8 * self._port_bytes, name=f"place{k}") for k in range(2)]
        full = Signal(2)  # the first place is filled before the second
        arrived = self.arriving.valid
        stays = full[0] & ~self.words.ready
        blocked = stays & (arrived | full[1])  # then both places are taken in the next cycle
        m.d.comb += [
            self.command.ready.eq(~running),
            self.reads.payload.eq(address),
            # Holds until it is accepted: without a read nothing arrives, and the second place is
            # not filled.
            self.reads.valid.eq(running & ~blocked),
            self.arriving.ready.eq(1),
            self.words.payload.eq(places[0]),
            self.words.valid.eq(full[0]),
            self.idle.eq(~running & ~full[0] & ~arrived),
        ]
        m.d.sync += full.eq(Cat(arrived | full[1] | stays, blocked))
        with m.If(~stays):
            m.d.sync += places[0].eq(Mux(full[1], places[1], self.arriving.payload))
        with m.If(arrived):  # never while the second place is full
            m.d.sync += places[1].eq(self.arriving.payload)
        loads = self.command.valid & ~running
        with m.If(loads):
            m.d.sync += end.eq(self.command.payload.address + self.command.payload.words)
        with m.If(loads | (self.reads.valid & self.reads.ready)):
            m.d.sync += address.eq(Mux(running, address + 1, self.command.payload.address))
        return m
