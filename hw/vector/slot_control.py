"""What the slots of the vector engine are told: in each cycle, and for a sampling."""

from amaranth.hdl import unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import Out

from sterna.hw.vector.operands import Fields


class Top(data.Struct):
    """Which rows a sampling is restricted to: the ``k`` best, 0 for all; of these P, in units of
    2^-16, 0 for all.
    """

    k: 8
    p: 16


class SlotControl(wiring.Signature):
    """What all slots do in a cycle.

    Members
    -------
    fields, tail, addresses, scalar_address, loads, start, restart_random
        As those of ``Issue``.
    move : Out(1)
        The engine does not stand still in this cycle; for what is no register.
    offered, pull, takes_random : Out(1)
        Every queue that the operation needs has a beat; it is taken; its random number is.
    read, read_last : Out(1)
        The banks give the operands of a beat; the last of its operation.
    again : Out(1)
        The beat whose C is about to reach the adder takes the sum that has just left it.
    begin : Out(1)
        For the sampler: a first beat comes in ``PRELUDE_CYCLES``.
    write, write_last : Out(1), mask : Out(V), count : Out(range(V + 1))
        Results of a beat are there; its lanes within the operation, and their number.
    keys, scores : Out(1)
        They are for the list of the best rows.
    banks : Out(3), address : Out, scalar : Out(1)
        The results go to this word of these banks; the result of lane 0 goes to the scalar register
        ``address``.
    """

    def __init__(self, lanes, address_bits):
        address = unsigned(address_bits)
        bits = (
            "move",
            "start",
            "restart_random",
            "offered",
            "pull",
            "takes_random",
            "read",
            "read_last",
            "again",
            "begin",
            "write",
            "write_last",
            "scalar",
            "keys",
            "scores",
        )
        super().__init__(
            {name: Out(1) for name in bits}
            | {
                "fields": Out(Fields),
                "tail": Out(lanes),
                "addresses": Out(data.ArrayLayout(address, 3)),
                "scalar_address": Out(5),
                "loads": Out(3),
                "mask": Out(lanes),
                "count": Out(range(lanes + 1)),
                "banks": Out(3),
                "address": Out(address),
            }
        )
