"""The memory side: fetch, arbiter, store, gearbox, router and on-chip memory."""

import re

import bench
import pytest
from amaranth import Module, ResetInserter
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from sterna.hw.flow.synth import TARGETS
from sterna.hw.memory.arbiter import Arbiter
from sterna.hw.memory.fetch import DirectFetch, Fetch
from sterna.hw.memory.onchip import OnChipMemory
from sterna.hw.memory.port import burst_layout, write_layout
from sterna.hw.memory.router import Router
from sterna.hw.memory.store import Store
from sterna.hw.stream import Gearbox
from sterna.sim.board.netlist import primitives

pytestmark = pytest.mark.rtl
SHAPE = {"address_bits": 12, "port_bytes": 4}
ENVIRONMENT = {"ADDRESS_BITS": 12, "PORT": 4}


@pytest.mark.parametrize("depth, latency, stall", [(64, 40, 0.3), (64, 2, 0.0), (16, 90, 0.1), (256, 5, 0.5),
                                                   (4, 3, 0.2)])
def test_fetch(depth, latency, stall, simulator):
    fetch(depth, latency, stall, simulator)


@pytest.mark.parametrize("depth", [64, 128])
def test_fetch_of_aligned_bursts(depth, simulator):
    bench.run(Fetch(**SHAPE, fifo_words=depth, queued=4, aligned=True), "bench_memory", f"fetch{depth}_aligned",
              simulator, testcase="fetch",
              env={"DEPTH": depth, "LATENCY": 30, "STALL": 0.2, "QUEUED": 4, "ALIGNED": 1, **ENVIRONMENT})


def test_fetch_of_slots(simulator):
    fetch(64, 20, 0.2, simulator, queued=12)


def fetch(depth, latency, stall, simulator, queued=4):
    bench.run(Fetch(**SHAPE, fifo_words=depth, queued=queued), "bench_memory", f"fetch{depth}_{queued}",
              simulator, testcase="fetch",
              env={"DEPTH": depth, "LATENCY": latency, "STALL": stall, "QUEUED": queued, **ENVIRONMENT})


WALKER = {"address_bits": 12, "port_bytes": 4, "fifo_words": 64, "queued": 8, "tree_rows": 40, "record_bits": 6}


@pytest.mark.parametrize("batch, latency, delay, stall", [(4, 10, 12, 0.2), (1, 3, 5, 0.0), (2, 40, 60, 0.4),
                                                          (8, 2, 0, 0.0)])
def test_walks(batch, latency, delay, stall, simulator):
    bench.run(Fetch(**WALKER, batch=batch), "bench_walker", f"walker{batch}", simulator, testcase="walks",
              env={"BATCH": batch, "LATENCY": latency, "DELAY": delay, "STALL": stall, **ENVIRONMENT})


def test_walks_as_soon_as_signs_come(simulator):
    bench.run(Fetch(**WALKER), "bench_walker", "walker1", simulator, testcase="timing", env=ENVIRONMENT)


