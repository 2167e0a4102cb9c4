"""Boards, their configurations and clocks, and what goes wrong on the way to a bitstream."""

import dataclasses
import json
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Elaboratable, Module
from amaranth.lib.fifo import AsyncFIFO, SyncFIFOBuffered
from sterna.hw import __main__ as command
from sterna.hw import boards as package
from sterna.hw.boards import BOARDS, find_board, preset
from sterna.hw.boards.board import Board
from sterna.hw.boards.ecp5 import VCO_HZ, NoPll, chip_phase, pll_settings
from sterna.hw.config import ConfigError
from sterna.hw.flow import bitstream as flow
from sterna.hw.flow.bitstream import Clock, Routed
from sterna.hw.flow.units import SynthesisError
from sterna.hw.memory.chips import CHIPS, DDR3_CHIPS
from sterna.sim.golden.extras import install_hint

ULX3S = BOARDS["ulx3s-85f"]
MADE_HERE = Board(config=dataclasses.replace(ULX3S.config, name="mine"), platform=ULX3S.platform, top=ULX3S.top,
                  programmer=ULX3S.programmer)


def test_boards_are_files_of_at_most_80_lines():
    folder = Path(package.__file__).parent
    files = {board: sys.modules[board].__file__ for board in sys.modules if board.startswith("sterna.hw.boards.")
             and hasattr(sys.modules[board], "BOARDS")}
    assert len(files) >= 2 and all(Path(path).parent == folder for path in files.values())
    assert all(len(Path(path).read_text().splitlines()) <= 80 for path in files.values())


@pytest.mark.parametrize("name", BOARDS)
def test_a_board_names_a_platform_with_its_clock(name):
    board = BOARDS[name]
    platform = package.load(board.platform)()
    assert preset(name) == board.config and find_board(name) is board
    assert preset(f"{name},top_k=0").top_k == 0
    if board.config.sdram:
        divider, feedback, outputs = pll_settings(platform.default_clk_frequency, board.config.memory_hz,
                                                  board.config.clock_hz)
        vco = platform.default_clk_frequency / divider * feedback * outputs[0]
        assert VCO_HZ[0] <= vco <= VCO_HZ[1]
        for hz, output in zip((board.config.memory_hz, board.config.clock_hz), outputs, strict=True):
            assert vco / output == pytest.approx(hz, rel=1e-6)


def test_the_clocks_of_ddr3_come_from_one_pll():
    """The chip's, twice the controller's, and the accelerator's; the chip's is in the range of its latency."""
    config = BOARDS["ecpix5-85"].config
    divider, feedback, (fast, sync) = pll_settings(100e6, 2 * config.memory_hz, config.clock_hz)
    vco = 100e6 / divider * feedback * fast
    assert (vco / fast, vco / sync) == pytest.approx((312.5e6, 78.125e6))
    least, most = DDR3_CHIPS[config.ddr3].controller_hz
    assert least <= config.memory_hz <= most and config.delivered_bytes == config.port_bytes


