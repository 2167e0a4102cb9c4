"""Projected energy: units of signals, arithmetic of the parts, and the tables of docs/energy.md."""

from pathlib import Path

import pytest
from sterna.hw.boards import preset
from sterna.hw.memory.chips import CHIPS
from sterna.sim.board.board import read_toggles

from docs.figures import energy
from docs.figures.energy import Range

CELLS = {"flip_flops": 1000, "block_ram": 10, "spram": 0}
ULX3S = energy.cases(Path("models"))["ulx3s"]
UP5K = energy.cases(Path("models"))["up5k"]
COUNTS = {"read": 1000, "write": 0, "activate": 10, "refresh": 5, "pins": 20_000}


@pytest.mark.parametrize("path, unit", [
    ("TOP.board.soc.accelerator.array.tree_0.sum", "array"), ("TOP.board.soc.accelerator.running", "accelerator"),
    ("TOP.board.soc.memory.controller.state", "controller"), ("TOP.board.soc.uart.x", "board"),
    ("TOP.tx_valid", "board")])
def test_units(path, unit):
    assert energy.unit_of(path) == unit


def test_toggles_file(tmp_path):
    (tmp_path / "t").write_text("12 8 TOP.a.b\n0 1 TOP.clk\n")
    assert read_toggles(tmp_path / "t") == {"TOP.a.b": 12, "TOP.clk": 0}


def test_ranges_add_and_multiply():
    a, b = Range(1, 2, 3), Range(10, 20, 30)
    assert a + b == Range(11, 22, 33) and a * 2 == Range(2, 4, 6) and a.times(b) == Range(10, 40, 90)


def test_a_run_without_events_costs_static_power_and_the_clock_only():
    found = energy.parts(UP5K, CELLS, 24_000_000, {"array": 0}, {})  # a second
    assert found["FPGA, static"].likely == pytest.approx(0.104e-3)
    assert found["FPGA, logic and wires"] == Range(0, 0, 0) and not any("SDRAM" in name for name in found)
    assert found["FPGA, clock"].likely == pytest.approx((54 + 14) * 1e-12 * 24e6)


def test_every_event_costs_what_the_page_says():
    base = energy.parts(ULX3S, CELLS, 0, {"array": 0}, dict.fromkeys(COUNTS, 0))
    assert sum(base.values(), energy.ZERO) == Range(0, 0, 0)
    found = energy.parts(ULX3S, CELLS, 0, {"array": 600, "vector": 400}, COUNTS)
    assert found["FPGA, logic and wires"].likely == pytest.approx(1000 * 0.20e-12)
    assert found["SDRAM, words"].likely == pytest.approx(1000 * 2.6e-9, rel=0.01)
    assert found["SDRAM, words"].high == pytest.approx(1000 * 4.36e-9, rel=0.01)
    assert found["SDRAM, ACTIVATE and REFRESH"].likely == pytest.approx(10 * 13.5e-9 + 5 * 32.2e-9, rel=0.01)
    assert found["pins of the SDRAM"].likely == pytest.approx(20_000 * 82e-12, rel=0.01)
    assert all(value.low <= value.likely <= value.high for value in found.values())


def test_power_in_between_is_that_of_an_open_row():
    config = preset("ulx3s-85f")
    found = energy.dram(config, dict.fromkeys(COUNTS, 0), 1.0)
    assert found["SDRAM, in between"].likely == pytest.approx(3.3 * 0.025)
    assert energy.SAMSUNG.energies(CHIPS[config.sdram])[0] == pytest.approx(13.5e-9, rel=0.01)


def test_figures_are_written_with_two_digits():
    assert [energy.digits(v) for v in (0, 1234567, 0.000123, 99.6)] == ["0", "1,200,000", "0.00012", "100"]


def test_tables():
    def values(board):
        out = {"weights": 1e6, "cycles": 1000, "tokens_per_second": 100.0, "unit.array": 5.0, "count.read": 12}
        for name in ("FPGA, static", *(["SDRAM, words"] if board else []), "total", "watts"):
            out |= {f"{name}.low": 1e-6, f"{name}.likely": 2e-6, f"{name}.high": 3e-6}
        return out

    assert energy.tables({"energy.ulx3s": values(True)}) == {}
    found = energy.tables({"energy.ulx3s": values(True), "energy.up5k": values(False)})
    assert "| SDRAM, words | 2 (1 to 3) |  |" in found["table.energy"]
    assert "0.002 (0.001 to 0.003)" in found["table.energy.others"] and "KV260" in found["table.energy.others"]
    assert found["energy.ulx3s.read.text"] == "12" and "table.toggles" in found
