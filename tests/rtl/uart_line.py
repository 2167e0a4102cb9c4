"""The other end of a serial line, bit by bit in simulated time: clock error, jitter, glitches, breaks, noise."""

import cocotb
from cocotb.simtime import get_sim_time
from cocotb.triggers import FallingEdge, Timer

PS = 10**12


class HostLine:
    """Drives the line into the device.

    Parameters
    ----------
    line : handle
    baud : int
        Nominal rate.
    random : random.Random
    error : float
        Relative error of this end's rate: 0.02 sends 2 % too fast.
    jitter : float
        Each edge comes up to so many bits late or early.
    """

    def __init__(self, line, baud, random, error=0.0, jitter=0.0):
        self.line, self.random, self.error, self.jitter = line, random, error, jitter
        self.nominal_ps = PS / baud
        self.level = 1
        self.flips = []  # glitches: (time from now in ps, duration in ps), of the next `levels`
        line.value = 1

    @property
    def bit_ps(self):
        return self.nominal_ps / (1 + self.error)

    async def wait(self, bits):
        """So many bits of this end's clock."""
        await Timer(max(1, round(bits * self.bit_ps)), "ps")

    async def levels(self, levels, glitches=()):
        """Sends levels, a bit each; ``glitches``: (begin, duration) in bits, in which the line is inverted."""
        edges = {}
        for k, level in enumerate(levels):
            if k == 0 or level != levels[k - 1]:
                edges[k + (self.random.uniform(-self.jitter, self.jitter) if k else 0)] = level
        changes = [(at, "level", level) for at, level in edges.items()]
        for begin, duration in glitches:
            changes += [(begin, "flip", 1), (begin + duration, "flip", 0)]
        now, flip = 0.0, 0
        for at, what, value in sorted(changes):
            if at > now:
                await self.wait(at - now)
                now = at
            if what == "level":
                self.level = value
            else:
                flip = value
            self.line.value = self.level ^ flip
        if len(levels) > now:
            await self.wait(len(levels) - now)
        self.line.value = self.level

    async def send(self, *values, stop=1, glitches=()):
        """Sends bytes, each with its start and ``stop`` bits, without a pause."""
        for value in values:
            await self.levels([0, *(value >> k & 1 for k in range(8)), stop], glitches)
            self.level = 1
            self.line.value = 1

    async def hold(self, level, bits):
        """Holds the line at a level: a break, or a pause."""
        self.level = level
        self.line.value = level
        await self.wait(bits)
        self.level = 1
        self.line.value = 1


class HostReceiver:
    """Reads bytes from the device's line in the middle of each bit by a clock of its own.

    ``items`` collects the bytes, None for one without stop bit; ``starts`` the times of their start bits in ps.
    """

    def __init__(self, line, baud, error=0.0):
        self.line, self.bit_ps = line, PS / baud / (1 + error)
        self.items, self.starts = [], []
        cocotb.start_soon(self._run())

    async def _run(self):
        while True:
            if int(self.line.value):
                await FallingEdge(self.line)
            self.starts.append(get_sim_time("ps"))
            await Timer(round(1.5 * self.bit_ps), "ps")
            value = 0
            for k in range(9):
                value |= int(self.line.value) << k
                if k < 8:
                    await Timer(round(self.bit_ps), "ps")
            self.items.append(value & 0xFF if value >> 8 else None)
