"""The rows of all engines, in the order of the matrix."""

from amaranth import Array, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from sterna.hw.config import SUM_BITS
from sterna.hw.stream import SKID_DEPTH, Queue

PRODUCTS = 8  # whose rows may not have been taken


class RowGather(wiring.Component):
    """Beats of rows from K row queues in turns of U rows, so that they stand in the order in which
    the matrix has them.

    A matrix of n rows has ceil(n / V) beats here; every engine gives ceil(share / V) for it
    (``Share``). Those that are left of an engine when the last beat has been taken stand for no row
    and are dropped, a beat per engine and cycle, before its next one is taken. Throughput a beat
    per cycle, and a cycle without one between two matrices; latency a cycle. Back-pressure: queues
    wait for their turn, and for ``rows`` to be taken.

    Parameters
    ----------
    engines, unit, lanes, batch : int
        K, U, V and B; U is a multiple of V.

    Members
    -------
    product : In(stream of 24 bits)
        Rows of each matrix, in the order of the products; `PRODUCTS` can wait.
    queues : In(stream of ArrayLayout(signed(24), V * B)).array(K)
    rows : Out(stream of ArrayLayout(signed(24), V * B))
    busy : Out(1)
        A matrix' rows are not all through.
    """

    def __init__(self, *, engines, unit, lanes, batch=1):
        if unit % lanes:
            raise ValueError(f"unit {unit}: must be a multiple of lanes {lanes}")
        self._engines, self._beats, self._lanes = engines, unit // lanes, lanes
        self._shape = data.ArrayLayout(signed(SUM_BITS), lanes * batch)
        super().__init__(
            {
                "product": In(stream.Signature(24)),
                "queues": In(stream.Signature(self._shape)).array(engines),
                "rows": Out(stream.Signature(self._shape)),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        engines, beats = self._engines, self._beats
        m.submodules.products = products = Queue(24, PRODUCTS)
        m.submodules.behind = behind = Queue(self._shape, SKID_DEPTH)
        connect(m, flipped(self.product), products.i)
        connect(m, behind.o, flipped(self.rows))
        left = Signal(24)  # beats of the matrix
        engine, beat = Signal(range(engines)), Signal(range(beats))
        drop = [Signal(range(beats + 1), name=f"drop{k}") for k in range(engines)]
        some = [Signal(name=f"some{k}") for k in range(engines)]  # an engine's beat may be taken
        takes, last, turn_ends, dropping = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            last.eq(left == 1),
            turn_ends.eq(beat == beats - 1),
            dropping.eq(sum(number != 0 for number in drop) != 0),
            *(some[k].eq(self.queues[k].valid & (drop[k] == 0)) for k in range(engines)),
            # The counts of two matrices must not meet
            behind.i.valid.eq((left != 0) & Array(some)[engine] & ~(last & dropping)),
            behind.i.payload.eq(Array(queue.payload for queue in self.queues)[engine]),
            takes.eq(behind.i.valid & behind.i.ready),
            products.o.ready.eq(left == 0),
            self.busy.eq((left != 0) | products.o.valid | behind.o.valid | dropping),
        ]
        with m.If((left == 0) & products.o.valid):
            m.d.sync += [
                left.eq((products.o.payload + (self._lanes - 1)) // self._lanes),
                engine.eq(0),
                beat.eq(0),
            ]
        with m.If(takes):
            m.d.sync += [
                left.eq(left - 1),
                beat.eq(Mux(turn_ends, 0, beat + 1)),
                engine.eq(engine + turn_ends),
            ]
        # In the last round every engine has the beats that the first one has.
        had = Signal(range(beats + 1))
        m.d.comb += had.eq(Mux(engine == 0, beat + 1, beats))
        for k, queue in enumerate(self.queues):
            mine = engine == k
            m.d.comb += queue.ready.eq((takes & mine) | (drop[k] != 0))
            with m.If(takes & last & (engine <= k)):
                m.d.sync += drop[k].eq(Mux(mine, had - beat - 1, had))
            with m.Elif(queue.valid & (drop[k] != 0)):
                m.d.sync += drop[k].eq(drop[k] - 1)
        return m
