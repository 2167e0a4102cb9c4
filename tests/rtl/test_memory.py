"""The memory side: fetch, arbiter, store, gearbox, router and on-chip memory."""

import bench
import pytest
from sterna.hw.memory.arbiter import Arbiter
from sterna.hw.memory.fetch import Fetch
from sterna.hw.memory.gearbox import Gearbox
from sterna.hw.memory.onchip import OnChipMemory
from sterna.hw.memory.router import Router
from sterna.hw.memory.store import Store

pytestmark = [pytest.mark.rtl, pytest.mark.icarus]
SHAPE = {"address_bits": 12, "port_bytes": 4}
ENVIRONMENT = {"ADDRESS_BITS": 12, "PORT": 4}


@pytest.mark.parametrize("depth, latency, stall", [(64, 2, 0.0), (64, 40, 0.3), (16, 90, 0.1), (256, 5, 0.5), (4, 3, 0.2)])
def test_fetch(depth, latency, stall):
    bench.run(Fetch(**SHAPE, fifo_words=depth), "bench_memory", f"fetch{depth}", testcase="fetch",
              env={"DEPTH": depth, "LATENCY": latency, "STALL": stall, **ENVIRONMENT})


@pytest.mark.parametrize("latency, stall", [(1, 0.0), (20, 0.0), (6, 0.5)])
def test_arbiter(latency, stall):
    bench.run(Arbiter(**SHAPE), "bench_memory", "arbiter", testcase="arbiter",
              env={"LATENCY": latency, "STALL": stall, **ENVIRONMENT})


def test_arbiter_depth():
    bench.run(Arbiter(**SHAPE), "bench_memory", "arbiter", testcase="arbiter_depth", env=ENVIRONMENT)


@pytest.mark.parametrize("stall", [0.0, 0.5])
def test_store(stall):
    bench.run(Store(**SHAPE), "bench_memory", "store", testcase="store", env={"STALL": stall, **ENVIRONMENT})


@pytest.mark.parametrize("port, tile", [(4, 15), (2, 5), (16, 3), (8, 20), (64, 32), (2, 1)])
@pytest.mark.parametrize("stall", [0.0, 0.5])
def test_gearbox(port, tile, stall):
    bench.run(Gearbox(port_bytes=port, tile_bytes=tile), "bench_memory", f"gearbox{port}_{tile}", testcase="gearbox",
              env={"PORT": port, "TILE": tile, "STALL": stall})


@pytest.mark.parametrize("stall", [0.0, 0.5])
def test_router(stall):
    bench.run(Router(port_bytes=4), "bench_memory", "router", testcase="router", env={"STALL": stall, **ENVIRONMENT})


@pytest.mark.parametrize("stall", [0.0, 0.5])
def test_onchip(stall):
    bench.run(OnChipMemory(address_bits=7, port_bytes=2, words=128), "bench_memory", "onchip", testcase="onchip",
              env={"DEPTH": 128, "STALL": stall, "ADDRESS_BITS": 7, "PORT": 2})


def test_refused_parameters():
    with pytest.raises(ValueError, match="fifo_words 3: at least 4"):
        Fetch(**SHAPE, fifo_words=3)
