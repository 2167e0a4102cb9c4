"""Every failure that a user can cause: one line on standard error, the right exit code, no traceback."""

import contextlib
import dataclasses
import io
import os
import pty
import signal
import subprocess
import sys
import time

import pytest
from small_model import DEVICE, GoldenDevice, served, write_folder
from sterna.host import cli
from sterna.host.model.model import Model

COMMAND = [sys.executable, "-c", "import sys; from sterna.host.cli import main; sys.exit(main())"]
TIMEOUT_S = 120


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("errors") / "model")


@pytest.fixture(scope="module")
def image(folder):
    path = folder.parent / "model.sterna"
    path.write_bytes(Model(folder).build(DEVICE))
    return path


def process_of(*arguments, cwd="."):
    """The finished process of a command line."""
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, timeout=TIMEOUT_S, cwd=cwd)


def here(*arguments, cwd="."):
    """The same in this process, which starts at once."""
    arguments = list(map(str, arguments))
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(arguments)
    return subprocess.CompletedProcess(arguments, code, out.buffer.getvalue(), err.buffer.getvalue())


@pytest.fixture(params=[here, pytest.param(process_of, marks=pytest.mark.rest)], ids=["here", "process"])
def sterna(request):
    """Runs a command line to its end."""
    return request.param


def check(process, message, code=1):
    """One line "error: ..." as the last of standard error, with the message in it."""
    lines = process.stderr.decode().splitlines()
    assert process.returncode == code, process.stderr.decode()
    assert lines and lines[-1].startswith("error: ") and message in lines[-1], lines
    assert "Traceback" not in process.stderr.decode() and sum(line.startswith("error: ") for line in lines) == 1


@pytest.mark.parametrize("flags, message", [
    (("--predict", "-5"), "--predict -5"),
    (("--temp", "-0.1"), "--temp -0.1: use 0 (greedy) to 1000"),
    (("--temp", "nan"), "--temp nan"),
    (("--temp", "warm"), "--temp"),
    (("--top-k", "40", "--device", "sim:up5k"), "--top-k 40: this build has no list"),
    (("--top-p", "0.9", "--device", "sim:lanes10,top_k=0"), "--top-p 0.9: this build has no list"),
    (("--repeat-penalty", "1.1"), "--repeat-penalty 1.1"),
    (("--draft", "2"), "--draft 2: the cpu takes no proposals: use 0, or a device with slots"),
    (("--draft", "2", "--device", "sim"), "--draft 2: this build has one slot"),
    (("--threads", "0"), "--threads 0: use 1 to 256"),
    (("--threads", "2", "--device", "golden"), "--threads 2: only --device cpu computes with threads"),
    (("--seed", "4294967296"), "--seed 4294967296: use 0 to 4294967295"),
    (("--seed", "-2"), "--seed -2"),
    (("--ctx-size", "-1"), "--ctx-size -1"),
    (("--stop", ""), "an empty stop string"),
    (("--device", "sim:lanes9"), "unknown preset 'lanes9': use one of up5k, lanes10"),
    (("--device", ""), "--device is empty"),
    (("--device", "golden", "--latency", "3"), "--latency needs the simulated board"),
    (("--waves", "w.vcd"), "--waves needs the simulated board: use --device sim, not cpu"),
    (("--device", "golden", "--waves", "w.vcd"), "--waves needs the simulated board"),
    (("--device", "sim", "--refresh", "-1"), "--refresh -1"),
    (("--device", "/dev/ttyS0", "--baud", "0"), "--baud 0"),
    (("--file", "prompt.txt"), "both -p and -f"),
    (("--no-such-flag",), "No such option"),
])
def test_wrong_flags(sterna, folder, flags, message):
    code = 1 if "empty stop" in message else 2
    check(sterna("generate", "-m", folder, "-p", "x", *flags), message, code)


@pytest.mark.parametrize("arguments, message, code", [
    (("generate", "-p", "x"), "no model: give one with -m", 2),
    (("generate", "-m", "MODEL"), "no prompt: give one with -p or -f", 2),
    (("generate", "-m", "MODEL", "-p", ""), "the prompt is empty", 1),
    (("generate", "-m", "nowhere.sterna", "-p", "x"), "no such model 'nowhere.sterna'", 1),
    (("generate", "-m", "MODEL", "-f", "nowhere.txt"), "cannot read the prompt nowhere.txt", 1),
    (("generate", "-m", "MODEL", "-p", "x", "--device", "/dev/no-such-port"), "no such device", 1),
    (("generate", "-m", "MODEL", "-p", "x", "--device", "socket://127.0.0.1:9"), "connection refused", 1),
    (("generate", "-m", "MODEL", "-p", "x", "--load-state", "nowhere"), "cannot read the state file", 1),
    (("generate", "-m", "MODEL", "-p", "x", "--device", "sim", "--waves", "nowhere/x.vcd"),
     "--waves nowhere/x.vcd: cannot be", 1),
    (("generate", "-m", "MODEL", "-p", "x", "--save-state", "nowhere/s"), "--save-state nowhere/s: cannot be", 1),
    (("generate", "-m", "MODEL", "-p", "x", "--save-state", "."), "--save-state .: this is a folder", 1),
    (("convert", "MODEL", "-o", "x.sterna", "--preset", "big"), "unknown preset 'big'", 2),
    (("convert", "MODEL", "-o", "nowhere/x.sterna"), "nowhere/x.sterna", 1),
    (("inspect", "MODEL"), "is a folder: pack it with sterna convert", 2),
    (("eval", "nowhere.txt", "-m", "MODEL"), "nowhere.txt", 1),
    (("gate", "nowhere", "--text", "t"), "nowhere is no checkpoint folder", 2),
    (("frobnicate",), "No such command", 2),
])
def test_wrong_arguments(sterna, folder, tmp_path, arguments, message, code):
    check(sterna(*(folder if a == "MODEL" else a for a in arguments), cwd=tmp_path), message, code)


