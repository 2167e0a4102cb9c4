"""Top-p and the winner: looks through the sorted list of the best rows (docs/numerics.md, section 8)."""

from enum import IntEnum

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from sterna.sim.golden import toplist

ENTRY_STAGES = 2  # from the address of an entry to the entry
WEIGHT_STAGES = ENTRY_STAGES + 7  # from the address of an entry to its weight at the sum
_FIX_BITS = 20
_TOP_EXPONENT = 127 + _FIX_BITS - 1 - toplist.STEP_BITS  # of the numbers whose fix() begins with its highest bit


class State(IntEnum):
    """What the unit does."""

    REST = 0
    TOTAL = 1     # sum of all weights
    MULTIPLY = 2  # by P
    COUNT = 3     # entries that take part
    CHOOSE = 4    # the best score among them
    DONE = 5


class Choice(wiring.Component):
    """The entry with the best score among those of a sorted list that take part.

    Without ``p`` one pass over all n entries compares scores, where the earlier entry wins a tie. With ``p`` two
    passes come before it. Both compute q[j] = weight(fix(t[0]) - fix(t[j])), an entry per cycle: the significand is
    shifted to units of 2^-10, subtracted, looked up in two halves of one ROM, and the two factors are multiplied. The
    first pass sums all weights, which are at most 65534, and 16 steps multiply the sum by P; the second counts the
    entries with 2^16 (q[0] + ... + q[j-1]) < P total. ``done`` is set n + 3 cycles after ``run``, with ``p``
    2 n + m + 37 cycles after it if m entries take part.

    Parameters
    ----------
    depth : int
        Most entries.
    row_bits : int
        Width of a row index.

    Members
    -------
    run : In(1)
        The list stands still and has at least one entry; while this is 0 the unit is at its beginning.
    last : In(range(depth))
        Index of the last entry.
    p : In(16)
        P in units of 2^-16; 0: all entries take part.
    address : Out(range(depth))
        The entry whose ``key``, ``score`` (unsigned, in the order of the numbers) and ``row`` come two cycles later.
    key : In(24), score : In(24), row : In(row_bits)
    done : Out(1), best : Out(row_bits)
        Row of the winner, once ``done``.
    """

    def __init__(self, depth, row_bits=24):
        self.depth, self.row_bits = depth, row_bits
        self.address_bits = max(1, (depth - 1).bit_length())
        super().__init__({
            "run": In(1), "last": In(self.address_bits), "p": In(16), "address": Out(self.address_bits),
            "key": In(24), "score": In(24), "row": In(row_bits), "done": Out(1), "best": Out(row_bits),
        })

    def elaborate(self, platform):
        m = Module()
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
                m.d.sync += [issues.eq(0), self.address.eq(0)]

        weight = self._weight(m, valid)
        total = Signal((self.depth * toplist.weight(0)).bit_length())
        share, rest = Signal(len(total)), Signal()  # P total / 2^16, and whether something was cut off
        step = Signal(4)
        p_left = Signal(16)  # bits of P that have not been multiplied with
        parts = Signal(self.address_bits)  # entries that take part, less one
        best_score, chosen = Signal(24), Signal()
        added, part = Signal(len(total) + 1), Signal()
        m.d.comb += [added.eq(share + Mux(p_left[0], total, 0)), self.done.eq(state == State.DONE)]
        with m.If(valid[-1]):
            m.d.sync += total.eq(total + weight)
        ends = valid[-1] & last[-1]
        with m.Switch(state):
            with m.Case(State.REST):
                m.d.sync += [total.eq(0), share.eq(0), rest.eq(0), step.eq(0), parts.eq(~0), chosen.eq(0),
                             p_left.eq(self.p), limit.eq(self.last)]
                with m.If(self.run):
                    m.d.sync += [issues.eq(1), state.eq(Mux(self.p.any(), State.TOTAL, State.CHOOSE))]
            with m.Case(State.TOTAL):
                with m.If(ends):
                    m.d.sync += state.eq(State.MULTIPLY)
            with m.Case(State.MULTIPLY):
                m.d.sync += [step.eq(step + 1), p_left.eq(p_left >> 1), share.eq(added[1:]), rest.eq(rest | added[0])]
                with m.If(step == 15):
                    m.d.sync += [state.eq(State.COUNT), total.eq(0), issues.eq(1)]
            with m.Case(State.COUNT):
                m.d.comb += part.eq(valid[-1] & (Cat(rest, share) > Cat(Const(0, 1), total)))
                m.d.sync += parts.eq(parts + part)
                with m.If(ends):
                    m.d.sync += [state.eq(State.CHOOSE), issues.eq(1), limit.eq(parts + part)]
            with m.Case(State.CHOOSE):
                with m.If(valid[ENTRY_STAGES]):
                    m.d.sync += chosen.eq(1)
                    with m.If(~chosen | (self.score > best_score)):
                        m.d.sync += [best_score.eq(self.score), self.best.eq(self.row)]
                    with m.If(last[ENTRY_STAGES]):
                        m.d.sync += state.eq(State.DONE)
        with m.If(~self.run):
            m.d.sync += [state.eq(State.REST), issues.eq(0), self.address.eq(0), *(bit.eq(0) for bit in valid[1:])]
        return m

    def _weight(self, m, valid):
        """The weight of each entry, 16 bits, WEIGHT_STAGES cycles behind its address."""
        # The entry: its significand and by how much 2^10 |t| is to the right of the highest bit of fix.
        negative, magnitude = ~self.key[23], self.key[:23] ^ (~self.key[23]).replicate(23)
        exponent = magnitude[15:]
        number = Signal(_FIX_BITS)
        places = Signal(5)
        m.d.sync += [
            number.eq(Cat(Const(0, _FIX_BITS - 16), magnitude[:15], Const(1, 1))),
            places.eq(_TOP_EXPONENT - exponent[:5]),
        ]
        with m.If(exponent > _TOP_EXPONENT):
            m.d.sync += [number.eq(~0), places.eq(0)]
        with m.If(exponent <= _TOP_EXPONENT - _FIX_BITS):
            m.d.sync += number.eq(0)
        # Then |fix(t)|, and the difference to the first entry, both with their signs. Of two negative numbers the
        # first has the smaller magnitude.
        number_negative, fixed_negative = Signal(), Signal()
        fixed = Signal(_FIX_BITS)
        first, first_negative, has_first = Signal(_FIX_BITS), Signal(), Signal()
        difference = Signal(_FIX_BITS + 1)
        m.d.sync += [
            number_negative.eq(negative), fixed_negative.eq(number_negative), fixed.eq(number >> places),
            difference.eq((Cat(first, Const(0, 1)) ^ first_negative.replicate(_FIX_BITS + 1))
                          + (Cat(fixed, Const(0, 1)) ^ (~fixed_negative).replicate(_FIX_BITS + 1))
                          + (first_negative == fixed_negative)),
        ]
        with m.If(~has_first):
            m.d.sync += [first.eq(fixed), first_negative.eq(fixed_negative), difference.eq(0),
                         has_first.eq(valid[ENTRY_STAGES + 2])]
        with m.If(~self.run):
            m.d.sync += has_first.eq(0)
        # ROM, its output registers, the product, and 0 for what is too far away.
        words = toplist.weight_words()
        m.submodules.rom = rom = Memory(shape=16, depth=len(words), init=words)
        index_bits = toplist.INDEX_BITS
        factors = []
        for place, index in enumerate((difference[index_bits:2 * index_bits], difference[:index_bits])):
            read = rom.read_port()
            factor = Signal(16, name=f"factor_{place}")
            m.d.comb += read.addr.eq(Cat(index, Const(place, 1)))
            m.d.sync += factor.eq(read.data)
            factors.append(factor)
        product = Signal(32)
        far = [difference[2 * index_bits:].any()]
        for stage in range(WEIGHT_STAGES - 3, WEIGHT_STAGES):
            bit = Signal(name=f"far_{stage}")
            m.d.sync += bit.eq(far[-1])
            far.append(bit)
        weight = Signal(16)
        m.d.sync += [product.eq(factors[0] * factors[1]), weight.eq(product[16:] & (~far[-1]).replicate(16))]
        return weight
