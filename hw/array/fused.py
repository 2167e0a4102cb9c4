"""Row of the array for ECP5: trits are applied in the LUTs in front of the carry chain."""

from typing import NamedTuple

from amaranth import Const, Instance, Signal, Value, signed

# Tables of the LUTs of a CCU2C, input A in bit 0 of the index. The carry passes where the LUT gives
# 1; elsewhere it is the same table at C = D = 0, a function of A and B.
#
# By C nonzero, D negative: A, A ^ B, ~A, ~(A ^ B); the carry is A: both operands are equal there.
ADD_TRIT = 0x956A
CARRY = 0x000A  # with C = D = 1: the carry is A, whatever comes in


class Node(NamedTuple):
    """Partial sum: `value` times 1, or 0 if not `nonzero`, times the sign of the trit of column
    `leader`.
    """

    value: Value
    leader: int
    nonzero: Value = Const(1, 1)


def add_trit(m, name, a, b, nonzero, negative, width):
    """a + b, a - b (`negative`) or a (not `nonzero`), modulo 2^width, in CCU2C cells: width + 1
    LUTs, made even.

    The first half of the first cell makes the carry of a subtraction, whatever the chain's carry in
    is.

    Parameters
    ----------
    m : amaranth.Module
    name : str
        Prefix of the names of the cells.
    a, b : Value, signed
    nonzero, negative : Value of 1 bit
        `negative` may have any value where `nonzero` is 0.
    width : int
        At least the bits of a and b; one more keeps the sum exact.

    Returns
    -------
    Signal(signed(width))
    """
    total = Signal(signed(width), name=name)
    high, low = Const(1, 1), Const(0, 1)
    halves = [(CARRY, (negative, low, high, high), None)]
    halves += [
        (ADD_TRIT, (a[min(k, len(a) - 1)], b[min(k, len(b) - 1)], nonzero, negative), total[k])
        for k in range(width)
    ]
    if len(halves) % 2:
        halves.append((CARRY, (low, low, high, high), None))  # idle
    carry = low
    for k in range(0, len(halves), 2):
        following = Signal(name=f"{name}_carry{k}")
        ports = {"i_CIN": carry, "o_COUT": following}
        for half, (table, inputs, out) in enumerate(halves[k : k + 2]):
            ports |= {f"p_INIT{half}": Const(table, 16), f"p_INJECT1_{half}": "NO"}
            ports |= {f"i_{port}{half}": value for port, value in zip("ABCD", inputs, strict=True)}
            if out is not None:
                ports[f"o_S{half}"] = out
        m.submodules[f"{name}_{k}"] = Instance("CCU2C", **ports)
        carry = following
    return total


def following(m, stages, row, total, add=add_trit):
    """The next value of the accumulator: `total` plus the terms of a chunk.

    A binary tree whose adders apply the trit of their second operand. Its first operands have no
    trit left: at the leaves a synchronous reset of the register takes the zeros out, and the sign
    of a node is that of its first column, so that each adder sees only whether its operands' signs
    differ. The accumulator applies the last sign. No term takes LUTs of its own. A node over n
    columns is between -128 n and 128 n - 1 whatever its signs; on level k, n is at most 2^k, and 8
    + k bits hold it. Registers are where the portable form has them.

    Parameters
    ----------
    m : amaranth.Module
    stages : Stages
    row : RowAccumulator
    total : Signal(signed(bits))
    add : callable
        `add_trit`, or what has its function.

    Returns
    -------
    Value
        bits wide.
    """

    def differ(first, second, stage):
        """Whether the signs of two columns differ, for nodes behind `stage` register stages."""
        signs = row.trits[first].negative ^ row.trits[second].negative
        return stages.delayed(signs, stage, f"differ{first}_{second}")

    columns = len(row.trits)
    nodes = []
    for c in range(columns):
        trit, activation = row.trits[c], row.activations[c]
        if c % 2 == 0 and c + 1 < columns:
            nodes.append(Node(stages.register(activation, 0, f"term{c}", clear=~trit.nonzero), c))
        else:
            nodes.append(
                Node(
                    stages.register(activation, 0, f"term{c}"),
                    c,
                    stages.register(trit.nonzero, 0, f"nonzero{c}"),
                )
            )
    stage = 1
    for level, registers in enumerate(row.registers):
        pairs = [(nodes[k], nodes[k + 1]) for k in range(0, len(nodes) - 1, 2)]
        sums = [
            Node(
                add(
                    m,
                    f"sum{level}_{first.leader}",
                    first.value,
                    second.value,
                    second.nonzero,
                    differ(first.leader, second.leader, stage),
                    max(len(first.value), len(second.value)) + 1,
                ),
                first.leader,
            )
            for first, second in pairs
        ]
        nodes = sums + nodes[2 * len(pairs) :]
        if registers:
            nodes = [
                Node(
                    stages.register(n.value, stage, f"held{n.leader}"),
                    n.leader,
                    n.nonzero
                    if isinstance(n.nonzero, Const)
                    else stages.register(n.nonzero, stage, f"nonzero{n.leader}"),
                )
                for n in nodes
            ]
            stage += 1
    negative = stages.delayed(row.trits[0].negative, stage, "negative")
    return add(m, "following", total, nodes[0].value, nodes[0].nonzero, negative, len(total))
