"""fp24 arithmetic of one lane: multiplier with quantiser, adder (integers to fp24: `convert`). Bit
exact to docs/numerics.md.

Every unit is a fixed pipeline without handshake: a new operand may enter in each cycle, and the
result leaves a fixed number of cycles later. The engine stalls all stages together with one clock
enable.

All roundings use one trick: exponent and fraction are one integer, so adding the rounding bit to it
lets a carry out of the fraction raise the exponent. The exponent has ten bits, signed, at that
point; every sum of exponents that can occur lies in -254..384, so it cannot wrap.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sterna.hw.stream import delayed

MAX_MAGNITUDE = 0x7FFFFF
QUANTISED_EXPONENT = 128


def significand(value):
    """16-bit significand of a 24-bit fp24 value: the hidden bit is 0 for zero only."""
    return Cat(value[:15], value[15:23].any())


def kept_net(m, name, value):
    """``value`` as a net that synthesis keeps: it counts levels of LUTs alone, so logic behind a
    carry chain or a multiplier becomes short only where nets cut it.
    """
    net = Signal.like(Value.cast(value), name=name, attrs={"keep": 1})
    m.d.comb += net.eq(value)
    return net


def pack(m, name, sign, exponent_fraction, zero, under=None):
    """fp24 of a rounded result: flush below exponent field 1, saturation above 255.

    Parameters
    ----------
    m : Module
    name : str
        Name of the signal.
    sign : Value, 1 bit
    exponent_fraction : Value, 25 bits
        Signed exponent field (10 bits) above the fraction (15 bits), rounded.
    zero : Value, 1 bit
        The exact result is zero.
    under : Value, 1 bit, or None
        The result becomes zero, if the caller finds that faster than from `exponent_fraction`.

    Returns
    -------
    Signal, 24 bits
    """
    result = Signal(24, name=name)
    exponent = exponent_fraction[15:]
    under = zero | exponent[9] | ~exponent[:9].any() if under is None else under
    over = exponent[8]
    m.d.comb += result.eq(Mux(under, 0, Cat(exponent_fraction[:23] | over.replicate(23), sign)))
    return result


class Multiplier(wiring.Component):
    """MUL(a, b), or the code of the unrounded product (docs/numerics.md, section 4).

    Latency 2 cycles: 16 x 16 product; rounding. ``pipelined``, it is 3, with a register in the
    rounding. A code leaves as an fp24 number with exponent field 128, its sign, and its magnitude
    in fraction bits 14:8; adding zero to it changes nothing, so it passes the adder behind this
    unit.

    Parameters
    ----------
    pipelined : bool

    Members
    -------
    a, b : In(24)
        fp24; a zero may carry a sign here.
    quantise : In(1)
        Give the code; belongs to the operands that entered one cycle earlier.
    product : Out(24)

    Attributes
    ----------
    latency : int
    """

    a: In(24)
    b: In(24)
    quantise: In(1)
    product: Out(24)

    def __init__(self, pipelined=True):
        self._pipelined, self.latency = pipelined, 2 + pipelined
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        exact = Signal(32, reset_less=True)
        factors = [
            Cat(x[:15], Const(1, 1)) if self._pipelined else significand(x)
            for x in (self.a, self.b)
        ]
        exponents = Signal(9)
        sign = Signal()
        m.d.sync += [
            exact.eq(factors[0] * factors[1]),
            exponents.eq(self.a[15:23] + self.b[15:23]),
            sign.eq(self.a[23] ^ self.b[23]),
        ]

        top = exact[31]
        fraction = Mux(top, exact[16:31], exact[15:30])
        lost = exact[:14].any()
        sticky = (lost if self._pipelined else kept_net(m, "lost", lost)) | (top & exact[14])
        up = Mux(top, exact[15], exact[14]) & (sticky | fraction[0])
        # Value = exact * 2^(exponents - 284); 2 floor(..) in 9 bits for exponents up to 260, above
        # it is 128 or more.
        places = Signal(signed(10))
        doubled = Signal(9)
        zero = Const(0, 1)
        if self._pipelined:
            # The hidden bits are 1 there, of a zero as well. Less the bias of 127, plus 1 for a
            # product of 2 and more: -127 is 11_1000_0001, -126 is 11_1000_0010.
            zero = Signal(name="zero_operand")
            m.d.sync += zero.eq(~(self.a[15:23].any() & self.b[15:23].any()))
            bias = Cat(~top, top, Const(0b11100000, 8))
        else:
            # A product of 0, whose exponents are 255 at most, loses 255 and is flushed:
            # 11_0000_0001.
            bias = Cat(~top, top, Const(0, 5), exact[30:].any(), Const(0b11, 2))
        m.d.comb += [
            places.eq(260 - exponents),
            doubled.eq(Mux(places[4:].any() | zero, 0, exact[23:32] >> places[:4])),
        ]
        if self._pipelined:
            exponents, bias = (exponents + bias)[:10], Const(0, 10)
        extra = int(self._pipelined)
        fraction, up, zero, exponents, sign, doubled, beyond, quantise = (
            delayed(m, value, extra, name)
            for name, value in (
                ("fraction", fraction),
                ("up", up),
                ("zero", zero),
                ("exponents", exponents),
                ("sign", sign),
                ("doubled", doubled),
                ("beyond", places[9]),
                ("quantise", self.quantise),
            )
        )
        rounded = Signal(25)
        m.d.comb += rounded.eq(Cat(fraction, exponents) + Cat(Const(0, 15), bias) + up)
        exponent = rounded[15:]
        product = Cat(rounded[:23] | exponent[8].replicate(23), sign)
        if self._pipelined:  # without the carry chain of the sum
            flushed = zero | exponents[9] | (~exponents[:9].any() & ~(fraction.all() & up))
        else:
            some = [kept_net(m, f"some{k}", exponent[k : k + 4].any()) for k in (0, 4)]
            flushed = exponent[9] | ~(exponent[8] | some[0] | some[1])

        code = Signal(7)
        half_up = Signal(10)
        m.d.comb += [
            half_up.eq(doubled + 1),
            code.eq(half_up[1:8] | (beyond | half_up[8:].any()).replicate(7)),
        ]
        m.d.sync += self.product.eq(
            Mux(quantise, Cat(Const(0, 8), code, Const(QUANTISED_EXPONENT, 8), sign), product)
        )
        with m.If(flushed & ~quantise):  # a reset of registers, not a level of logic
            m.d.sync += self.product.eq(0)
        return m


class Adder(wiring.Component):
    """ADD(a, b). Latency 4 cycles: order by magnitude; align and add; normalise; round.
    ``pipelined``, it is 5, with a register in the normalisation.

    Parameters
    ----------
    compact : bool
        Align by a multiplication with a power of two: fewer LUTs and a DSP block, but a longer
        path.
    pipelined : bool

    Members
    -------
    a, b : In(24)
        fp24; a zero may carry a sign here.
    sum : Out(24)
        Canonical fp24: a zero is +0.

    Attributes
    ----------
    latency : int
    """

    a: In(24)
    b: In(24)
    sum: Out(24)

    def __init__(self, compact=False, pipelined=True):
        self._compact, self._pipelined, self.latency = compact, pipelined, 4 + pipelined
        super().__init__()

    def elaborate(self, platform):
        # Plan: order, align and add, normalise, round; what a part hands on behind its register
        # ends in its number (`big1`, `total2`, `normal3`). ``pipelined``, the normalisation has one
        # more register within, and the flush (`under`) is found beside the carry chain of the
        # rounding, not behind it.
        m = Module()
        # Order.
        # a >= b as the carry of a + ~b + 1: the user of this unit keeps b complemented.
        order = Signal(25)
        swap = Signal()
        big = Signal(24)
        small = Signal(24)
        distance = Signal(8)
        m.d.comb += [
            order.eq(Cat(Const(1, 1), self.a[:23]) + Cat(Const(1, 1), ~self.b[:23])),
            swap.eq(~order[24]),
            big.eq(Mux(swap, self.b, self.a)),
            small.eq(Mux(swap, self.a, self.b)),
            distance.eq(big[15:23] - small[15:23]),
        ]
        sign1, subtract = Signal(), Signal()
        exponent1 = Signal(8)
        big1, small1 = Signal(16), Signal(16)
        places = Signal(5)
        m.d.sync += [
            sign1.eq(big[23]),
            subtract.eq(big[23] ^ small[23]),
            exponent1.eq(big[15:23]),
            big1.eq(significand(big)),
            small1.eq(significand(small)),
            places.eq(distance[:5] | distance[5:].any().replicate(5)),
        ]

        # Align: two guard bits and a sticky bit hold what rounding needs, whatever is shifted out.
        align = self._align_by_product if self._compact else self._align_by_shifts
        shifted, sticky = align(m, small1, places)
        total2 = Signal(20)
        sign2 = Signal()
        exponent2 = Signal(9)
        m.d.sync += [
            total2.eq(
                Cat(Const(0, 3), big1) + (Cat(sticky, shifted) ^ subtract.replicate(20)) + subtract
            ),
            sign2.eq(sign1),
            exponent2.eq(exponent1 + 2),
        ]

        # Normalise.
        value, taken = total2, []
        for k in (4, 3, 2, 1, 0):
            step = Signal(20, name=f"normal_{k}")
            bit = Signal(name=f"taken_{k}")
            m.d.comb += [
                bit.eq(~value[20 - (1 << k) :].any()),
                step.eq(Mux(bit, value << (1 << k), value)),
            ]
            value = step
            taken.insert(0, bit)
            if k == 3 and self._pipelined:
                value, *taken, sign2, exponent2 = (
                    delayed(m, each, 1, name)
                    for name, each in (
                        ("coarse", value),
                        ("coarse_taken0", taken[0]),
                        ("coarse_taken1", taken[1]),
                        ("coarse_sign", sign2),
                        ("coarse_exponent", exponent2),
                    )
                )
        taken = Cat(*taken)
        if self._pipelined:  # the coarse shift is taken off already
            exponent2, taken = (exponent2 - Cat(Const(0, 3), taken[3:]))[:10], taken[:3]
        normal3 = Signal(20)
        taken3 = Signal.like(taken)
        sign3 = Signal()
        exponent3 = Signal.like(exponent2)
        m.d.sync += [
            normal3.eq(value),
            taken3.eq(taken),
            sign3.eq(sign2),
            exponent3.eq(exponent2),
        ]

        # Round. The field is exponent + 1 - shift = (exponent + 2) + ones' complement of the shift.
        up = normal3[3] & (normal3[:3].any() | normal3[4])
        rounded = Signal(25)
        m.d.comb += rounded.eq(
            Cat(normal3[4:19], exponent3)
            + Cat(Const(0, 15), ~taken3, Const(-1, 10 - len(taken3)))
            + up
        )
        under = None
        if self._pipelined:
            # Without the carry chain: the field is exponent3 - 1 - taken3 and the carry of the
            # fraction.
            carry = normal3[4:19].all() & up
            low, small = exponent3[:3], ~exponent3[3:9].any()
            under = (
                ~normal3[19]
                | exponent3[9]
                | (small & (low <= taken3))
                | (
                    ~carry
                    & Mux(
                        small, low == taken3 + 1, (exponent3[3:9] == 1) & (low == 0) & (taken3 == 7)
                    )
                )
            )
        m.d.sync += self.sum.eq(pack(m, "rounded_sum", sign3, rounded, ~normal3[19], under))
        return m

    @staticmethod
    def _align_by_shifts(m, small, places):
        """``small`` with two guard bits, ``places`` to the right (18 bits), and whether a 1 was
        lost.
        """
        shifted, sticky = Cat(Const(0, 2), small), Const(0, 1)
        for k in (4, 3, 2, 1, 0):
            step = Signal(18, name=f"align_{k}")
            lost = Signal(name=f"lost_{k}")
            m.d.comb += [
                step.eq(Mux(places[k], shifted >> (1 << k), shifted)),
                lost.eq(sticky | (places[k] & shifted[: 1 << k].any())),
            ]
            shifted, sticky = step, lost
        return shifted, sticky

    @staticmethod
    def _align_by_product(m, small, places):
        """The same: places 0 to 15 as the factors 2^15 to 2^0, the shift by 16 a choice of bits."""
        power = Signal(16)
        product = Signal(31)
        shifted = Signal(18)
        sticky = Signal()
        far = places[4]
        m.d.comb += [
            power.eq(Cat(places[:4] == 15 - k for k in range(16))),
            product.eq(small * power),
            shifted.eq(
                Cat(Mux(far, product[29:31], product[13:15]), product[15:31] & ~far.replicate(16))
            ),
            sticky.eq(
                kept_net(m, "lost_near", product[:13].any())
                | (far & kept_net(m, "lost_far", product[13:29].any()))
            ),
        ]
        return shifted, sticky
