"""Beats of V fp24 numbers into memory words of P bytes (destination MEM)."""

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out


class Packer(wiring.Component):
    """Writes each number as a 32-bit little-endian word, upper byte zero; the last memory word is
    filled with zeros.

    One beat per cycle if a memory word holds a beat or more, otherwise one word per cycle.

    Parameters
    ----------
    lanes, port_bytes : int
        V and P, powers of two.

    Members
    -------
    beat : In(ArrayLayout(24, V)), last : In(1)
        Numbers of a beat; ``last`` ends the section.
    valid : In(1), ready : Out(1)
        The beat is taken when both are high; ``ready`` does not depend on ``valid``.
    words : Out(stream.Signature(8 * P))
    """

    def __init__(self, lanes, port_bytes):
        self.lanes = lanes
        self.port_bytes = port_bytes
        super().__init__(
            {
                "beat": In(data.ArrayLayout(24, lanes)),
                "last": In(1),
                "valid": In(1),
                "ready": Out(1),
                "words": Out(stream.Signature(8 * port_bytes)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        beat = Cat(*(Cat(self.beat[lane], Const(0, 8)) for lane in range(self.lanes)))
        beat_bits, word_bits = 32 * self.lanes, 8 * self.port_bytes
        words = self.words
        if beat_bits > word_bits:
            rest = Signal(beat_bits)
            left = Signal(range(beat_bits // word_bits + 1))
            m.d.comb += [
                words.payload.eq(rest[:word_bits]),
                words.valid.eq(left != 0),
                self.ready.eq((left == 0) | ((left == 1) & words.ready)),
            ]
            with m.If(words.valid & words.ready):
                m.d.sync += [
                    rest.eq(rest >> word_bits),
                    left.eq(left - 1),
                ]
            with m.If(self.valid & self.ready):
                m.d.sync += [
                    rest.eq(beat),
                    left.eq(beat_bits // word_bits),
                ]
            return m
        parts = word_bits // beat_bits
        index = Signal(range(max(parts, 2)))
        m.d.comb += self.ready.eq(~words.valid | words.ready)
        with m.If(self.ready):
            m.d.sync += words.valid.eq(0)
            with m.If(self.valid):
                m.d.sync += [
                    words.valid.eq(self.last | (index == parts - 1)),
                    index.eq(index + 1),
                ]
                with m.If(self.last | (index == parts - 1)):
                    m.d.sync += index.eq(0)
                with m.If(index == 0):
                    m.d.sync += words.payload.eq(0)
                with m.Switch(index):
                    for k in range(parts):
                        with m.Case(k):
                            m.d.sync += words.payload[k * beat_bits : (k + 1) * beat_bits].eq(beat)
        return m
