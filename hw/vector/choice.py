"""Top-p and the winner: looks through the sorted list of the best rows (docs/numerics.md, section
8).
"""

from enum import IntEnum

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from sterna.hw.stream import delayed
from sterna.sim.golden import toplist

ENTRY_STAGES = 2  # from the address of an entry to the entry
WEIGHT_STAGES = ENTRY_STAGES + 7  # from the address of an entry to its weight at the sum
_FIX_BITS = 16  # of fix(t) that are computed: those of a significand
# Exponent field of 2^5, from which on fix() cuts nothing off.
_WHOLE = 127 + _FIX_BITS - 1 - toplist.STEP_BITS
_TURNS = _FIX_BITS - 1  # most places that a significand is turned by


class State(IntEnum):
    """What the unit does."""

    REST = 0
    TOTAL = 1  # sum of all weights
    MULTIPLY = 2  # by P
    COUNT = 3  # entries that take part
    CHOOSE = 4  # the best score among them
    DONE = 5


class Choice(wiring.Component):
    """The entry with the best score among those of a sorted list that take part.

    Without ``p`` one pass over all n entries compares scores, where the earlier entry wins a tie.
    With ``p`` two passes come before it. Both compute q[j] = weight(fix(t[0]) - fix(t[j])), an
    entry per cycle: the significand is shifted to units of 2^-10, subtracted, looked up in two
    halves of one ROM, and the two factors are multiplied. The first pass sums all weights, which
    are at most 65534, and 16 steps multiply the sum by P; the second counts the entries with 2^16
    (q[0] + ... + q[j-1]) < P total. ``done`` is set n + 3 cycles after ``run``, with ``p`` 2 n + m
    + 37 cycles after it if m entries take part.

    Parameters
    ----------
    depth : int
        Most entries.
    row_bits : int
        Width of a row index.

    Members
    -------
    run : In(1)
        The list stands still and has at least one entry; while this is 0 the unit is at its
        beginning.
    last : In(range(depth))
        Index of the last entry.
    p : In(16)
        P in units of 2^-16; 0: all entries take part.
    address : Out(range(depth))
        The entry whose ``key``, ``score`` (unsigned, in the order of the numbers) and ``row`` come
        two cycles later.
    key : In(24), score : In(24), row : In(row_bits)
    done : Out(1), best : Out(row_bits)
        Row of the winner, once ``done``.
    """

    def __init__(self, depth, row_bits=24):
        self.depth, self.row_bits = depth, row_bits
        self.address_bits = max(1, (depth - 1).bit_length())
        super().__init__(
            {
                "run": In(1),
                "last": In(self.address_bits),
                "p": In(16),
                "address": Out(self.address_bits),
                "key": In(24),
                "score": In(24),
                "row": In(row_bits),
                "done": Out(1),
                "best": Out(row_bits),
            }
        )

    def elaborate(self, platform):
        # Plan: entries are asked for one per cycle up to `limit`, and `valid` and `last` travel
        # beside them through the stages; the weight of each at the end of those, and sums of
        # weights; then the states, which start a pass after the other (`issues`) and read scores
        # early and weights late; without `run` all returns to the beginning.
        m = Module()
        # A pass over the entries.
        state = Signal(State)
        issues = Signal()
        limit = Signal(self.address_bits)  # the last entry of this pass
        valid, last = [issues], [Signal(name="last_0")]
        m.d.comb += last[0].eq(self.address == limit)
        for stage in range(1, WEIGHT_STAGES + 1):
            for name, bits in (("valid", valid), ("last", last)):
                bit = Signal(name=f"{name}_{stage}")
                m.d.sync += bit.eq(bits[-1])
                bits.append(bit)
        with m.If(issues):
            m.d.sync += self.address.eq(self.address + 1)
            with m.If(last[0]):
                m.d.sync += [
                    issues.eq(0),
                    self.address.eq(0),
                ]

        # Sums, and the product with P.
        weight = self._weight(m, valid)
        total = Signal((self.depth * toplist.weight(0)).bit_length())
        # P total / 2^16, and whether something was cut off
        share, rest = Signal(len(total)), Signal()
        step = Signal(4)
        p_left = Signal(16)  # bits of P that have not been multiplied with
        parts = Signal(self.address_bits)  # entries that take part, less one
        best_score, chosen = Signal(24), Signal()
        added, part = Signal(len(total) + 1), Signal()
        m.d.comb += [
            added.eq(share + Mux(p_left[0], total, 0)),
            self.done.eq(state == State.DONE),
        ]
        with m.If(valid[-1]):
            m.d.sync += total.eq(total + weight)
        ends = valid[-1] & last[-1]

        # The passes in turn.
        with m.Switch(state):
            with m.Case(State.REST):
                m.d.sync += [
                    total.eq(0),
                    share.eq(0),
                    rest.eq(0),
                    step.eq(0),
                    parts.eq(~0),
                    chosen.eq(0),
                    p_left.eq(self.p),
                    limit.eq(self.last),
                ]
                with m.If(self.run):
                    m.d.sync += [
                        issues.eq(1),
                        state.eq(Mux(self.p.any(), State.TOTAL, State.CHOOSE)),
                    ]
            with m.Case(State.TOTAL):
                with m.If(ends):
                    m.d.sync += state.eq(State.MULTIPLY)
            with m.Case(State.MULTIPLY):
                m.d.sync += [
                    step.eq(step + 1),
                    p_left.eq(p_left >> 1),
                    share.eq(added[1:]),
                    rest.eq(rest | added[0]),
                ]
                with m.If(step == 15):
                    m.d.sync += [
                        state.eq(State.COUNT),
                        total.eq(0),
                        issues.eq(1),
                    ]
            with m.Case(State.COUNT):
                m.d.comb += part.eq(valid[-1] & (Cat(rest, share) > Cat(Const(0, 1), total)))
                m.d.sync += parts.eq(parts + part)
                with m.If(ends):
                    m.d.sync += [
                        state.eq(State.CHOOSE),
                        issues.eq(1),
                        limit.eq(parts + part),
                    ]
            with m.Case(State.CHOOSE):
                with m.If(valid[ENTRY_STAGES]):
                    m.d.sync += chosen.eq(1)
                    with m.If(~chosen | (self.score > best_score)):
                        m.d.sync += [
                            best_score.eq(self.score),
                            self.best.eq(self.row),
                        ]
                    with m.If(last[ENTRY_STAGES]):
                        m.d.sync += state.eq(State.DONE)
        with m.If(~self.run):
            m.d.sync += [
                state.eq(State.REST),
                issues.eq(0),
                self.address.eq(0),
                *(bit.eq(0) for bit in valid[1:]),
            ]
        return m

    def _weight(self, m, valid):
        """The weight of each entry, 16 bits, WEIGHT_STAGES cycles behind its address."""
        # The entry: its significand, and how many places that is turned to the left. For numbers
        # below 2^5 the bits that leave its upper end are what is kept, for others they are dropped.
        negative, magnitude = ~self.key[23], self.key[:23] ^ (~self.key[23]).replicate(23)
        exponent = magnitude[15:]
        number, number_negative = Signal(_FIX_BITS), Signal()
        turn, whole = Signal(range(_TURNS + 1)), Signal()
        m.d.sync += [
            number.eq(Cat(magnitude[:15], Const(1, 1))),
            number_negative.eq(negative),
            turn.eq(exponent - _WHOLE),
            whole.eq(exponent >= _WHOLE),
        ]
        with m.If(exponent > _WHOLE + _TURNS):
            m.d.sync += turn.eq(_TURNS)
        with m.If(exponent < _WHOLE - _FIX_BITS):
            m.d.sync += number.eq(0)
        below = Signal(_TURNS + 1)
        m.d.comb += below.eq(Cat(place < turn for place in range(_TURNS + 1)))
        far = self._far(m, valid, negative, exponent, whole, below)
        # Then the lowest bits of fix(t), of a negative number as ones' complement, and the
        # difference to those of the first entry. It is one less where only the other entry is
        # negative.
        turned = number
        for k in range(len(turn)):
            turned = Mux(turn[k], turned.rotate_left(1 << k), turned)
        fixed, first = Signal(_FIX_BITS), Signal(_FIX_BITS)
        fixed_negative, first_negative = Signal(), Signal()
        difference = Signal(_FIX_BITS)
        kept = turned & (below ^ whole.replicate(_FIX_BITS))
        one_less = fixed_negative ^ first_negative
        m.d.sync += [
            fixed.eq(kept ^ number_negative.replicate(_FIX_BITS)),
            fixed_negative.eq(number_negative),
            difference.eq((Cat(Const(0, 1), first) - Cat(one_less, fixed))[1:]),
        ]
        with m.If(~valid[ENTRY_STAGES + 3]):  # the first entry
            m.d.sync += [
                first.eq(fixed),
                first_negative.eq(fixed_negative),
                difference.eq(0),
            ]
        # ROM, its output registers, the product, and 0 for what is too far away.
        words = toplist.weight_words()
        m.submodules.rom = rom = Memory(shape=16, depth=len(words), init=words)
        index_bits = toplist.INDEX_BITS
        factors = []
        for place, index in enumerate(
            (difference[index_bits : 2 * index_bits], difference[:index_bits])
        ):
            read = rom.read_port()
            factor = Signal(16, name=f"factor_{place}")
            m.d.comb += read.addr.eq(Cat(index, Const(place, 1)))
            m.d.sync += factor.eq(read.data)
            factors.append(factor)
        product = Signal(32)
        far = [difference[2 * index_bits :].any() | far]
        for stage in range(WEIGHT_STAGES - 3, WEIGHT_STAGES):
            bit = Signal(name=f"far_{stage}")
            m.d.sync += bit.eq(far[-1])
            far.append(bit)
        weight = Signal(16)
        m.d.sync += [
            product.eq(factors[0] * factors[1]),
            weight.eq(product[16:] & (~far[-1]).replicate(16)),
        ]
        return weight

    def _far(self, m, valid, negative, exponent, whole, below):
        """Whether each entry is far from the first one, in the cycle of its difference.

        Keys are integers in the order of the numbers, so that a difference of keys counts the
        numbers in between. If the first one is at least 2^5 in magnitude, with exponent E, its
        neighbours are 2^(E-15) away, at the lower end of a binade 2^(E-16) and at the upper one
        2^(E-14). So entries 2^(20-E) keys below it, or 1 where that is less, are at least 16 below
        it, and others less than 64. If it is smaller in magnitude, entries count as far from -2^6
        down, and if it is not negative from -2^5 down: they are more than 32 below it, others less
        than 64.

        Parameters
        ----------
        m : Module
        valid : list of Signal
            Of each stage, from the address of an entry on.
        negative, exponent : Value
            Of the entry that is there.
        whole, below : Signal
            Of the entry a cycle later: ``exponent`` is at least that of 2^5; the bits below E - 5,
            all 15 from E = 20 on.
        """
        first_key, first_whole, first_below = Signal(24), Signal(), Signal(_TURNS)
        keys, low = Signal(24), Signal()
        m.d.sync += [
            keys.eq(first_key - self.key),
            low.eq(negative & ((exponent > _WHOLE) | ((exponent == _WHOLE) & first_key[23]))),
        ]
        with m.If(~valid[ENTRY_STAGES + 1]):  # the first entry
            m.d.sync += first_key.eq(self.key)
        counted = Cat(first_below[::-1], Const(-1, 24 - _TURNS))  # the bits from 20 - E on
        far = Signal()
        m.d.sync += far.eq(Mux(first_whole, (keys & counted).any(), low))
        with m.If(~valid[ENTRY_STAGES + 2]):
            m.d.sync += [
                first_whole.eq(whole),
                first_below.eq(below),
                far.eq(0),
            ]
        return delayed(m, far, 1, "far_key")
