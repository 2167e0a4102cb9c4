"""Stages of a beat of the vector engine: the one place that says how long its pipeline is."""

from typing import NamedTuple


class Stages(NamedTuple):
    """Cycles of a beat, counted from its issue, when the addresses of its operands are at the
    banks.

    With a slow clock the registers for speed alone are left out: those behind the banks, in the
    conversion of operands from queues and in the lanes.

    Attributes
    ----------
    load : int
        The operands a, b and c are loaded: from the banks, whose data comes in stage 1.
    lane : int
        Latency of a lane.
    pull : int
        Cycles from the pull of an operand from a queue to the issue of its beat.
    """

    load: int
    lane: int
    pull: int

    @property
    def write(self):
        """The result is written."""
        return self.load + 1 + self.lane

    @property
    def registered(self):
        """Whether there are registers for speed; the end of the pipeline's work is then seen a
        cycle later.
        """
        return self.load > 1

    @property
    def passed(self):
        """A first beat here reaches the write stage before the next operation's fields do."""
        return self.write - 3

    @property
    def convert(self):
        """Cycles of an operand from its queue to the load."""
        return self.pull + self.load

    @classmethod
    def of(cls, config):
        """Those of a configuration."""
        return cls(load=1, lane=8, pull=1) if config.slow else cls(load=2, lane=12, pull=3)
