"""Waveforms: their size is told before the run, a limit ends it, and no upload is recorded."""

import dataclasses
import sys
from pathlib import Path

import pytest
from small_model import GoldenDevice, served, write_folder
from sterna.firmware.layout import layout
from sterna.host import cli
from sterna.host.commands import generate as command
from sterna.host.device.driver import Device
from sterna.hw.protocol import Register
from sterna.host.device.transport import open_transport
from sterna.host.model.model import Model
from sterna.host.runtime.device import DeviceRuntime
from sterna.host.runtime.golden import GoldenRuntime
from sterna.host.runtime.open import open_runtime
from sterna.host.runtime.sampling import Sampling
from sterna.host.waves import VCD_PER_STREAM_BYTE, Recording
from sterna.hw.presets import PRESETS
from sterna.sim.board import board


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("waves") / "model")


def test_limit(tmp_path):
    path = tmp_path / "w.vcd"
    limit = Recording(path, 2e-8)  # 20 bytes
    assert not limit.reached()
    path.write_bytes(bytes(19))
    assert not limit.reached() and not Recording(path, 0).reached() and not Recording(None, 1e-9).reached()
    path.write_bytes(bytes(20))
    assert limit.reached() and limit.limit_bytes == 20


def test_expectation():
    assert Recording(Path("w.vcd"), 4.0).expectation(890_000) == \
        "waves: w.vcd will take about 1.8 GB for every token; the run ends behind 4 GB (--waves-limit)"
    assert Recording(Path("w.vcd")).expectation(5_000).endswith("about 0.01 GB for every token")
    assert Recording(Path("w.fst"), 0, 7, 2).expectation(5_000).endswith(
        "about 0.001 GB for every token, 2 of them from token 7 on")


def test_which_tokens_are_recorded():
    whole, some, rest = Recording(Path("w")), Recording(Path("w"), 0, 3, 2), Recording(Path("w"), 0, 4)
    assert whole.whole and not some.whole and not rest.whole
    assert [k for k in range(9) if some.wanted(k)] == [3, 4] and [k for k in range(7) if rest.wanted(k)] == [4, 5, 6]
    assert [some.room(k) for k in range(7)] == [3, 2, 1, 2, 1, None, None]
    assert [rest.room(k) for k in (0, 3, 4, 9)] == [4, 1, None, None]


class Board:
    """Takes the orders that a simulated board would get."""

    def __init__(self):
        self.orders = []

    def record(self, on):
        self.orders.append(on)

    def complaint(self):
        return ""


def test_runs_of_a_device_begin_and_end_with_the_recording(folder):
    """The text stays the same, and the board is told between the tokens: each of the recorded ones in a run alone."""
    model = Model(folder)
    ids, wanted = [1, 2, 3, 4], []
    for first, count in ((0, 0), (0, 2), (2, 3), (4, 1), (6, 0), (40, 0)):
        with served(GoldenDevice(model.packed)) as url:
            with DeviceRuntime(model, Device(open_transport(url)), print) as runtime:
                starts = []
                start = runtime.device.write_register
                runtime.device.write_register = lambda register, value, slot=0, start=start, starts=starts, \
                    runtime=runtime: (starts.append((value, *runtime.board.orders[-1:])) if register ==
                                      Register.POSITION else None, start(register, value, slot))[1]
                runtime.board, runtime.waves = Board(), Recording(Path("w"), 0, first, count)
                made = list(runtime.generate(ids, 6, Sampling()))
        wanted = wanted or made
        assert made == wanted
        if first or count:
            assert starts and all(on == runtime.waves.wanted(position) for position, on in starts), starts
            begun = {position for position, _ in starts}
            assert {edge for edge in (first, first + count) if 0 < edge < 9 and edge} <= begun, starts


@pytest.mark.parametrize("flags, message", [
    (("--waves-from", "-1", "--waves", "w.vcd"), "--waves-from -1: use 0 or more"),
    (("--waves-tokens", "2"), "--waves-tokens 2: needs --waves FILE"),
    (("--waves-from", "2", "--waves", "w.vcd", "-p", "b"), "--waves-from 2: is for one text: give one prompt, not 2"),
])
def test_options_that_cannot_be(folder, tmp_path, monkeypatch, capsys, flags, message):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["generate", "-m", str(folder), "-p", "a", "--device", "sim", *flags]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "w.vcd").exists()


def test_generate_ends_at_the_limit_and_says_so(folder, tmp_path, monkeypatch, capsys):
    path, made = tmp_path / "w.vcd", []

    class Recorded(GoldenRuntime):
        def over(self):
            return self.waves.reached()

        def _make(self, *arguments):
            for token in super()._make(*arguments):
                made.append(token)
                with path.open("ab") as file:
                    file.write(bytes(100))
                yield token

    def opened(device, model, waves, **options):
        runtime = Recorded(model)
        runtime.waves = waves
        return runtime

    monkeypatch.setattr(command, "open_runtime", opened)
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
    monkeypatch.setitem(PRESETS, "sim", dataclasses.replace(PRESETS["sim"], memory=memory, tree_rows=0))
    with pytest.raises(Stopped):
        open_runtime("sim", Model(folder), tell=print, waves=Recording(tmp_path / "w.vcd") if waves else None,
                     preload=preload)
    assert seen == [wanted]


def test_a_board_that_has_died_is_no_closed_output(monkeypatch, tmp_path):
    program = tmp_path / "board"
    program.write_text(f"#!{sys.executable}\nimport sys\nprint('listening 1', flush=True)\nsys.exit('it broke')\n")
    program.chmod(0o755)
    monkeypatch.setattr(board, "board_program", lambda *_, **__: program)
    simulated = board.SimulatedBoard(PRESETS["up5k"], seed=7)
    simulated.start()
    simulated.wait()
    with pytest.raises(board.BoardError, match="it broke; initial bits: seed 7"):
        simulated.record(True)
    simulated.stop()  # has nothing left to say
