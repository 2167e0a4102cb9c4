"""FROMINT one place per cycle: the conversion of queue operands where cells are scarcer than
cycles.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

INT_BITS = 16
EXPONENT_OF_INT = 127 + INT_BITS - 1
EXPONENT_OF_FRACTION = 126


class SerialFromInt(wiring.Component):
    """Holds one operand from a queue and normalises it: the function of `FromInt` for integers of
    16 bits.

    A negative integer is kept as its complement, ~x = |x| - 1, and ones are shifted in: the
    rounding, which then always rounds up, adds the missing 1 at the right place. An integer or
    fraction takes a cycle per place, a number of ``raw`` none. One operand per 3 cycles at best: it
    is taken (1), normal, used (``pull``) and released 2 cycles later, when the next one may be
    taken.

    Members
    -------
    x : In(24)
        Integer of 16 bits with sign extension, fraction of 23 bits, or fp24 bits with ``raw``.
    raw, fraction : In(1)
        As for `FromInt`; must hold while an operand is in the unit.
    free : Out(1), offered : In(1), take : Out(1)
        Room for an operand; ``x`` may be taken; it is taken in this cycle.
    valid : Out(1), pull : In(1)
        ``y`` is complete and not pulled yet; it is pulled (only while ``valid``).
    release : In(1)
        ``y`` has been used.
    y : Out(24)
        fp24; stands from ``valid`` to ``release``.
    """

    x: In(24)
    raw: In(1)
    fraction: In(1)
    free: Out(1)
    offered: In(1)
    take: Out(1)
    valid: Out(1)
    pull: In(1)
    release: In(1)
    y: Out(24)

    def elaborate(self, platform):
        m = Module()
        value = Signal(24)  # the significand in bits 23:8, what is rounded below
        exponent = Signal(8)
        sign = Signal()
        full, pulled = Signal(), Signal()
        normal = Signal()
        negative = self.x[23]
        m.d.comb += [
            normal.eq(value[23]),
            self.free.eq(~full | self.release),
            self.take.eq(self.offered & self.free),
            self.valid.eq(full & normal & ~pulled),
        ]
        with m.If(self.take):
            m.d.sync += [
                full.eq(1),
                pulled.eq(0),
                sign.eq(negative),
            ]
            integer = Cat(negative.replicate(8), self.x[:INT_BITS] ^ negative.replicate(INT_BITS))
            m.d.sync += [
                value.eq(
                    Mux(
                        self.raw,
                        Cat(Const(0, 8), self.x[:15], Const(1, 1)),
                        Mux(self.fraction, self.x, integer),
                    )
                ),
                exponent.eq(
                    Mux(
                        self.raw,
                        self.x[15:23],
                        Mux(self.fraction, EXPONENT_OF_FRACTION, EXPONENT_OF_INT),
                    )
                ),
            ]
        with m.Else():
            with m.If(self.release):
                m.d.sync += full.eq(0)
            with m.If(self.pull):
                m.d.sync += pulled.eq(1)
            with m.If(full & ~normal):
                m.d.sync += [
                    value.eq(Cat(sign, value)),
                    exponent.eq(exponent - 1),
                ]
                # Only 0 is not normal at 126, the one even exponent below 128 that an integer comes
                # to.
                with m.If(~self.fraction & ~exponent[7] & ~exponent[0]):
                    m.d.sync += [
                        value[23].eq(1),
                        exponent.eq(0),
                    ]

        up = value[7] & (value[:7].any() | value[8])
        rounded = Signal(23)
        m.d.comb += [
            rounded.eq(Cat(value[8:23], exponent) + up),
            self.y.eq(Cat(rounded, sign)),
        ]
        return m
