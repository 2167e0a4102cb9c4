"""sterna inspect: what an image says is counted again, and nothing out of a file steers a terminal."""

import pytest
from small_model import write_folder
from sterna.host.console import reporting
from sterna.host.model.model import Model
from sterna.sim.golden.progress import moving, working
from test_convert import Speed, with_header, written

EVIL = "\x1b[2J\nok       memory"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("inspect") / "model")


@pytest.mark.parametrize("place, value", [(0, 1), (3, 2.0)], ids=["trits", "scale"])
def test_inspect_believes_no_statistics(folder, sterna, tmp_path, place, value):
    def change(header):
        entry = header["statistics"]["1.gate"]
        entry[place] += value
        entry[1] -= place == 0

    (tmp_path / "m").write_bytes(with_header(written(Model(folder)), change))
    code, out, err = sterna("inspect", tmp_path / "m")
    assert (code, out) == (1, "") and err.count("\n") == 1
    assert "damaged section header: statistics of 1.gate is [" in err and "its stream has [" in err


def test_what_files_say_does_not_steer_a_terminal(folder, sterna, tmp_path, monkeypatch):
    monkeypatch.setattr("sterna.host.commands.inspect.predict", lambda config, geometry: Speed(config.clock_hz / 1e5))

    def change(header):
        header["name"] = header["source"]["sterna"] = header["source"]["weights"] = EVIL

    (tmp_path / "m").write_bytes(with_header(written(Model(folder)), change))
    text = "".join(sterna("inspect", tmp_path / "m")[1:])
    assert text.count(r"\x1b[2J\nok       memory") == 3 and "\x1b" not in text and "\nok " not in text
    code, out, err = sterna("plan", tmp_path / "m", "--config", "icepi-zero", "--config", "icebreaker")
    assert code == 0 and "\x1b" not in out + err and err.count("\n") == 1 and err.startswith("planning ")


@pytest.mark.parametrize("terminal", [False, True])
def test_what_is_under_way_does_not_steer_a_terminal(monkeypatch, capsys, terminal):
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm")
    with working() as step:
        step(EVIL)
    with moving(EVIL, 10) as advance:
        advance(10)
    with reporting() as progress:
        progress(EVIL, 1, 2)
    text = capsys.readouterr().err
    assert text.count(r"\x1b[2J\nok") >= 2 and "\x1b[2J" not in text and "\nok" not in text
