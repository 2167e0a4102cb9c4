"""How the program starts, what it says of itself, and how it ends when it is interrupted."""

import gc
import os
import re
import shlex
import subprocess
import sys
import types
import warnings
from pathlib import Path

import pytest
from sterna.host import cli, console
from sterna.host.runtime.open import simulated_config
from sterna.host.device.transport import TransportError, open_transport
from sterna.hw import __main__ as hardware
from sterna.sim.golden import extras
from sterna.sim.golden.extras import ROOT, install_hint
from sterna.sim.golden.progress import working

COMMANDS = [command.name for command in cli.app.registered_commands]
HARDWARE = [command.name or command.callback.__name__ for command in hardware.app.registered_commands]


def test_without_a_command_there_is_help(sterna):
    code, out, err = sterna()
    assert code == 0 and err == "" and all(name in out for name in COMMANDS)
    assert sterna("--help")[1] == out


def test_version_and_module():
    done = subprocess.run([sys.executable, "-m", "sterna", "--version"], capture_output=True, text=True, cwd="/")
    assert (done.returncode, done.stderr) == (0, "") and re.match(r"sterna \d+\.\d+\.\d+ \(protocol \d", done.stdout)
    wrong = subprocess.run([sys.executable, "-m", "sterna", "frobnicate"], capture_output=True, text=True, cwd="/")
    assert (wrong.returncode, wrong.stderr) == (2, "error: No such command 'frobnicate'.\n")


