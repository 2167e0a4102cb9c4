"""Finished rows, R at a time, into the row queue, V at a time."""

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

ROW_BITS = 24  # what the vector engine converts to fp24


class RowQueue(wiring.Component):
    """Regroups tiles of R sums into words of V and queues them.

    Rows keep their order. A matrix ends with a tile marked ``last``; the words hold ceil(rows / V) beats for it, the
    lanes behind its last row are undefined. The producer must leave max(1, R / V) cycles between tiles and must
    own a credit for every word: ``words`` are taken at the start of a tile, one returns with each word that leaves.

    Parameters
    ----------
    rows, lanes : int
        R and V; one divides the other.
    depth : int
        Words of the queue.
    bits : int
        Bits of a sum that are kept, at most 24; the others are copies of its sign.

    Members
    -------
    tile : In(ArrayLayout(signed(24), R))
    tile_valid, last : In(1)
    tile_words : In
        Words to keep of this tile when R >= V (the last tile may hold fewer than R / V).
    rows : Out(stream of ArrayLayout(signed(24), V))
    """

    def __init__(self, *, rows, lanes, depth, bits=ROW_BITS):
        if rows % lanes and lanes % rows:
            raise ValueError(f"rows {rows} and lanes {lanes}: one must divide the other")
        self._rows, self._lanes, self._depth, self._bits = rows, lanes, depth, bits
        self.words_per_tile = max(1, rows // lanes)
        sums = signed(ROW_BITS)
        super().__init__({
            "tile": In(data.ArrayLayout(sums, rows)),
            "tile_valid": In(1),
            "last": In(1),
            "tile_words": In(range(self.words_per_tile + 1)),
            "rows": Out(stream.Signature(data.ArrayLayout(sums, lanes))),
        })

    def elaborate(self, platform):
        m = Module()
        bits = self._bits
        m.submodules.fifo = fifo = SyncFIFOBuffered(width=bits * self._lanes, depth=self._depth)
        m.d.comb += [
            *(self.rows.payload[lane].eq(fifo.r_data.word_select(lane, bits).as_signed())
              for lane in range(self._lanes)),
            self.rows.valid.eq(fifo.r_rdy),
            fifo.r_en.eq(self.rows.ready),
        ]
        tile = Cat(*(self.tile[row][:bits] for row in range(self._rows)))
        if self._rows >= self._lanes:
            held = Signal(bits * self._rows)
            left = Signal(range(self.words_per_tile + 1))
            m.d.comb += [fifo.w_data.eq(held[:bits * self._lanes]), fifo.w_en.eq(left != 0)]
            with m.If(left != 0):
                m.d.sync += [held.eq(held >> (bits * self._lanes)), left.eq(left - 1)]
            with m.If(self.tile_valid):
                m.d.sync += [held.eq(tile), left.eq(self.tile_words)]
            return m
        tiles = self._lanes // self._rows
        held = Signal(bits * self._lanes)
        count = Signal(range(tiles))
        push = Signal()
        m.d.comb += [fifo.w_data.eq(held), fifo.w_en.eq(push)]
        m.d.sync += push.eq(0)
        with m.If(self.tile_valid):
            with m.Switch(count):
                for k in range(tiles):
                    with m.Case(k):
                        m.d.sync += held.word_select(k, bits * self._rows).eq(tile)
            full = (count == tiles - 1) | self.last
            m.d.sync += [push.eq(full), count.eq(Mux(full, 0, count + 1))]
        return m
