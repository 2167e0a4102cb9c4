"""Memory words to weight tiles, for any pair of sizes."""

from math import gcd

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from sterna.hw.memory.fetch import Second


class Gearbox(wiring.Component):
    """A run of bytes in words of P to the same bytes in tiles of T.

    When P = T a word is a tile. Otherwise a shift register of P + T bytes gives a tile whenever it holds T bytes and
    takes a word only when the next tile needs it, so it never reaches into the section behind. Up to one tile and one
    word per cycle or, where T > P, two words: then a tile per cycle as long as T <= 2 P. ``drop``, with the last tile
    of a section, forgets what is left of the last word.

    Members
    -------
    words : In(stream of 8 * P)
    second : In(Second)
        Only where T > P.
    tiles : Out(stream of 8 * T)
    drop : In(1)
    """

    def __init__(self, *, port_bytes, tile_bytes):
        self._port, self._tile = port_bytes, tile_bytes
        super().__init__({
            "words": In(stream.Signature(8 * port_bytes)),
            **({"second": In(Second(port_bytes))} if tile_bytes > port_bytes else {}),
            "tiles": Out(stream.Signature(8 * tile_bytes)),
            "drop": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        port, tile = self._port, self._tile
        if port == tile:
            wiring.connect(m, wiring.flipped(self.words), wiring.flipped(self.tiles))
            return m
        size, step = port + tile, gcd(port, tile)
        held = Signal(8 * size)
        level, after = Signal(range(size + 1)), Signal(range(size + 1))
        rest = Signal(8 * size)
        gives = self.tiles.valid & self.tiles.ready
        takes = self.words.valid & self.words.ready
        m.d.comb += [
            self.tiles.payload.eq(held[:8 * tile]),
            self.tiles.valid.eq(level >= tile),
            self.words.ready.eq((after < tile) & ~self.drop),
            after.eq(Mux(gives, level - tile, level)),
            rest.eq(Mux(gives, held >> (8 * tile), held)),
        ]
        arriving, added = self.words.payload, takes * port
        if tile > port:
            second = self.second
            m.d.comb += second.take.eq(takes & second.valid & (after < tile - port))
            arriving, added = Cat(arriving, second.payload), added + second.take * port
        m.d.sync += [held.eq(rest), level.eq(Mux(self.drop, 0, after + added))]
        with m.If(takes):
            with m.Switch(after):
                for k in range(0, tile, step):
                    with m.Case(k):
                        m.d.sync += held.eq(Cat(rest[:8 * k], arriving))
        return m
