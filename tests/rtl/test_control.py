"""The sequencer against a model of the instruction set, and the host registers against docs/protocol.md."""

import dataclasses

import bench
import pytest
from sterna.hw.config import preset
from sterna.hw.control.registers import Registers
from sterna.hw.control.sequencer import Sequencer

pytestmark = [pytest.mark.rtl, pytest.mark.icarus]
CONFIGS = {c.name: c for c in map(preset, ("up5k", "lanes40", "lanes320"))}


def parameters(name, **others):
    """Environment of a bench: the fields of a configuration and more."""
    return {"CONFIG": repr(dataclasses.asdict(CONFIGS[name])), **others}


@pytest.mark.parametrize("name", ["up5k", "lanes40"])
@pytest.mark.parametrize("stall", [0.0, 0.5])
def test_sequencer(name, stall):
    bench.run(Sequencer(CONFIGS[name]), "bench_sequencer", f"sequencer_{name}", testcase="sequencer",
              env=parameters(name, STALL=stall))


@pytest.mark.parametrize("case", ["faults", "matvec_waits", "memory_waits"])
def test_sequencer_special(case):
    bench.run(Sequencer(CONFIGS["up5k"]), "bench_sequencer", "sequencer_up5k", testcase=case, env=parameters("up5k"))


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("case, stall", [("address_map", 0.0), ("address_map", 0.5), ("pacing", 0.0),
                                         ("reset_race", 0.0)])
def test_registers(name, case, stall):
    bench.run(Registers(CONFIGS[name]), "bench_registers", f"registers_{name}", testcase=case,
              env=parameters(name, STALL=stall))
