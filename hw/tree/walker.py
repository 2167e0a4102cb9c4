"""The walker: which records of a table are read, by the signs of the rows before them."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from sterna.firmware import isa
from sterna.hw.memory.port import read_layout
from sterna.hw.tree.collector import Sign


class Walker(wiring.Component):
    """Turns walks and gathers into reads of single records; linear reads pass through.

    A walk of K trees with L levels and A rows that are always read asks for the record of each
    visited row, level by level, tree fastest, and for each row once per active slot, slot fastest.
    With first(k) = table + (A + k (2^L - 1)) words, node n of tree k lies at

        at(n) = first(k) + n words;    at(2 n + 1 + right) = 2 at(n) - first(k) + (1 + right) words

    modulo the address space, so that additions alone find a child: `right` is the sign of the
    parent's row. The places that were read stay in the path memory, and a gather reads the same
    places of another table in the same order.

    Rows that are always read and roots wait for nothing, a gather for no sign: all its places are
    known when the walk has asked for its last record. A record of a deeper level is offered in the
    cycle in which its sign comes, if that is the next one. A walk begins when all signs of the walk
    before have come. Throughput: a record every third cycle, and one fewer at each level; L + 4
    cycles pass before a walk's first record.

    Parameters
    ----------
    address_bits : int
    tree_rows, batch : int
        Most rows that a slot visits; slots.
    record_bits : int
        Bits of a record's number of words.

    Members
    -------
    command : In(stream of read_layout)
        Accepted when everything before has been asked for. Of a walk or gather: at least 1 tree
        and 1 level, and no more than ``tree_rows`` rows.
    request : Out(stream of {address, words})
        Linear reads.
    active : In(B)
        The slots of a walk; looked at when it is accepted. Only with B > 1.
    sign : In(Sign)
        Of every record of a walk in the order of the stream, leaves and rows that are always read
        included; always accepted.
    quiet : Out(1)
        No walk or gather has anything left to ask for.
    """

    def __init__(self, *, address_bits, tree_rows, batch, record_bits):
        if tree_rows < 1:
            raise ValueError(f"tree_rows {tree_rows}: at least 1")
        self._address_bits, self._tree_rows, self._batch, self._record_bits = (
            address_bits,
            tree_rows,
            batch,
            record_bits,
        )
        self.words_bits = min(24, address_bits + 1)
        super().__init__(
            {
                "command": In(
                    stream.Signature(
                        read_layout(address_bits, tree_rows, words_bits=self.words_bits)
                    )
                ),
                "request": Out(
                    stream.Signature(
                        data.StructLayout({"address": address_bits, "words": self.words_bits})
                    )
                ),
                **({"active": In(batch)} if batch > 1 else {}),
                "sign": In(Sign),
                "quiet": Out(1),
            }
        )

    def elaborate(self, platform):
        # Plan: what a walk is about; the path memory and the memory of signs; a state machine that
        # counts records (slot, row, level) and has the `base` of their tree; two stages behind it,
        # of which the second holds both places that a record may have and chooses when its sign is
        # there.
        m = Module()
        bits, most = self._address_bits, self._tree_rows * self._batch
        command = self.command.payload

        # Of the walk: kept for the gather, but for counts.
        table, record, start = (
            Signal(bits, name="table"),
            Signal(self._record_bits, name="record"),
            Signal(bits, name="start"),  # `base` of the first tree of every level but the first
        )
        span = Signal(bits)  # words of a tree
        trees, always = (
            Signal.like(command.trees, name="trees"),
            Signal.like(command.always, name="always"),
        )
        levels, level = Signal(5), Signal(5)  # less one; levels behind this one
        slots, slot = Signal(range(self._batch)), Signal(range(self._batch))  # less one
        row = Signal.like(trees, name="row")

        m.submodules.path = path = Memory(shape=bits, depth=most, init=[], attrs={"no_rw_check": 1})
        m.submodules.signs = signs = Memory(shape=1, depth=most, init=[], attrs={"no_rw_check": 1})
        path_read, path_write = path.read_port(), path.write_port()
        signs_read, signs_write = signs.read_port(), signs.write_port()
        # Records of the walk that are in the path memory, and that have their sign; the record
        # that is read from there next, and the one whose sign is wanted next.
        asked, signed, parent, wanted = (
            Signal(range(most + 1), name=name) for name in ("asked", "signed", "parent", "wanted")
        )

        # The record that is being counted, the sum behind it, and both of its places.
        base, fetched, fresh, begins = Signal(bits), Signal(), Signal(), Signal()
        step = Signal()
        flags = data.StructLayout({"child": 1, "follows": 1, "again": 1})
        summed, summed_flags, summed_valid = Signal(bits), Signal(flags), Signal()
        left, right, ready_flags, ready_valid = (
            Signal(bits, name="left"),
            Signal(bits, name="right"),
            Signal(flags, name="ready_flags"),
            Signal(),
        )
        empty = ~summed_valid & ~ready_valid
        issue, moves = Signal(), Signal()
        m.d.comb += moves.eq(~ready_valid | issue)

        # The sign that is wanted: from the memory, behind a register, or kept till it comes from
        # there, or just arriving.
        known, stored, stored_sign = Signal(), Signal(), Signal()
        kept, kept_sign = Signal(), Signal()
        arrives, sign = Signal(), Signal()
        advance = issue & ready_flags.follows
        m.d.comb += [
            arrives.eq(self.sign.valid & (signed == wanted)),
            sign.eq(Mux(stored, stored_sign, Mux(kept, kept_sign, self.sign.positive))),
            signs_read.addr.eq(wanted),
            signs_write.addr.eq(signed),
            signs_write.data.eq(self.sign.positive),
            signs_write.en.eq(self.sign.valid),
        ]
        m.d.sync += [
            known.eq((wanted < signed) & ~advance),
            stored.eq(known & ~advance),
            stored_sign.eq(signs_read.data),
            kept.eq((arrives | (kept & ~stored)) & ~advance),
            signed.eq(signed + self.sign.valid),
            wanted.eq(wanted + advance),
        ]
        with m.If(arrives):
            m.d.sync += kept_sign.eq(self.sign.positive)

        # Requests: of a walk or gather, or of a linear read.
        place = Signal(bits)
        linear = command.kind == isa.KIND_LINEAR
        m.d.comb += [
            place.eq(Mux(ready_flags.child & sign, right, left)),
            self.request.payload.address.eq(Mux(ready_valid, place, command.address)),
            self.request.payload.words.eq(Mux(ready_valid, record, command.words)),
            issue.eq(
                ready_valid & (~ready_flags.child | stored | kept | arrives) & self.request.ready
            ),
            path_write.addr.eq(asked),
            path_write.data.eq(place),
            path_write.en.eq(issue & ~ready_flags.again),
            path_read.addr.eq(parent),
        ]
        m.d.sync += asked.eq(asked + path_write.en)
        with m.If(moves):
            m.d.sync += [
                ready_valid.eq(summed_valid),
                ready_flags.eq(summed_flags),
                left.eq(summed),
                right.eq(summed + record),
            ]
        with m.If(moves | ~summed_valid):
            m.d.sync += summed_valid.eq(step)

        counting, reading = Signal(), Signal()
        read_place = Signal(bits)
        m.d.comb += step.eq(counting & fresh & (moves | ~summed_valid))
        # A level begins when the path memory holds all of the one before. A place has a cycle from
        # the memory to a register, as block RAM gives its data late, and one from there to the sum.
        m.d.sync += [
            fetched.eq(counting & ~step & (~begins | empty)),
            fresh.eq(counting & ~step & fetched),
            read_place.eq(path_read.data),
        ]
        with m.If(empty):
            m.d.sync += begins.eq(0)
        last_slot, last_row, end = Signal(), Signal(), Signal()
        rows = Signal.like(trees, name="rows")
        m.d.comb += [
            last_slot.eq(slot == slots),
            last_row.eq(row + 1 == rows),
            end.eq(step & last_slot & last_row),
        ]
        with m.If(step & ~reading):
            m.d.sync += slot.eq(Mux(last_slot, 0, slot + 1))
            with m.If(last_slot):
                m.d.sync += row.eq(Mux(last_row, 0, row + 1))

        def counts(operand, *, child=0, follows=0, again=0):
            """The stage behind the counters takes a record at `operand` + `base`. It is a `child`,
            its sign `follows` the one wanted before, or it has been read before (`again`).
            """
            m.d.comb += counting.eq(1)
            with m.If(step):
                m.d.sync += [
                    summed.eq(operand + base),
                    summed_flags.child.eq(child),
                    summed_flags.follows.eq(follows),
                    summed_flags.again.eq(again),
                    parent.eq(parent + (follows | again)),
                ]

        with m.FSM() as fsm:
            with m.State("IDLE"):
                m.d.sync += [
                    slot.eq(0),
                    row.eq(0),
                ]
                with m.If(self.command.valid & empty):
                    with m.If((command.kind == isa.KIND_WALK) & (signed == asked)):
                        m.d.sync += [
                            table.eq(command.address),
                            base.eq(command.address),
                            record.eq(command.words),
                            span.eq(command.words),
                            trees.eq(command.trees),
                            always.eq(command.always),
                            levels.eq(command.levels - 1),
                            level.eq(command.levels - 1),
                            asked.eq(0),
                            signed.eq(0),
                            parent.eq(0),
                            wanted.eq(0),
                        ]
                        if self._batch > 1:
                            m.d.sync += slots.eq(
                                sum(self.active[k] for k in range(self._batch)) - 1
                            )
                        m.next = "SPAN"
                    with m.If(command.kind == isa.KIND_GATHER):
                        m.d.sync += [
                            base.eq(command.address - table),
                            parent.eq(0),
                        ]
                        m.next = "GATHER"
            with m.State("SPAN"):  # (2^L - 1) words
                m.d.sync += level.eq(level - 1)
                with m.If(level == 0):
                    m.d.sync += level.eq(levels)
                    m.next = "BASE"
                    with m.If(always != 0):
                        m.next = "ALWAYS"
                with m.Else():
                    m.d.sync += span.eq((span << 1) + record)
            with m.State("ALWAYS"):
                counts(0, follows=1)
                m.d.comb += rows.eq(always)
                with m.If(step & last_slot):
                    m.d.sync += base.eq(base + record)
                with m.If(end):
                    m.next = "BASE"
            with m.State("BASE"):
                m.d.sync += start.eq(record - base)
                m.next = "ROOT"
            with m.State("ROOT"):
                counts(0)
                m.d.comb += rows.eq(trees)
                with m.If(step & last_slot):
                    m.d.sync += base.eq(base + span)
                with m.If(end):
                    m.d.sync += [
                        base.eq(start),
                        begins.eq(1),
                    ]
                    m.next = "CHILD"
                    with m.If(level == 0):
                        m.next = "IDLE"
            with m.State("CHILD"):
                counts(read_place << 1, child=1, follows=1)
                m.d.comb += rows.eq(trees)
                with m.If(step & last_slot):
                    m.d.sync += base.eq(base - span)
                with m.If(end):
                    m.d.sync += [
                        base.eq(start),
                        begins.eq(1),
                        level.eq(level - 1),
                    ]
                    with m.If(level == 1):
                        m.next = "IDLE"
            with m.State("GATHER"):
                counts(read_place, again=1)
                m.d.comb += reading.eq(1)
                with m.If(step & (parent + 1 == asked)):
                    m.next = "IDLE"

        idle = fsm.ongoing("IDLE")
        m.d.comb += [
            self.quiet.eq(idle & empty),
            self.request.valid.eq(
                Mux(
                    ready_valid,
                    ~ready_flags.child | stored | kept | arrives,
                    idle & ~summed_valid & self.command.valid & linear,
                )
            ),
            self.command.ready.eq(
                idle
                & empty
                & Mux(
                    linear,
                    self.request.ready,
                    (command.kind == isa.KIND_GATHER) | (signed == asked),
                )
            ),
        ]
        return m
