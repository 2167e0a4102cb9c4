"""One lane: operands to result, r = (+-) a b + (+-) c with the table functions and the quantiser."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sterna.hw.vector.float import Adder, Multiplier
from sterna.hw.vector.tables import TableUnit

LANE_CYCLES = 8


class Lane(wiring.Component):
    """fp24 mac with tables. Throughput one per cycle, latency ``LANE_CYCLES`` cycles from ``a`` to ``r``.

        a, b -> | table address | table word, signs | product | rounding
                | order | align, add | normalise | round | -> r

    Parameters
    ----------
    compact : bool
        Fewer LUTs, more DSP blocks, longer paths; see ``Adder``.

    Members
    -------
    a : In(24)
    b, c : In(24)
        One cycle after ``a``.
    table : In(3), negate_product, negate_c, quantise : In(1)
        Constant for the operands of one vector operation, in the two cycles after ``a`` enters.
    r : Out(24)
        The result, or, if quantised, the code as ``Multiplier`` packs it.
    """

    a: In(24)
    b: In(24)
    c: In(24)
    table: In(3)
    negate_product: In(1)
    negate_c: In(1)
    quantise: In(1)
    r: Out(24)

    def __init__(self, compact=False):
        self._compact = compact
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        m.submodules.tables = tables = TableUnit()
        m.submodules.multiplier = multiplier = Multiplier()
        m.submodules.adder = adder = Adder(self._compact)
        c4, c5, c6 = Signal(24), Signal(24), Signal(24)  # c6 complemented, for the comparison in the adder
        quantise4 = Signal()
        m.d.comb += [
            tables.a.eq(self.a), tables.b.eq(self.b), tables.c.eq(self.c), tables.table.eq(self.table),
            adder.a.eq(multiplier.product), adder.b.eq(~c6), self.r.eq(adder.sum),
        ]
        m.d.sync += [
            multiplier.a.eq(Cat(tables.d[:23], tables.d[23] ^ self.negate_product)), multiplier.b.eq(tables.slope),
            quantise4.eq(self.quantise), multiplier.quantise.eq(quantise4),
            c4.eq(Cat(tables.intercept[:23], tables.intercept[23] ^ self.negate_c)), c5.eq(c4), c6.eq(~c5),
        ]
        # A code passes the adder beside zero.
        with m.If(self.quantise):
            m.d.sync += c4.eq(0)
        return m