def test_importing_boards_needs_no_amaranth():
    code = ("import sys; import sterna.hw.boards; "
            "sys.exit('amaranth' in sys.modules or 'amaranth_boards' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_clocks_that_no_pll_makes():
    with pytest.raises(NoPll, match=r"no PLL setting makes 125, 80.1 MHz of 25 MHz: use clocks that divide"):
        pll_settings(25e6, 125e6, 80.1e6)


@pytest.mark.parametrize("memory_hz", [50e6, 62.5e6, 80e6, 100e6, 125e6, 133e6])
def test_the_chips_clock_leaves_margins(memory_hz):
    """Data are at the input register before it takes them and stay until it has, with pads and board of 3 to 5 ns."""
    chip, steps, period = CHIPS["AS4C16M16SA-7"], 8, 1e9 / memory_hz
    phase = chip_phase(chip, memory_hz, steps) / steps * period
    access = chip.t_ac2 if chip.cas_latency(memory_hz) == 2 else chip.t_ac3
    for delay in (3, 5):
        # The chip's edge behind which the data come, and the controller's edge that takes them, 2 periods later.
        assert phase - period + access + delay < period, "too late"
        assert phase + chip.t_oh + delay > period, "gone too early"
    assert 0.25 * period <= phase <= 0.75 * period


@pytest.mark.parametrize("name, message", [
    ("ulx3s", "unknown board 'ulx3s': use one of ulx3s-85f, "), ("os:path", "unknown board 'os:path'"),
    ("no.such:thing", "'no.such:thing' cannot be loaded: No module named 'no'; use module:name"),
    ("test_boards:NOTHING", "use module:name")])
def test_unknown_boards(name, message):
    with pytest.raises(ConfigError, match=message):
        find_board(name)


def test_a_board_of_ones_own(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    assert find_board("test_boards:MADE_HERE").name == "mine"


@pytest.mark.parametrize("changes, message", [
    ({"sdram": "AS4C"}, "sdram 'AS4C': use one of AS4C16M16SA-7, "),
    ({"memory_bytes": 64 << 20}, "memory_bytes 67108864: AS4C16M16SA-7 has 33554432"),
    ({"memory_hz": 0}, "memory_hz 0: use the clock of the chip"),
    ({"memory_hz": 200_000_000}, "memory_hz 200000000: .* the port takes 4 at 83333333 Hz"),
    ({"sdram": ""}, "memory_hz 125000000: needs sdram"),
    ({"memory": "onchip", "sdram": "AS4C16M16SA-7", "tree_rows": 0}, "needs external memory")])
def test_configurations_that_do_not_fit_the_chip(changes, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(ULX3S.config, **changes)


class FakeBuild:
    """A build whose clock gets faster with the seed."""

    def __init__(self, board, folder=None, tell=None):
        self.board, self.bitstream, self.kept = board, Path("a.bit"), None

    def synthesise(self):
        return 1.0

    def route(self, seed):
        return Routed(self.board.name, seed, {"luts": 10}, {"luts": 100},
                      {"sync": Clock(80e6, (76 + seed) * 1e6)}, 1.0)

    def keep(self, routed):
        FakeBuild.kept = routed.seed


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        command.main(list(arguments))
    return ended.value.code


def test_the_first_seed_that_meets_its_clock_is_kept(monkeypatch, capsys):
    monkeypatch.setattr(flow, "Build", FakeBuild)
    assert run("bitstream", "ulx3s-85f", "--seeds", "1,2,5,6") == 0
    out, err = capsys.readouterr()
    assert FakeBuild.kept == 5 and out == "a.bit\n"
    assert "ulx3s-85f: sync 81.0 MHz of 80.0 MHz (nextpnr's model)" in err


@pytest.mark.parametrize("arguments, message", [
    (("bitstream", "ulx3s-85f", "--seeds", "1,3"), "error: ulx3s-85f: the clock 'sync' meets 79.0 of 80.0 MHz with "
                                                   "the best of the seeds 1, 3: try others with --seeds"),
    (("bitstream", "ulx3s-85f", "--seeds", "1,x"), "error: --seeds '1,x': use numbers with commas"),
    (("bitstream", "ulx4s"), "error: unknown board 'ulx4s': use one of"),
    (("program", "ulx3s-12f", "--model", "a"), "error: ulx3s-12f: loads no model from its flash: "
                                               "send it with sterna upload"),
    (("program", "icebreaker", "--model", "no.flash"), "error: --model no.flash: no such file: "
                                                       "make it with sterna flash"),
    (("program", "ulx3s-12f"), "error: ulx3s-12f: no bitstream yet: run make bitstream BOARD=ulx3s-12f")])
def test_errors_are_one_line(arguments, message, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(flow, "Build", FakeBuild)
    monkeypatch.setattr(flow, "board_folder", lambda board: tmp_path / board.name)
    assert run(*arguments) == 1
    err = capsys.readouterr().err
    assert err.startswith(message) and err.count("\n") == 1


def test_only_reads_with_the_clock_of_the_writes_may_return_anything():
    """Of a FIFO between two clocks yosys takes no such promise."""
    class Both(Elaboratable):
        def elaborate(self, platform):
            m = Module()
            m.submodules.same = same = SyncFIFOBuffered(width=8, depth=64)
            m.submodules.other = other = AsyncFIFO(width=8, depth=64, r_domain="sync", w_domain="memory")
            m.d.comb += [same.w_en.eq(1), same.r_en.eq(1), other.w_en.eq(1), other.r_en.eq(1)]
            return m
    text = flow.without_collisions(rtlil.convert(Both(), ports=[]))
    masks = {module.split()[1]: re.findall(r"COLLISION_X_MASK 1'(\d)", module)
             for module in re.split(r"(?m)^(?=module )", text) if "memrd" in module}
    assert len(masks) == 2 and all(mask == (["0"] if "other" in name else ["1"])
                                   for name, mask in masks.items()), masks


def test_a_missing_tool_is_named(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert run("bitstream", "ulx3s-85f") == 1
    assert capsys.readouterr().err == f"error: nextpnr-ecp5 was not found: run {install_hint('boards')}\n"


def test_a_board_without_its_litedram(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "litedram", None)
    monkeypatch.delitem(sys.modules, "litedram.common", raising=False)
    build = object.__new__(flow.Build)
    build.board, build.folder, build.tell = BOARDS["ecpix5-85-litedram"], tmp_path / "build", lambda text: None
    build._platform = package.load(build.board.platform)()
    with pytest.raises(SynthesisError, match=f"ecpix5-85-litedram: LiteDRAM is not there: .*: "
                                             f"{re.escape(install_hint('boards'))} brings it"):
        build.synthesise()


def test_what_is_programmed(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(command, "find_tool", lambda name, extra: name)
    monkeypatch.setattr(command.subprocess, "run",
                        lambda arguments: calls.append(arguments) or types.SimpleNamespace(returncode=0))
    monkeypatch.setattr(flow, "built", lambda board: tmp_path / "a.bit")
    (tmp_path / "m.flash").write_bytes(b"x")
    assert run("program", "ulx3s-85f", "--flash") == 0
    assert run("program", "icebreaker", "--model", str(tmp_path / "m.flash")) == 0
    assert calls == [
        ["openFPGALoader", "--board", "ulx3s", "--write-flash", str(tmp_path / "a.bit")],
        ["openFPGALoader", "--board", "ice40_generic", "--write-flash", "--offset", "1048576",
         str(tmp_path / "m.flash")]]


def test_a_bitstream_of_another_configuration_is_not_loaded(monkeypatch, tmp_path):
    monkeypatch.setattr(flow, "board_folder", lambda board: tmp_path / board.name)
    (tmp_path / "ulx3s-85f").mkdir()
    (tmp_path / "ulx3s-85f" / "build.json").write_text(
        json.dumps({"build": ULX3S.config.digest[:8], "file": "a.bit"}))
    assert flow.built(ULX3S) == tmp_path / "ulx3s-85f" / "a.bit"
    (tmp_path / "ulx3s-85f" / "build.json").write_text(json.dumps({"build": "00000000", "file": "a.bit"}))
    with pytest.raises(SynthesisError, match="is of another configuration .* run make bitstream BOARD=ulx3s-85f"):
        flow.built(ULX3S)


def test_build_folder_that_cannot_be_written_names_the_way_out(tmp_path):
    (tmp_path / "file").write_text("")
    build = object.__new__(flow.Build)  # without looking for the tools
    build.board, build.folder, build.tell = ULX3S, tmp_path / "file" / "ulx3s-85f", lambda text: None
    with pytest.raises(SynthesisError, match=f"cannot build in {build.folder}: .* with STERNA_BUILD"):
        build.synthesise()
