"""Waveforms: their size is told before the run, a limit ends it, and no upload is recorded."""

import dataclasses

import pytest
from small_model import write_folder
from sterna.firmware.layout import layout
from sterna.host import cli
from sterna.host.commands import generate as command
from sterna.host.model.model import Model
from sterna.host.runtime.golden import GoldenRuntime
from sterna.host.runtime.open import open_runtime
from sterna.host.waves import VCD_PER_STREAM_BYTE, WavesLimit, expectation
from sterna.hw.config import PRESETS
from sterna.sim.board import board


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("waves") / "model")


def test_limit(tmp_path):
    path = tmp_path / "w.vcd"
    limit = WavesLimit(path, 2e-8)  # 20 bytes
    assert not limit.reached()
    path.write_bytes(bytes(19))
    assert not limit.reached() and not WavesLimit(path, 0).reached() and not WavesLimit(None, 1e-9).reached()
    path.write_bytes(bytes(20))
    assert limit.reached()


def test_expectation():
    assert expectation("w.vcd", 890_000, 4.0) == \
        "waves: w.vcd will take about 1.8 GB for every token; the run ends behind 4 GB (--waves-limit)"
    assert expectation("w.vcd", 5_000, 0).endswith("about 0.01 GB for every token")


def test_generate_ends_at_the_limit_and_says_so(folder, tmp_path, monkeypatch, capsys):
    path, made = tmp_path / "w.vcd", []

    class Recorded(GoldenRuntime):
        def _make(self, *arguments):
            for token in super()._make(*arguments):
                made.append(token)
                with path.open("ab") as file:
                    file.write(bytes(100))
                yield token

    monkeypatch.setattr(command, "open_runtime", lambda device, model, **options: Recorded(model))
    flags = ["generate", "-m", str(folder), "-p", "a", "--device", "sim", "--waves", str(path), "-n", "9", "-q",
             "--ignore-eos", "--temp", "0"]
    assert cli.main([*flags, "--waves-limit", "3.5e-7"]) == 0
    err, size = capsys.readouterr().err, path.stat().st_size
    assert (len(made), size) == (4, 400) and "for every token" in err and "the run ended because" in err
    stream = layout(PRESETS["sim"], Model(folder).geometry).stream_bytes
    assert f"about {stream * VCD_PER_STREAM_BYTE / 1e9:.2g} GB" in err
    made.clear()
    path.unlink()
    assert cli.main([*flags, "--waves-limit", "0"]) == 0 and len(made) == 9
    assert "ended because" not in capsys.readouterr().err
    assert cli.main([*flags, "--waves-limit", "-1"]) == 2 and "--waves-limit -1: use" in capsys.readouterr().err


@pytest.mark.parametrize("waves, preload, memory, wanted", [
    (True, None, "external", True), (True, False, "external", False), (False, None, "external", False),
    (True, None, "onchip", False), (False, True, "external", True)])
def test_upload_is_left_out_of_waveforms(folder, tmp_path, monkeypatch, waves, preload, memory, wanted):
    seen = []

    class Stopped(Exception):
        pass

    def simulated(config, preload, **options):
        seen.append(preload is not None)
        raise Stopped

    monkeypatch.setattr(board, "SimulatedBoard", simulated)
    monkeypatch.setitem(PRESETS, "sim", dataclasses.replace(PRESETS["sim"], memory=memory))
    with pytest.raises(Stopped):
        open_runtime("sim", Model(folder), tell=print, waves=tmp_path / "w.vcd" if waves else None, preload=preload)
    assert seen == [wanted]
