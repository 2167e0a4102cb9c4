"""The two activation buffers: V codes of each slot come in per beat, C of each go out per cycle."""

from functools import reduce
from operator import or_

from amaranth import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from sterna.hw.stream import delayed


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

    With ``banks`` (R, one for each row of the array) the memory is R words wide and an R-th as
    deep: word w is in bank w mod R at address w div R. A read gives each row a word: with ``apart``
    its own bank's, so that the rows see R words one behind the other, else all that of ``bank``.
    The choice costs no multiplexers: the registers of the other banks are cleared, and a row takes
    its own OR, where the rows are not apart, the others. One LUT per bit and row of an ECP5 for
    three banks, and block RAM in its widest form (at 3 x 20 codes and 512 words 14 in place of 9,
    where three copies take 27); the register is there already, R times.

    Members
    -------
    write : In(activation_signature(V, B))
    buffer, address : In
    word : Out(ArrayLayout(signed(8), C * B)), with ``banks`` C * B for each row
    bank : In(range(R)); apart : In(1)
        Only with ``banks`` > 1. ``apart`` changes only ``latency`` cycles before a read.
    """

    def __init__(self, *, columns, lanes, words, batch=1, registered=True, banks=1):
        self.latency = 2 if registered else 1
        if columns % lanes:
            raise ValueError(f"{lanes} lanes do not divide {columns} columns")
        self._columns, self._lanes, self._batch = columns, lanes, batch
        self._banks, self._words = banks, -(-words // banks)
        super().__init__(
            {
                "write": In(activation_signature(lanes, batch)),
                "buffer": In(1),
                "address": In(range(max(2, self._words))),
                "word": Out(data.ArrayLayout(signed(8), columns * batch * banks)),
            }
            | (
                {
                    "bank": In(range(banks)),
                    "apart": In(1),
                }
                if banks > 1
                else {}
            )
        )

    def elaborate(self, platform):
        m = Module()
        bits, banks = 8 * self._lanes, self._banks
        groups = self._columns // self._lanes
        span = 1 << len(self.address)
        m.submodules.memory = memory = Memory(
            shape=8 * self._columns * self._batch * banks,
            depth=2 * span,
            init=[],
            # No product reads codes on their way
            attrs={"no_rw_check": 1},
        )
        write = memory.write_port(granularity=bits)
        read = memory.read_port()
        at = Signal(range(span))
        group = Signal(range(groups))
        bank = Signal(range(banks))
        place_at, place_group, place_bank = (
            Signal.like(at),
            Signal.like(group),
            Signal.like(bank),
        )
        with m.If(~self.write.first):
            m.d.comb += [
                place_at.eq(at),
                place_group.eq(group),
                place_bank.eq(bank),
            ]
        m.d.comb += [
            write.addr.eq(Cat(place_at, self.write.buffer)),
            write.data.eq(
                Cat(
                    self.write.codes.as_value().word_select(slot, bits).replicate(groups)
                    for slot in range(self._batch)
                ).replicate(banks)
            ),
        ]
        with m.If(self.write.valid):
            of_group = (1 << place_group)[:groups].replicate(self._batch)
            m.d.comb += write.en.eq(
                Cat(of_group & (place_bank == k).replicate(len(of_group)) for k in range(banks))
                if banks > 1
                else of_group
            )
            with m.If(place_group == groups - 1):
                m.d.sync += group.eq(0)
                if banks > 1:
                    last = place_bank == banks - 1
                    m.d.sync += [
                        bank.eq(Mux(last, 0, place_bank + 1)),
                        at.eq(place_at + last),
                    ]
                else:
                    m.d.sync += at.eq(place_at + 1)
            with m.Else():
                m.d.sync += [
                    group.eq(place_group + 1),
                    at.eq(place_at),
                    bank.eq(place_bank),
                ]
        m.d.comb += [
            read.en.eq(1),
            read.addr.eq(Cat(self.address, self.buffer)),
        ]
        if banks > 1:
            self._choose(m, read.data)
        elif self.latency == 2:
            m.d.sync += self.word.eq(read.data)
        else:
            m.d.comb += self.word.eq(read.data)
        return m

    def _choose(self, m, words):
        """A word for each row, of the words of all banks."""
        size = len(words) // self._banks
        bank, apart = delayed(m, self.bank, 1, "bank"), delayed(m, self.apart, 1, "apart")
        chosen = []
        for k in range(self._banks):
            word = Signal(size, name=f"word{k}", reset_less=True)
            clear = ~apart & (bank != k)
            if self.latency == 2:
                with m.If(clear):
                    m.d.sync += word.eq(0)
                with m.Else():
                    m.d.sync += word.eq(words.word_select(k, size))
            else:
                m.d.comb += word.eq(words.word_select(k, size) & ~clear.replicate(size))
            chosen.append(word)
        together = ~delayed(m, apart, self.latency - 1, "apart_too")
        common = Signal(size)
        m.d.comb += common.eq(reduce(or_, chosen) & together.replicate(size))
        for k, word in enumerate(chosen):
            # Up to three operands and `together` fit into a LUT, without what rows have in common.
            others = reduce(or_, chosen[:k] + chosen[k + 1 :]) & together.replicate(size)
            m.d.comb += self.word.as_value()[k * size : (k + 1) * size].eq(
                word | (others if self._banks <= 3 else common)
            )
