"""Slots take turns."""

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class Turns(wiring.Component):
    """Goes through the active slots, round after round, the lowest first.

    ``restart`` begins a round in the next cycle, ``step`` goes on to the next slot then. At least
    one slot is active, and `active` does not change but before ``restart``. With B = 1 no logic.

    Parameters
    ----------
    batch : int
        B.

    Members
    -------
    active : In(B)
    restart, step : In(1)
    slot : Out(range(B))
    first, ends : Out(1)
        It is the lowest, the highest of the active ones.
    alone, next_ends : Out(1)
        ``ends`` behind a ``restart``, behind a ``step``.
    """

    def __init__(self, batch):
        self._batch = batch
        super().__init__(
            {
                "active": In(batch),
                "restart": In(1),
                "step": In(1),
                "slot": Out(range(batch)),
                "first": Out(1),
                "ends": Out(1),
                "alone": Out(1),
                "next_ends": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        if self._batch == 1:
            m.d.comb += [
                self.first.eq(1),
                self.ends.eq(1),
                self.alone.eq(1),
                self.next_ends.eq(1),
            ]
            return m
        lowest, following = Signal.like(self.slot), Signal.like(self.slot)
        m.d.comb += following.eq(lowest)
        for slot in reversed(range(self._batch)):
            with m.If(self.active[slot]):
                m.d.comb += lowest.eq(slot)
        for slot in reversed(range(1, self._batch)):
            with m.If(self.active[slot] & (self.slot < slot)):
                m.d.comb += following.eq(slot)

        def highest(slot):
            """Whether no slot above is active."""
            return (self.active >> slot)[1:] == 0

        m.d.comb += [
            self.alone.eq(highest(lowest)),
            self.next_ends.eq(highest(following)),
        ]
        with m.If(self.restart | self.step):
            m.d.sync += [
                self.slot.eq(Mux(self.restart, lowest, following)),
                self.first.eq(self.restart | self.ends),
                self.ends.eq(Mux(self.restart, self.alone, self.next_ends)),
            ]
        return m
