"""Destination of the beats at the write stage: their operation's fields, their address and their
mask.
"""

from amaranth.hdl import Cat, Const, Module, Signal, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sterna.hw.vector.operands import D, Fields
from sterna.hw.vector.sampler import PRELUDE_CYCLES


class WriteBack(wiring.Component):
    """Takes the fields of an operation over with its first beat, in the cycle before that is
    written, and counts the addresses of its beats.

    Parameters
    ----------
    lanes, address_bits : int
        V; width of a bank address.
    stages : Stages

    Members
    -------
    valid, last, wrap : In(stages.write + 1)
        Bits of the beats, by stage.
    fields : In(Fields), tail : In(V), d_address : In, d_mod : In(1)
        As those of ``Issue``.
    first_passed : Out(1), begin : Out(1)
        A first beat is at the stage `passed`, or ``PRELUDE_CYCLES`` before the write stage.
    first : Out(1)
        The next beat to be written is the first of its operation.
    kind, banks, slots, slot : Out
        Fields of the operation at the write stage.
    address : Out, mask : Out(V), count : Out(range(V + 1))
        Of the beat there: address, lanes within the operation and their number.
    """

    def __init__(self, lanes, address_bits, stages):
        self._lanes, self._stages = lanes, stages
        address, bits = unsigned(address_bits), stages.write + 1
        super().__init__(
            {
                "valid": In(bits),
                "last": In(bits),
                "wrap": In(bits),
                "fields": In(Fields),
                "tail": In(lanes),
                "d_address": In(address),
                "d_mod": In(1),
                "first_passed": Out(1),
                "begin": Out(1),
                "first": Out(1),
                "kind": Out(D),
                "banks": Out(3),
                "slots": Out(8),
                "slot": Out(3),
                "address": Out(address),
                "mask": Out(lanes),
                "count": Out(range(lanes + 1)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        lanes, end, passed = self._lanes, self._stages.write, self._stages.passed
        opening = {}  # the beat at a stage is the first of its operation
        for stage in (passed, end - PRELUDE_CYCLES, end - 1):
            awaits = Signal(name=f"awaits_first_{stage}", init=1)
            with m.If(self.valid[stage]):
                m.d.sync += awaits.eq(self.last[stage])
            opening[stage] = self.valid[stage] & awaits
        m.d.comb += [
            self.first_passed.eq(opening[passed]),
            self.begin.eq(opening[end - PRELUDE_CYCLES]),
        ]

        tail, d_mod = Signal(lanes, init=1), Signal()
        m.d.sync += self.first.eq(opening[end - 1])
        with m.If(opening[end - 1]):
            m.d.sync += [
                self.kind.eq(self.fields.d_kind),
                self.banks.eq(self.fields.d_banks),
                self.slots.eq(self.fields.slots),
                self.slot.eq(self.fields.slot),
                tail.eq(self.tail),
                d_mod.eq(self.d_mod),
                self.address.eq(self.d_address),
            ]
        with m.Elif(self.valid[end]):
            address_bits = len(self.address)
            sum_bits = 6 - (lanes.bit_length() - 1)
            step = Cat(
                Const(1, min(sum_bits, address_bits)),
                (d_mod & self.wrap[end]).replicate(max(0, address_bits - sum_bits)),
            )
            m.d.sync += self.address.eq(self.address + step)
        m.d.comb += [
            self.mask.eq(tail | ~self.last[end].replicate(lanes)),
            self.count.eq(sum(self.mask[lane] for lane in range(lanes)) if lanes > 1 else 1),
        ]
        return m
