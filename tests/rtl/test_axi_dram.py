"""AxiMemory as the preset kv260 has it before the DRAM model: what of a linear stream's pace is left."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from builds import verilog
from harness import compiled, port_members, port_statements
from sterna.hw.memory.arbiter import OUTSTANDING
from sterna.hw.memory.axi.bus import Axi4
from sterna.hw.memory.axi.memory import ID_BITS, AxiMemory
from sterna.hw.memory.pins import joined
from sterna.sim.board import compile as board
from sterna.sim.board.dram import SETTINGS

pytestmark = pytest.mark.rtl
HARNESS = Path(__file__).with_name("axi_harness.cpp")
BITS, WORD_BYTES = 18, 64


class Flat(wiring.Component):
    """The memory with plain ports."""

    def __init__(self):
        self._memory = AxiMemory(word_address_bits=BITS, ports=4, beat_bytes=16, block_bytes=256)
        bus = Axi4(data_bytes=16, id_bits=ID_BITS).members
        super().__init__(port_members(BITS, WORD_BYTES) | {
            f"axi{k}_{name}": member for k in range(4) for name, member in bus.items()})

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = self._memory
        m.d.comb += port_statements(memory.port, self)
        for k, axi in enumerate(memory.axi):
            m.d.comb += joined(axi, self, f"axi{k}_")
        return m


def stream(dram, words=40_000, most=OUTSTANDING, first=0, every=0):
    """(words per cycle, 64-byte chunks that the DRAM read) of a linear stream."""
    program = compiled("axi", "memory", verilog(Flat(), "memory"), HARNESS,
                       [board.HERE / name for name in ("dram.hpp", "memory.hpp", "ports.hpp", "status.hpp")])
    done = subprocess.run([program, dram.option(), *map(str, (words, most, first, every))], capture_output=True,
                          text=True)
    assert not done.returncode, done.stderr
    cycles, chunks, *rest = map(int, done.stdout.split())
    print(dram, cycles, chunks, *rest)
    return words / cycles, chunks


@pytest.mark.rest
def test_a_linear_stream_gets_what_the_dram_gives():
    """Latency is covered; of the refreshes `ddr4` shows none, `ideal` all and nothing else."""
    pace = {name: stream(dram)[0] for name, dram in SETTINGS.items()}
    assert pace["ddr4"] > 0.998
    assert pace["ideal"] == pytest.approx(1 - 0.35 / 7.8, rel=3e-3)
    assert pace["measured"] == pytest.approx(12.73 / 16, rel=3e-3)
    assert stream(SETTINGS["ddr4"], most=2)[0] < 0.9


@pytest.mark.rest
def test_no_chunk_is_read_twice():
    assert stream(SETTINGS["ideal"])[1] == 40_000
    assert stream(SETTINGS["ideal"], first=5)[1] <= 40_000 + 8


@pytest.mark.rest
def test_writes_between():
    """A word is written for every 300 that are read: bursts that wait for others, turns of the data lines."""
    assert stream(SETTINGS["ddr4"], every=300)[0] > 0.97
    assert stream(replace(SETTINGS["ddr4"], turn=200_000), every=20)[0] < 0.97
