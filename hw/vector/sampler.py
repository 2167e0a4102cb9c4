"""Peak of a vector and best row of a sampling: both look for the largest key among the lanes and the beats."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out


class Sampler(wiring.Component):
    """Peak registers and SAMPLE.

    Every value becomes a 24-bit key so that the largest key is wanted: the magnitude for a maximum, its ones' complement
    for a minimum, and for SAMPLE the number with its order made unsigned. Keys of the lanes meet in a tree with a register per
    level (log2 V cycles, one beat per cycle), where the lower lane wins a tie; then the beats, where the earlier one wins.
    After the last beat of a peak the scalar register is read (1 cycle), compared (1) and written (1); the next vector
    operation's beats come later than that by construction. Peak and SAMPLE do not occur in one operation.

    Parameters
    ----------
    lanes : int
        V, a power of two.
    row_bits : int
        Width of a row index.

    Members
    -------
    valid, last : In(1), mask : In(V), values : In(ArrayLayout(24, V))
        A beat of results; lanes outside ``mask`` take no part.
    count : In(range(V + 1))
        Lanes that take part.
    peak : In(2), scalar : In(5), sample : In(1)
        Fields of the operation.
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
        super().__init__({
            "valid": In(1), "last": In(1), "mask": In(lanes), "values": In(data.ArrayLayout(24, lanes)),
            "count": In(range(lanes + 1)), "peak": In(2), "scalar": In(5), "sample": In(1), "start": In(1),
            "row": Out(row_bits), "best": Out(row_bits),
            "read": Out(1), "read_address": Out(5), "read_data": In(24),
            "write": Out(1), "write_address": Out(5), "write_data": Out(24), "write_ready": In(1), "busy": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        keys = []
        for lane in range(self.lanes):
            value = self.values[lane]
            key = Signal(24, name=f"key_{lane}")
            flip = Mux(self.sample, value[23], self.peak[1])
            m.d.comb += key.eq(Cat(value[:23] ^ flip.replicate(23), self.sample & ~value[23])
                               & self.mask[lane].replicate(24))
            keys.append((key, None))
        # Fields travel beside the keys.
        valid = self.valid & (self.sample | (self.peak != 0))
        fields = Cat(self.last, self.sample, self.peak[1], self.scalar, self.count)
        busy = 0
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
            passed, valid_next = Signal(len(fields), name=f"fields_{level}"), Signal(name=f"valid_{level}")
            m.d.sync += [passed.eq(fields), valid_next.eq(valid)]
            fields, valid, keys = passed, valid_next, following
            busy = busy | valid
            level += 1
        key, lane = keys[0]
        last, sample, least, scalar, count = fields[0], fields[1], fields[2], fields[3:8], fields[8:]

        peak_key, best_key = Signal(24), Signal(24)
        peak_first, best_any = Signal(init=1), Signal()
        merge_read, merge_compare, merge_write = Signal(), Signal(), Signal()
        merge_least, merge_scalar = Signal(), Signal(5)
        candidate = Signal(24)
        better = Signal()
        m.d.comb += [
            candidate.eq(Mux(merge_compare, self.read_data[:23] ^ merge_least.replicate(23), key)),
            better.eq(candidate > Mux(sample & ~merge_compare, best_key, peak_key)),
            self.busy.eq(busy | merge_read | merge_compare | merge_write),
            self.read.eq(merge_read), self.read_address.eq(merge_scalar),
            self.write.eq(merge_write), self.write_address.eq(merge_scalar),
            self.write_data.eq(peak_key[:23] ^ merge_least.replicate(23)),
        ]
        m.d.sync += [merge_read.eq(0), merge_compare.eq(merge_read)]
        with m.If(self.write_ready):
            m.d.sync += merge_write.eq(0)
        with m.If(merge_compare):
            # A negative register loses against any magnitude as a maximum, and stays as a minimum.
            m.d.sync += merge_write.eq(~(self.read_data[23] & merge_least))
            with m.If(better & ~self.read_data[23]):
                m.d.sync += peak_key.eq(candidate)
        with m.Elif(valid):
            with m.If(sample):
                m.d.sync += [self.row.eq(self.row + count), best_any.eq(1)]
                with m.If(better | ~best_any):
                    m.d.sync += [best_key.eq(key), self.best.eq(self.row if lane is None else self.row + lane)]
            with m.Else():
                m.d.sync += peak_first.eq(last)
                with m.If(better | peak_first):
                    m.d.sync += peak_key.eq(key)
                with m.If(last):
                    m.d.sync += [merge_read.eq(1), merge_least.eq(least), merge_scalar.eq(scalar)]
        with m.If(self.start):
            m.d.sync += [self.row.eq(0), best_any.eq(0)]
        return m
