"""Integers of queues to fp24 (docs/numerics.md, section 1): a pipeline like those of `float`,
rounded with the same trick.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sterna.hw.stream import delayed


class FromInt(wiring.Component):
    """FROMINT of a signed 24-bit integer, for integers that come from queues.

    Registers behind the input, the magnitude, the coarse and the fine shift, and the rounding. Not
    ``pipelined``, two registers behind the shifts; the rounding is combinational, so that it shares
    a stage with the operand multiplexer. With ``raw`` the input is fp24 already and passes
    unchanged.

    Parameters
    ----------
    pipelined : bool

    Members
    -------
    x : In(24)
        Two's complement integer, or fp24 bits with ``raw``.
    raw : In(1)
        ``x`` is fp24; if not ``pipelined``, it must hold for as long as its values are in the
        pipeline.
    fraction : In(1)
        The result is multiplied by 2^-24 (``x`` is not 0 then); must hold like ``raw``.
    y : Out(24)
        fp24, ``latency`` cycles after ``x``.

    Attributes
    ----------
    latency : int
        5, or 2.
    """

    x: In(24)
    raw: In(1)
    fraction: In(1)
    y: Out(24)

    def __init__(self, pipelined=True):
        self._pipelined, self.latency = pipelined, 5 if pipelined else 2
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        negative = Signal()
        magnitude = Signal(24)
        extra = int(self._pipelined)  # registers where there are none otherwise
        x, raw, fraction = (
            delayed(m, value, extra, name)
            for name, value in (("x", self.x), ("raw", self.raw), ("fraction", self.fraction))
        )
        m.d.comb += [
            negative.eq(x[23] & ~raw),
            magnitude.eq((x ^ negative.replicate(24)) + negative),
        ]
        magnitude_next, negative_next, raw = (
            delayed(m, value, extra, name)
            for name, value in (
                ("magnitude", magnitude),
                ("negative", negative),
                ("raw_magnitude", raw),
            )
        )

        def shift(value, places, name):
            taken = Signal(name=f"shift_{places}")
            shifted = Signal(24, name=name)
            m.d.comb += [
                taken.eq(~value[24 - places :].any() & ~raw),
                shifted.eq(Mux(taken, value << places, value)),
            ]
            return shifted, taken

        by16, taken16 = shift(magnitude_next, 16, "by16")
        by8, taken8 = shift(by16, 8, "by8")
        coarse = Signal(24)
        coarse_sign = Signal()
        coarse_taken = Signal(2)
        m.d.sync += [
            coarse.eq(by8),
            coarse_sign.eq(negative_next),
            coarse_taken.eq(Cat(taken8, taken16)),
        ]
        raw = delayed(m, raw, extra, "raw_coarse")

        by4, taken4 = shift(coarse, 4, "by4")
        by2, taken2 = shift(by4, 2, "by2")
        by1, taken1 = shift(by2, 1, "by1")
        fine = Signal(24)
        fine_sign = Signal()
        fine_taken = Signal(5)
        m.d.sync += [
            fine.eq(by1),
            fine_sign.eq(coarse_sign),
            fine_taken.eq(Cat(taken1, taken2, taken4, coarse_taken)),
        ]

        # Exponent 127 + 23 - shift; ones' complement of the shift plus one more in the base.
        raw = delayed(m, raw, extra, "raw_fine")
        base = Mux(delayed(m, fraction, 3 * extra, "fraction_fine"), 127, 151)
        up = fine[7] & (fine[:7].any() | fine[8])
        rounded, result = Signal(23), Signal(24)
        m.d.comb += [
            rounded.eq(Cat(fine[8:23], (base + Cat(~fine_taken, Const(7, 3)))[:8]) + up),
            result.eq(Mux(raw, fine, Mux(fine[23], Cat(rounded, fine_sign), 0))),
            self.y.eq(delayed(m, result, extra, "result")),
        ]
        return m
