"""The two activation buffers: V codes of each slot come in per beat, C of each go out per cycle."""

from amaranth import Cat, Module, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out


def activation_signature(lanes, batch=1):
    """Beats of int8 codes for one buffer, in element order; ``first`` restarts at element 0. Always
    accepted.

    A beat has V codes of each of B slots, one slot after the other: code of lane v of slot s at s *
    V + v.
    """
    return wiring.Signature(
        {
            "valid": Out(1),
            "first": Out(1),
            "buffer": Out(1),
            "codes": Out(data.ArrayLayout(signed(8), lanes * batch)),
        }
    )


class ActivationBuffers(wiring.Component):
    """Two buffers of ``words`` words of C codes for each of B slots, all in one memory.

    Writing: one beat of V codes per slot and cycle into consecutive places. Reading: the word
    ``address`` of ``buffer`` appears as ``word`` ``latency`` cycles later: two (the second is the
    output register that fast block RAM needs), or one without it. Slots share addresses and
    enables; in beats and words their codes stand one slot after the other, so code c of slot s is
    ``word[s * C + c]``.

    Members
    -------
    write : In(activation_signature(V, B))
    buffer, address : In
    word : Out(ArrayLayout(signed(8), C * B))
    """

    def __init__(self, *, columns, lanes, words, batch=1, registered=True):
        self.latency = 2 if registered else 1
        if columns % lanes:
            raise ValueError(f"{lanes} lanes do not divide {columns} columns")
        self._columns, self._lanes, self._batch, self._words = columns, lanes, batch, words
        super().__init__(
            {
                "write": In(activation_signature(lanes, batch)),
                "buffer": In(1),
                "address": In(range(max(2, words))),
                "word": Out(data.ArrayLayout(signed(8), columns * batch)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        bits = 8 * self._lanes
        groups = self._columns // self._lanes
        span = 1 << len(self.address)
        m.submodules.memory = memory = Memory(
            shape=8 * self._columns * self._batch,
            depth=2 * span,
            init=[],
            # No product reads codes on their way
            attrs={"no_rw_check": 1},
        )
        write = memory.write_port(granularity=bits)
        read = memory.read_port()
        at = Signal(range(span))
        group = Signal(range(groups))
        place_at, place_group = Signal.like(at), Signal.like(group)
        with m.If(~self.write.first):
            m.d.comb += [
                place_at.eq(at),
                place_group.eq(group),
            ]
        m.d.comb += [
            write.addr.eq(Cat(place_at, self.write.buffer)),
            write.data.eq(
                Cat(
                    self.write.codes.as_value().word_select(slot, bits).replicate(groups)
                    for slot in range(self._batch)
                )
            ),
        ]
        with m.If(self.write.valid):
            m.d.comb += write.en.eq((1 << place_group)[:groups].replicate(self._batch))
            with m.If(place_group == groups - 1):
                m.d.sync += [
                    group.eq(0),
                    at.eq(place_at + 1),
                ]
            with m.Else():
                m.d.sync += [
                    group.eq(place_group + 1),
                    at.eq(place_at),
                ]
        m.d.comb += [
            read.en.eq(1),
            read.addr.eq(Cat(self.address, self.buffer)),
        ]
        if self.latency == 2:
            m.d.sync += self.word.eq(read.data)
        else:
            m.d.comb += self.word.eq(read.data)
        return m
