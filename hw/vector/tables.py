"""Table functions of one lane (docs/numerics.md, section 2): argument to table word to the operands
of a mac.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from sterna.firmware.isa import TABLES
from sterna.hw.stream import delayed
from sterna.hw.vector.float import MAX_MAGNITUDE
from sterna.sim.golden import tables

NONE, SIGMOID, RECIP, RSQRT, LOG2, LOG1M, EXPONENT = range(len(TABLES))
ONE = 127 << 15
# An entry of the ROM is a constant without its sign, which the function determines, and with the
# low bits of its exponent field, whose high bits are the same everywhere. Two entries of 20 bits
# fill five block RAMs of the iCE40, not six.
FIELD_BITS, FIELD_HIGH = 5, 0b011
ENTRY_BITS = 15 + FIELD_BITS


def _below(value, limit):
    """Whether ``value`` is below the constant ``limit``, without the carry chain that synthesis
    makes of a comparison.
    """
    below = Const(0, 1)
    for k in range(len(value)):
        below = ~value[k] | below if limit >> k & 1 else ~value[k] & below
    return below


def _rom_words():
    """The 512 words of the ROM (c0 below c1), from `tables.table_words`; ValueError if one does not
    fit the form.
    """
    words = []
    for index, word in enumerate(int(w) for w in tables.table_words()):
        constants = word & 0xFFFFFF, word >> 24
        if any(constants):
            in_log = (
                tables.LOG2 <= index < tables.LOG2 + 64,
                tables.LOG1M <= index < tables.LOG1M + 64,
            )
            signs = in_log[0], not any(in_log)
            for constant, sign in zip(constants, signs, strict=True):
                if constant >> 23 != sign or constant >> 15 + FIELD_BITS & 7 != FIELD_HIGH:
                    raise ValueError(
                        f"table word {index}: the constant {constant:#08x} does not fit the ROM"
                    )
        mask = (1 << ENTRY_BITS) - 1
        words.append(constants[0] & mask | (constants[1] & mask) << ENTRY_BITS)
    return words


class TableUnit(wiring.Component):
    """Replaces the operands of r = a b + c by those of a table function.

    One register (the synchronous read of the ROM), ``pipelined`` three (before and behind it as
    well); what is behind the last one is combinational, to be registered by the user. Throughput
    one argument per cycle. Scaling cannot exceed exponent field 255 (the largest is 253, RECIP of
    2^-126), so only the flush below 1 is built.

    Parameters
    ----------
    pipelined : bool

    Members
    -------
    a : In(24)
        Argument, fp24.
    b, c : In(24)
        Operands when ``table`` is NONE or EXPONENT; they belong to the argument of the cycle
        before.
    table : In(3)
        Function; if not ``pipelined``, it must hold while its arguments are in the unit.
    d, slope, intercept : Out(24)
        The operands ``latency`` cycles after ``a``: d * slope + intercept.

    Attributes
    ----------
    latency : int
        3, or 1.
    """

    a: In(24)
    b: In(24)
    c: In(24)
    table: In(3)
    d: Out(24)
    slope: Out(24)
    intercept: Out(24)

    def __init__(self, pipelined=True):
        self._pipelined, self.latency = pipelined, 3 if pipelined else 1
        super().__init__()

    def elaborate(self, platform):
        # Plan: from the argument the place in a table (`places`, `low`, `high`); the address of the
        # ROM by function; the result of EXPONENT, which has no table; what is to be known behind
        # the ROM, registered beside it (`scaling`, `special`); behind it the operands: `d`, then
        # the two constants of the table, `scaled`, or a special result, or else `b` and `c`.
        m = Module()
        extra = int(self._pipelined)
        m.submodules.rom = rom = Memory(shape=2 * ENTRY_BITS, depth=512, init=_rom_words())
        m.submodules.complement = complement = Memory(
            shape=15, depth=256, init=[int(w) for w in tables.complements()]
        )
        read = rom.read_port()
        read_complement = complement.read_port()

        fraction, exponent, negative = self.a[:15], self.a[15:23], self.a[23]
        sigmoid = Signal()
        m.d.comb += sigmoid.eq(self.table == SIGMOID)

        # EXPONENT: E = e - 127 is the ones' complement of the low bits below 128, and one more than
        # they are from 128 up.
        magnitude = Signal(8)

        # floor(16 |a|), floor(128 |a|): the upper eight bits of the significand, shifted down.
        places = Signal(3)
        low = Signal()
        high = Signal()
        index = Signal(8)
        m.d.comb += [
            places.eq(~exponent[:3] + Mux(sigmoid, 3, 0)),
            low.eq(Mux(sigmoid, _below(exponent, 123), _below(exponent, 120))),
            high.eq(Mux(sigmoid, ~_below(exponent, 131), ~_below(exponent, 126))),
            magnitude.eq(Mux(exponent[7], exponent[:7] + 1, ~exponent[:7])),
        ]
        table, argument, places, low, high, magnitude = (
            delayed(m, value, extra, name)
            for name, value in (
                ("table", self.table),
                ("argument", self.a),
                ("places", places),
                ("low", low),
                ("high", high),
                ("magnitude", magnitude),
            )
        )
        fraction, exponent, negative = argument[:15], argument[15:23], argument[23]
        kind = Signal(7)
        m.d.comb += [
            kind.eq(1 << table),
            index.eq(Mux(low, 0, (Cat(fraction[8:], Const(1, 1)) >> places) | high.replicate(8))),
        ]

        # The address of the ROM.
        with m.Switch(table):
            with m.Case(SIGMOID):
                m.d.comb += read.addr.eq(index)
            with m.Case(RECIP):
                m.d.comb += read.addr.eq(Cat(fraction[10:], Const(tables.RECIP >> 5, 4)))
            with m.Case(RSQRT):
                m.d.comb += read.addr.eq(Cat(fraction[10:], Mux(exponent[0], 9, 10)))
            with m.Case(LOG2):
                m.d.comb += read.addr.eq(Cat(fraction[9:14], Mux(fraction[14], 12, 11)))
            with m.Default():
                m.d.comb += read.addr.eq(Cat(index[:5], Mux(index[5], 14, 13)))
        m.d.comb += read_complement.addr.eq(index)

        # EXPONENT: its magnitude normalised.
        value, taken = magnitude, []
        for k in (2, 1, 0):
            step = Signal(8, name=f"exponent_{k}")
            bit = Signal(name=f"exponent_taken_{k}")
            m.d.comb += [
                bit.eq(~value[8 - (1 << k) :].any()),
                step.eq(Mux(bit, value << (1 << k), value)),
            ]
            value = step
            taken.insert(0, bit)
        number = Signal(24)
        field = Signal(8)
        m.d.comb += [
            field.eq(134 - Cat(*taken)),
            number.eq(Mux(value[7], Cat(Const(0, 8), value[:7], field, ~exponent[7]), 0)),
        ]

        # What the second stage needs. The scaling is 127 - e for RECIP and floor((128 - e) / 2) for
        # RSQRT: no adder, only a carry into the one that applies it.
        scale = Cat(~exponent[:7], exponent[7], exponent[7])
        passing, argument = argument, Signal(24)
        scaling = Signal(9)
        carry = Signal()
        special = Signal()  # c1 = 0, c0 = the result
        at_zero = Signal()
        negative2 = Signal()
        m.d.comb += at_zero.eq(~exponent.any())
        m.d.sync += [
            argument.eq(Mux(kind[EXPONENT], number, passing)),
            scaling.eq(Mux(kind[RECIP], scale, Mux(kind[RSQRT], Cat(scale[1:], exponent[7]), 0))),
            carry.eq(kind[RSQRT] & ~exponent[0]),
            special.eq((kind[SIGMOID] & high) | ((kind[RECIP] | kind[RSQRT]) & at_zero)),
            negative2.eq(negative),
        ]
        # Behind the ROM. A table that holds while its arguments are in the unit needs no register
        # here.
        words = read.data, read_complement.data
        if self._pipelined:
            kind = delayed(m, kind, 2, "kind")
            *words, argument, scaling, carry, special, negative2 = (
                delayed(m, value, 1, name)
                for name, value in (
                    ("entry", words[0]),
                    ("complement", words[1]),
                    ("argument2", argument),
                    ("scaling", scaling),
                    ("carry", carry),
                    ("special", special),
                    ("negative", negative2),
                )
            )
        b, c = delayed(m, self.b, 2 * extra, "b"), delayed(m, self.c, 2 * extra, "c")
        uses_rom = Signal()
        one_to_two = Signal()
        positive_sigmoid = Signal()
        m.d.comb += [
            uses_rom.eq(~(kind[NONE] | kind[EXPONENT])),
            one_to_two.eq(kind[RECIP] | kind[LOG2] | kind[RSQRT]),
            positive_sigmoid.eq(kind[SIGMOID] & ~negative2),
            # RSQRT: the significand of an odd exponent counts double. Plain expressions here and
            # below: a block that is evaluated only when something changes would leave Icarus with X
            # until the first argument that is not 0.
            self.d.eq(
                Cat(
                    argument[:15],
                    Mux(one_to_two, Mux(kind[RSQRT] & ~argument[15], 128, 127), argument[15:23])[
                        :8
                    ],
                    argument[23] & ~uses_rom,
                )
            ),
        ]

        # The two constants.
        def scaled(entry, name):
            total = Signal(10, name=name)
            field = Cat(entry[15:], Const(FIELD_HIGH, 8 - FIELD_BITS))
            m.d.comb += total.eq(field + Cat(scaling, scaling[8]) + carry)
            return Cat(entry[:15], total[:8]), total[9] | ~total[:8].any()

        (c0, flush0), (c1, flush1) = (
            scaled(words[0][:ENTRY_BITS], "field0"),
            scaled(words[0][ENTRY_BITS:], "field1"),
        )
        negative0, negative1 = kind[LOG2], ~(kind[LOG2] | kind[LOG1M])
        at_special = Mux(kind[SIGMOID], Mux(negative2, 0, ONE), MAX_MAGNITUDE)
        from_rom = Mux(
            positive_sigmoid, Cat(words[1], Const(126, 9)), Mux(flush0, 0, Cat(c0, negative0))
        )
        m.d.comb += [
            self.slope.eq(
                Mux(uses_rom, Mux(flush1 | special, 0, Cat(c1, negative1 ^ positive_sigmoid)), b)
            ),
            self.intercept.eq(Mux(uses_rom, Mux(special, at_special, from_rom), c)),
        ]
        return m
