"""The vector engine against the model of its instruction, for several widths, with and without stalls."""

import dataclasses

import bench
import pytest
from sterna.hw.config import preset
from sterna.hw.vector.engine import VectorEngine

# V, P: memory words of half a beat, half a beat, and two beats.
SIZES = [(1, 2), (2, 8), (4, 8), (4, 32), (8, 16)]


def engine(lanes, port_bytes):
    config = dataclasses.replace(preset("lanes40"), name="vector", rows=lanes, lanes=lanes, columns=40, port_bytes=port_bytes,
                                 vector_words=160)
    return VectorEngine(config)


@pytest.mark.rtl
@pytest.mark.icarus
@pytest.mark.parametrize("lanes, port_bytes", SIZES)
@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_sequences(lanes, port_bytes, stall):
    bench.run(engine(lanes, port_bytes), "bench_vector", f"vector{lanes}_{port_bytes}", testcase="sequences",
              env={"LANES": lanes, "PORT": port_bytes, "WORDS": 160, "STALL": stall, "PARTS": 6})


@pytest.mark.rtl
@pytest.mark.icarus
@pytest.mark.parametrize("lanes, port_bytes", [(1, 2), (4, 8)])
@pytest.mark.parametrize("stall", [0.0, 0.8])
def test_chains(lanes, port_bytes, stall):
    bench.run(engine(lanes, port_bytes), "bench_vector", f"vector{lanes}_{port_bytes}", testcase="chains",
              env={"LANES": lanes, "PORT": port_bytes, "WORDS": 160, "STALL": stall, "PARTS": 1})


@pytest.mark.rtl
@pytest.mark.icarus
@pytest.mark.parametrize("case", ["reductions", "rates"])
@pytest.mark.parametrize("lanes, port_bytes", [(1, 2), (4, 8), (8, 16)])
def test_timing(lanes, port_bytes, case):
    bench.run(engine(lanes, port_bytes), "bench_vector", f"vector{lanes}_{port_bytes}", testcase=case,
              env={"LANES": lanes, "PORT": port_bytes, "WORDS": 160, "STALL": 0, "PARTS": 1})
