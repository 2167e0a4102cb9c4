"""Memories in UltraRAM do what those in block RAM do: alone, as the FIFO of the fetch engine, as the vector engine's
banks, with a model of the block.
"""

import gc
import warnings
from pathlib import Path

import bench
import pytest
import test_memory
import test_vector
from amaranth.hdl import UnusedElaboratable
from sterna.hw.flow.synth import TARGETS
from sterna.hw.memory import ultra
from sterna.hw.memory.ultra import UltraQueue, UltraRam, blocks, in_ultra

pytestmark = pytest.mark.rtl
CELLS = Path(__file__).with_name("ultra_cells.v")


@pytest.fixture
def everywhere(monkeypatch):
    """Memories of any depth go into UltraRAM, and benches build for a part that has some."""
    monkeypatch.setattr(ultra, "LEAST_WORDS", 1)
    run = bench.run
    monkeypatch.setattr(bench, "run", lambda component, module, name, simulator, **options: run(
        component, module, f"{name}_ultra", simulator, sources=[CELLS], platform=TARGETS["xcup"], **options))


@pytest.mark.parametrize("width, depth, target", [(100, 5000, "xcup"), (20, 700, "xcup"), (100, 700, None)])
def test_words(width, depth, target, simulator):
    """Two rows of two blocks; a part of a block; and what stands in their place elsewhere."""
    bench.run(UltraRam(width=width, depth=depth), "bench_ultra", f"ultra{width}_{depth}_{target}", simulator,
              sources=[CELLS] if target else [], platform=TARGETS.get(target), env={"WIDTH": width, "DEPTH": depth})


@pytest.mark.rest
@pytest.mark.parametrize("depth, latency, stall", [(64, 40, 0.3), (16, 90, 0.1)])
def test_fetch(depth, latency, stall, simulator, everywhere):
    test_memory.fetch(depth, latency, stall, simulator)


@pytest.mark.rest
def test_fetch_of_pairs(simulator, everywhere):
    test_memory.test_fetch_of_pairs(16, 30, 0.3, simulator)


@pytest.mark.parametrize("case, lanes, port_bytes, batch, stall", [
    ("stores", 2, 4, 2, 0.4), ("sequences", 2, 4, 2, 0.4)])
@pytest.mark.rest
def test_vector_engine(case, lanes, port_bytes, batch, stall, simulator, everywhere):
    """With a store that takes no word in many cycles: then the engine stands still, banks included."""
    test_vector.run(case, lanes, port_bytes, stall, parts=2, batch=batch, simulator=simulator)


def test_which_memories():
    assert in_ultra(TARGETS["xcup"], 513) and not in_ultra(TARGETS["xcup"], 512)
    assert not any(in_ultra(TARGETS.get(family), 4096) for family in ("xc7", "ecp5", "ice40", None))
    assert [blocks(*size) for size in ((72, 4096), (73, 4096), (192, 8192), (512, 1023))] == [1, 2, 6, 8]


def test_refused_parameters():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnusedElaboratable)
        for build, message in ((lambda: UltraRam(width=8, depth=0), "depth 0: at least 1"),
                               (lambda: UltraQueue(width=8, depth=2), "depth 2: at least 3")):
            with pytest.raises(ValueError, match=message):
                build()
        gc.collect()
