"""Memory words to weight tiles, for any pair of sizes."""

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out


class Gearbox(wiring.Component):
    """A run of bytes in words of P to the same bytes in tiles of T.

    When P = T a word is a tile. Otherwise a shift register of P + T bytes gives a tile whenever it holds T bytes and
    takes a word only when the next tile needs it, so it never reaches into the section behind. Up to one of each per
    cycle. ``drop``, with the last tile of a section, forgets what is left of the last word.

    Members
    -------
    words : In(stream of 8 * P)
    tiles : Out(stream of 8 * T)
    drop : In(1)
    """

    def __init__(self, *, port_bytes, tile_bytes):
        self._port, self._tile = port_bytes, tile_bytes
        super().__init__({
            "words": In(stream.Signature(8 * port_bytes)),
            "tiles": Out(stream.Signature(8 * tile_bytes)),
            "drop": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        port, tile = self._port, self._tile
        if port == tile:
            wiring.connect(m, wiring.flipped(self.words), wiring.flipped(self.tiles))
            return m
        size = port + tile
        held = Signal(8 * size)
        level = Signal(range(size + 1))
        after = Signal(range(size + 1))
        rest = Signal(8 * size)
        gives = self.tiles.valid & self.tiles.ready
        m.d.comb += [
            self.tiles.payload.eq(held[:8 * tile]),
            self.tiles.valid.eq(level >= tile),
            self.words.ready.eq((after < tile) & ~self.drop),
            after.eq(Mux(gives, level - tile, level)),
            rest.eq(Mux(gives, held >> (8 * tile), held)),
        ]
        m.d.sync += [held.eq(rest), level.eq(after)]
        with m.If(self.words.valid & self.words.ready):
            with m.Switch(after):
                for k in range(tile):
                    with m.Case(k):
                        keep = rest[:8 * k]
                        m.d.sync += held.eq(keep | (self.words.payload << (8 * k)))
            m.d.sync += level.eq(after + port)
        with m.If(self.drop):
            m.d.sync += level.eq(0)
        return m
