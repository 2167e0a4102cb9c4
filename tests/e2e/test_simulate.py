"""sterna simulate: a board that stays for several commands, and that no report takes for a real one."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_model import SLOTS, GoldenDevice, served, write_folder
from sterna.host import cli
from sterna.host.device.driver import Device
from sterna.host.device.frames import Frame
from sterna.host.model.model import Model
from sterna.host.device.transport import open_transport

ROOT = Path(__file__).resolve().parents[2]
TINY = str(ROOT / "models" / "tiny" / "tiny.sterna")
TURN, WAIT = (Frame.simulated(ahead).encode() for ahead in (0, 1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("simulate") / "model")


@pytest.fixture
def run(capsys):
    """Runs a command line; gives standard output and standard error."""
    def run(*arguments, code=0):
        assert cli.main([str(a) for a in arguments]) == code
        return capsys.readouterr()
    return run


@pytest.mark.rtl
def test_commands_one_after_the_other(run):
    process = subprocess.Popen([sys.executable, "-m", "sterna", "simulate", "up5k", "--latency", "9"], text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        url = process.stdout.readline().strip()
        assert url.startswith("socket://localhost:"), process.stderr.read()
        assert "sent 117,220 bytes" in run("upload", "-m", TINY, "--device", url).err
        again = run("upload", "-m", TINY, "--device", url, "--verify").err
        assert "nothing to send" in again and "verified" in again and again.rstrip().endswith(", simulated")
        flags = ("generate", "-m", TINY, "-p", "Once upon", "--temp", 0, "-n", 5)
        assert run(*flags, "--device", url).out == run(*flags, "--device", "golden").out
        rows = json.loads(run("bench", "-m", TINY, "--device", url, "-p", 0, "-n", 2, "-r", 1, "-o", "json").out)
        assert [row["kind"] for row in rows] == ["simulated"]
    finally:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0 and "nothing is measured on a board" in err
    assert err.splitlines()[-1].startswith("the simulated board has ended after ") and "Traceback" not in err


def test_nothing_is_device_time_of_a_simulated_board(run, folder):
    with served(GoldenDevice(Model(folder).packed), lambda: TURN) as url:
        flags = ("generate", "-m", folder, "-p", "One", "-n", 4, "--device", url)
        text = run(*flags).err
        assert "projected at 80 MHz from simulated cycles" in text and "device time" not in text
        assert json.loads(run(*flags, "--json").err.splitlines()[-1])["simulated"]
        table = run("bench", "-m", folder, "--device", url, "-p", 4, "-n", 4, "-r", 1).out
        assert "(simulated, " in table and "device time" not in table
    with served(GoldenDevice(Model(folder).packed)) as url:  # what says nothing is a board
        assert "device time at 80 MHz" in run(*flags[:-1], url).err


def test_doctor_tells_that_a_board_is_simulated(run, folder, monkeypatch):
    from sterna.host.doctor import line
    monkeypatch.setattr(line, "LOAD_S", 0.01)
    with served(GoldenDevice(Model(folder).packed, SLOTS), lambda: TURN) as url:
        found = json.loads(run("doctor", "--device", url, "--memory", "none", "--json", code=1).out)
    checks = {check["check"]: check for check in found["checks"]}
    assert found["simulated"] and checks["simulated"]["verdict"] == "ok"
    assert "device time" not in json.dumps(found)


def test_a_second_program_waits_and_is_told(folder):
    model, told = Model(folder), []
    with served(GoldenDevice(model.packed), lambda: WAIT) as url:
        transport = open_transport(url)
        read, begun = transport.read, time.monotonic()

        def answers(timeout_s):
            """The device answers at once; what its board says of the turn comes later."""
            data = read(timeout_s)
            return data + TURN if time.monotonic() - begun > 1.5 else data

        transport.read = answers
        with Device(transport, timeout_s=0.5, tell=told.append) as device:
            assert device.simulated and time.monotonic() - begun > 1.4
    assert told == [f"{url}: another program uses this simulated board; waiting until it ends"]


def test_a_board_that_says_nothing_is_not_waited_for(folder):
    with served(GoldenDevice(Model(folder).packed)) as url:
        with Device(open_transport(url)) as device:
            assert not device.simulated and device.stall_s == 120


@pytest.mark.parametrize("flags, code, message", [
    (("nothing",), 2, "unknown preset 'nothing': use one of"),
    (("sim", "--port", "70000"), 2, "--port 70000: use 1 to"),
    (("sim", "--flash", "x"), 2, "--flash x: sim loads no model from a flash: use icebreaker or up5k"),
    (("icebreaker", "--flash", "x"), 2, "--flash x: no such file: make it with sterna flash"),
    (("sim", "--latency", "-1"), 2, "--latency -1: use 0")])
def test_wrong_use(run, flags, code, message):
    err = run("simulate", *flags, code=code).err
    assert message in err and err.count("\n") == 1


@pytest.mark.rtl
def test_a_port_in_use(run):
    import socket
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port} of 127.0.0.1 cannot be opened: is it in use?" in run(
            "simulate", "up5k", "--port", port, code=1).err