class Pairs(wiring.Component):
    """The fetch engine before a consumer that takes the second word with the first one whenever ``both`` is high."""

    def __init__(self, *, address_bits, port_bytes, fifo_words):
        shape = {"address_bits": address_bits, "port_bytes": port_bytes}
        self._fetch = Fetch(**shape, fifo_words=fifo_words, pairs=True)
        members = self._fetch.signature.members
        super().__init__({**{name: members[name] for name in ("command", "bursts", "arriving", "words", "idle")},
                          "second": Out(stream.Signature(8 * port_bytes)), "both": In(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.fetch = fetch = self._fetch
        for name in ("command", "bursts", "arriving", "words"):
            connect(m, flipped(getattr(self, name)), getattr(fetch, name))
        takes = self.words.valid & self.words.ready & fetch.second.valid & self.both
        m.d.comb += [fetch.second.take.eq(takes), self.second.payload.eq(fetch.second.payload),
                     self.second.valid.eq(takes), self.idle.eq(fetch.idle)]
        return m


@pytest.mark.rest
@pytest.mark.parametrize("depth, latency, stall", [(16, 30, 0.3), (64, 2, 0.0), (8, 3, 0.2)])
def test_fetch_of_pairs(depth, latency, stall, simulator):
    bench.run(Pairs(**SHAPE, fifo_words=depth), "bench_memory", f"fetch_pairs{depth}", simulator, testcase="pairs",
              env={"DEPTH": depth, "LATENCY": latency, "STALL": stall, **ENVIRONMENT})


@pytest.mark.parametrize("latency, stall", [(6, 0.5), (1, 0.0), (20, 0.0)])
def test_arbiter(latency, stall, simulator):
    bench.run(Arbiter(**SHAPE), "bench_memory", "arbiter", simulator, testcase="arbiter",
              env={"LATENCY": latency, "STALL": stall, **ENVIRONMENT})


def test_arbiter_depth(simulator):
    bench.run(Arbiter(**SHAPE), "bench_memory", "arbiter", simulator, testcase="arbiter_depth",
              env=ENVIRONMENT)


@pytest.mark.parametrize("stall", [0.5, 0.0])
def test_store(stall, simulator):
    bench.run(Store(**SHAPE), "bench_memory", "store", simulator, testcase="store",
              env={"STALL": stall, **ENVIRONMENT})


@pytest.mark.parametrize("port, tile", [(4, 15), (2, 5), (16, 3), (8, 12), (64, 32), (2, 1), (2, 3), (8, 10)])
@pytest.mark.parametrize("stall", [0.5, 0.0])
def test_gearbox(port, tile, stall, simulator):
    bench.run(Gearbox(port_bytes=port, tile_bytes=tile), "bench_memory", f"gearbox{port}_{tile}", simulator,
              testcase="gearbox", env={"PORT": port, "TILE": tile, "STALL": stall})


@pytest.mark.parametrize("port, tile", [(8, 12), (4, 3), (2, 3), (16, 3), (8, 10), (4, 15)])
@pytest.mark.parametrize("stall", [0.0, 0.5])
def test_gearbox_of_records(port, tile, stall, simulator):
    bench.run(Gearbox(port_bytes=port, tile_bytes=tile, records=True), "bench_memory",
              f"gearbox_records{port}_{tile}", simulator, testcase="gearbox",
              env={"PORT": port, "TILE": tile, "STALL": stall})


@pytest.mark.parametrize("sections", [2, 8])
@pytest.mark.parametrize("stall", [0.5, 0.0])
def test_router(stall, sections, simulator):
    bench.run(Router(port_bytes=4, sections=sections), "bench_memory", f"router{sections}", simulator,
              testcase="router", env={"STALL": stall, **ENVIRONMENT})


@pytest.mark.parametrize("stall", [0.7, 0.3, 0.0])
def test_fetch_direct(stall, simulator):
    bench.run(DirectFetch(address_bits=16, port_bytes=2), "bench_memory", "fetch_direct", simulator,
              testcase="fetch_direct", env={"STALL": stall, "ADDRESS_BITS": 16, "PORT": 2})


@pytest.mark.parametrize("stall", [0.5, 0.0])
def test_onchip(stall, simulator):
    bench.run(OnChipMemory(address_bits=7, port_bytes=2, words=128), "bench_memory", "onchip", simulator,
              testcase="onchip", env={"DEPTH": 128, "STALL": stall, "ADDRESS_BITS": 7, "PORT": 2})


def test_blocks_of_spram(tmp_path):
    """As an iCE40UP5K has them: four, behind the decoded address."""
    model = tmp_path / "spram.v"  # alone: the others of that file want modules that are not here
    model.write_text(re.search(r"(?ms)^module SB_SPRAM256KA.*?^endmodule\n", primitives("ice40"))[0])
    bench.run(OnChipMemory(address_bits=16, port_bytes=2, words=1 << 16), "bench_memory", "spram", "verilator",
              testcase="blocks", sources=[model], platform=TARGETS["ice40"], env={"ADDRESS_BITS": 16, "PORT": 2})


class OnChipPath(wiring.Component):
    """Fetch engine, with the reset of the engines, and on-chip memory, wired as in the accelerator."""

    def __init__(self, *, address_bits, port_bytes):
        self._shape = {"address_bits": address_bits, "port_bytes": port_bytes}
        word, write = stream.Signature(8 * port_bytes), stream.Signature(write_layout(address_bits, port_bytes))
        super().__init__({
            "command": In(stream.Signature(data.StructLayout({"address": address_bits, "words": 24}))),
            "words": Out(word), "store": In(write), "host_write": In(write), "host_words": Out(word),
            "host_bursts": In(stream.Signature(burst_layout(address_bits))), "reset": In(1), "quiet": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.fetch = fetch = ResetInserter(self.reset)(DirectFetch(**self._shape))
        m.submodules.memory = memory = OnChipMemory(**self._shape, words=1 << self._shape["address_bits"])
        connect(m, flipped(self.command), fetch.command)
        connect(m, fetch.reads, memory.fetch_reads)
        connect(m, memory.fetch_words, fetch.arriving)
        connect(m, fetch.words, flipped(self.words))
        connect(m, memory.host_words, flipped(self.host_words))
        for name in ("store", "host_write", "host_bursts"):
            connect(m, flipped(getattr(self, name)), getattr(memory, name))
        m.d.comb += self.quiet.eq(memory.quiet)
        return m


@pytest.mark.parametrize("stall", [0.2, 0.6])
def test_onchip_path(stall, simulator):
    bench.run(OnChipPath(address_bits=9, port_bytes=2), "bench_memory", "onchip_path", simulator,
              testcase="onchip_path", env={"STALL": stall, "ADDRESS_BITS": 9, "PORT": 2})


def test_refused_parameters():
    with pytest.raises(ValueError, match="fifo_words 3: at least 4"):
        Fetch(**SHAPE, fifo_words=3)
    with pytest.raises(ValueError, match="fifo_words 9: must be even to give pairs of words"):
        Fetch(**SHAPE, fifo_words=9, pairs=True)
