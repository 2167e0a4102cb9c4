"""Partial sums: when beats that come back to one may start, and which take it from the adder."""

from amaranth.hdl import Const, Mux, Signal

from sterna.hw.vector.stages import sum_words


def turns(m, lanes, stages, idle, step, wraps, adds):
    """The turns of an operation over its partial sums: 64 / V beats, and a pause behind them if
    these are fewer than the cycles in which a sum can be an operand again.

    Through the banks these are `Stages.write` + 1. An operation that does nothing but add to sums
    (``adds``) has them from the adder after `Stages.again` cycles, if the build `forwards` them:
    the sums of its first turn come from the bank, those of later ones straight from where they were
    made, which is one turn before exactly, since nothing else makes such an operation wait between
    its beats. So 64 / V beats take max(64 / V, that number) cycles.

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
        only if they are forwarded.

    Returns
    -------
    Value, Value
        1 bit each: no beat may start; the beat that is issued takes C from the adder.
    """
    pause, again = stages.pause(lanes), Signal()
    if not pause:
        return Const(0, 1), again
    burst = Signal(range(sum_words(lanes)))
    rest = Signal(range(pause + 1))
    pausing = Signal()
    m.d.comb += pausing.eq(rest != 0)
    behind = pause
    if stages.forwards(lanes):
        turned = Signal()
        behind = Mux(adds, stages.adding_pause(lanes), pause)
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
