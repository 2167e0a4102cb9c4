"""What goes to all engines at once, and how many rows of a matrix each of them has."""

from amaranth import Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


def broadcast(m, source, targets, ready=1):
    """Hand each item of a stream to all ``targets``, in a cycle in which all are ready and
    ``ready`` is high. None of their ``ready`` may depend on its ``valid``.
    """
    taken = ready
    for target in targets:
        taken = taken & target.ready
    m.d.comb += source.ready.eq(taken)
    for target in targets:
        m.d.comb += [
            target.payload.eq(source.payload),
            target.valid.eq(source.valid & taken),
        ]


def division(divisor, bits):
    """(factor, shift) with n // divisor == n * factor >> shift for every n of ``bits`` bits."""
    shift = bits + (divisor - 1).bit_length()
    return -(-(1 << shift) // divisor), shift


class Share(wiring.Component):
    """Rows of a matrix that every engine computes: those of the first engine, to which

        share = (rows div (K U)) * U + min(rows mod (K U), U)

    of them are dealt, U at a time. Two cycles from ``rows`` to ``share``, a number per cycle.

    Parameters
    ----------
    engines, unit : int
        K, a power of two, and U.
    bits : int
        Of a number of rows.

    Members
    -------
    rows : In(bits); share : Out(bits)
    """

    latency = 2

    def __init__(self, *, engines, unit, bits):
        self._engines, self._unit, self._bits = engines, unit, bits
        super().__init__(
            {
                "rows": In(bits),
                "share": Out(bits),
            }
        )

    def elaborate(self, platform):
        m = Module()
        bits, unit = self._bits, self._unit
        size = self._engines * unit
        even = (size & -size).bit_length() - 1  # this many factors of two are a shift
        factor, shift = division(size >> even, max(1, bits - even))
        rounds = Signal(bits)
        rows = Signal(bits)
        rest = Signal(bits)
        m.d.comb += rest.eq(rows - rounds * Const(size))
        m.d.sync += [
            rounds.eq(((self.rows >> even) * Const(factor)) >> shift),
            rows.eq(self.rows),
            self.share.eq(rounds * Const(unit) + Mux(rest < unit, rest, unit)),
        ]
        return m
