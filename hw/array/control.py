"""Which tile the array takes when, and what it is of: products, one after the other."""

from amaranth import C as Const
from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from sterna.hw.config import most_visits
from sterna.hw.tree.turns import Turns


# What a product is: of a matrix, or of the records of the rows that a tree layer visits, each as a
# row of its own, or added up.
DENSE, WALK, GATHER = range(3)


class Product(data.Struct):
    """One section of the stream for the array.

    `DENSE`: rows x (chunks * C) trits times the codes of a buffer. In the other modes ``rows`` is
    the number N of rows that each active slot visits, ``chunks`` the tiles of a record, and
    ``length`` the number of sums that a `GATHER` gives.
    """

    mode: 2
    buffer: 1
    rows: 24
    chunks: 16
    length: 16


class Control(wiring.Component):
    """Takes tiles in order while there is room for their rows, and says what each is of.

    The product under way takes a tile per cycle, when one is there; the one behind it waits, and a
    matrix follows a matrix without a gap. A tile group is taken only when the row queue has a
    credit for every word that its rows begin: that of the R rows of a matrix' tiles, or a record.

    Where trees are built in a product changes between matrix and walk or gather, or from one of
    these to the next, only when the array is empty (``settle_cycles`` behind the last tile, and all
    sums of a gather in the row queue): programs wait there for codes anyway. A record is of one
    row; slots take turns, fastest, and those that are not active are left out. Records of a gather
    with fewer tiles than ``hazard_cycles`` wait for the difference. At least one slot is active,
    and `active` stands still while a walk or gather waits or is under way.

    Members
    -------
    command : In(stream of Product)
    tile_valid : In(1); tile_ready : Out(1)
    word_left : In(1)
        A word of the row queue has been taken.
    enter : Out(1)
        A tile is taken in this cycle; what follows says what it is.
    last_chunk, last_tile : Out(1)
        It ends its tile group; that is the last one of the product.
    groups : Out
        Of rows in this tile of a matrix, for the row queue.
    buffer, chunk : Out
        Buffer and place of its codes, in words of C codes.
    done, record_done, busy, stall_stream, stall_rows : Out(1)
        As members of the array.
    active : In(B)
    mode : Out(2)
    slot, slot_ends, row : Out
        The record's slot, whether it is the last one of this row, and the number of the row.
    bank : Out
        Where code buffers have R banks, ``chunk`` of a matrix is the place in the bank.
    length : Out(16)
    drain_begins, drain_ends : In(1); room : Out(1)
        A gather's sums begin a word, while there is ``room`` for one; all have left.

    All from `active` on only where ``config.tree_rows`` is not 0, `bank` for R > 1 alone.
    """

    def __init__(self, config, queue, *, settle_cycles=0, hazard_cycles=0):
        self._config, self._queue = config, queue
        self._settle_cycles, self._hazard_cycles = settle_cycles, hazard_cycles
        self._trees = most_visits(config)
        # No row has more chunks than a buffer: narrow registers will do.
        chunk_bits = min(16, config.activation_words.bit_length())
        members = {
            "command": In(stream.Signature(Product)),
            "tile_valid": In(1),
            "tile_ready": Out(1),
            "word_left": In(1),
            "enter": Out(1),
            "last_chunk": Out(1),
            "last_tile": Out(1),
            "groups": Out(range(queue.groups_per_tile + 1), init=queue.groups_per_tile),
            "buffer": Out(1),
            "chunk": Out(chunk_bits),
            "done": Out(1),
            "record_done": Out(1),
            "busy": Out(1),
            "stall_stream": Out(1),
            "stall_rows": Out(1),
        }
        if self._trees:
            members |= {
                "active": In(config.batch),
                "mode": Out(2),
                "slot": Out(range(config.batch)),
                "slot_ends": Out(1),
                "row": Out(range(self._trees)),
                "length": Out(16),
                "drain_begins": In(1),
                "drain_ends": In(1),
                "room": Out(1),
                **({"bank": Out(range(config.rows))} if config.rows > 1 else {}),
            }
        super().__init__(members)

    def elaborate(self, platform):
        # Plan: the product under way (`running`, `left`, `chunk`) and the one behind it (`waiting`,
        # `next_rows`), and when that one `loads`; what is asked about a tile group (`last_tile`,
        # `groups`, `need`), with a fast clock found ahead; whether a tile may `enter`, for which
        # `credit` counts the room in the row queue; what moves when one does.
        m = Module()
        cfg, queue, trees = self._config, self._queue, self._trees
        rows = cfg.rows
        # No matrix has more rows than fill the memory. Rows not yet started, this tile included.
        left = Signal(min(24, (cfg.memory_bytes * rows // cfg.tile_bytes).bit_length()))
        banked = trees and rows > 1
        chunk = Signal.like(self.chunk, name="passed") if banked else self.chunk
        chunks = Signal.like(chunk)  # with a slow clock one less: the last place
        running = Signal()
        waiting = Signal()  # a product waits in the three registers below
        next_rows, next_chunks = (
            Signal.like(left, name="next_rows"),
            Signal.like(chunks, name="next_chunks"),
        )
        next_buffer = Signal()
        per_tile, per_word = queue.groups_per_tile, queue.groups_per_word
        credit = Signal(range(cfg.row_words + 1), init=cfg.row_words)

        # What is asked about a chunk and about its tile.
        first_chunk = Signal()
        last_chunk, last_tile, groups = self.last_chunk, self.last_tile, self.groups
        # Groups in the word that the tiles before began
        phase = Signal(range(per_word))
        begun = [
            queue.words_begun(*divmod(k, per_tile + 1)) for k in range(per_word * (per_tile + 1))
        ]
        need = Signal(range(max(begun) + 1))
        table = Const(
            sum(words << k * len(need) for k, words in enumerate(begun)), len(begun) * len(need)
        )
        enter = self.enter
        ends = Signal()  # the last chunk of a tile or record enters
        loads = Signal()
        command = self.command.payload
        accepts = self.command.valid & ~waiting
        m.d.comb += ends.eq(enter & last_chunk)

        def tile(left, phase, name):
            """last_tile, groups and need of a tile that begins with so many rows left."""
            kept = Signal.like(groups, name=f"groups_{name}")
            last = Signal(name=f"last_{name}")
            m.d.comb += [
                last.eq(left <= rows),
                kept.eq(Mux(last, (left + (queue.group_rows - 1)) // queue.group_rows, per_tile)),
            ]
            return Cat(last, kept, table.word_select(phase * (per_tile + 1) + kept, len(need)))

        def record(last, begins):
            """The same of a record: it is the last one; it ``begins`` a word of rows."""
            return Cat(last, Const(per_tile, len(groups)), begins, Const(0, len(need) - 1))

        if trees:
            mode, next_mode = self.mode, Signal(2)
            walks, gathers, tree = mode[0], mode[1], mode.any()
            next_length = Signal.like(self.length)
            m.submodules.turns = turns = Turns(cfg.batch)
            # The row is the last one of a word.
            fills = self.row[: (cfg.lanes - 1).bit_length()].all()
            # Tiles that the next group has to keep off, a bit each.
            most = max(1, per_tile - 1, self._hazard_cycles - 1)
            keep_off, hazard = Signal(most), Signal(most)
            settle, draining = Signal(range(self._settle_cycles + 1)), Signal()
            matrices = ~tree & ~next_mode.any()
            m.d.comb += [
                turns.active.eq(self.active),
                turns.restart.eq(loads),
                turns.step.eq(ends),
                self.slot.eq(turns.slot),
                self.slot_ends.eq(turns.ends),
                self.room.eq(credit != 0),
                loads.eq(
                    waiting & (self.done & matrices)
                    | (waiting & ~running & (matrices | ((settle == 0) & ~draining)))
                ),
                self.record_done.eq(ends & (last_tile | tree)),
            ]
            with m.If(ends):
                m.d.sync += [
                    keep_off.eq(Mux(gathers, hazard, Mux(walks, 0, (1 << per_tile - 1) - 1))),
                    self.row.eq(self.row + turns.ends),
                ]
            with m.Else():
                m.d.sync += keep_off.eq(keep_off >> 1)
            with m.If(enter):
                m.d.sync += settle.eq(self._settle_cycles)
            with m.Elif(settle != 0):
                m.d.sync += settle.eq(settle - 1)
            with m.If(self.done & gathers):
                m.d.sync += draining.eq(1)
            with m.Elif(self.drain_ends):
                m.d.sync += draining.eq(0)
            with m.If(loads):
                m.d.sync += [
                    mode.eq(next_mode),
                    self.length.eq(next_length),
                    self.row.eq(0),
                    hazard.eq(
                        Cat(next_chunks < max(0, self._hazard_cycles - k) for k in range(most))
                    ),
                ]
            with m.If(accepts):
                m.d.sync += [
                    next_mode.eq(command.mode),
                    next_length.eq(command.length),
                ]
        else:
            gap = Signal(range(per_tile + 1))
            m.d.comb += [
                loads.eq(waiting & (~running | self.done)),
                self.record_done.eq(self.done),
            ]
            with m.If(gap != 0):
                m.d.sync += gap.eq(gap - 1)
            with m.If(ends):
                m.d.sync += gap.eq(per_tile - 1)

        of_tile, phase_after = Cat(last_tile, groups, need), Signal.like(phase)
        m.d.comb += phase_after.eq((phase + per_tile) % per_word)
        if cfg.slow:
            here = tile(left, phase, "here")
            if trees:
                begins = walks & turns.first & (self.row[: (cfg.lanes - 1).bit_length()] == 0)
                here = Mux(tree, record(turns.ends & (left == 1), begins), here)
            m.d.comb += [
                of_tile.eq(here),
                first_chunk.eq(chunk == 0),
                last_chunk.eq(chunk == chunks),
            ]
        else:
            # Found a tile and a chunk ahead.
            after = tile((left - rows)[: len(left)], phase_after, "after")
            following = tile(next_rows, 0, "next")
            if trees:
                last = turns.next_ends & Mux(turns.ends, left == 2, left == 1)
                after = Mux(tree, record(last, walks & turns.ends & fills), after)
                last = turns.alone & (next_rows == 1)
                following = Mux(next_mode.any(), record(last, next_mode[0]), following)
            with m.If(enter):
                m.d.sync += [
                    first_chunk.eq(last_chunk),
                    last_chunk.eq(Mux(last_chunk, chunks == 1, chunk + 2 == chunks)),
                ]
                with m.If(last_chunk):
                    m.d.sync += of_tile.eq(after)
            with m.If(loads):
                m.d.sync += [
                    of_tile.eq(following),
                    first_chunk.eq(1),
                    last_chunk.eq(next_chunks == 1),
                ]

        # Whether a chunk may enter.
        if cfg.slow:
            # `need` is known late. Any tile finds room where this is said; behind the start of a
            # tile, when the queue is nearly full, it is said a cycle late.
            room = Signal(init=1)
            most = max(begun)
            m.d.sync += room.eq(Mux(enter & first_chunk, credit >= 2 * most, credit >= most))
            short = ~room
        else:
            # No carry chain: need is small
            short = ~credit[len(need) :].any() & (credit[: len(need)] < need)
        if trees:
            blocked = (first_chunk & (short | (gathers & keep_off[0]))) | (last_chunk & keep_off[0])
        else:
            blocked = (first_chunk & short) | (last_chunk & (gap != 0))
        m.d.comb += [
            enter.eq(running & self.tile_valid & ~blocked),
            self.tile_ready.eq(running & ~blocked),
            self.busy.eq(running | waiting | (draining if trees else 0)),
            self.stall_stream.eq(running & ~self.tile_valid & ~blocked),
            self.stall_rows.eq((running & blocked) | (draining & ~self.room if trees else 0)),
            self.done.eq(ends & last_tile),
            self.command.ready.eq(~waiting),
        ]

        # Counts of chunks, tiles and products.
        taken = self.drain_begins if trees else 0
        m.d.sync += credit.eq(credit - Mux(enter & first_chunk, need, taken) + self.word_left)
        with m.If(enter):
            m.d.sync += chunk.eq(Mux(last_chunk, 0, chunk + 1))
        with m.If(ends):
            if trees:
                m.d.sync += [
                    left.eq(left - Mux(tree, turns.ends, rows)),
                    phase.eq(Mux(last_tile | tree, 0, phase_after)),
                ]
            else:
                m.d.sync += [
                    left.eq(left - rows),
                    phase.eq(Mux(last_tile, 0, phase_after)),
                ]
        with m.If(self.done):
            m.d.sync += running.eq(0)
        with m.If(loads):
            m.d.sync += [
                waiting.eq(0),
                running.eq(1),
                left.eq(next_rows),
                chunks.eq(next_chunks - cfg.slow),
                self.buffer.eq(next_buffer),
                chunk.eq(0),
            ]
        with m.If(accepts):
            m.d.sync += [
                waiting.eq(1),
                next_rows.eq(command.rows),
                next_chunks.eq(command.chunks),
                next_buffer.eq(command.buffer),
            ]

        if banked:  # where the codes are
            wraps = self.bank == rows - 1
            with m.If(ends):
                m.d.sync += [
                    self.chunk.eq(0),
                    self.bank.eq(0),
                ]
            with m.Elif(enter):
                m.d.sync += [
                    self.chunk.eq(self.chunk + (tree | wraps)),
                    self.bank.eq(Mux(wraps, 0, self.bank + 1)),
                ]
        return m
