"""The sum of the visited rows of a table, each times its code: R C lanes beside the array."""

from functools import reduce
from operator import or_

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from sterna.hw.array import fused
from sterna.hw.array.activations import activation_signature
from sterna.hw.array.decoder import Trit
from sterna.hw.array.tree import add_carry, form_of
from sterna.hw.stream import delayed
from sterna.hw.tree.codes import Codes
from sterna.hw.tree.turns import Turns

FAST, SLOW = 3, 1  # cycles from a tile's entry to the adders


class Gather(wiring.Component):
    """Y[s][j] = sum over i of code[s][i] * trit[s][i][j]: an axpy unit for records of ternary rows.

        codes --> first N of both buffers --> code of the record --+
        trits ------------------------------------------------------> R C adders --> registers --+
                        sums of a tile, or 0 in the first records -^                              |
        sums, a word of R C for each tile and slot, in block RAM ---+ <---------------------------+
                                                                    +--> V of R C --> lanes

    Order: records slot after slot, row after row, tile after tile; tile t has the elements t R C
    and up. Behind the last tile the sums leave, V of a slot at a time: elements b V to b V + V - 1
    of each active slot, then those of b + 1, until `length` have left (what is behind it in the
    last V are the sums of the padding, 0).

    Throughput: a tile per cycle, also across records, and V sums of a slot per cycle: with all B
    slots active a word of the row queue takes B cycles. Latency: `FAST` + 1 cycles from a tile's
    entry until its sums are written, and as many from the last entry until they leave, plus 3.
    Back-pressure: tiles are never refused; a word begins to leave when there is ``room``.
    A tile of a slot must enter at least ``hazard_cycles`` behind the same tile of the record before
    it: the producer sees to that, nothing here does. Range: `bits` hold 127 N, for N rows.

    A form for ECP5 applies trits in the carry chains (`fused.add_trit`): bits + 2 LUTs a lane.

    Parameters
    ----------
    rows, columns, lanes, batch : int
        R, C, V and B.
    bits : int
        Of a sum.
    tiles : int
        Most tiles of a record.
    visits : int
        Most rows of a slot, N.
    trits_latency : int
        Cycles from a tile's entry to its trits, at least 1.
    pipelined : bool

    Members
    -------
    write : In(activation_signature(V, B))
        As the code buffers see it.
    active : In(B)
    enter : In(1)
        A tile of a gather enters; the next four are of it.
    buffer, row, slot, tile : In
        Buffer of the codes; number of the row; slot; number of the tile in its record.
    last : In(1)
        It is the last tile of all.
    trits : In(ArrayLayout(Trit, R * C))
        ``trits_latency`` cycles behind ``enter``.
    length : In(16)
    room : In(1); begins, ends : Out(1)
        A word may leave; it begins; the last word has gone to ``lanes``.
    lanes : Out(ArrayLayout(signed(bits), V)); valid, lanes_slot, push : Out
        Sums of a slot; they are the last ones of their word.
    """

    def __init__(
        self,
        *,
        rows,
        columns,
        lanes,
        batch,
        bits,
        tiles,
        visits,
        trits_latency,
        pipelined=True,
    ):
        self._trits, self._lanes, self._batch, self._bits = rows * columns, lanes, batch, bits
        self._tiles, self._visits, self._pipelined = tiles, visits, pipelined
        self._trits_latency = trits_latency
        self.hazard_cycles = FAST + 1 if pipelined else SLOW + 1
        trits = data.ArrayLayout(Trit, self._trits)
        super().__init__(
            {
                "write": In(activation_signature(lanes, batch)),
                "active": In(batch),
                "enter": In(1),
                "buffer": In(1),
                "row": In(range(visits)),
                "slot": In(range(batch)),
                "tile": In(range(tiles)),
                "last": In(1),
                "trits": In(trits),
                "length": In(16),
                "room": In(1),
                "begins": Out(1),
                "ends": Out(1),
                "lanes": Out(data.ArrayLayout(signed(bits), lanes)),
                "valid": Out(1),
                "lanes_slot": Out(range(batch)),
                "push": Out(1),
            }
        )

    def elaborate(self, platform):
        # Plan: the code of the record; the sums of its tile, on their way from memory to adders and
        # back; how they leave (`draining`).
        m = Module()
        bits, count, batch = self._bits, self._trits, self._batch
        fast = self._pipelined
        # Cycles from entry to adders, and those by which entry or trits have to wait.
        meet = max(FAST if fast else SLOW, self._trits_latency)
        early = meet - (FAST if fast else SLOW)
        trits = delayed(m, self.trits, meet - self._trits_latency, "trits")
        entered = Cat(self.enter, self.last, self.row == 0, self.tile, self.slot)
        entered = delayed(m, entered, early, "entered", reset=True)

        m.submodules.codes = codes = Codes(
            lanes=self._lanes, batch=batch, visits=self._visits, pipelined=fast
        )
        wiring.connect(m, wiring.flipped(self.write), codes.write)
        m.d.comb += [
            codes.buffer.eq(self.buffer),
            Cat(codes.row, codes.slot).eq(delayed(m, Cat(self.row, self.slot), early, "of_record")),
        ]

        # Sums: in memory by slot and tile.
        place_bits = (self._tiles - 1).bit_length()
        m.submodules.memory = memory = Memory(
            shape=bits * count,
            depth=1 << place_bits + (batch - 1).bit_length(),
            init=[],
            attrs={"no_rw_check": 1},
        )
        write, read = memory.write_port(), memory.read_port()
        entered = delayed(m, entered, int(fast), "asked", reset=True)
        at_word = delayed(m, entered, 1, "answered", reset=True)
        at_adders = delayed(m, at_word, int(fast), "summed", reset=True)
        at_write = delayed(m, at_adders, int(fast), "written", reset=True)
        draining, group, tile = Signal(), Signal(range(count // self._lanes)), Signal(place_bits)
        m.submodules.turns = turns = Turns(batch)
        drain_place = Cat(tile, turns.slot)
        goes = Signal()  # V sums are asked for
        left = Signal(len(self.length))
        ends = goes & turns.ends & (left <= self._lanes)
        marks = Cat(goes, ends, turns.ends, group, turns.slot)
        marks = delayed(m, marks, 1, "asked_marks", reset=True)
        chosen = marks[3 : 3 + len(group)]
        words = []
        for k in range(count // self._lanes):
            size = bits * self._lanes
            word = Signal(size, name=f"word{k}", reset_less=True)
            clear = Mux(marks[0], chosen != k, at_word[2])
            if fast:
                with m.If(clear):
                    m.d.sync += word.eq(0)
                with m.Else():
                    m.d.sync += word.eq(read.data.word_select(k, size))
            else:
                m.d.comb += word.eq(read.data.word_select(k, size) & ~clear.replicate(size))
            words.append(word)
        m.d.comb += [
            read.en.eq(1),
            read.addr.eq(Mux(draining, drain_place, entered[3:])),
            write.en.eq(at_write[0]),
            write.addr.eq(at_write[3:]),
        ]
        sums = Cat(words)
        for k in range(count):
            of_lane = sums.word_select(k, bits).as_signed()
            total = self._add(m, platform, k, of_lane, codes.code, trits[k])
            held = Signal(bits, name=f"total{k}", reset_less=True)
            if fast:
                m.d.sync += held.eq(total)
            else:
                m.d.comb += held.eq(total)
            m.d.comb += write.data.word_select(k, bits).eq(held)

        # How they leave.
        starts = at_write[0] & at_write[1]
        wraps = group == count // self._lanes - 1
        m.d.comb += [
            turns.active.eq(self.active),
            turns.restart.eq(starts),
            turns.step.eq(goes),
            goes.eq(draining & (self.room | ~turns.first)),
            self.begins.eq(goes & turns.first),
        ]
        with m.If(goes & turns.ends):
            m.d.sync += [
                left.eq(left - self._lanes),
                group.eq(Mux(wraps, 0, group + 1)),
                tile.eq(tile + wraps),
            ]
        with m.If(ends):
            m.d.sync += draining.eq(0)
        with m.If(starts):
            m.d.sync += [
                draining.eq(1),
                left.eq(self.length),
                group.eq(0),
                tile.eq(0),
            ]
        marks = delayed(m, marks, int(fast), "marks", reset=True)
        m.d.sync += [
            self.valid.eq(marks[0]),
            self.ends.eq(marks[1]),
            self.push.eq(marks[2]),
            self.lanes_slot.eq(marks[3 + len(group) :]),
            self.lanes.as_value().eq(reduce(or_, words)),
        ]
        return m

    def _add(self, m, platform, k, total, code, trit):
        """total + code * trit."""
        if form_of(platform) == "ecp5":
            return fused.add_trit(
                m, f"lane{k}", total, code, trit.nonzero, trit.negative, self._bits
            )
        term = (code ^ trit.negative.replicate(8)) & trit.nonzero.replicate(8)
        return add_carry(total, term[:8].as_signed(), trit.negative)
