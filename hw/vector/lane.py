"""One lane: operands to result, r = (+-) a b + (+-) c with table functions and quantiser."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sterna.hw.stream import delayed
from sterna.hw.vector.float import Adder, Multiplier
from sterna.hw.vector.tables import TableUnit


class Lane(wiring.Component):
    """fp24 mac with tables. Throughput one per cycle, latency ``latency`` cycles from ``a`` to
    ``r``.

        a, b -> | table address | table word, signs | product | rounding
                | order | align, add | normalise | round | -> r

    Parameters
    ----------
    compact : bool
        Fewer LUTs, more DSP blocks, longer paths; see ``Adder``.
    pipelined : bool
        Two registers more in the table unit, one each in the rounding of the product and in the
        normalisation.
    sums : bool
        C may be the lane's own result of before.

    Members
    -------
    a : In(24)
    b, c : In(24)
        One cycle after ``a``.
    table : In(3), negate_product, negate_c, quantise : In(1)
        Constant for the operands of one vector operation, in the two cycles after ``a`` enters;
        ``pipelined``, in the cycle of ``a``.
    again : In(1)
        With ``sums``, in the cycle of the result that becomes C: that of the beat
        ``again_latency`` cycles before.
    r : Out(24)
        The result, or, if quantised, the code as ``Multiplier`` packs it.

    Attributes
    ----------
    latency : int
        12, or 8.
    again_latency : int
        From ``r`` to the ``r`` of which it is C: 6, or 5.
    """

    a: In(24)
    b: In(24)
    c: In(24)
    table: In(3)
    negate_product: In(1)
    negate_c: In(1)
    quantise: In(1)
    again: In(1)
    r: Out(24)

    def __init__(self, compact=False, pipelined=True, sums=False):
        self._pipelined, self._sums = pipelined, sums
        self._units = TableUnit(pipelined), Multiplier(pipelined), Adder(compact, pipelined)
        self.latency = sum(unit.latency for unit in self._units) + 1
        self.again_latency = self._units[-1].latency + 1
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        m.submodules.tables, m.submodules.multiplier, m.submodules.adder = (
            tables,
            multiplier,
            adder,
        ) = self._units
        c4, c6 = Signal(24), Signal(24)  # c6 complemented, for the comparison in the adder
        quantise4 = Signal()
        negate_product, negate_c, quantise = (
            delayed(m, value, tables.latency if self._pipelined else 0, name)
            for name, value in (
                ("negate_product", self.negate_product),
                ("negate_c", self.negate_c),
                ("quantise", self.quantise),
            )
        )
        c5 = delayed(m, c4, multiplier.latency - 1, "c5")
        m.d.comb += [
            tables.a.eq(self.a),
            tables.b.eq(self.b),
            tables.c.eq(self.c),
            tables.table.eq(self.table),
            adder.a.eq(multiplier.product),
            adder.b.eq(~c6),
            self.r.eq(adder.sum),
        ]
        m.d.sync += [
            multiplier.a.eq(Cat(tables.d[:23], tables.d[23] ^ negate_product)),
            multiplier.b.eq(tables.slope),
            quantise4.eq(quantise),
            multiplier.quantise.eq(quantise4),
            c4.eq(Cat(tables.intercept[:23], tables.intercept[23] ^ negate_c)),
            c6.eq(~(Mux(self.again, adder.sum, c5) if self._sums else c5)),
        ]
        # A code passes the adder beside zero.
        with m.If(quantise):
            m.d.sync += c4.eq(0)
        return m
