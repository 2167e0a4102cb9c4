"""The memory of a board with DDR3 behind the memory port: two clocks of any ratio, levelled, every word compared."""

import dataclasses
import subprocess
from functools import cache
from pathlib import Path

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from bench import SEED
from builds import verilog
from harness import compiled
from sterna.hw.memory.chips import DDR3_CHIPS
from sterna.hw.memory.ddr3.dfi import Ddr3Dfi, Ddr3Trim
from sterna.hw.memory.ddr3.memory import Ddr3Memory
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
        bits = CONFIG.word_address_bits
        super().__init__({
            "read_ready": Out(1), "reads_valid": In(1), "reads_address": In(bits), "reads_length": In(8),
            "data_valid": Out(1), "data_read": Out(128), "write_valid": In(1), "write_ready": Out(1),
            "write_address": In(bits), "word_data": In(128), "word_mask": In(16), "refreshing": Out(1),
            "failed": Out(1), **Ddr3Dfi(CHIP.row_bits).members, **Ddr3Trim().members})

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = self._memory
        port = memory.port
        m.d.comb += [
            port.read_command.valid.eq(self.reads_valid), self.read_ready.eq(port.read_command.ready),
            port.read_command.payload.address.eq(self.reads_address),
            port.read_command.payload.length.eq(self.reads_length),
            self.data_valid.eq(port.read_data.valid), self.data_read.eq(port.read_data.payload),
            port.read_data.ready.eq(1),
            port.write.valid.eq(self.write_valid), self.write_ready.eq(port.write.ready),
            port.write.payload.address.eq(self.write_address), port.write.payload.data.eq(self.word_data),
            port.write.payload.mask.eq(self.word_mask),
            self.refreshing.eq(port.refreshing), self.failed.eq(memory.levelled.failed)]
        for interface in (memory.pins.dfi, memory.pins.trim):
            for name, member in interface.signature.members.items():
                inner, outer = getattr(interface, name), getattr(self, name)
                m.d.comb += inner.eq(outer) if member.flow == In else outer.eq(inner)
        return m


@cache
def program():
    """Path of the compiled harness."""
    return compiled("ddr3-memory", "memory", verilog(Flat(), "memory"), HARNESS,
                    [board.HERE / name for name in ("ddr3.hpp", "memory.hpp", "status.hpp")])


def traffic(ratio, cycles=100_000, seed=SEED, sequential=False):
    """Counts by name (dict of int), or the error's text."""
    done = subprocess.run([program(), *timing_numbers(CHIP, CONFIG.memory_hz), str(seed), str(cycles), str(ratio),
                           str(int(sequential))], capture_output=True, text=True)
    if done.returncode:
        return done.stderr.strip()
    words = done.stdout.split()
    return dict(zip(words[::2], map(int, words[1::2]), strict=True))


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
