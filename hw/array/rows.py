"""Finished rows, R at a time, into the row queue, V at a time."""

from math import gcd

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from sterna.hw.config import SUM_BITS


class RowQueue(wiring.Component):
    """Regroups tiles of R rows into words of V and queues them; a row has a sum for each of B
    slots.

    Rows keep their order, and the sums of a row stay together. Rows move in groups of g = gcd(R,
    V), one group per cycle: a tile of R > g rows is held while its groups leave, a word of V > g
    lanes is collected. A matrix ends with a tile marked ``last``, which may hold fewer groups; the
    words hold ceil(rows / V) beats for it, the lanes behind its last row are undefined. The
    producer must leave ``groups_per_tile`` cycles between tiles and must own a credit for every
    word: those that a tile begins are taken at its start, one returns with each word that leaves.

    Parameters
    ----------
    rows, lanes : int
        R and V.
    depth : int
        Words of the queue.
    bits : int
        Bits of a sum that are kept, at most 24; the others are copies of its sign.
    batch : int
        B.
    beats : bool
        Whether words of rows can come as they are, too.

    Members
    -------
    beat : In(ArrayLayout(signed(24), V * B)); beat_valid : In(1)
        Only with ``beats``: a word, one slot after the other. The producer must own its credit and
        leave time for the groups of tiles that came before.
    tile : In(ArrayLayout(signed(24), R * B))
        One slot after the other: row r of slot s at s * R + r.
    tile_valid, last : In(1)
    groups : In
        Groups to keep of this tile, R / g or, in the last one, fewer.
    rows : Out(stream of ArrayLayout(signed(24), V * B))
        One slot after the other as well.
    """

    def __init__(self, *, rows, lanes, depth, bits=SUM_BITS, batch=1, beats=False):
        self._beats = beats
        self._rows, self._lanes, self._depth, self._bits, self._batch = (
            rows,
            lanes,
            depth,
            bits,
            batch,
        )
        self.group_rows = gcd(rows, lanes)
        self.groups_per_tile = rows // self.group_rows
        self.groups_per_word = lanes // self.group_rows
        sums = signed(SUM_BITS)
        super().__init__(
            {
                "tile": In(data.ArrayLayout(sums, rows * batch)),
                "tile_valid": In(1),
                "last": In(1),
                "groups": In(range(self.groups_per_tile + 1)),
                "rows": Out(stream.Signature(data.ArrayLayout(sums, lanes * batch))),
            }
            | (
                {
                    "beat": In(data.ArrayLayout(sums, lanes * batch)),
                    "beat_valid": In(1),
                }
                if beats
                else {}
            )
        )

    def words_begun(self, phase, groups):
        """Words (int) that ``groups`` begin when ``phase`` groups of a word are there already."""
        return -(-(phase + groups) // self.groups_per_word) - (phase != 0)

    def elaborate(self, platform):
        m = Module()
        bits, batch = self._bits, self._batch
        row_bits = bits * batch  # a row inside: its sums, by slot
        group_bits = row_bits * self.group_rows
        m.submodules.fifo = fifo = SyncFIFOBuffered(width=row_bits * self._lanes, depth=self._depth)
        m.d.comb += [
            *(
                self.rows.payload[slot * self._lanes + lane].eq(
                    fifo.r_data.word_select(lane * batch + slot, bits).as_signed()
                )
                for slot in range(batch)
                for lane in range(self._lanes)
            ),
            self.rows.valid.eq(fifo.r_rdy),
            fifo.r_en.eq(self.rows.ready),
        ]
        group = Cat(
            *(
                self.tile[slot * self._rows + row][:bits]
                for row in range(self._rows)
                for slot in range(batch)
            )
        )
        valid, last = self.tile_valid, self.last
        if self.groups_per_tile > 1:
            held, left, ends = Signal.like(group), Signal.like(self.groups), Signal()
            with m.If(left != 0):
                m.d.sync += [
                    held.eq(held >> group_bits),
                    left.eq(left - 1),
                ]
            with m.If(self.tile_valid):
                m.d.sync += [
                    held.eq(group),
                    left.eq(self.groups),
                    ends.eq(self.last),
                ]
            group, valid, last = held[:group_bits], left != 0, ends & (left == 1)
        if self.groups_per_word > 1:
            word, count, push = (
                Signal(row_bits * self._lanes),
                Signal(range(self.groups_per_word)),
                Signal(),
            )
            full = (count == self.groups_per_word - 1) | last
            m.d.sync += push.eq(valid & full)
            with m.If(valid):
                m.d.sync += [
                    word.word_select(count, group_bits).eq(group),
                    count.eq(Mux(full, 0, count + 1)),
                ]
            group, valid = word, push
        if self._beats:
            beat = Cat(
                self.beat[slot * self._lanes + lane][:bits]
                for lane in range(self._lanes)
                for slot in range(batch)
            )
            group, valid = Mux(self.beat_valid, beat, group), valid | self.beat_valid
        m.d.comb += [
            fifo.w_data.eq(group),
            fifo.w_en.eq(valid),
        ]
        return m
