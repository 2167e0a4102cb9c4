"""The array's side of trees: walks, gathers and matrices in one stream against the layer's definition."""

import dataclasses

import bench
import pytest
from sterna.hw.boards import preset
from sterna.hw.config import Config
from sterna.hw.flow.synth import TARGETS
from test_array import CARRY_CELLS, Fed, parameters, top

SMALL = Config(name="small", rows=3, columns=10, lanes=2, port_bytes=4, memory_bytes=1 << 16, vector_words=128,
               activation_words=24, strip=18, row_words=24, fifo_words=64, tree_rows=16, clock_hz=80_000_000)


def small(name, **changes):
    """A configuration beside SMALL."""
    return dataclasses.replace(SMALL, name=name, **changes)


ONE = {"rows": 1, "columns": 5, "lanes": 1, "activation_words": 16, "row_words": 24, "strip": 18, "tree_rows": 60}
SMALLS = (
    small("small,batch=2", batch=2),
    small("one", **ONE, port_bytes=2),
    small("one,batch=4", **ONE, port_bytes=2, batch=4),
    small("eight,batch=8", **ONE, port_bytes=2, batch=8),
    small("slow", clock_hz=24_000_000, port_bytes=8),
    small("slow,batch=2", clock_hz=24_000_000, batch=2),
    small("bit2", weight_code="bit2", port_bytes=8),
    small("two", rows=2, columns=5, lanes=1, port_bytes=2),  # a word is a tile
    small("five,batch=2", rows=5, columns=10, lanes=1, strip=20, row_words=40, port_bytes=16, batch=2,
          vector_words=512),
    small("visits", tree_rows=3),
)
PRESETS = [preset(name) for name in ("lanes40", "lanes320")]  # the boards of the others: test_soc_trees
WIDE = small("wide", rows=4, columns=40, lanes=8, strip=32, port_bytes=16, row_words=16)
SLOTS = [dataclasses.replace(preset("lanes40"), name="lanes40,batch=2", batch=2),
         dataclasses.replace(preset("lanes10"), name="lanes10,batch=4", batch=4)]
CONFIGS = {c.name: c for c in (*SMALLS, WIDE, *PRESETS, *SLOTS)}


def icarus(*names):
    """Parameters for the simulator that is slow with what is large, of all small configurations if none is named."""
    return [pytest.param(name, "icarus", marks=pytest.mark.icarus) for name in names or (c.name for c in SMALLS)]


def verilator(*configs):
    """Parameters for the simulator that takes long to build."""
    return [pytest.param(c.name, "verilator", marks=pytest.mark.rest) for c in configs]


def run(name, simulator, testcase=None, **env):
    config = CONFIGS[name]
    bench.run(Fed(config), "bench_trees", top("fed", name), simulator, testcase=testcase,
              env={**env, **parameters(config)})


@pytest.mark.rtl
def test_everything():
    run("small,batch=2", "verilator", STALL=0.4)


@pytest.mark.rtl
@pytest.mark.parametrize("name, simulator", [*icarus(), *verilator(WIDE, *PRESETS, *SLOTS)])
def test_queued(name, simulator):
    run(name, simulator, "queued", STALL=0.4)


@pytest.mark.rtl
@pytest.mark.parametrize("name, simulator", icarus("small,batch=2", "one", "slow"))
def test_queued_without_stalls(name, simulator):
    run(name, simulator, "queued", STALL=0.0)


@pytest.mark.rtl
@pytest.mark.parametrize("name, simulator", [
    *icarus("small,batch=2", "slow", "bit2", "five,batch=2"), *verilator(*PRESETS[:1])])
def test_largest_sums(name, simulator):
    run(name, simulator, "largest")


@pytest.mark.rtl
@pytest.mark.parametrize("case", ["rate", "stopped", "short_records"])
@pytest.mark.parametrize("name, simulator", icarus("small,batch=2", "one", "slow", "two", "five,batch=2"))
def test_records(name, simulator, case):
    run(name, simulator, case)


@pytest.mark.rtl
@pytest.mark.icarus
@pytest.mark.parametrize("name", ["small,batch=2", "two"])
def test_queued_in_a_fabric(name):
    config = CONFIGS[name]
    bench.run(Fed(config), "bench_trees", top("fed", "ecp5", name), "icarus", [CARRY_CELLS], "queued",
              {"STALL": 0.3, "ROUNDS": 2, **parameters(config)}, platform=TARGETS["ecp5"])
