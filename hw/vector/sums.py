"""Partial sums: when the beats that come back to one may start, and which take it from the adder."""

from amaranth.hdl import Const, Mux, Signal

from sterna.firmware import isa


def of_lanes(lanes):
    """Words that the 64 partial sums take with V lanes (int)."""
    return isa.PARTIAL_SUMS // lanes


def forwarded(stages, lanes):
    """Whether sums come back from the adder itself (bool): with 16 lanes and more. With 8 the
    memory of every preset takes longer than their sums (docs/lanes.md), so these do without the
    cells.
    """
    return lanes >= 16 and of_lanes(lanes) < stages.again


def turns(m, lanes, stages, idle, step, wraps, adds):
    """The turns of an operation over its partial sums: 64 / V beats, and a pause behind them if
    these are fewer than the cycles in which a sum can be an operand again.

    Through the banks these are `Stages.write` + 1. An operation that does nothing but add to sums
    (``adds``) has them from the adder after `Stages.again` cycles, if `forwarded`: the sums of its
    first turn come from the bank, those of later ones straight from where they were made, which
    is one turn before exactly, since nothing else makes such an operation wait between its beats.
    So 64 / V beats take max(64 / V, that number) cycles.

    Parameters
    ----------
    m : Module
        Gets the registers.
    lanes : int
        V.
    stages : Stages
    idle : Value, 1 bit
        No operation has begun.
    step : Value, 1 bit
        A beat is taken from its queue, or, without queues, issued.
    wraps : Value, 1 bit
        An operand in a bank goes round the partial sums.
    adds : Value, 1 bit
        A and B come from elsewhere, and not from a queue; D is the place of C, in all slots. Used
        only if `forwarded`.

    Returns
    -------
    Value, Value
        1 bit each: no beat may start; the beat that is issued takes C from the adder.
    """
    count = of_lanes(lanes)
    # A partial sum is written `write` cycles after it was read, and can be read in the next one.
    pause = behind = max(0, stages.write + 1 - count)
    again = Signal()
    if not pause:
        return Const(0, 1), again
    burst = Signal(range(count))
    rest = Signal(range(pause + 1))
    pausing = Signal()
    m.d.comb += pausing.eq(rest != 0)
    if forwarded(stages, lanes):
        turned = Signal()
        behind = Mux(adds, stages.again - count, pause)
        m.d.comb += again.eq(adds & turned)
        with m.If(step & burst.all()):
            m.d.sync += turned.eq(1)
        with m.If(idle):
            m.d.sync += turned.eq(0)
    with m.If(pausing):
        m.d.sync += rest.eq(rest - 1)
    with m.If(step):
        m.d.sync += burst.eq(burst + 1)
        with m.If(burst.all() & wraps):
            m.d.sync += rest.eq(behind)
    with m.If(idle):
        m.d.sync += [
            burst.eq(0),
            rest.eq(0),
        ]
    return pausing, again
