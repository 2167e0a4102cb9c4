"""CRC-32C, one byte per cycle."""

from functools import reduce
from operator import xor

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

POLYNOMIAL_REFLECTED = 0x82F63B78
INITIAL = 0xFFFFFFFF


def table_entry(byte):
    """State that ``byte`` alone leaves behind: eight steps of the reflected polynomial from state
    ``byte``.
    """
    state = byte
    for _ in range(8):
        state = state >> 1 ^ (POLYNOMIAL_REFLECTED if state & 1 else 0)
    return state


def update(state, byte):
    """Software model of one cycle: the state after ``byte``."""
    return state >> 8 ^ table_entry((state ^ byte) & 0xFF)


def _residue():
    state = INITIAL
    for byte in bytes(4):  # any message will do; the empty one has checksum 0
        state = update(state, byte)
    return state


# Checksum of a message followed by its own checksum, low byte first
RESIDUE = ~_residue() & 0xFFFFFFFF


class Crc32C(wiring.Component):
    """CRC-32C of a byte sequence.

    state' = (state >> 8) ^ T[(state ^ data) & 255]; T is linear, so T[x] is the XOR of T[2^k] over
    the bits k of x. The checksum is the inverted state, and it is what the register holds: it
    starts at 0. With ``shift`` it only moves down by a byte, so that four shifts emit it, low byte
    first. One byte per cycle; ``checksum`` is valid the cycle after.

    Members
    -------
    clear : In(1)
        Start a new message; wins over ``valid``.
    valid : In(1)
        Take ``data`` (or shift) in this cycle.
    shift : In(1)
        Move the checksum down by one byte; ``data`` is ignored.
    data : In(8)
    checksum : Out(32)
    """

    clear: In(1)
    valid: In(1)
    shift: In(1)
    data: In(8)
    checksum: Out(32)

    def elaborate(self, platform):
        m = Module()
        index = [Signal(name=f"index_{k}") for k in range(8)]
        m.d.comb += [
            index[k].eq(~(self.checksum[k] ^ self.data[k]) & ~self.shift) for k in range(8)
        ]
        # Sums within three groups of index bits are shared, so that each state bit is a sum of at
        # most four bits, which fits one LUT4.
        sums = {}

        def group_sum(taps):
            if taps not in sums:
                sums[taps] = Signal(name="sum_" + "".join(map(str, taps)))
                m.d.comb += sums[taps].eq(reduce(xor, (index[k] for k in taps)))
            return sums[taps]

        with m.If(self.clear):
            m.d.sync += self.checksum.eq(0)
        with m.Elif(self.valid):
            for bit in range(32):
                value = self.checksum[bit + 8] if bit < 24 else 1  # a zero of the inverted state
                for group in ((0, 1, 2), (3, 4, 5), (6, 7)):
                    taps = tuple(k for k in group if table_entry(1 << k) >> bit & 1)
                    if taps:
                        value ^= group_sum(taps)
                m.d.sync += self.checksum[bit].eq(value)
        return m
