"""Stages of a beat of the vector engine: the one place that says how long its pipeline is."""

from typing import NamedTuple

from sterna.firmware import isa


def sum_words(lanes):
    """Words that the 64 partial sums take with V lanes (int): the beats of a turn over them."""
    return isa.PARTIAL_SUMS // lanes


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
    adder : int
        Latency of the lane's adder, its last unit.
    pull : int
        Cycles from the pull of an operand from a queue to the issue of its beat.
    """

    load: int
    lane: int
    adder: int
    pull: int

    @property
    def write(self):
        """The result is written."""
        return self.load + 1 + self.lane

    @property
    def again(self):
        """Cycles from a beat to one that adds to its result in the adder, which a register is in
        front of.
        """
        return self.adder + 1

    @property
    def turns(self):
        """In front of the register that brings C to the adder."""
        return self.write - self.again

    def pause(self, lanes):
        """Cycles that beats wait behind a turn over the partial sums, which come back through the
        banks: a sum is written `write` cycles after it was read, and can be read in the next one.
        """
        return max(0, self.write + 1 - sum_words(lanes))

    def forwards(self, lanes):
        """Whether sums come back from the adder itself: with 16 lanes and more. With 8 the memory
        of every preset takes longer than their sums (docs/lanes.md): these do without the cells.
        """
        return lanes >= 16 and sum_words(lanes) < self.again

    def adding_pause(self, lanes):
        """The same of an operation that does nothing but add to sums."""
        return self.again - sum_words(lanes) if self.forwards(lanes) else self.pause(lanes)

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
        if config.slow:
            return cls(load=1, lane=8, adder=4, pull=1)
        return cls(load=2, lane=12, adder=5, pull=3)
