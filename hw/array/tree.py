"""One row of the array: C signed activations, C trits, an adder tree and an accumulator."""

from amaranth import C as Const
from amaranth import Cat, Module, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from sterna.hw.array.decoder import Trit
from sterna.hw.config import ACCUMULATOR_BITS


def _add_carry(a, b, carry):
    """a + b + carry with the carry in the chain's first bit, so that it costs no second adder."""
    return (Cat(Const(1, 1), a).as_signed() + Cat(carry, b).as_signed()) >> 1


class RowAccumulator(wiring.Component):
    """sum of activation[c] * trit[c] over the C columns of a chunk and over the chunks of a row.

    A negative trit adds the complement of the activation and a carry; the C carries enter the C - 1 adders of the
    tree and the accumulator, one each. A register follows every second level of the tree.

    The chunk marked ``last`` moves the total to ``sum`` and clears the accumulator in the same cycle: a synchronous
    reset, where a multiplexer in front of the adder would cost a LUT per bit.

    Throughput one chunk per cycle; ``latency`` cycles from inputs to ``sum``, which then stays until the next
    ``last``; not ``pipelined``, it stays for one cycle only, and neither the tree nor ``sum`` has registers. No
    back-pressure. Range: see ACCUMULATOR_BITS; fewer ``bits`` do where 127 * 2^(1 - bits) * (columns of
    the matrix) <= 1.

    Members
    -------
    activations : In(ArrayLayout(signed(8), C))
    trits : In(ArrayLayout(Trit, C))
    last, enable : In(1)
        The row ends with this chunk; this cycle carries a chunk.
    sum : Out(signed(bits))
    """

    def __init__(self, *, columns, bits=ACCUMULATOR_BITS, pipelined=True):
        if columns < 1:
            raise ValueError(f"columns {columns}: must be positive")
        self._columns, self._bits = columns, bits
        self._pipelined = pipelined
        levels = (columns - 1).bit_length()
        self.latency = 1 + (levels + 1) // 2 + 1 if pipelined else 1
        super().__init__({
            "activations": In(data.ArrayLayout(signed(8), columns)),
            "trits": In(data.ArrayLayout(Trit, columns)),
            "last": In(1),
            "enable": In(1),
            "sum": Out(signed(bits)),
        })

    def elaborate(self, platform):
        m = Module()
        # Registers load only what belongs to a chunk, and need no reset: an idle array keeps still.
        lasts, enables = [self.last], [self.enable]
        for k in range(self.latency - 1 if self._pipelined else 1):
            last, enable = Signal(name=f"last{k}"), Signal(name=f"enable{k}")
            m.d.sync += [last.eq(lasts[-1]), enable.eq(enables[-1])]
            lasts.append(last)
            enables.append(enable)
        terms, carries = [], []
        for c in range(self._columns):
            trit = self.trits[c]
            term = Signal(signed(8), name=f"term{c}", reset_less=True)
            carry = Signal(name=f"carry{c}", reset_less=True)
            with m.If(enables[0]):
                m.d.sync += [
                    # Written with AND, not a multiplexer: synthesis would turn that into one reset net per trit.
                    term.eq((self.activations[c] ^ trit.negative.replicate(8)) & trit.nonzero.replicate(8)),
                    carry.eq(trit.negative),
                ]
            terms.append(term)
            carries.append(carry)
        level, stage = 0, 1
        while len(terms) > 1:
            registered = self._pipelined and (level % 2 == 1 or len(terms) == 2)
            values = [_add_carry(terms[k], terms[k + 1], carries.pop()) for k in range(0, len(terms) - 1, 2)]
            values += terms[len(values) * 2:]
            sums = [Signal(signed(len(value)), name=f"sum{level}_{k}", reset_less=True)
                    for k, value in enumerate(values)]
            if registered:
                delayed = [Signal(name=f"carry{level}_{k}", reset_less=True) for k in range(len(carries))]
                with m.If(enables[stage]):
                    m.d.sync += [*(node.eq(value) for node, value in zip(sums, values, strict=True)),
                                 *(register.eq(carry) for register, carry in zip(delayed, carries, strict=True))]
                carries = delayed
                stage += 1
            else:
                m.d.comb += [node.eq(value) for node, value in zip(sums, values, strict=True)]
            terms = sums
            level += 1
        last, enable = lasts[-1], enables[-1]
        total = Signal(signed(self._bits))
        following = Signal.like(total)
        m.d.comb += following.eq(_add_carry(total, terms[0], carries.pop()))
        with m.If(enable & last):
            m.d.sync += total.eq(0)
            if self._pipelined:
                m.d.sync += self.sum.eq(following)
        with m.Elif(enable):
            m.d.sync += total.eq(following)
        if not self._pipelined:
            m.d.comb += self.sum.eq(following)
        return m
