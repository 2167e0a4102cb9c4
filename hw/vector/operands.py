"""Vector operations as the VOP word, as the command to issue one, and as the fields that the stages
behind the issue need; and the unpacking of stream words into beats of lanes.
"""

from amaranth.hdl import Array, Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out

from sterna.firmware import isa

SCALAR = isa.KIND_SCALAR


class A(enum.Enum, shape=3):
    """Kinds of operand A."""

    BANK0 = 0
    BANK1 = 1
    BANK2 = 2
    SCALAR = isa.KIND_SCALAR
    ROW = isa.A_ROW
    STREAM32 = isa.A_STREAM32
    STREAM8 = isa.A_STREAM8
    RANDOM = isa.A_RANDOM


class D(enum.Enum, shape=3):
    """Destinations."""

    NONE = isa.D_NONE
    VECTOR = isa.D_VECTOR
    SCALAR = isa.D_SCALAR
    ACTIVATION0 = isa.D_ACTIVATION0
    ACTIVATION1 = isa.D_ACTIVATION1
    MEM = isa.D_MEM
    SAMPLE = isa.D_SAMPLE
    LIST = isa.D_LIST


# A vector operation, bit by bit, with the names of its fields in docs/isa.md.
VOP = data.FlexibleLayout(
    isa.INSTRUCTION_BITS,
    {name: data.Field(width, lsb) for name, (lsb, width) in isa.FIELDS[isa.VOP].items()},
)


class Command(data.Struct):
    """A vector operation with its length and strip offset, or (``start``) the beginning of a new
    sampling.

    ``slots``: the slots whose banks and scalar registers are written, bit by bit; ``slot``: the one
    whose numbers go to MEM; ``prior``: an operand C in a bank is that of the slot before, for every
    slot but 0.
    """

    word: unsigned(96)
    count: unsigned(16)
    offset: unsigned(16)
    start: unsigned(1)
    slots: unsigned(8)
    slot: unsigned(3)
    prior: unsigned(1)


class Fields(data.Struct):
    """Fields that the stages behind the issue need."""

    a_kind: 3
    b_kind: 2
    c_kind: 3
    table: 3
    negate_product: 1
    negate_c: 1
    one: 1
    peak: 2
    scalar: 5
    d_kind: 3
    d_banks: 3
    rotate: 3
    slots: 8
    slot: 3
    prior: 1


class Unpacker(wiring.Component):
    """Beats of V numbers (32 bits each, or bytes) out of memory words of P bytes, little endian.

    A beat is offered combinationally from the word at the input, which stays there until its last
    byte is used or the section ends; words narrower than a beat are collected first. Full rate of
    the input or one beat per cycle.

    Parameters
    ----------
    lanes, port_bytes : int
        V and P, powers of two, V <= P.

    Members
    -------
    words : In(stream.Signature(8 * P))
    active : In(1)
        A section is being read.
    bytes : In(1)
        Beats of V bytes rather than V 32-bit words.
    valid : Out(1), beat : Out(ArrayLayout(24, V))
        Next beat; bytes are sign extended. Upper bytes of 32-bit words are dropped.
    take, last : In(1)
        Use the beat (only while ``valid``); it ends the section, the rest of its word is dropped.
    """

    def __init__(self, lanes, port_bytes):
        for name, value in (("lanes", lanes), ("port_bytes", port_bytes)):
            if value < 1 or value & (value - 1):
                raise ValueError(f"{name} {value!r}: must be a power of two")
        if lanes > port_bytes:
            raise ValueError(
                f"lanes {lanes}: at most port_bytes {port_bytes}, so that a word holds a beat of "
                "bytes"
            )
        self.lanes = lanes
        self.port_bytes = port_bytes
        super().__init__(
            {
                "words": In(stream.Signature(8 * port_bytes)),
                "active": In(1),
                "bytes": In(1),
                "valid": Out(1),
                "beat": Out(data.ArrayLayout(24, lanes)),
                "take": In(1),
                "last": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        lanes, word_bits = self.lanes, 8 * self.port_bytes
        word = self.words.payload
        parts = self.port_bytes // lanes  # beats of bytes per word
        # Words per beat of 32-bit numbers, 0 if a word holds several
        collected = 4 * lanes // self.port_bytes
        index = Signal(range(max(parts, 2)))

        def pick(width):
            pieces = [word[k : k + width] for k in range(0, word_bits, width)]
            shift = (width // 8 // lanes).bit_length() - 1
            return pieces[0] if len(pieces) == 1 else Array(pieces)[index[shift:]]

        narrow = Signal(8 * lanes)
        wide = Signal(32 * lanes)
        complete = Signal(init=1)
        end = Signal()
        if parts == 1:
            m.d.comb += end.eq(1)
        elif collected:
            m.d.comb += end.eq(~self.bytes | (index == parts - 1))
        else:
            m.d.comb += end.eq(
                (index == parts - 1) | (~self.bytes & (index >> 2 == (parts >> 2) - 1))
            )
        m.d.comb += narrow.eq(pick(8 * lanes))
        if collected > 1:
            kept = Signal(word_bits * (collected - 1))
            have = Signal(range(collected))
            m.d.comb += [
                wide.eq(Cat(kept, word)),
                complete.eq(self.bytes | (have == collected - 1)),
            ]
            with m.If(self.active & self.words.valid & ~complete):
                m.d.comb += self.words.ready.eq(1)
                m.d.sync += [
                    kept.eq(Cat(kept, word)[word_bits:]),
                    have.eq(have + 1),
                ]
            with m.If(self.take):
                m.d.sync += have.eq(0)
        else:
            m.d.comb += wide.eq(pick(32 * lanes))
        for lane in range(lanes):
            byte = narrow[8 * lane : 8 * lane + 8]
            m.d.comb += self.beat[lane].eq(
                Mux(self.bytes, Cat(byte, byte[7].replicate(16)), wide[32 * lane : 32 * lane + 24])
            )
        m.d.comb += self.valid.eq(self.words.valid & complete)
        with m.If(self.take):
            m.d.comb += self.words.ready.eq(end | self.last)
            m.d.sync += index.eq(Mux(end | self.last, 0, index + Mux(self.bytes, 1, 4)))
        return m
