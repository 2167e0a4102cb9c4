"""The DRAM model behind AXI ports, alone: what a linear stream gets in each setting, and what it refuses."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from harness import program
from sterna.sim.board import compile as board
from sterna.sim.board.dram import LINEAR, SETTINGS

pytestmark = pytest.mark.rtl
HARNESS = Path(__file__).with_name("dram_harness.cpp")
# GB/s of a linear stream: 16 GB/s less refresh; what the ports take; what was measured on a board.


def stream(dram, megabytes=4, fault=""):
    """GB/s (float) of a linear stream, or the text of the error."""
    path = program(HARNESS, [board.HERE / name for name in ("dram.hpp", "memory.hpp", "status.hpp")])
    done = subprocess.run([path, dram.option(), str(megabytes), fault], capture_output=True, text=True)
    if done.returncode:
        return done.stderr.strip()
    count, time = map(int, done.stdout.split())
    return count / time * 1000


@pytest.mark.parametrize("name", LINEAR)
def test_a_linear_stream(name):
    assert set(LINEAR) == set(SETTINGS)
    assert stream(SETTINGS[name]) == pytest.approx(LINEAR[name], rel=2e-3)


def test_what_time_is_lost_by():
    ideal = SETTINGS["ideal"]
    assert stream(replace(ideal, refi=0)) == pytest.approx(16, rel=2e-3)
    assert stream(replace(ideal, depth=2)) < 9  # two blocks a port do not cover the latency
    assert stream(replace(ideal, refi=0, path=900_000)) < 12


@pytest.mark.parametrize("fault, match", [
    ("boundary", "AR: a burst over a boundary of 4 KB"), ("burst", "ARBURST is not INCR"), ("size", "ARSIZE is not"),
    ("beyond", "beyond the memory"), ("held", "AR changed before ARREADY"), ("unasked", "before its address"),
    ("last", "WLAST is not with the last beat"), ("read", "a write to what is being read"),
    ("order", "a read of what a write without response goes to")])
def test_a_violation_is_told(fault, match):
    assert match in stream(SETTINGS["ideal"], 1, fault)
