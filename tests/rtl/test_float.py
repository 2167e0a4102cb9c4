"""Arithmetic units of the vector engine against the golden functions."""

import bench
import pytest
from sterna.hw.vector.convert import FromInt
from sterna.hw.vector.float import Adder, Multiplier
from sterna.hw.vector.lane import Lane
from sterna.hw.vector.random import RandomUnit
from sterna.hw.vector.serial import SerialFromInt

UNITS = {"adder": Adder, "multiplier": Multiplier, "from_int": FromInt, "lane": Lane}
COMPACT = {"adder": Adder, "lane": Lane}


def run(unit, component, simulator, form=""):
    name = f"vector_{unit}{form}_{component.latency}"
    bench.run(component, "bench_float", name, simulator, testcase=unit, env={"LATENCY": component.latency})


@pytest.mark.rtl
@pytest.mark.parametrize("unit", UNITS)
def test_unit(unit, simulator):
    run(unit, UNITS[unit](), simulator)


@pytest.mark.rtl
@pytest.mark.rest
@pytest.mark.parametrize("unit", UNITS)
def test_slow_unit(unit, simulator):
    """Without the registers for speed."""
    run(unit, UNITS[unit](pipelined=False), simulator)


@pytest.mark.rtl
@pytest.mark.parametrize("unit", COMPACT)
def test_compact_unit(unit, simulator):
    run(unit, COMPACT[unit](compact=True, pipelined=False), simulator, form="_compact")


@pytest.mark.rest
@pytest.mark.rtl
def test_serial_from_int(simulator):
    bench.run(SerialFromInt(), "bench_float", "vector_serial_from_int", simulator, testcase="serial")


@pytest.mark.rtl
@pytest.mark.parametrize("lanes, rings", [(4, 2), (1, 1), (4, 1), (8, 4), (2, 2)])
def test_random(lanes, rings, simulator):
    bench.run(RandomUnit(lanes, rings=rings), "bench_float", f"vector_random{lanes}_{rings}", simulator,
              testcase="random", env={"LANES": lanes})
