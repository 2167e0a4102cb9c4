"""Every vector of a run in hardware against the interpreter's."""

import numpy as np

from sterna.firmware import isa


def first_difference(expected, actual):
    """None, or a text that names the first vector in which a board's trace departs from the interpreter's.

    Of slots, those that count are compared.

    Parameters
    ----------
    expected : list of tuple
        What ``Machine`` gave its ``trace``, in order.
    actual : list of (bool, array)
        Vectors of the board: of `sterna.sim.board.board.read_trace`.
    """
    for number, (pc, fields, r_bits, codes, slots) in enumerate(expected):
        if number >= len(actual):
            return f"vector {number} (instruction {pc}) is missing"
        is_code, values = actual[number]
        if is_code != (codes is not None):
            return f"vector {number} (instruction {pc}): codes expected {codes is not None}, seen {is_code}"
        _, batch, lanes = r_bits.shape
        seen = values.reshape(-1, batch, lanes).transpose(1, 0, 2).reshape(batch, -1)
        if is_code:
            want, seen = codes, seen[:, :codes.shape[1]]
        else:
            want = r_bits.transpose(1, 0, 2).reshape(batch, -1)
            if fields["one"] and fields["d_kind"] != isa.D_VECTOR:
                want, seen = want[:, :1], seen[:, :1]  # nothing takes the other lanes of such a result
        if seen.shape != want.shape:
            return f"vector {number} (instruction {pc}): {want.shape[1]} numbers expected, {seen.shape[1]} seen"
        for slot in slots:
            wrong = np.flatnonzero(seen[slot] != want[slot])
            if len(wrong):
                k = wrong[0]
                return (f"vector {number} (instruction {pc}, {isa.OPCODE_NAMES[isa.VOP]} {fields}): slot {slot}, "
                        f"element {k} of {want.shape[1]}: expected {int(want[slot, k]):#x}, "
                        f"got {int(seen[slot, k]):#x}")
    if len(actual) > len(expected):
        return f"{len(actual) - len(expected)} vectors more than expected"
    return None
