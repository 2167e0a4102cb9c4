"""Arithmetic units of the vector engine against the golden functions."""

import bench
import pytest
from sterna.hw.vector.float import Adder, FromInt, Multiplier
from sterna.hw.vector.lane import Lane
from sterna.hw.vector.random import RandomUnit

SIMULATORS = [pytest.param("icarus", marks=pytest.mark.icarus), "verilator"]
UNITS = {"adder": Adder, "multiplier": Multiplier, "from_int": FromInt, "lane": Lane}


@pytest.mark.rtl
@pytest.mark.parametrize("simulator", SIMULATORS)
@pytest.mark.parametrize("unit", UNITS)
def test_unit(unit, simulator):
    bench.run(UNITS[unit](), "bench_float", f"vector_{unit}", simulator, testcase=unit)


@pytest.mark.rtl
@pytest.mark.icarus
@pytest.mark.parametrize("lanes", [1, 4])
def test_random(lanes):
    bench.run(RandomUnit(lanes), "bench_float", f"vector_random{lanes}", testcase="random", env={"LANES": lanes})
