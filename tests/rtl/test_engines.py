"""Rows gathered from several engines, words merged, shares of rows: `hw/engines`."""

import bench
import pytest
from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from sterna.hw.engines.deal import Share, division
from sterna.hw.engines.rows import RowGather
from sterna.hw.engines.words import WordMerge

CASES = {"two": (2, 6, 2), "four": (4, 4, 4)}  # engines, rows of a turn, lanes


class Dealt(wiring.Component):
    """`RowGather`, `WordMerge` and `Share` side by side; the upper bit of a word ends its section."""

    def __init__(self, engines, unit, lanes):
        self._gather = RowGather(engines=engines, unit=unit, lanes=lanes)
        self._merge = WordMerge(engines=engines, port_bytes=2)
        self._share = Share(engines=engines, unit=unit, bits=24)
        gather, merge = (one.signature.members for one in (self._gather, self._merge))
        super().__init__({"product": gather["product"], "queues": gather["queues"], "rows": gather["rows"],
                          "busy": Out(1), "parts": merge["parts"], "words": Out(stream.Signature(16)),
                          "rows_of": In(24), "share": Out(24)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.gather = gather = self._gather
        m.submodules.merge = merge = self._merge
        m.submodules.share = share = self._share
        connect(m, flipped(self.product), gather.product)
        connect(m, gather.rows, flipped(self.rows))
        connect(m, merge.words, flipped(self.words))
        for k, (queue, part) in enumerate(zip(self.queues, self.parts, strict=True)):
            connect(m, flipped(queue), gather.queues[k])
            connect(m, flipped(part), merge.parts[k])
        m.d.comb += [self.busy.eq(gather.busy), merge.done.eq(merge.words.payload[-1]),
                     share.rows.eq(self.rows_of), self.share.eq(share.share)]
        return m


@pytest.mark.rtl
@pytest.mark.parametrize("name", CASES)
def test_rows_words_and_shares(name, simulator):
    engines, unit, lanes = CASES[name]
    bench.run(Dealt(*CASES[name]), "bench_engines", "dealt", simulator,
              env={"ENGINES": engines, "UNIT": unit, "LANES": lanes})


@pytest.mark.parametrize("divisor, bits", [(1, 3), (3, 12), (5, 12), (25, 13), (7, 10), (9, 11)])
def test_a_division_by_a_constant_is_exact(divisor, bits):
    factor, shift = division(divisor, bits)
    assert all(n * factor >> shift == n // divisor for n in range(1 << bits))
