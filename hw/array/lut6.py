"""Row of the array for 6-input LUTs of two outputs before a carry chain: AMD 7 series, UltraScale,
UltraScale+.
"""

from dataclasses import dataclass, replace

from amaranth import Cat, Const, Instance, Signal, Value, signed


@dataclass(frozen=True)
class Node:
    """Partial sum of `terms` terms and `carries` carries."""

    value: Value
    terms: int
    carries: int

    @property
    def bits(self):
        """Bits that hold the sum, whatever the terms: each is between -128 and 127."""
        return 1 + max(
            (128 * self.terms - 1).bit_length(), (127 * self.terms + self.carries).bit_length()
        )


def table(six, five):
    """Contents of a LUT6_2 whose I5 is 1: functions of (I0, ..., I4) at O6 and at O5."""
    inputs = [[index >> k & 1 for k in range(5)] for index in range(32)]
    return sum(
        (five(*values) & 1) << k | (six(*values) & 1) << (32 + k) for k, values in enumerate(inputs)
    )


# (x ^ negative) + ((y ^ negative) & nonzero): x comes as 0 if its trit is 0. At O5 the first
# operand.
PAIR = table(lambda x, xn, y, yn, yz: x ^ xn ^ ((y ^ yn) & yz), lambda x, xn, y, yn, yz: x ^ xn)
# Three operands and the majority of the bits below them. At O5 their own majority, or at bit 0 what
# stands for the one below, since the input that would bring it to the carry chain is there the
# carry in.
THREE = table(
    lambda a, b, c, below, _: a ^ b ^ c ^ below,
    lambda a, b, c, below, _: (a & b) | (a & c) | (b & c),
)
THREE_LOWEST = table(lambda a, b, c, below, _: a ^ b ^ c ^ below, lambda a, b, c, below, _: below)


class Adders:
    """Makes the adders of a row in its module: one LUT per bit of the sum, one more for three
    operands.

    Parameters
    ----------
    m : amaranth.Module
    cell : str
        "CARRY4" or "CARRY8".
    """

    def __init__(self, m, cell):
        self._m, self._cell, self._length = m, cell, int(cell[-1])

    def pair(self, name, x, y, x_negative, y_negative, y_nonzero, width):
        """x or ~x, plus y or -y or 0 (Signal(signed(width)))."""
        operands = [
            (_bit(x, k), x_negative, _bit(y, k), y_negative, y_nonzero) for k in range(width)
        ]
        luts = [self._lut(f"{name}_lut{k}", PAIR, inputs) for k, inputs in enumerate(operands)]
        return self._chain(name, [six for six, _ in luts], [five for _, five in luts], y_negative)

    def three(self, name, a, b, c, carries, width):
        """a + b + c + two carries (Signal(signed(width))); a carry takes the place of a majority
        below bit 0.
        """
        bits = [[_bit(value, k) for value in (a, b, c)] for k in range(width)]
        x, y, z = bits[0]
        six, five = self._lut(f"{name}_lut0", THREE_LOWEST, (x, y, z, carries[0], Const(0, 1)))
        sixes, generated, below = [six], [five], (x & y) | (x & z) | (y & z)
        for k in range(1, width):
            generated.append(below)
            six, below = self._lut(f"{name}_lut{k}", THREE, (*bits[k], below, Const(0, 1)))
            sixes.append(six)
        return self._chain(name, sixes, generated, carries[1])

    def two(self, name, a, b, carry, width):
        """a + b + carry (Signal(signed(width)))."""
        return self._chain(
            name,
            [_bit(a, k) ^ _bit(b, k) for k in range(width)],
            [_bit(a, k) for k in range(width)],
            carry,
        )

    def _lut(self, name, contents, inputs):
        six, five = Signal(name=f"{name}_six"), Signal(name=f"{name}_five")
        self._m.submodules[name] = Instance(
            "LUT6_2",
            p_INIT=Const(contents, 64),
            i_I5=Const(1, 1),
            o_O6=six,
            o_O5=five,
            **{f"i_I{k}": value for k, value in enumerate(inputs)},
        )
        return six, five

    def _chain(self, name, propagate, generate, carry):
        """Sums of a carry chain: where `propagate` is 0, its carry is `generate`."""
        total = Signal(signed(len(propagate)), name=name)
        for first in range(0, len(total), self._length):
            last = first + self._length
            sums, carries = (
                Signal(self._length, name=f"{name}_{what}{first}") for what in ("sums", "carries")
            )
            if self._cell == "CARRY8":
                ports = {"i_CI": carry, "i_CI_TOP": Const(0, 1)}
            else:
                ports = {
                    "i_CI": carry if first else Const(0, 1),
                    "i_CYINIT": Const(0, 1) if first else carry,
                }
            idle = Const(0, max(0, last - len(total)))
            self._m.submodules[f"{name}_{first}"] = Instance(
                self._cell,
                i_S=Cat(*propagate[first:last], idle),
                i_DI=Cat(*generate[first:last], idle),
                o_O=sums,
                o_CO=carries,
                **ports,
            )
            self._m.d.comb += total[first:last].eq(sums)
            carry = carries[-1]
        return total


