"""An accelerator whose memory has a data line that is always 0."""

from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import connect, flipped

from sterna.hw.accelerator import Accelerator

STUCK_BIT = 5


class StuckMemory(wiring.Component):
    """An ``Accelerator`` that reads bit STUCK_BIT of every word of its memory as 0."""

    def __init__(self, config):
        self._inner = Accelerator(config)
        super().__init__(self._inner.signature)

    def elaborate(self, platform):
        m = Module()
        m.submodules.inner = inner = self._inner
        connect(m, flipped(self), inner)
        m.d.comb += inner.memory.read_data.payload.eq(self.memory.read_data.payload & ~(1 << STUCK_BIT))
        return m
