"""The codes of a gather, one at a time."""

from amaranth import Cat, Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from sterna.hw.array.activations import activation_signature


class Codes(wiring.Component):
    """The first ``visits`` codes of each buffer and slot once more, in a memory as narrow as they
    come: a block RAM costs less than the choice of one of the C codes of a buffer's word.

    The code of a row and slot is there `latency` cycles behind its number: three, or one without
    registers. What is written behind the first codes is dropped.

    Parameters
    ----------
    lanes, batch, visits : int
        V, B and the most rows of a slot.
    pipelined : bool

    Members
    -------
    write : In(activation_signature(V, B))
    buffer, row, slot : In
    code : Out(signed(8))
    """

    def __init__(self, *, lanes, batch, visits, pipelined=True):
        self._lanes, self._batch, self._pipelined = lanes, batch, pipelined
        self._words = max(2, -(-visits // lanes))
        self.latency = 3 if pipelined else 1
        super().__init__(
            {
                "write": In(activation_signature(lanes, batch)),
                "buffer": In(1),
                "row": In(range(visits)),
                "slot": In(range(batch)),
                "code": Out(signed(8)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        place_bits = (self._words - 1).bit_length()
        lane_bits = (self._lanes - 1).bit_length()
        m.submodules.memory = memory = Memory(
            shape=8 * self._lanes * self._batch,
            depth=2 << place_bits,
            init=[],
            attrs={"no_rw_check": 1},
        )
        write, read = memory.write_port(), memory.read_port()
        # One more bit: behind the last place there is none.
        at, place = Signal(place_bits + 1), Signal(place_bits + 1)
        with m.If(~self.write.first):
            m.d.comb += place.eq(at)
        with m.If(self.write.valid & ~place[-1]):
            m.d.sync += at.eq(place + 1)
        m.d.comb += [
            write.en.eq(self.write.valid & ~place[-1]),
            write.addr.eq(Cat(place[:-1], self.write.buffer)),
            write.data.eq(self.write.codes.as_value()),
            read.en.eq(1),
            read.addr.eq(Cat((self.row >> lane_bits)[:place_bits], self.buffer)),
        ]
        which, word = Cat(self.row[:lane_bits], self.slot), read.data
        for k in range(2 if self._pipelined else 1):
            late = Signal.like(which, name=f"which{k}", reset_less=True)
            m.d.sync += late.eq(which)
            which = late
        if self._pipelined:
            word = Signal.like(read.data, name="word", reset_less=True)
            m.d.sync += word.eq(read.data)
        code = word.word_select(which, 8) if len(which) else word[:8]
        m.d.sync += self.code.eq(code) if self._pipelined else []
        if not self._pipelined:
            m.d.comb += self.code.eq(code)
        return m
