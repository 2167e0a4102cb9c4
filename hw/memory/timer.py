"""A timer whose end is one flip-flop."""

from amaranth import Signal


class Timer:
    """Counts down to -1 and stays there: that it has ended is one flip-flop, so no comparison
    follows the count.

    Parameters
    ----------
    m : amaranth.Module
    name : str
    longest : int
        Cycles that it is started with at most.

    Attributes
    ----------
    done : Signal, 1 bit
    """

    def __init__(self, m, name, longest):
        self._count = Signal(range(-1, max(longest, 1)), init=-1, name=name)
        self.done = self._count[-1]
        with m.If(~self.done):
            m.d.sync += self._count.eq(self._count - 1)

    def start(self, cycles):
        """The statement after which ``done`` is low for this many cycles; a later one wins."""
        return self._count.eq(cycles - 1)