def _bit(value, place):
    """A bit of a signed value, its sign beyond its end."""
    return value[min(place, len(value) - 1)]


def following(m, stages, row, total, adders):
    """The next value of the accumulator: `total` plus the terms of a chunk.

    Pairs of terms first: the LUT before the carry chain applies both trits, except that a zero of
    the first one is the synchronous reset of its register. Then operands are added by threes, the
    last two with the total. A negative trit adds the complement of the activation and a carry: of
    the C carries a pair takes one, an adder of three operands two, and the accumulator the rest, as
    many as its adder has operands besides the total.

    Parameters
    ----------
    m : amaranth.Module
    stages : Stages
    row : RowAccumulator
    total : Signal(signed(bits))
    adders : callable
        Adders of one kind of carry cell, or what has its methods, made for `m`.

    Returns
    -------
    Value
        bits wide.
    """
    adders, columns = adders(m), len(row.trits)
    terms = [
        stages.register(
            row.activations[c], 0, f"term{c}", clear=None if c % 2 else ~row.trits[c].nonzero
        )
        for c in range(columns)
    ]
    negative = [stages.register(row.trits[c].negative, 0, f"negative{c}") for c in range(columns)]
    carries = negative[::2]
    nodes, pairs = [], []
    for c in range(0, columns - 1, 2):
        node = Node(None, 2, 1)
        nonzero = stages.register(row.trits[c + 1].nonzero, 0, f"nonzero{c + 1}")
        pairs.append(
            replace(
                node,
                value=adders.pair(
                    f"pair{c}",
                    terms[c],
                    terms[c + 1],
                    negative[c],
                    negative[c + 1],
                    nonzero,
                    node.bits,
                ),
            )
        )
    if columns % 2:
        pairs.append(Node((terms[-1] ^ negative[-1].replicate(8))[:8].as_signed(), 1, 0))
    count, levels = len(pairs), min(1, columns - 1)
    while count > 2:
        count, levels = count // 3 + count % 3, levels + 1
    nodes, stage, held = pairs, 1, sum(row.registers)
    for level in range(levels):
        if level:
            sums = []
            for k in range(0, len(nodes) - 2, 3):
                node = Node(
                    None,
                    sum(n.terms for n in nodes[k : k + 3]),
                    sum(n.carries for n in nodes[k : k + 3]) + 2,
                )
                pair = carries.pop(), carries.pop()
                sums.append(
                    replace(
                        node,
                        value=adders.three(
                            f"sum{level}_{k}", *(n.value for n in nodes[k : k + 3]), pair, node.bits
                        ),
                    )
                )
            nodes = sums + nodes[3 * len(sums) :]
        for _ in range((level + 1) * held // levels - level * held // levels):
            nodes = [
                replace(n, value=stages.register(n.value, stage, f"held{level}_{k}"))
                for k, n in enumerate(nodes)
            ]
            carries = [
                stages.register(carry, stage, f"carry{level}_{k}")
                for k, carry in enumerate(carries)
            ]
            stage += 1
    if len(nodes) == 2:
        return adders.three("following", total, nodes[0].value, nodes[1].value, carries, len(total))
    return adders.two("following", total, nodes[0].value, carries[0], len(total))
