"""Sums of R accumulators to rows of a walk, and rows of walks and gathers to words of the row
queue.
"""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from sterna.hw.config import SUM_BITS


class Sign(data.Struct):
    """Of a record of a walk: ``valid`` for a cycle; its sum is ``positive``, not 0 and not less."""

    valid: 1
    positive: 1


class Collector(wiring.Component):
    """row[s] = sum over r of sum[s][r], for the slot s of each record; V rows of B slots a word.

    In row mode each of the R accumulators of a slot has a part of the columns. The sums of the
    record's slot are added in a tree of R - 1 adders; records come slot after slot, row after row,
    and row i goes to lane i mod V. A word leaves when it is full or the last row is in. The sums of
    a gather come V of a slot at a time and leave when the last slot's are in. What slots have in a
    word that are not active is 0; lanes behind the last row are undefined.

    Throughput a record per cycle, or V sums of a gather; both at once must not be. No
    back-pressure: the producer owns a credit for each word. Latency ``latency`` cycles from a
    record to its sign, one more to its word. With ``pipelined`` a register follows each adder,
    and, with B > 1, the choice of the slot. Range: all bits of the accumulators, which hold the sum
    of a whole row.

    Parameters
    ----------
    rows, lanes, batch : int
        R, V and B.
    bits : int
        Of a sum.
    pipelined : bool

    Members
    -------
    active : In(B)
    sums : In(ArrayLayout(signed(bits), R * B))
        One slot after the other: row r of slot s at s * R + r.
    valid, slot, slot_ends, last : In
        The sums are those of a record of this slot, the last slot of its row, the last row.
    lanes, lanes_valid, lanes_slot, lanes_push : In
        Sums of a gather: ArrayLayout(signed(bits), V) of a slot, which ends a word.
    sign : Out(Sign)
        In the order of the records.
    beat : Out(ArrayLayout(signed(24), V * B)); beat_valid : Out(1)
        As `RowQueue` takes them.
    """

    def __init__(self, *, rows, lanes, batch, bits, pipelined=True):
        self._rows, self._lanes, self._batch, self._bits = rows, lanes, batch, bits
        self._pipelined = pipelined
        levels = (rows - 1).bit_length()
        self._stages = levels + (batch > 1) if pipelined else 0
        self.latency = self._stages + 1
        slot = range(batch)
        super().__init__(
            {
                "active": In(batch),
                "sums": In(data.ArrayLayout(signed(bits), rows * batch)),
                "valid": In(1),
                "slot": In(slot),
                "slot_ends": In(1),
                "last": In(1),
                "lanes": In(data.ArrayLayout(signed(bits), lanes)),
                "lanes_valid": In(1),
                "lanes_slot": In(slot),
                "lanes_push": In(1),
                "sign": Out(Sign),
                "beat": Out(data.ArrayLayout(signed(SUM_BITS), lanes * batch)),
                "beat_valid": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        rows, lanes, batch, bits = self._rows, self._lanes, self._batch, self._bits

        def held(value, name):
            """`value`, behind a register if `pipelined`."""
            if not self._pipelined:
                return value
            register = Signal.like(value, name=name, reset_less=True)
            m.d.sync += register.eq(value)
            return register

        # The sum of the record's slot.
        of_slot = self.sums.as_value().word_select(self.slot, rows * bits)
        terms = [of_slot.word_select(r, bits).as_signed() for r in range(rows)]
        if batch > 1:
            terms = [held(term, f"term{r}") for r, term in enumerate(terms)]
        level = 0
        while len(terms) > 1:
            sums = [
                held((a + b)[:bits].as_signed(), f"sum{level}_{k}")
                for k, (a, b) in enumerate(zip(terms[::2], terms[1::2], strict=False))
            ]
            if len(terms) % 2:
                sums.append(held(terms[-1], f"sum{level}_{len(sums)}"))
            terms, level = sums, level + 1
        total = terms[0]

        # What the record was, as late.
        valid, slot = self.valid, self.slot
        full = Signal()
        lane = Signal(range(lanes))
        marks = Cat(self.slot_ends, self.last, self.slot)
        for k in range(self._stages):
            late_valid = Signal(name=f"valid{k}")
            m.d.sync += late_valid.eq(valid)
            valid, marks = late_valid, held(marks, f"marks{k}")
        row_ends, last, slot = marks[0], marks[1], marks[2:]
        m.d.comb += full.eq(row_ends & (last | (lane == lanes - 1)))
        with m.If(valid & row_ends):
            m.d.sync += lane.eq(Mux(full, 0, lane + 1))

        m.d.sync += [
            self.sign.valid.eq(valid),
            self.sign.positive.eq(~total[-1] & total.any()),
            self.beat_valid.eq(Mux(self.lanes_valid, self.lanes_push, valid & full)),
        ]
        for s in range(batch):
            for v in range(lanes):
                word = Signal(signed(bits), name=f"word{s}_{v}", reset_less=True)
                here = (
                    Mux(self.lanes_valid, self.lanes_slot == s, (slot == s) & (lane == v))
                    if batch > 1
                    else self.lanes_valid | (lane == v)
                )
                with m.If(here & (self.lanes_valid | valid)):
                    m.d.sync += word.eq(Mux(self.lanes_valid, self.lanes[v], total))
                m.d.comb += self.beat[s * lanes + v].eq(
                    Mux(self.active[s], word, 0) if batch > 1 else word
                )
        return m
