"""The list of the best rows of a sampling, for top-k and top-p (docs/numerics.md, section 8)."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from sterna.hw.vector.choice import Choice


def ordered(value):
    """An fp24 number as 24 unsigned bits in the order of the numbers."""
    return Cat(value[:23] ^ value[23].replicate(23), ~value[23])


class _Elements(wiring.Component):
    """Queue of a strip: beats of keys and of scores in, one element after the other out.

    Beat b of the scores belongs to beat b of the keys. A beat of scores without keys is not taken.
    An element comes two cycles behind its score at the earliest, then one per cycle while ``take``
    is set.

    Members
    -------
    clear : In(1)
    keys : In(1), scores : In(1), mask : In(V), values : In(ArrayLayout(24, V))
        Always taken; room for ``beats`` beats of both. ``mask`` is that of the keys.
    pending : Out(1)
        A beat has not been taken by the reader, or its scores are still to come.
    valid : Out(1), take : In(1), key : Out(24), score : Out(24)
        The next element, as fp24.
    """

    def __init__(self, lanes, beats):
        self.lanes, self.beats = lanes, beats
        super().__init__(
            {
                "clear": In(1),
                "keys": In(1),
                "scores": In(1),
                "mask": In(lanes),
                "values": In(data.ArrayLayout(24, lanes)),
                "pending": Out(1),
                "valid": Out(1),
                "take": In(1),
                "key": Out(24),
                "score": Out(24),
            }
        )

    def elaborate(self, platform):
        m = Module()
        lanes = self.lanes
        bits = max(1, (self.beats - 1).bit_length())
        keys_in, scores_in, out = (
            Signal(bits + 1, name=f"{name}_at") for name in ("keys", "scores", "out")
        )
        words = []
        for name, at, valid, content in (
            ("keys", keys_in, self.keys, Cat(self.values, self.mask[1:])),
            ("scores", scores_in, self.scores & (scores_in != keys_in), Cat(self.values)),
        ):
            memory = Memory(
                shape=unsigned(len(content)), depth=1 << bits, init=[], attrs={"no_rw_check": 1}
            )
            m.submodules[name] = memory
            write, read = memory.write_port(), memory.read_port()
            m.d.comb += [
                write.addr.eq(at),
                write.data.eq(content),
                write.en.eq(valid),
            ]
            with m.If(valid):
                m.d.sync += at.eq(at + 1)
            words.append(read)
        # Of each word read, `lane` is the element at the output.
        lane = Signal(range(lanes)) if lanes > 1 else Const(0, 1)
        takes = Signal()
        following = Signal(bits + 1)
        others = words[0].data[24 * lanes :]
        more = Cat(others, Const(0, 1)).bit_select(lane, 1) if lanes > 1 else Const(0, 1)
        m.d.comb += [
            takes.eq(self.valid & self.take),
            following.eq(out + (takes & ~more)),
            self.pending.eq(keys_in != out),
            self.key.eq(words[0].data[: 24 * lanes].word_select(lane, 24)),
            self.score.eq(words[1].data.word_select(lane, 24)),
            *(read.addr.eq(following) for read in words),
        ]
        m.d.sync += [
            out.eq(following),
            self.valid.eq(scores_in != following),
        ]
        if lanes > 1:
            with m.If(takes):
                m.d.sync += lane.eq(Mux(more, lane + 1, 0))
        with m.If(self.clear):
            m.d.sync += [
                keys_in.eq(0),
                scores_in.eq(0),
                out.eq(0),
                self.valid.eq(0),
            ]
            if lanes > 1:
                m.d.sync += lane.eq(0)
        return m


class TopList(wiring.Component):
    """The k rows with the largest keys in descending order, the earlier row first where keys are
    equal, and the choice of the next token among them.

        beats of keys --+                                              +-> sorted list -> Choice
        beats of scores +-> queue -> element -> above the last entry? -+   (k entries)     -> best

    Each strip brings its beats of keys and then as many beats of scores, with the same masks. One
    element per cycle is compared with the last entry of a full list, as most of them are not
    better. One that is, or any while the list is not full, is inserted: from the end on, each cycle
    moves an entry with a smaller key one place down, until the new one has its place. Whenever all
    beats have been taken the choice is made (`Choice`); new beats end it, and it is made again
    behind them.

    Throughput: an element per cycle, and s + 2 cycles more for one that goes s places in front of
    the end. So N rows take at most N (k + 2) cycles, in ascending order. Latency: an element is
    compared 3 cycles behind its score at the earliest; the choice of n entries takes n + 3 cycles,
    with ``p`` at most 3 n + 37. Back-pressure: none, but a strip may only begin while ``pending``
    is 0, and has at most ``beats`` beats. Range: any fp24 numbers.

    Parameters
    ----------
    lanes : int
        V, a power of two.
    row_bits : int
        Width of a row index.
    depth : int
        Entries that there is room for.
    beats : int
        Beats of a strip.

    Members
    -------
    start : In(1)
        A new sampling: an empty list, row 0, and ``k`` and ``p`` for it. Ends whatever is under
        way.
    k : In(8)
        Entries of the list; more than ``depth`` count as ``depth``. 0: beats are dropped.
    p : In(16)
        P of top-p in units of 2^-16; 0: all entries take part.
    keys : In(1), scores : In(1), mask : In(V), values : In(ArrayLayout(24, V))
        A beat of keys or of scores, fp24. The rows are the lanes in ``mask``, which are the first
        ones and at least one; they are numbered in this order over all beats since ``start``. A
        beat of scores that has no keys is dropped.
    pending : Out(1)
        Beats have not been taken yet, or scores have not come yet; from the cycle after a beat of
        keys on.
    busy : Out(1)
        ``pending``, or the list or the choice is not done.
    holds : Out(1)
        The list has an entry. If not, ``best`` says nothing.
    best : Out(row_bits)
        Row of the next token, when not ``busy``.
    """

    def __init__(self, lanes, row_bits, depth, beats):
        if lanes < 1 or lanes & (lanes - 1):
            raise ValueError(f"lanes {lanes!r}: must be a power of two")
        if not 1 <= depth <= 255:
            raise ValueError(f"depth {depth!r}: use 1 to 255")
        if beats < 1:
            raise ValueError(f"beats {beats!r}: must be positive")
        self.lanes, self.row_bits, self.depth, self.beats = lanes, row_bits, depth, beats
        super().__init__(
            {
                "start": In(1),
                "k": In(8),
                "p": In(16),
                "keys": In(1),
                "scores": In(1),
                "mask": In(lanes),
                "values": In(data.ArrayLayout(24, lanes)),
                "pending": Out(1),
                "busy": Out(1),
                "holds": Out(1),
                "best": Out(row_bits),
            }
        )

    def elaborate(self, platform):
        # Plan: the queue of elements, the choice and the memory of the list; the list (`bottom`,
        # `full`, `worst`), the next element, and the one that is being inserted (`new` into
        # `hole`); the entry `above` the hole, which is read ahead; all wires; then what moves: that
        # entry, the element, an insertion by a place per cycle, and a new sampling, which wins.
        m = Module()
        m.submodules.elements = elements = _Elements(self.lanes, self.beats)
        m.submodules.choice = choice = Choice(self.depth, self.row_bits)
        entry = data.StructLayout({"key": 24, "score": 24, "row": self.row_bits})
        m.submodules.list = memory = Memory(
            shape=entry, depth=self.depth, init=[], attrs={"no_rw_check": 1}
        )
        read, write = memory.read_port(), memory.write_port()

        # The list and the elements on their way into it.
        active, limit, p = Signal(), Signal(choice.address_bits), Signal(16)  # k is not 0; k - 1
        # The place of a new entry at the end, and whether the list has k entries.
        bottom, full = Signal(choice.address_bits), Signal()
        worst = Signal(24)  # key of the last entry of a full list
        # The element that comes next, and the one that is being inserted into the hole that moves
        # up.
        element_valid, element_key, element_score = Signal(), Signal(24), Signal(24)
        element_row = Signal(self.row_bits)
        free, inserts, hole, new = Signal(), Signal(), Signal(choice.address_bits), Signal(entry)
        # `above` is the entry above the hole, and what is read next is the one above that: the
        # memory has time. Both are there two cycles after an insertion or a choice.
        above, settled, loaded = Signal(entry), Signal(), Signal()
        # `above` into the hole; what is read
        moves, next_at = Signal(), Signal(choice.address_bits)
        m.d.comb += [
            elements.clear.eq(self.start),
            elements.keys.eq(self.keys & active),
            elements.scores.eq(self.scores),
            elements.mask.eq(self.mask),
            elements.values.eq(self.values),
            elements.take.eq(free),
            self.pending.eq(elements.pending),
            self.holds.eq(full | bottom.any()),
            choice.run.eq(self.holds & ~(elements.pending | element_valid | inserts)),
            choice.last.eq(bottom - ~full),
            choice.p.eq(p),
            choice.key.eq(above.key),
            choice.score.eq(above.score),
            choice.row.eq(above.row),
            self.best.eq(choice.best),
            self.busy.eq(elements.pending | element_valid | inserts | (self.holds & ~choice.done)),
            free.eq(~inserts & settled),
            next_at.eq(Mux(inserts, hole - 3, Mux(settled, bottom - 2, bottom - 1))),
            read.addr.eq(Mux(choice.run, choice.address, next_at)),
            moves.eq(hole.any() & (above.key < new.key)),
            write.addr.eq(hole),
            write.data.eq(Mux(moves, above, new)),
            write.en.eq(inserts),
        ]
        m.d.sync += [
            settled.eq(~(inserts | choice.run)),
            loaded.eq(settled),
        ]

        # What moves.
        with m.If(~loaded | inserts):
            m.d.sync += above.eq(read.data)
        with m.If(free):
            m.d.sync += [
                element_valid.eq(elements.valid),
                element_key.eq(ordered(elements.key)),
                element_score.eq(ordered(elements.score)),
                element_row.eq(element_row + element_valid),
                new.key.eq(element_key),
                new.score.eq(element_score),
                new.row.eq(element_row),
                hole.eq(bottom),
                inserts.eq(element_valid & (~full | (element_key > worst))),
            ]
        with m.If(inserts):
            m.d.sync += [
                hole.eq(hole - 1),
                inserts.eq(moves),
            ]
            with m.If(hole == limit):
                m.d.sync += worst.eq(write.data.key)
            with m.If(~moves):
                with m.If(bottom == limit):
                    m.d.sync += full.eq(1)
                with m.Else():
                    m.d.sync += bottom.eq(bottom + 1)
        with m.If(self.start):
            m.d.sync += [
                active.eq(self.k != 0),
                limit.eq(Mux(self.k > self.depth, self.depth, self.k) - 1),
                p.eq(self.p),
                bottom.eq(0),
                full.eq(0),
                element_valid.eq(0),
                inserts.eq(0),
                element_row.eq(0),
            ]
        return m
