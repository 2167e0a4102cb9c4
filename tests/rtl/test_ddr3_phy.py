"""The DDR3 memory from its requests to the pins, with models of the ECP5's cells and of the chip in time."""

import dataclasses

import bench
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect
from builds import verilog
from sterna.hw.memory.chips import DDR3_CHIPS
from sterna.hw.memory.ddr3 import phy
from sterna.hw.memory.ddr3.controller import Ddr3Controller
from sterna.hw.memory.ddr3.level import Leveller
from sterna.hw.memory.ddr3.phy import Ddr3Pads, Ddr3Phy, PhyStart

pytestmark = [pytest.mark.rtl, pytest.mark.icarus, pytest.mark.rest]
CHIP = dataclasses.replace(DDR3_CHIPS["MT41K256M16-107"], t_reset=500, t_cke=600)
CELLS, PINS, BENCH = (bench.HERE / name for name in ("ecp5_ddr_cells.v", "ddr3_chip.v", "ddr3_bench.v"))


class Flat(wiring.Component):
    """Controller, leveller, cells and their start with plain ports."""

    def __init__(self):
        self._controller = Ddr3Controller(CHIP, 156_250_000)
        pads = {("ck" if name == "clk" else name): member for name, member in Ddr3Pads(CHIP.row_bits).members.items()}
        super().__init__({
            "valid": In(1), "write_": In(1), "address": In(CHIP.address_bits), "length": In(8), "data": In(128),
            "mask": In(16), "accepted": Out(1), "data_valid": Out(1), "data_read": Out(128), "done": Out(1),
            "failed": Out(1), "good": Out(64), "delay": Out(6), "slip": Out(4), "stop": Out(1), "reset": Out(1),
            "started": Out(1), **pads})

    def elaborate(self, platform):
        m = Module()
        m.submodules.controller = controller = self._controller
        m.submodules.level = level = Leveller(CHIP.address_bits, 1)
        m.submodules.phy = cells = Ddr3Phy(CHIP.row_bits)
        m.submodules.start = start = PhyStart()
        connect(m, level.asks, controller.requests)
        connect(m, controller.words, level.given)
        connect(m, controller.dfi, cells.dfi)
        connect(m, level.trim, cells.trim)
        requests = level.requests
        m.d.comb += [
            requests.valid.eq(self.valid), self.accepted.eq(requests.ready), level.start.eq(controller.ready),
            *(getattr(requests.payload, name).eq(getattr(self, name + "_" * (name == "write")))
              for name, _ in requests.payload.shape()),
            self.data_valid.eq(level.words.valid), self.data_read.eq(level.words.payload), self.done.eq(level.done),
            self.failed.eq(level.failed), self.good.eq(level.good), self.delay.eq(level.trim.delay),
            self.slip.eq(level.trim.slip), self.stop.eq(start.stop), self.reset.eq(start.reset),
            self.started.eq(start.done), cells.ddrdel.eq(start.ddrdel), cells.pause.eq(start.pause)]
        for name, member in cells.pads.signature.members.items():
            inner, outer = getattr(cells.pads, name), getattr(self, "ck" if name == "clk" else name)
            m.d.comb += inner.eq(outer) if member.flow == In else outer.eq(inner)
        return m


def run(folder, out_ps=300, back_ps="700 900", case="levels_and_reads", cells=(), chip=()):
    """The bench, with changes of the models' texts: (before, after) each."""
    sources = {"memory.v": verilog(Flat(), "memory"), "bench.v": BENCH.read_text()}
    for name, path, changes in (("cells.v", CELLS, cells), ("chip.v", PINS, chip)):
        sources[name] = path.read_text()
        for before, after in changes:
            assert before in sources[name]
            sources[name] = sources[name].replace(before, after)
    for name, text in sources.items():
        (folder / name).write_text(text)
    bench.run(None, "bench_ddr3_phy", "ddr3_bench", "icarus", [folder / name for name in sources], testcase=case,
              env={"OUT_PS": out_ps, "BACK_PS": back_ps})


@pytest.mark.parametrize("out_ps, back_ps, latency", [(300, "700 900", 5), (1500, "2100 3300", 6)])
def test_levels_and_reads(tmp_path, out_ps, back_ps, latency):
    run(tmp_path, out_ps, back_ps, cells=[("READ_LATENCY = 5", f"READ_LATENCY = {latency}")])


def test_a_board_without_a_strobe_does_not_train(tmp_path):
    run(tmp_path, case="does_not_train",
        chip=[("strobe_high <= #(back_ps1 / 1000.0) strobes[1]", "strobe_high <= 1'bz")])


@pytest.mark.parametrize("name, value", [("WRITTEN", 5), ("GATE", 6)])
def test_other_latencies_are_found(tmp_path, monkeypatch, name, value):
    monkeypatch.setattr(phy, name, value)
    with pytest.raises(AssertionError, match="not trained|at its pins"):
        run(tmp_path)
