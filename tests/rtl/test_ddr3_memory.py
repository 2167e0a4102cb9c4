"""The memory of a board with DDR3 behind the memory port: two clocks of any ratio, levelled, every word compared."""

import dataclasses
from functools import cache
from pathlib import Path

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import Out
from bench import SEED
from builds import verilog
from harness import TRAFFIC, compiled, counted, port_members, port_statements
from sterna.hw.memory.chips import DDR3_CHIPS
from sterna.hw.memory.ddr3.dfi import Ddr3Dfi, Ddr3Trim
from sterna.hw.memory.ddr3.memory import Ddr3Memory
from sterna.hw.memory.pins import joined
from sterna.hw.presets import PRESETS
from sterna.sim.board import compile as board
from sterna.sim.board.ddr3 import timing_numbers

pytestmark = pytest.mark.rtl
HARNESS = Path(__file__).with_name("ddr3_memory_harness.cpp")
CONFIG = PRESETS["ecpix5-85"]
CHIP = dataclasses.replace(DDR3_CHIPS[CONFIG.ddr3], t_reset=2_000, t_cke=3_000)


class Flat(wiring.Component):
    """The memory with plain ports."""

    def __init__(self):
        self._memory = Ddr3Memory(CONFIG)
        self._memory._chip = CHIP
        super().__init__({"failed": Out(1), **port_members(CONFIG.word_address_bits, CONFIG.port_bytes),
                          **Ddr3Dfi(CHIP.row_bits).members, **Ddr3Trim().members})

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = self._memory
        m.d.comb += [port_statements(memory.port, self), self.failed.eq(memory.levelled.failed)]
        m.d.comb += [joined(memory.pins.dfi, self), joined(memory.pins.trim, self)]
        return m


@cache
def program():
    """Path of the compiled harness."""
    return compiled("ddr3-memory", "memory", verilog(Flat(), "memory"), HARNESS,
                    [*(board.HERE / name for name in ("ddr3.hpp", "memory.hpp", "status.hpp")), TRAFFIC])


def traffic(ratio, cycles=100_000, seed=SEED, sequential=False):
    """Counts by name (dict of int), or the error's text."""
    return counted([program(), *timing_numbers(CHIP, CONFIG.memory_hz), str(seed), str(cycles), str(ratio),
                    str(int(sequential))])


@pytest.mark.parametrize("ratio", [2, *(pytest.param(r, marks=pytest.mark.rest) for r in (1.6, 1.2, 0.9))])
def test_random_traffic_across_the_clocks(ratio):
    """The board's ratio of clocks and others, with a jitter of 2 % and a random phase."""
    counts = traffic(ratio)
    print(counts)
    assert isinstance(counts, dict), counts
    assert counts["words"] > 10_000 and counts["writes"] > 2_000 and counts["waiting"] < 256
    assert 0 < counts["refreshing"] < 0.1 * counts["since"]


@pytest.mark.rest
def test_sequential_reads_reach_93_percent():
    """Of the chip's peak, which is that of the port at this ratio of clocks, refresh included."""
    counts = traffic(2, 300_000, sequential=True)
    assert isinstance(counts, dict), counts
    share = counts["words"] / counts["since"]
    print(f"{share:.2%} of the peak")
    assert share >= 0.93


@pytest.mark.rest
def test_every_place_of_the_window_is_found():
    """Whatever delays and slip serve a byte, they are found: the harness draws them from the seed."""
    for seed in (0, 24, 99, 123, 399):
        counts = traffic(2, 20_000, seed)
        assert isinstance(counts, dict), counts
