"""One row of the array: C signed activations, C trits, an adder tree and an accumulator."""

from functools import partial

from amaranth import C as Const
from amaranth import Cat, Module, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from sterna.hw.array import fused, lut6
from sterna.hw.array.decoder import Trit
from sterna.hw.array.stages import Stages
from sterna.hw.config import ACCUMULATOR_BITS


class RowAccumulator(wiring.Component):
    """sum of activation[c] * trit[c] over the C columns of a chunk and over the chunks of a row.

    The portable form is what every fabric can build. Where the LUTs before the carry chain can
    apply trits, a form made for the fabric takes its place (`form_of`). All forms give the same
    ``sum`` in the same cycle, whatever the activations (-128 included) and trits, so a simulation
    of one counts the cycles of all.

    The chunk marked ``last`` moves the total to ``sum`` and clears the accumulator in the same
    cycle: a synchronous reset, where a multiplexer in front of the adder would cost a LUT per bit.

    Throughput one chunk per cycle; ``latency`` cycles from inputs to ``sum``, which then stays
    until the next ``last``; not ``pipelined``, it stays for one cycle only, and neither the tree
    nor ``sum`` has registers. No back-pressure. Range: see ACCUMULATOR_BITS; fewer ``bits`` do
    where 127 * 2^(1 - bits) * (columns of the matrix) <= 1.

    Parameters
    ----------
    columns : int
        C.
    bits : int
        Bits of the accumulator.
    pipelined : bool
        False leaves out the registers for speed.
    form : str or None
        One of FORMS; None takes the one that suits the platform, the portable one in simulation.

    Members
    -------
    activations : In(ArrayLayout(signed(8), C))
    trits : In(ArrayLayout(Trit, C))
    last, enable : In(1)
        The row ends with this chunk; this cycle carries a chunk.
    sum : Out(signed(bits))

    Attributes
    ----------
    registers : list of bool
        Whether registers follow each level of a binary tree.
    """

    def __init__(self, *, columns, bits=ACCUMULATOR_BITS, pipelined=True, form=None):
        if columns < 1:
            raise ValueError(f"columns {columns}: must be positive")
        if form is not None and form not in FORMS:
            raise ValueError(f"form {form!r}: use one of {', '.join(FORMS)}")
        self.pipelined, self._bits, self._form = pipelined, bits, form
        levels = (columns - 1).bit_length()
        self.registers = [
            pipelined and (level % 2 == 1 or level == levels - 1) for level in range(levels)
        ]
        self.latency = 1 + sum(self.registers) + pipelined
        super().__init__(
            {
                "activations": In(data.ArrayLayout(signed(8), columns)),
                "trits": In(data.ArrayLayout(Trit, columns)),
                "last": In(1),
                "enable": In(1),
                "sum": Out(signed(bits)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        stages = Stages(m, self.enable, self.last, 1 + sum(self.registers))
        last, enable = stages.lasts[-1], stages.enables[-1]
        total = Signal(signed(self._bits))
        following = Signal.like(total)
        m.d.comb += following.eq(FORMS[self._form or form_of(platform)](m, stages, self, total))
        with m.If(enable & last):
            m.d.sync += total.eq(0)
            if self.pipelined:
                m.d.sync += self.sum.eq(following)
        with m.Elif(enable):
            m.d.sync += total.eq(following)
        if not self.pipelined:
            m.d.comb += self.sum.eq(following)
        return m


def portable(m, stages, row, total):
    """The next value of the accumulator, in any fabric.

    A negative trit adds the complement of the activation and a carry; the C carries enter the C - 1
    adders of the tree and the accumulator, one each.

    Parameters
    ----------
    m : amaranth.Module
    stages : Stages
    row : RowAccumulator
    total : Signal(signed(bits))
    """
    terms, carries = [], []
    for c in range(len(row.trits)):
        trit = row.trits[c]
        # Written with AND, not a multiplexer: synthesis would turn that into one reset net per
        # trit.
        term = (row.activations[c] ^ trit.negative.replicate(8)) & trit.nonzero.replicate(8)
        terms.append(stages.register(term[:8].as_signed(), 0, f"term{c}"))
        carries.append(stages.register(trit.negative, 0, f"carry{c}"))
    stage = 1
    for level, registers in enumerate(row.registers):
        sums = [
            add_carry(terms[k], terms[k + 1], carries.pop()) for k in range(0, len(terms) - 1, 2)
        ]
        sums += terms[len(sums) * 2 :]
        if registers:
            terms = [
                stages.register(value, stage, f"sum{level}_{k}") for k, value in enumerate(sums)
            ]
            carries = [
                stages.register(carry, stage, f"carry{level}_{k}")
                for k, carry in enumerate(carries)
            ]
            stage += 1
        else:
            terms = [Signal.like(value, name=f"sum{level}_{k}") for k, value in enumerate(sums)]
            m.d.comb += [node.eq(value) for node, value in zip(terms, sums, strict=True)]
    return add_carry(total, terms[0], carries.pop())


def add_carry(a, b, carry):
    """a + b + carry with the carry in the chain's first bit, so that it costs no second adder."""
    return (Cat(Const(1, 1), a).as_signed() + Cat(carry, b).as_signed()) >> 1


FORMS = {
    "portable": portable,
    "ecp5": fused.following,
    "xc7": partial(lut6.following, adders=partial(lut6.Adders, cell="CARRY4")),
    "xcup": partial(lut6.following, adders=partial(lut6.Adders, cell="CARRY8")),
}
# Beginnings of the devices' names in amaranth.vendor.
DEVICES = {
    "LFE5U": "ecp5",
    "xc7": "xc7",
    "xcku": "xcup",
    "xcvu": "xcup",
    "xczu": "xcup",
    "xcau": "xcup",
    "xck": "xcup",
    "xcu": "xcup",
}


def form_of(platform):
    """Name of the form (str) for a platform as `elaborate` receives it: its ``device`` tells the
    fabric.
    """
    device = getattr(platform, "device", None) or ""
    return next((form for prefix, form in DEVICES.items() if device.startswith(prefix)), "portable")
