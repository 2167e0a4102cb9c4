"""Peak of a vector and best row of a sampling: both look for the largest key among the lanes and
the beats.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from sterna.firmware.isa import BEST_SCALAR

PRELUDE_CYCLES = 2  # from ``begin`` to the first beat


class Sampler(wiring.Component):
    """Peak registers and SAMPLE.

    Every value becomes a 24-bit key so that the largest key is wanted: the magnitude for a maximum,
    its ones' complement for a minimum, and for SAMPLE the number with its order made unsigned. Keys
    of the lanes meet in a tree with a register per level (log2 V cycles, one beat per cycle), where
    the lower lane wins a tie; then the beats, where the earlier one wins. The best key so far is in
    a scalar register: that of the peak, or `BEST_SCALAR` (as a key) for SAMPLE. It is read before
    the first beat and written one cycle behind the last; an operation's beats come at least 4
    cycles behind those of the operation before, so the register has been written by then. Peak and
    SAMPLE do not occur in one operation.

    Parameters
    ----------
    lanes : int
        V, a power of two.
    row_bits : int
        Width of a row index.

    Members
    -------
    begin : In(1), peak : In(2), scalar : In(5), sample : In(1)
        An operation's first beat comes in ``PRELUDE_CYCLES`` cycles; its fields, which stay until
        its last beat.
    valid, last : In(1), mask : In(V), values : In(ArrayLayout(24, V))
        A beat of results; lanes outside ``mask`` take no part.
    count : In(range(V + 1))
        Lanes that take part.
    start : In(1)
        Row counter 0, no best row.
    row : Out(row_bits), best : Out(row_bits)
        Row counter; index of the best row so far.
    read : Out(1), read_address : Out(5), read_data : In(24)
        Scalar read; data in the next cycle. Always granted.
    write : Out(1), write_address : Out(5), write_data : Out(24), write_ready : In(1)
    busy : Out(1)
        A beat or a merge is under way.
    """

    def __init__(self, lanes, row_bits=24):
        self.lanes = lanes
        self.row_bits = row_bits
        super().__init__(
            {
                "begin": In(1),
                "peak": In(2),
                "scalar": In(5),
                "sample": In(1),
                "valid": In(1),
                "last": In(1),
                "mask": In(lanes),
                "values": In(data.ArrayLayout(24, lanes)),
                "count": In(range(lanes + 1)),
                "start": In(1),
                "row": Out(row_bits),
                "best": Out(row_bits),
                "read": Out(1),
                "read_address": Out(5),
                "read_data": In(24),
                "write": Out(1),
                "write_address": Out(5),
                "write_data": Out(24),
                "write_ready": In(1),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform):
        # Plan: the fields of the operation, kept for its beats; a key per lane; a tree with a
        # register per level, which leaves the best key of a beat, and `travels`, all else about it,
        # beside the tree; then beat after beat against the best so far (`held`), which is loaded
        # ahead of the first beat and written behind the last; with SAMPLE the row counter and the
        # `best` row move, too.
        m = Module()
        used = self.sample | (self.peak != 0)
        # The fields belong to the beats that come from the next cycle but one on.
        keeps, flips = Signal(), Signal()  # of the beats at the input: SAMPLE; a minimum
        counts = Signal()
        with m.If(self.begin):
            m.d.sync += [
                keeps.eq(self.sample),
                flips.eq(self.peak[1] & ~self.sample),
                counts.eq(used),
            ]

        # A key per lane, of which the largest is wanted.
        keys = []
        for lane in range(self.lanes):
            value = self.values[lane]
            key = Signal(24, name=f"key_{lane}")
            flip = Mux(keeps, value[23], flips)
            plain = Cat(value[:23] ^ flip.replicate(23), keeps & ~value[23])
            # A single lane always takes part.
            m.d.comb += key.eq(plain & self.mask[lane].replicate(24) if self.lanes > 1 else plain)
            keys.append((key, None))
        # Beats and the announcement of an operation travel beside the keys; the announcement needs
        # no key.
        travels = Cat(
            self.valid & counts,
            self.begin & used,
            self.last,
            self.sample,
            self.peak[1],
            self.scalar,
            self.count,
        )
        busy = self.begin & used
        level = 0
        while len(keys) > 1:
            following = []
            for k in range(0, len(keys), 2):
                (left, left_lane), (right, right_lane) = keys[k], keys[k + 1]
                key = Signal(24, name=f"key_{level}_{k}")
                lane = Signal(level + 1, name=f"lane_{level}_{k}")
                later = right > left
                m.d.sync += key.eq(Mux(later, right, left))
                if level:
                    m.d.sync += lane.eq(Cat(Mux(later, right_lane, left_lane), later))
                else:
                    m.d.sync += lane.eq(later)
                following.append((key, lane))
            passed = Signal(len(travels), name=f"travels_{level}")
            m.d.sync += passed.eq(travels)
            travels, keys = passed, following
            busy = busy | travels[:2].any()
            level += 1

        # The best key of a beat, and what travelled beside it.
        key, lane = keys[0]
        valid, begin, last, begin_sample, begin_least, begin_scalar = (
            travels[0],
            travels[1],
            travels[2],
            travels[3],
            travels[4],
            travels[5:10],
        )
        count = travels[10:]

        # Kept as its complement: that is what the comparison's carry chain takes.
        held = Signal(24)
        above = Signal(25)
        sample, least, scalar = Signal(), Signal(), Signal(5)
        loads, stays, best_any = Signal(), Signal(), Signal()
        better = Signal()
        m.d.comb += [
            above.eq(key + held),
            better.eq(above[24] | (sample & ~best_any)),
            self.busy.eq(busy | loads | self.write),
            self.read.eq(begin),
            self.read_address.eq(Mux(begin_sample, BEST_SCALAR, begin_scalar)),
            self.write_address.eq(scalar),
            self.write_data.eq(held ^ Cat((~least).replicate(23), Const(1, 1))),
        ]
        m.d.sync += loads.eq(begin)
        with m.If(begin):
            m.d.sync += [
                sample.eq(begin_sample),
                least.eq(begin_least & ~begin_sample),
                scalar.eq(self.read_address),
            ]
        with m.If(self.write_ready):
            m.d.sync += self.write.eq(0)
        with m.If(loads | (valid & better)):
            m.d.sync += held.eq(
                Mux(loads, self.read_data ^ Cat((~least).replicate(23), Const(1, 1)), ~key)
            )
        with m.If(loads):
            # A negative register loses against any magnitude as a maximum, and stays as a minimum.
            m.d.sync += stays.eq(self.read_data[23] & least)
            with m.If(self.read_data[23] & ~sample):
                m.d.sync += held.eq(~0)
        with m.If(valid):
            with m.If(last):
                m.d.sync += self.write.eq(~stays)
            with m.If(sample):
                m.d.sync += [
                    self.row.eq(self.row + count),
                    best_any.eq(1),
                ]
                with m.If(better):
                    m.d.sync += self.best.eq(self.row if lane is None else self.row + lane)
        with m.If(self.start):
            m.d.sync += [
                self.row.eq(0),
                best_any.eq(0),
            ]
        return m