def test_ctrl_c_while_modules_are_loaded(tmp_path):
    """The command's modules are slow to come here, and the signal comes while they do."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nclass Slow:\n    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'sterna.host.cli':\n            import os, signal, time\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n            time.sleep(20)\n"
        "sys.meta_path.insert(0, Slow())\n")
    done = subprocess.run([sys.executable, "-m", "sterna", "devices"], capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: interrupted\n")


@pytest.mark.parametrize("run", [
    lambda: cli.main(["doctor", "--device", "sim:up5k,ring=64"]),
    lambda: exit_of(["synth", "accelerator", "--preset", "up5k"])], ids=["board", "synth"])
def test_ctrl_c_while_gateware_is_elaborated_is_one_line(run, monkeypatch, capsys):
    from sterna.hw.control.registers import Registers

    def interrupted(self, platform):
        raise KeyboardInterrupt

    monkeypatch.setattr(Registers, "elaborate", interrupted)  # many others have been made and not elaborated yet
    with warnings.catch_warnings(record=True):
        gc.collect()  # what other tests have left
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert run() == 130
        gc.collect()
    assert [str(warning.message) for warning in said if "never used" in str(warning.message)] == []
    assert capsys.readouterr().err.splitlines()[1:] == ["error: interrupted"]


def exit_of(arguments):
    """Exit status of python -m sterna.hw."""
    with pytest.raises(SystemExit) as done:
        hardware.main(arguments)
    return done.value.code


def test_wrong_use_of_the_gateware_is_one_line(capsys):
    assert exit_of(["synth", "array", "--nothing"]) == 2
    assert capsys.readouterr().err == "error: No such option: --nothing\n"
    assert exit_of([]) == 0 and "synth" in capsys.readouterr().out


@pytest.mark.parametrize("program, name", [*(("sterna", n) for n in ["", *COMMANDS]),
                                           *(("hw", n) for n in ["", *HARDWARE])])
def test_help_can_be_read_in_80_columns(program, name, monkeypatch, capsys):
    """Lines fit, nothing is cut, and texts have room for several words in a line."""
    monkeypatch.setenv("COLUMNS", "80")
    arguments = [*[name] * bool(name), "--help"]
    assert (cli.main(arguments) if program == "sterna" else exit_of(arguments)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80 and not any("…" in line or line.rstrip().endswith("...") for line in lines
                                                  if not line.startswith("Usage:"))
    # A column that begins far to the right leaves room for single words only.
    assert all(len(line) - len(line.lstrip()) <= 40 for line in lines)


@pytest.mark.parametrize("name, wanted", [
    ("--n-predict", "predict"), ("--predict", "predict"), ("-n", "predict"), ("--ctx-size", "context"),
    ("-c", "context"), ("--file", "file"), ("-f", "file"), ("--prompt", "prompt"), ("-p", "prompt"),
    ("--model", "model"), ("-m", "model"), ("--top-k", "top_k"), ("--top-p", "top_p"), ("--temp", "temperature"),
    ("--temperature", "temperature"), ("-t", "threads"), ("--threads", "threads"),
    ("-s", "seed"), ("--seed", "seed"), ("--ignore-eos", "ignore_eos"),
    ("--no-display-prompt", "display_prompt"), ("-r", "stop"), ("--reverse-prompt", "stop"), ("--draft-max", "draft"),
    ("--repeat-penalty", "penalty"), ("--device", "device"), ("--list-devices", "list_devices")])
def test_options_have_the_names_of_llama_cpp(name, wanted):
    from typer.main import get_command
    generate = get_command(cli.app).commands["generate"]
    assert [option.name for option in generate.params if name in (*option.opts, *option.secondary_opts)] == [wanted]


def test_hints_name_a_command_that_works_here(monkeypatch, tmp_path):
    """In a checkout from any folder; elsewhere the packages, as no index has Sterna."""
    monkeypatch.chdir(tmp_path)
    python, *rest = shlex.split(install_hint("torch"))
    assert Path(python).samefile(sys.executable) and rest == ["-m", "pip", "install", "-e", f"{ROOT}[torch]"]
    monkeypatch.chdir(ROOT)
    assert shlex.split(install_hint("boards"))[-2:] == ["-e", ".[boards]"]
    monkeypatch.setattr(extras, "ROOT", tmp_path)
    assert shlex.split(install_hint("compiler"))[1:] == ["-m", "pip", "install", "ziglang==0.17.1"]
    assert "numpy==" in install_hint() and "ziglang" not in install_hint()


@pytest.mark.parametrize("target", ["install", "demo"])
def test_make_says_where_the_program_is(target):
    done = subprocess.run(["make", "-n", "-o", ".venv/.installed", target], capture_output=True, text=True, cwd=ROOT)
    assert ".venv/bin/sterna" in done.stdout and "source .venv/bin/activate" in done.stdout


def test_every_extra_of_a_hint_exists():
    import tomllib
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    files = [path for folder in ("host", "hw", "sim", "models") for path in (ROOT / folder).rglob("*.py")]
    text = "".join(path.read_text() for path in files)
    named = set(re.findall(r"install_hint\(['\"](\w+)['\"]\)", text))
    named |= set(re.findall(r"find_tool\([^()]*\"(\w+)\"\)", text))
    assert {"torch", "compiler", "synth"} <= named <= set(known)
    assert "pip install 'sterna" not in text


@pytest.mark.parametrize("device, wanted", [
    ("lanes40", "sim:lanes40"), ("Golden", "golden"), ("gloden", "golden"), ("SIM", "sim"), ("CPU", "cpu"),
    ("ulx3s-85f", "sim:ulx3s-85f"),
    ("Lanes40,batch=4", "sim:lanes40,batch=4"), ("sim-lanes10", "sim:lanes10"), ("icebraker", "sim:icebreaker")])
@pytest.mark.parametrize("command", [("generate", "-p", "x"), ("bench",), ("upload",), ("doctor",)],
                         ids=lambda c: c[0])
def test_a_device_that_is_nearly_another_one(sterna, command, device, wanted):
    model = ("-m", ROOT / "models" / "tiny" / "tiny.sterna") if command[0] != "doctor" else ()
    code, _, err = sterna(*command, *model, "--device", device)
    if command[0] == "bench":  # which takes several with commas
        wanted = wanted.partition(",")[0]
        device = device.partition(",")[0]
    assert (code, err) == (2, f"error: --device {device}: there is no such device: did you mean {wanted}?\n")


@pytest.mark.parametrize("device", ["/dev/ttyUSB7", "COM3", "socket://localhost:1", "rfc2217://h:1", "ttyUSB0",
                                    "cu.usb1"])
def test_ports_are_left_to_the_port(device):
    assert simulated_config(device) is None


@pytest.mark.parametrize("url", ["socket://localhost", "socket://localhost:", "socket://localhost:x",
                                 "socket://:7000", "socket://localhost:70000", "socket://localhost:0", "socket://"])
def test_sockets_without_host_or_port(url):
    with pytest.raises(TransportError) as error:
        open_transport(url)
    assert str(error.value) == f"{url}: no host and port: use socket://HOST:PORT, such as socket://localhost:7000"


def test_boards_are_among_the_devices(sterna):
    names = [line.split()[0] for line in sterna("devices")[1].splitlines()]
    assert {"sim:ulx3s-85f", "sim:icebreaker", "sim:lanes40", "golden", "cpu"} <= set(names)
    assert "only sterna eval has it" in sterna("generate", "-m", ROOT / "models" / "tiny" / "tiny.sterna", "-p", "x",
                                               "--device", "torch")[2]


def test_what_is_under_way_is_one_line_each_where_there_is_no_terminal(capsys):
    with working() as step:
        for text in ("building a: one", "building a: two", "building b", "building a: three"):
            step(text)
    assert capsys.readouterr().err == "building a\nbuilding b\n" and console.working is working


def test_what_is_under_way_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    with working() as step:
        step("building a: one")
        step("building a: two")
    text = capsys.readouterr().err
    assert "building a: two" in text and "0:00:00" in text


def test_synthesis_says_what_it_does(monkeypatch, capsys):
    from sterna.hw.flow import synth
    monkeypatch.setattr(synth, "run_tool", lambda *_: types.SimpleNamespace(returncode=1, stderr="no", stdout=""))
    assert exit_of(["synth", "tree", "--preset", "up5k"]) == 1
    assert capsys.readouterr().err.splitlines()[0] == "synthesising tree for ecp5"


@pytest.mark.parametrize("said, message", [
    ("x: error while loading shared libraries: libftdi1.so.2: cannot open shared object file: No such file",
     "this machine lacks the library libftdi1.so.2: install libftdi1"),
    ("dyld: Library not loaded: /opt/lib/libusb-1.0.0.dylib\n  Reason: image not found",
     "lacks the library libusb-1.0.0"),
    ("openFPGALoader v1.1.1", "is the board plugged in")])
def test_a_missing_library_is_not_blamed_on_the_cable(monkeypatch, said, message):
    monkeypatch.setattr(hardware.subprocess, "run", lambda *_, **__: types.SimpleNamespace(stderr=said, stdout=""))
    assert message in hardware._why("openFPGALoader")
