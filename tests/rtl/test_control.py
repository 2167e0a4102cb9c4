"""The sequencer against a model of the instruction set, and the host registers against docs/protocol.md."""

import dataclasses

import bench
import pytest
from sterna.hw.boards import preset
from sterna.hw.control.registers import Registers
from sterna.hw.control.sequencer import Sequencer

pytestmark = pytest.mark.rtl
CONFIGS = {c.name: c for c in map(preset, ("up5k", "lanes40", "lanes320", "lanes40,batch=2",
                                             "lanes10,batch=8", "lanes160,batch=4,top_k=16",
                                             "lanes10,tree_rows=0", "lanes40,batch=2,tree_rows=0"))}
BATCHES = [name for name, config in CONFIGS.items() if config.batch > 1]


def parameters(name, **others):
    """Environment of a bench: the fields of a configuration and more."""
    return {"CONFIG": repr(dataclasses.asdict(CONFIGS[name])), **others}


def top(unit, name):
    """Name of a bench's top module."""
    config = CONFIGS[name]
    return f"{unit}_{name.partition(',')[0]}_{config.batch}{'' if config.tree_rows else '_no_trees'}"


def test_sequencer_with_walks(simulator):
    test_sequencer("lanes40", 0.3, simulator)


@pytest.mark.parametrize("name", ["up5k", "lanes40", "lanes10,tree_rows=0", *BATCHES])
@pytest.mark.parametrize("stall", [0.5, 0.0])
def test_sequencer(name, stall, simulator):
    bench.run(Sequencer(CONFIGS[name]), "bench_sequencer", top("sequencer", name), simulator, testcase="sequencer",
              env=parameters(name, STALL=stall))


@pytest.mark.parametrize("name, case", [("up5k", "faults"), ("up5k", "matvec_waits"), ("up5k", "memory_waits"),
                                        ("lanes40,batch=2", "faults"), ("lanes10,tree_rows=0", "faults"),
                                        ("lanes40,batch=2,tree_rows=0", "faults")])
def test_sequencer_special(name, case, simulator):
    bench.run(Sequencer(CONFIGS[name]), "bench_sequencer", top("sequencer", name), simulator, testcase=case,
              env=parameters(name))


@pytest.mark.parametrize("name, case, stall", [
    (name, case, stall) for name, config in CONFIGS.items()
    for case, stall in (("address_map", 0.5), ("address_map", 0.0), ("pacing", 0.0), ("reset_race", 0.0))
    if config.batch == 1 or case == "address_map"])
def test_registers(name, case, stall, simulator):
    bench.run(Registers(CONFIGS[name]), "bench_registers", top("registers", name), simulator, testcase=case,
              env=parameters(name, STALL=stall))


@pytest.mark.rest
@pytest.mark.parametrize("gibibytes", [6, 16])
def test_memory_behind_4_gib(gibibytes, simulator):
    config = preset(f"lanes40,memory_bytes={gibibytes << 30}")
    bench.run(Registers(config), "bench_registers", f"registers_{gibibytes}g", simulator, testcase="address_map",
              env={"CONFIG": repr(dataclasses.asdict(config)), "STALL": 0.3})


@pytest.mark.parametrize("name, case, stall", [
    *((name, case, 0.3) for name in BATCHES for case in ("independent", "chained")),
    ("lanes40,batch=2", "chained", 0.0)])
def test_slots(name, case, stall, simulator):
    bench.run(Registers(CONFIGS[name]), "bench_slots", top("registers", name), simulator, testcase=case,
              env=parameters(name, STALL=stall))


@pytest.mark.rest
def test_scalar_waits(simulator):
    name = "lanes40,batch=2"
    bench.run(Registers(CONFIGS[name]), "bench_slots", top("registers", name), simulator, testcase="scalar_waits",
              env=parameters(name))
