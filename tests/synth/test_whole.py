"""Cells of a whole accelerator by unit, from a synthesis that keeps the hierarchy."""

import json
import re
from collections import Counter
from dataclasses import replace

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from sterna.hw import __main__ as command
from sterna.hw.boards import preset
from sterna.hw.flow import rtlil, whole
from sterna.hw.flow.units import SynthesisError
from sterna.hw.memory.ultra import blocks
from sterna.hw.stream import Queue

from docs.figures import kria


class Chain(wiring.Component):
    """Queues one behind the other: two of 8 bits, which are one module, and one that is deeper."""

    a: In(8)
    b: Out(8)

    def elaborate(self, platform):
        m = Module()
        queues = [Queue(8, 1), Queue(8, 1), Queue(8, 2)]
        value = self.a
        for k, queue in enumerate(queues):
            m.submodules[f"queue{k}"] = queue
            m.d.comb += [queue.i.payload.eq(value), queue.i.valid.eq(1), queue.o.ready.eq(1)]
            value = queue.o.payload
        m.d.comb += self.b.eq(value)
        return m


def test_modules_that_are_the_same_are_one():
    text = whole.shared(rtlil.convert(Chain(), name="unit"))
    assert set(re.findall(r"(?m)^module (\S+)", text)) == {r"\unit", r"\unit.queue0", r"\unit.queue2"}
    assert Counter(re.findall(r"(?m)^  cell (\\unit\S*)", text)) == {r"\unit.queue0": 2, r"\unit.queue2": 1}


MODULES = {
    r"\unit": {"num_cells_by_type": {"unit.accelerator": 1, "unit.memory": 1, "LUT2": 3}},
    r"\unit.accelerator": {"num_cells_by_type": {"unit.accelerator.array": 1, "FDRE": 5}},
    r"\unit.accelerator.array": {"num_cells_by_type": {"unit.row": 4, "RAM64M8": 2}},
    r"\unit.row": {"num_cells_by_type": {"LUT6": 10, "CARRY8": 2, "URAM288_BASE": 1}},
    r"\unit.memory": {"num_cells_by_type": {"RAMB36E2": 1, "RAMB18E2": 3, "INV": 1}},
}


def test_cells_of_a_module_count_wherever_it_is():
    array, memory, between, all_of_it = whole.rows(MODULES, "x", "xcup")
    assert (array.unit, array.lut6, array.lut_ram, array.luts) == ("array", 40, 16, 56)
    assert (array.carry, array.ultra_ram) == (8, 4)
    assert (memory.block_ram, memory.half_block_ram, memory.luts) == (1, 3, 1)
    assert (between.unit, between.luts, between.flip_flops) == (whole.REST, 3, 5)
    assert (all_of_it.unit, all_of_it.luts, all_of_it.flip_flops, all_of_it.ultra_ram) == (whole.WHOLE, 60, 5, 4)
    assert whole.used(all_of_it, "xck26") == {
        "luts": (60, 117_120), "flip_flops": (5, 234_240), "block_ram": (2.5, 144), "ultra_ram": (4, 64),
        "dsp": (0, 1_248)}


def test_tables_say_what_fits():
    case = {f"{unit}.{kind}": k for unit in ("array", whole.WHOLE) for k, kind in enumerate(kria.KINDS, 1)}
    much = case | {f"{whole.WHOLE}.ultra_ram": 65}
    found = kria.tables({"kria.kv260": case, "kria.kv260b4": much})
    assert "| array | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 |" in found["table.kria.units"]
    *_, fits, not_ = found["table.kria"].splitlines()
    assert fits.endswith("| 1 (0%) | 3 (0%) | 8 (6%) | 7 (11%) | 8 (1%) | yes |") and not_.endswith("| no |")


def test_other_families_are_refused():
    with pytest.raises(SynthesisError, match="family 'ecp5': by unit, use one of xc7, xcup"):
        whole.by_unit(preset("lanes10"), "ecp5")


def test_the_command_prints_a_row_for_each_unit(monkeypatch, capsys):
    monkeypatch.setattr(whole, "by_unit", lambda config, family, step: whole.rows(MODULES, config.name, family))
    with pytest.raises(SystemExit) as done:
        command.main(["synth", "whole", "--preset", "kv260", "--family", "xcup", "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert not done.value.code and [(row["unit"], row["luts"]) for row in rows][-1] == ("whole", 60)


@pytest.mark.synth
@pytest.mark.rest
def test_a_small_whole():
    """Units add up to it, and its deep memories are in UltraRAM: banks and FIFO, not what is 512 words or less."""
    config = replace(preset("lanes10"), name="small", rows=1, columns=5, vector_words=1024, activation_words=64,
                     fifo_words=2048, tree_rows=0, top_k=0, credits=2, ring=16, program_words=64)
    *units, all_of_it = whole.by_unit(config)
    assert all_of_it.luts == sum(unit.luts for unit in units) and all_of_it.flip_flops > 1000
    assert {"array", "vector", "fetch", "link", "uart", whole.REST} <= {unit.unit for unit in units}
    fifo = (2 if config.pairs else 1) * blocks(16, 1024)
    assert all_of_it.ultra_ram == 3 * blocks(24, 1024) + fifo
