"""Random numbers of the sampler: a function of (seed, position, row) alone (docs/numerics.md,
section 8).
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out


class RowRandom(data.Struct):
    """The random number of one row: ``fraction`` = bits mod 2^22, ``zeros`` = the leading-zero
    count n.
    """

    fraction: unsigned(22)
    zeros: unsigned(4)


def _members(lanes, row_bits):
    return {
        "seed": In(32),
        "position": In(32),
        "rekey": In(1),
        "key_busy": Out(1),
        "restart": In(1),
        "row": In(row_bits),
        "valid": Out(1),
        "take": In(1),
        "beat": Out(data.ArrayLayout(RowRandom, lanes)),
    }


class RandomUnit(wiring.Component):
    """bits = mix(key + row) for ascending rows, V per beat; key = mix(seed ^ mix(position)).

    ``Ring`` s beside each other: ring k of n computes the rows k, n + k, 2 n + k ... of a beat. A
    beat comes every 2 V / n cycles, the first one 2 V / n + 3 cycles after ``restart``. A new key
    takes 10 cycles.

    Parameters
    ----------
    lanes : int
        V, rows per beat.
    row_bits : int
        Width of a row index.
    rings : int
        n; divides V. By default what keeps a beat within 4 cycles: the operations of a sampled row
        take about as long.

    Members
    -------
    As those of ``Ring``.
    """

    def __init__(self, lanes, row_bits=24, rings=None):
        self.rings = rings or max(1, lanes // 2)
        if lanes % self.rings:
            raise ValueError(f"{self.rings} rings do not divide {lanes} lanes")
        self.lanes, self.row_bits = lanes, row_bits
        super().__init__(_members(lanes, row_bits))

    def elaborate(self, platform):
        m = Module()
        rings = [
            Ring(self.lanes // self.rings, self.row_bits, k, self.rings) for k in range(self.rings)
        ]
        for k, ring in enumerate(rings):
            m.submodules[f"ring_{k}"] = ring
            m.d.comb += [
                getattr(ring, name).eq(getattr(self, name))
                for name in ("seed", "position", "rekey", "restart", "row", "take")
            ]
            m.d.comb += [
                self.beat[place * self.rings + k].eq(number)
                for place, number in enumerate(ring.beat)
            ]
        m.d.comb += [
            self.key_busy.eq(rings[0].key_busy),
            self.valid.eq(Cat(*(ring.valid for ring in rings)).all()),
        ]
        return m


class Ring(wiring.Component):
    """bits = mix(key + row) for every ``stride``-th row, V per beat; key = mix(seed ^
    mix(position)).

    One 32-bit multiplier (three 16 x 16 products) forms a ring of two stages, with two numbers
    under way; each number passes it twice. One row every two cycles, so a beat every 2 V cycles;
    the first one 2 V + 3 cycles after ``restart``. A new key takes 10 cycles. When a beat waits,
    the ring stands still.

    Parameters
    ----------
    lanes : int
        V, rows per beat.
    row_bits : int
        Width of a row index.
    first, stride : int
        The rows are row + first, row + first + stride ...

    Members
    -------
    seed, position : In(32)
    rekey : In(1)
        Compute the key anew. ``key_busy`` is set from the next cycle on.
    key_busy : Out(1)
    restart : In(1)
        Drop everything and begin at ``row``; not while ``key_busy``.
    row : In(row_bits)
    valid : Out(1), take : In(1), beat : Out(ArrayLayout(RowRandom, V))
        The rows of the next beat. ``take`` only while ``valid``.
    """

    def __init__(self, lanes, row_bits=24, first=0, stride=1):
        if lanes < 1 or lanes & (lanes - 1):
            raise ValueError(f"lanes {lanes!r}: must be a power of two")
        self.lanes, self.row_bits, self._first, self._stride = lanes, row_bits, first, stride
        super().__init__(_members(lanes, row_bits))

    def elaborate(self, platform):
        # Plan: two numbers go round a ring of two stages, `operand` (`valid_a`) and partial
        # products (`valid_b`): a `product` goes `back` once and then leaves as `mixed`. `insert`
        # fills what is free with the next row, or with the key, which is mixed as rows are, before
        # any of them (`key_steps`). Behind the ring a number gets its `zeros` and its place in the
        # beat. A restart or a new key comes last, so it wins.
        m = Module()
        key = Signal(32)
        row = Signal(self.row_bits)
        key_steps = Signal(2)  # mixes of the key that are still to be finished
        insert_key = Signal()
        count = Signal(range(self.lanes + 1))

        # The ring, which moves unless a beat waits.
        operand = Signal(32)
        valid_a, second_a = Signal(), Signal()
        low_low, low_high, high_low = (Signal(width, reset_less=True) for width in (32, 16, 16))
        valid_b, second_b = Signal(), Signal()
        # The single row of a beat stays where it was computed; V rows are gathered.
        gathers = self.lanes > 1
        full = count == self.lanes if gathers else valid_b & second_b & (key_steps == 0)
        move = Signal()
        m.d.comb += [
            self.key_busy.eq(key_steps != 0),
            self.valid.eq(full),
            move.eq(~full | self.take),
        ]

        # What leaves the multiplier, and what comes in its place.
        product = Signal(32)
        mixed = Signal(32)
        m.d.comb += [
            product.eq(Cat(low_low[:16], (low_low[16:] + low_high + high_low)[:16])),
            mixed.eq(product ^ (product >> 16)),
        ]
        done = Signal()
        back = Signal()
        insert = Signal()
        fresh = Signal(32)
        m.d.comb += [
            done.eq(valid_b & second_b & move),
            back.eq(valid_b & ~second_b),
            insert.eq(~back & (insert_key | (key_steps == 0))),
            fresh.eq(key + row),
        ]
        # Constants of the first and the second multiplication of mix.
        factor_low = Mux(second_a, Const(0xA68B, 16), Const(0x352D, 16))
        factor_high = Mux(second_a, Const(0x846C, 16), Const(0x7FEB, 16))
        with m.If(move):
            m.d.sync += [
                operand.eq(Mux(back, product ^ (product >> 15), fresh ^ (fresh >> 16))),
                valid_a.eq(back | insert),
                second_a.eq(back),
                low_low.eq(operand[:16] * factor_low),
                low_high.eq((operand[:16] * factor_high)[:16]),
                high_low.eq((operand[16:] * factor_low)[:16]),
                valid_b.eq(valid_a),
                second_b.eq(second_a),
            ]
            with m.If(insert):
                m.d.sync += insert_key.eq(0)
                with m.If(key_steps == 0):
                    m.d.sync += row.eq(row + self._stride)

        # Numbers to beats, and the key.
        number = Signal(RowRandom)
        m.d.comb += number.fraction.eq(mixed[:22])
        with m.Switch(mixed[22:]):
            for zeros in range(10):
                with m.Case("0" * zeros + "1" + "-" * (9 - zeros)):
                    m.d.comb += number.zeros.eq(zeros)
            with m.Default():
                m.d.comb += number.zeros.eq(10)

        if gathers:
            with m.If(self.take):
                m.d.sync += count.eq(0)
            with m.If(done & (key_steps == 0)):
                # Lanes shift in from the top, so that after V rows the first one is lane 0.
                m.d.sync += [
                    self.beat.as_value().eq(Cat(self.beat.as_value()[26:], number)),
                    count.eq(Mux(self.take, 1, count + 1)),
                ]
        else:
            m.d.comb += self.beat.as_value().eq(number)
        with m.If(done & (key_steps != 0)):
            m.d.sync += [
                key.eq(mixed ^ Mux(key_steps[1], self.seed, 0)),
                key_steps.eq(key_steps - 1),
                insert_key.eq(key_steps[1]),
            ]
        with m.If(self.restart | self.rekey):
            m.d.sync += [
                valid_a.eq(0),
                valid_b.eq(0),
                count.eq(0),
                row.eq(Mux(self.rekey, 0, self.row + self._first)),
            ]
        with m.If(self.rekey):
            m.d.sync += [
                key.eq(self.position),
                key_steps.eq(2),
                insert_key.eq(1),
            ]
        return m
