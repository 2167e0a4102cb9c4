"""The vector engine against the model of its instruction, for several widths, with and without stalls."""

import dataclasses

import bench
import pytest
from sterna.hw.boards import preset
from sterna.hw.vector.engine import VectorEngine
from sterna.hw.vector.stages import Stages

pytestmark = pytest.mark.rtl

# V, P: memory words of half a beat, half a beat, and two beats; each with stalls or without.
SIZES = [(1, 2, 0.4), (2, 8, 0.0), (4, 8, 0.4), (4, 32, 0.0), (8, 16, 0.4)]
WORDS = 160


def run(case, lanes, port_bytes, stall, simulator, parts=1, compact=False, batch=1, top_k=0):
    """Runs one case of the bench; ``compact``: with the units of the preset up5k."""
    config = dataclasses.replace(preset("lanes40"), name="vector", rows=1, lanes=lanes, columns=5 * lanes, strip=64,
                                 port_bytes=port_bytes, vector_words=WORDS, activation_words=256, batch=batch,
                                 top_k=top_k)
    if compact:
        config = dataclasses.replace(config, columns=10, activation_words=16, clock_hz=24_000_000, tree_rows=0)
    assert config.compact == compact
    stages = Stages.of(config)
    name = f"vector{lanes}_{port_bytes}{'c' * compact}_{batch}{'k' * (top_k > 0)}"
    bench.run(VectorEngine(config), "bench_vector", name, simulator, testcase=case,
              env={"LANES": lanes, "PORT": port_bytes, "WORDS": WORDS, "STALL": stall, "PARTS": parts,
                   "ROW_BITS": 16 if compact else 24, "BATCH": batch, "TOP_K": top_k, "STRIP": config.strip,
                   "PULL": stages.pull, "WAIT": stages.write + 4 + stages.registered})


@pytest.mark.parametrize("lanes, port_bytes, stall", SIZES)
def test_sequences(lanes, port_bytes, stall, simulator):
    run("sequences", lanes, port_bytes, stall, parts=3, simulator=simulator)


@pytest.mark.parametrize("batch, stall", [(1, 0.4), (1, 0.0), (2, 0.4)])
def test_compact_sequences(batch, stall, simulator):
    run("sequences", 1, 2, stall, parts=4, compact=True, batch=batch, simulator=simulator)


@pytest.mark.rest
@pytest.mark.parametrize("lanes, port_bytes, batch, stall",
                         [(1, 2, 2, 0.4), (2, 8, 2, 0.0), (4, 8, 2, 0.4), (2, 4, 4, 0.4)])
def test_slots(lanes, port_bytes, batch, stall, simulator):
    """With other contents in each slot: operations for all and for one, with C of the slot before, sampling."""
    run("sequences", lanes, port_bytes, stall, parts=2, batch=batch, simulator=simulator)


@pytest.mark.rest
@pytest.mark.parametrize("case", ["reductions", "rates", "ties", "chains"])
def test_slots_keep_time(case, simulator):
    run(case, 2, 4, 0.0, batch=2, simulator=simulator)


@pytest.mark.rest
@pytest.mark.parametrize("lanes, port_bytes, stall", [(1, 2, 0.4), (4, 8, 0.0)])
def test_host_writes_while_slots_run(lanes, port_bytes, stall, simulator):
    run("host_writes", lanes, port_bytes, stall, batch=2, simulator=simulator)


@pytest.mark.parametrize("lanes, port_bytes, compact, stall", [
    (1, 2, False, 0.8), (1, 2, True, 0.8), (1, 2, True, 0.0), (4, 8, False, 0.0)])
def test_chains(lanes, port_bytes, compact, stall, simulator):
    run("chains", lanes, port_bytes, stall, compact=compact, simulator=simulator)


@pytest.mark.parametrize("case", ["reductions", "rates"])
@pytest.mark.parametrize("lanes, port_bytes", [(1, 2), (8, 16)])
def test_timing(lanes, port_bytes, case, simulator):
    run(case, lanes, port_bytes, 0.0, simulator=simulator)


# Sums that come back through the banks, with 8 lanes, and from the adder; and how soon.
@pytest.mark.rest
@pytest.mark.parametrize("simulator, lanes, port_bytes, batch, case", [
    *(("verilator", *size, case) for size in ((8, 16, 1), (16, 16, 2), (32, 32, 1)) for case in ("sums", "turns")),
    pytest.param("icarus", 16, 16, 1, "sums", marks=pytest.mark.icarus)])
def test_partial_sums(simulator, lanes, port_bytes, batch, case):
    run(case, lanes, port_bytes, 0.4, parts=1 if simulator == "icarus" else 2, batch=batch, simulator=simulator)


# What is wide takes Icarus long, and Verilator long to build: the simulated board with 32 lanes is test_soc_large's.
@pytest.mark.rest
@pytest.mark.parametrize("simulator, lanes, port_bytes, case", [
    pytest.param("icarus", 16, 64, "reductions", marks=pytest.mark.icarus),
    pytest.param("icarus", 32, 128, "ties", marks=pytest.mark.icarus)])
def test_wide(simulator, lanes, port_bytes, case):
    run(case, lanes, port_bytes, 0.3, simulator=simulator)


@pytest.mark.parametrize("lanes, port_bytes, compact", [(1, 2, False), (1, 2, True), (4, 8, False)])
def test_ties(lanes, port_bytes, compact, simulator):
    run("ties", lanes, port_bytes, 0.0, compact=compact, simulator=simulator)


@pytest.mark.parametrize("lanes, port_bytes, batch, stall", [(1, 2, 1, 0.4), (4, 8, 2, 0.0)])
def test_lists(lanes, port_bytes, batch, stall, simulator):
    run("lists", lanes, port_bytes, stall, parts=4, batch=batch, top_k=5, simulator=simulator)