def test_traceback_only_under_v(folder):
    process = process_of("generate", "-m", folder, "-p", "", "-v")
    assert b"Traceback" in process.stderr
    assert process.stderr.splitlines()[-1].startswith(b"error: the prompt is empty")
    assert process.returncode == 1


def test_text_that_is_no_text(sterna, folder, tmp_path):
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    check(sterna("generate", "-m", folder, "-f", tmp_path / "latin.txt", "--device", "golden"),
          "is not UTF-8 (byte 3)")
    # A byte that is no UTF-8 in an argument reaches Python as half of a surrogate pair.
    check(sterna("generate", "-m", folder, "--device", "golden", "-p", b"a\xff".decode(errors="surrogateescape")),
          "U+DCFF at character 1")


@pytest.mark.parametrize("damage, message", [
    (lambda data: b"", "not a Sterna image"),
    (lambda data: b"#!/bin/sh\n" + data, "not a Sterna image"),
    (lambda data: data[:20], "truncated image"),
    (lambda data: data[:len(data) // 2], "truncated image"),
    (lambda data: data[:8] + b"\x02" + data[9:], "image format 2"),
    (lambda data: data[:40] + b"\0" + data[41:], "damaged section header"),
    (lambda data: data[:9000] + bytes([data[9000] ^ 1]) + data[9001:], "damaged section"),
])
def test_damaged_images(sterna, image, tmp_path, damage, message):
    bad = tmp_path / "bad.sterna"
    bad.write_bytes(damage(image.read_bytes()))
    check(sterna("generate", "-m", bad, "-p", "x", "--device", "golden"), message)
    check(sterna("inspect", bad), str(bad))


def test_model_too_large_for_the_device(sterna, folder):
    with served(GoldenDevice(Model(folder).packed, dataclasses.replace(DEVICE, memory_bytes=8192))) as url:
        check(sterna("generate", "-m", folder, "-p", "x", "--device", url), "bytes and the device has 8192")
    with served(GoldenDevice(Model(folder).packed, dataclasses.replace(DEVICE, vector_words=64))) as url:
        check(sterna("generate", "-m", folder, "-p", "x", "--device", url), "vector memory: ")


@pytest.mark.parametrize("byte, message", [(4, "protocol version 99"), (5, "isa version 99"),
                                           (6, "numerics version 99"), (0, "is no Sterna device")])
def test_device_of_another_version(sterna, folder, byte, message):
    device = GoldenDevice(Model(folder).packed)
    device.hello[byte] = 99
    with served(device) as url:
        check(sterna("generate", "-m", folder, "-p", "x", "--device", url), message)


def test_port_that_is_busy(sterna, folder):
    import serial
    main, other = pty.openpty()
    try:
        with contextlib.closing(serial.Serial(os.ttyname(other), exclusive=True)):
            check(sterna("generate", "-m", folder, "-p", "x", "--device", os.ttyname(other)), "the port is in use")
    finally:
        os.close(main)
        os.close(other)


@pytest.mark.rest
def test_device_that_stops_answering_in_a_run(folder):
    class Dying(GoldenDevice):
        def _token(self):
            super()._token()
            self.silent = self.block[0x48] >= 6

    with served(Dying(Model(folder).packed)) as url:
        process = process_of("generate", "-m", folder, "-p", "abc", "-n", 50, "--device", url, "-s", 1)
    check(process, "no answer for 10 s")
    assert process.stdout.startswith(b"abc") and b"generation:" in process.stderr


def started(*arguments):
    process = subprocess.Popen([*COMMAND, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               bufsize=0)
    first = process.stdout.read(1)
    assert first == b"x", process.stderr.read().decode()
    time.sleep(0.3)
    return process


def test_ctrl_c_stops_with_statistics_and_a_usable_device(folder, tmp_path):
    device = GoldenDevice(Model(folder).packed)
    flags = ("-m", folder, "-p", "x", "-s", 1, "--ignore-eos")
    with served(device) as url:
        process = started("generate", *flags, "-c", 0, "--device", url, "--save-state", tmp_path / "state")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 130 and b"generation:" in err and b"Traceback" not in err and b"error" not in err
        again = here("generate", *flags, "-n", 12, "--device", url)
        rest = here("generate", *flags[:2], *flags[4:], "-n", 3, "--device", "golden", "--load-state",
                    tmp_path / "state")
    assert again.returncode == rest.returncode == 0
    assert again.stdout == here("generate", *flags, "-n", 12, "--device", "golden").stdout


def test_output_pipe_closed(folder):
    process = started("generate", "-m", folder, "-p", "x", "-c", 0, "-s", 1, "--device", "golden", "--ignore-eos")
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(TIMEOUT_S) == 141
    assert not any(word in err for word in (b"Traceback", b"error", b"Exception"))
