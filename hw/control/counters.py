"""Hardware counters."""

from amaranth import Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

# Each counts the cycles in which its event is high. The first eight have their registers from 0x80 on, the others
# behind those of the link (docs/protocol.md).
EVENTS = ("cycles", "port_busy", "array_busy", "stall_stream", "stall_rows", "stall_idle", "refresh", "runs",
          "port_full", "port_empty")
OFFSETS = (*range(0x80, 0xA0, 4), 0xAC, 0xB0)


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
        super().__init__({"events": In(len(EVENTS)), "values": Out(data.ArrayLayout(32, len(EVENTS)))})

    def elaborate(self, platform):
        m = Module()
        if not self._present:
            return m
        for k in range(len(EVENTS)):
            held = Signal(name=f"event_{EVENTS[k]}")
            m.d.sync += [held.eq(self.events[k]), self.values[k].eq(self.values[k] + held)]
        return m
