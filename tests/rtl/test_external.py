"""The memory of a board with an SDRAM behind the memory port: two clocks of any ratio and phase,
every word compared.
"""

import dataclasses
from pathlib import Path

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import Out, connect, flipped
from bench import SEED
from builds import verilog
from harness import TRAFFIC, compiled, counted, port_members, port_statements
from sterna.hw.boards import BOARDS
from sterna.hw.memory import external
from sterna.hw.memory.chips import CHIPS
from sterna.hw.memory.external import Gather, SdramMemory
from sterna.hw.memory.pins import SdramPins, joined
from sterna.sim.board import compile as board
from sterna.sim.board.sdram import timing_numbers

pytestmark = pytest.mark.rtl
HARNESS = Path(__file__).with_name("external_harness.cpp")
CONFIG = BOARDS["ulx3s-85f"].config
CHIP = dataclasses.replace(CHIPS[CONFIG.sdram], t_init=2_000)


class Flat(wiring.Component):
    """The memory with plain ports and registers at its pins, as a board has them."""

    def __init__(self):
        self._memory = SdramMemory(CONFIG)
        self._memory._chip = CHIP
        super().__init__({"ready": Out(1), **port_members(CONFIG.word_address_bits, CONFIG.port_bytes),
                          **SdramPins(CHIP.row_bits).members})

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = self._memory
        m.d.comb += [port_statements(memory.port, self), self.ready.eq(memory.ready)]
        m.d.memory += joined(memory.pins, self)
        return m


def traffic(ratio, cycles=200_000, seed=SEED):
    """Counts by name (dict of int), or the error's text."""
    program = compiled("external", "memory", verilog(Flat(), "memory"), HARNESS,
                       [board.HERE / "sdram.hpp", board.HERE / "status.hpp", TRAFFIC])
    return counted([program, *timing_numbers(CHIP, CONFIG.memory_hz), str(seed), str(cycles), str(ratio)])


@pytest.mark.parametrize("ratio", [1.5, *(pytest.param(r, marks=pytest.mark.rest) for r in (1.25, 1.9, 0.7))])
def test_random_traffic_across_the_clocks(ratio):
    """The board's ratio of clocks and others, with a jitter of 2 % and a random phase."""
    counts = traffic(ratio)
    print(counts)
    assert isinstance(counts, dict), counts
    assert counts["words"] > 20_000 and counts["writes"] > 5_000 and counts["waiting"] < 256
    assert 0 < counts["refreshing"] < 0.1 * counts["since"]


class Swapped(Gather):
    """Words of 16 bits in the other order."""

    def elaborate(self, platform):
        m = Module()
        m.submodules.inner = inner = Gather(2, 16)
        connect(m, flipped(self.input), inner.input)
        m.d.comb += [self.output.payload.eq(inner.output.payload.rotate_left(16)),
                     self.output.valid.eq(inner.output.valid)]
        return m


@pytest.mark.rest
def test_a_fault_is_found(monkeypatch):
    monkeypatch.setattr(external, "Gather", Swapped)
    assert "a word that is wrong" in traffic(1.5, 50_000)
