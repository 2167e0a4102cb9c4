"""Hardware counters."""

from amaranth import Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from sterna.hw.protocol import COUNTER_NAMES, LINK_COUNTERS

# Each counts the cycles in which its event is high; the link keeps the others (docs/protocol.md).
EVENTS = tuple(name for name in COUNTER_NAMES if name not in LINK_COUNTERS)


class Counters(wiring.Component):
    """One wrapping 32-bit counter per event.

    Members
    -------
    events : In(10)
        Bit k counts EVENTS[k].
    values : Out(ArrayLayout(32, 10))

    Parameters
    ----------
    present : bool
        False: build nothing; all values are 0.
    """

    def __init__(self, present=True):
        self._present = present
        super().__init__(
            {
                "events": In(len(EVENTS)),
                "values": Out(data.ArrayLayout(32, len(EVENTS))),
            }
        )

    def elaborate(self, platform):
        m = Module()
        if not self._present:
            return m
        for k in range(len(EVENTS)):
            held = Signal(name=f"event_{EVENTS[k]}")
            m.d.sync += [
                held.eq(self.events[k]),
                self.values[k].eq(self.values[k] + held),
            ]
        return m
