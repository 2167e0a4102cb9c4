"""The command python -m sterna.hw and the cell counts behind it."""

import gc
import json
import warnings

import pytest
from amaranth.hdl import Module, UnusedElaboratable, signed
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from sterna.hw import __main__ as command
from sterna.hw.boards import preset
from sterna.hw.flow import synth, units
from sterna.hw.flow.place import place
from sterna.hw.presets import PRESETS


class Known(wiring.Component):
    """A register of 8 bits, a block RAM with output register and a product: cells that are known beforehand."""

    address: In(9)
    word: In(16)
    write: In(1)
    read: Out(16)
    a: In(signed(16))
    b: In(signed(16))
    product: Out(signed(32))

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = Memory(shape=16, depth=512, init=[])
        write, read = memory.write_port(), memory.read_port(transparent_for=())
        m.d.comb += [write.addr.eq(self.address), write.data.eq(self.word), write.en.eq(self.write),
                     read.addr.eq(self.address), read.en.eq(~self.write)]
        m.d.sync += [self.read.eq(read.data), self.product.eq(self.a * self.b)]
        return m


@pytest.mark.synth
@pytest.mark.parametrize("family, block_ram", [("ecp5", 1), ("ice40", 2)])
def test_cells_of_a_known_unit(family, block_ram):
    cells = synth.count_cells(Known(), family)
    assert (cells.block_ram, cells.dsp) == (block_ram, 1)
    assert cells.flip_flops >= 16
    assert cells.lut4 < 64


@pytest.mark.synth
def test_json_of_a_unit(capsys):
    with pytest.raises(SystemExit) as done:
        command.main(["synth", "tree", "--preset", "up5k", "--family", "ice40", "--json"])
    assert not done.value.code
    [cells] = json.loads(capsys.readouterr().out)
    assert (cells["unit"], cells["preset"], cells["family"]) == ("tree", "up5k", "ice40")
    assert cells["lut4"] > 0 and cells["flip_flops"] > 0


@pytest.mark.parametrize("arguments, message", [
    (["synth", "nothing"], "error: unknown unit 'nothing': use one of array, "),
    (["synth", "onchip", "--preset", "lanes10"],
     "error: unit 'onchip': the preset lanes10 with external memory has none; use one of array, "),
    (["synth", "toplist", "--preset", "up5k"],
     "error: unit 'toplist': the preset up5k has none, as its top_k is 0; add one: --preset up5k,top_k=NUMBER"),
    (["synth", "tree", "--preset", "huge"], "error: unknown preset 'huge': use one of up5k, "),
    (["synth", "tree", "--family", "virtex"], "error: unknown family 'virtex': use one of ecp5, ice40, xc7, xcup"),
    (["verilog", "--preset", "up5k", "--unit", "tree", "-o", "/nowhere/tree.v"],
     "error: cannot write /nowhere/tree.v: "),
])
def test_errors_are_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as done:
        command.main(arguments)
    assert done.value.code == 1
    *begun, error = capsys.readouterr().err.splitlines()
    assert error.startswith(message) and begun in ([], ["writing the Verilog of tree for up5k"])


def test_missing_yosys_names_the_package(monkeypatch):
    monkeypatch.setattr(synth.shutil, "which", lambda *_, **__: None)
    with pytest.raises(synth.SynthesisError, match=r"pip install -e .*\[synth\]"):
        synth.count_cells(Known(), "ecp5")


def test_missing_nextpnr_names_the_package(monkeypatch):
    monkeypatch.setattr(synth.shutil, "which", lambda name, **_: None if "nextpnr" in name else name)
    with pytest.raises(synth.SynthesisError, match=r"nextpnr-ecp5 was not found: .*\[place\]'"):
        place(Known())


def test_presets_are_listed(capsys):
    with pytest.raises(SystemExit):
        command.main(["presets"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == list(PRESETS)


def test_verilog_is_written(tmp_path):
    with pytest.raises(SystemExit):
        command.main(["verilog", "--preset", "up5k", "--unit", "tree", "-o", str(tmp_path / "tree.v")])
    assert "module tree(" in (tmp_path / "tree.v").read_text()


@pytest.mark.parametrize("unit", units.UNITS)
def test_every_unit_can_be_created(unit):
    configs = [*PRESETS.values(), preset("lanes40,top_k=64"), preset("ulx3s-85f")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnusedElaboratable)  # creating is all that is asked here
        for config in configs:
            if unit in units.units_of(config):
                assert isinstance(units.create(unit, config), wiring.Component)
        gc.collect()
    assert any(unit in units.units_of(config) for config in configs)
