"""The memory port through LiteDRAM, from its crossing to the pins, and what lies between it and the native port."""

import dataclasses

import bench
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from builds import verilog
from harness import port_members, port_statements
from sterna.hw.flow.synth import run_tool, yosys
from sterna.hw.memory.chips import DDR3_CHIPS
from sterna.hw.memory.ddr3.phy import Ddr3Pads
from sterna.hw.memory.litedram import memory, native
from sterna.hw.memory.litedram.verilog import litedram_verilog

pytestmark = pytest.mark.rtl
CHIP = dataclasses.replace(DDR3_CHIPS["MT41K256M16-107"], t_reset=500, t_cke=600)
CLOCK_HZ = 100_000_000
CELLS, PINS, BENCH = (bench.HERE / name for name in ("ecp5_ddr_cells.v", "ddr3_chip.v", "litedram_bench.v"))


class Flat(wiring.Component):
    """The memory with plain ports."""

    def __init__(self):
        self._memory = memory.LitedramMemory(CHIP, CLOCK_HZ, CHIP.address_bits)
        pads = {("ck" if name == "clk" else name): member for name, member in Ddr3Pads(CHIP.row_bits).members.items()}
        super().__init__({"done": Out(1), "failed": Out(1), "good": Out(64), "stop": Out(1), "reset": Out(1),
                          "started": Out(1), **port_members(CHIP.address_bits, 16), **pads})

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = inside = self._memory
        levelled = inside.levelled
        m.d.comb += [port_statements(inside.port, self), self.done.eq(levelled.done), self.good.eq(levelled.good),
                     self.failed.eq(levelled.failed), self.stop.eq(inside.start.stop),
                     self.reset.eq(inside.start.reset), self.started.eq(inside.start.done)]
        for name, member in inside.pads.signature.members.items():
            inner, outer = getattr(inside.pads, name), getattr(self, "ck" if name == "clk" else name)
            m.d.comb += inner.eq(outer) if member.flow == In else outer.eq(inner)
        return m


def flat(folder, text):
    """Verilog text without the processes of Migen, whose assignments to wires take Icarus a hundred times as long."""
    (folder / "migen.v").write_text(text)
    script = "read_verilog {root}/migen.v; proc -noopt; opt_expr; opt_clean; write_verilog -noattr {root}/flat.v"
    done = run_tool(yosys(), folder, ("-q", "-p", script))
    assert not done.returncode, done.stderr
    return (folder / "flat.v").read_text()


def run(folder, case, out_ps=300, back_ps="700 900", latency=6, **more):
    """The bench, with ways to and from the chip in ps."""
    sources = {"memory.v": verilog(Flat(), "memory"), "bench.v": BENCH.read_text(), "chip.v": PINS.read_text(),
               "cells.v": CELLS.read_text().replace("READ_LATENCY = 5", f"READ_LATENCY = {latency}"),
               "litedram.v": flat(folder, litedram_verilog(CHIP, CLOCK_HZ))}
    for name, text in sources.items():
        (folder / name).write_text(text)
    bench.run(None, "bench_litedram_memory", "litedram_bench", "icarus", [folder / name for name in sources],
              testcase=case, env={"OUT_PS": out_ps, "BACK_PS": back_ps, **more})


def test_requests_on_a_native_port_that_stalls(simulator):
    bench.run(native.NativeAdapter(10), "bench_native", "adapter", simulator)


@pytest.mark.icarus
@pytest.mark.rest
@pytest.mark.parametrize("out_ps, back_ps", [(1000, "700 2900")])
def test_levels_and_reads(tmp_path, out_ps, back_ps):
    run(tmp_path, "levels_and_reads", out_ps, back_ps)


@pytest.mark.icarus
@pytest.mark.rest
def test_other_latencies_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "latencies", lambda clock_hz: (6, 7))
    with pytest.raises(AssertionError, match="not trained|at its pins"):
        run(tmp_path, "levels_and_reads")


@pytest.mark.icarus
@pytest.mark.rest
def test_share_of_the_peak(tmp_path):
    run(tmp_path, "share", CYCLES=2000, LEAST=0.9)
