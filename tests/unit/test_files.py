"""Written files: whole or not there, through links, devices and FIFOs, with the rights that they should have."""

import ast
import json
import os
import pty
import resource
import stat
import subprocess
import sys
import threading
import tty
from pathlib import Path

import numpy as np
import pytest
from sterna.host.bench.report import Report
from sterna.host.commands.image import _write as write_image
from sterna.host.errors import HostError
from sterna.host.runtime.state import State, save_state
from sterna.sim.golden import files
from sterna.sim.golden.files import build_folder, write_file, write_files, writing
from sterna.sim.golden.packed import Geometry, random_model

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def umask():
    old = os.umask(0o007)
    yield 0o007
    os.umask(old)


@pytest.fixture
def terminal():
    """(path, descriptor that reads): a device that everybody has, and that no rename can replace."""
    reader, device = pty.openpty()
    tty.setraw(device)
    yield Path(os.ttyname(device)), reader
    os.close(device)
    os.close(reader)


@pytest.fixture
def small_disk():
    """No file of this process grows beyond 1 KiB."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_new_file_has_the_mode_of_the_umask(tmp_path, umask):
    write_file(tmp_path / "f", b"x")
    assert mode(tmp_path / "f") == 0o666 & ~umask


@pytest.mark.parametrize("old", [0o600, 0o640, 0o664, 0o755])
def test_mode_of_an_old_file_is_kept(tmp_path, umask, monkeypatch, old):
    (tmp_path / "f").write_bytes(b"old")
    (tmp_path / "f").chmod(old)
    created, real = [], os.open
    monkeypatch.setattr(files.os, "open", lambda path, flags, *mode: created.extend(mode) or real(path, flags, *mode))
    with writing(tmp_path / "f") as file:
        assert created == [old]  # nobody reads more of it meanwhile
        file.write(b"new")
        file.flush()
        assert (tmp_path / "f").read_bytes() == b"old"
    assert mode(tmp_path / "f") == old and (tmp_path / "f").read_bytes() == b"new" and names(tmp_path) == ["f"]


def test_file_that_may_not_be_written_is_refused(tmp_path, monkeypatch):
    (tmp_path / "f").write_bytes(b"old")
    monkeypatch.setattr(files.os, "access", lambda path, how: False)  # root may do all
    with pytest.raises(PermissionError) as error:
        write_file(tmp_path / "f", b"new")
    assert error.value.filename == str(tmp_path / "f") and (tmp_path / "f").read_bytes() == b"old"


def test_links_are_followed(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    (tmp_path / "b" / "file").write_bytes(b"old")
    (tmp_path / "b" / "second").symlink_to("file")
    (tmp_path / "a" / "first").symlink_to(Path("..") / "b" / "second")
    (tmp_path / "a" / "new").symlink_to(tmp_path / "b" / "not there yet")
    write_file(tmp_path / "a" / "first", b"x")
    write_file(tmp_path / "a" / "new", b"y")
    assert (tmp_path / "b" / "file").read_bytes() == b"x"
    assert (tmp_path / "b" / "not there yet").read_bytes() == b"y"
    assert os.readlink(tmp_path / "b" / "second") == "file"
    assert names(tmp_path / "a") == ["first", "new"] and all(p.is_symlink() for p in (tmp_path / "a").iterdir())
    assert names(tmp_path / "b") == ["file", "not there yet", "second"]
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="loop") as error:
        write_file(tmp_path / "loop", b"x")
    assert error.value.filename == str(tmp_path / "loop")


@pytest.mark.parametrize("linked", [False, True])
def test_device_is_written_through(tmp_path, terminal, linked):
    path, reader = terminal
    before = path.stat().st_ino
    if linked:
        (tmp_path / "link").symlink_to(path)
    write_file(tmp_path / "link" if linked else path, b"hello")
    assert os.read(reader, 100) == b"hello"
    assert path.is_char_device() and path.stat().st_ino == before
    assert names(tmp_path) == ["link"] * linked


def test_fifo_is_written_through(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    got = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_bytes()), daemon=True)
    reader.start()
    write_file(tmp_path / "pipe", b"x" * 200_000)
    reader.join(30)  # for ever if the FIFO was replaced
    assert got == [b"x" * 200_000]
    assert (tmp_path / "pipe").is_fifo() and names(tmp_path) == ["pipe"]


def test_standard_output_goes_on_in_a_file_and_in_a_pipe(tmp_path):
    # A link as /dev/stdout is one: whoever runs this may be root, and a fault must not replace the machine's own.
    (tmp_path / "stdout").symlink_to("/proc/self/fd/1")
    script = (f"import os; from sterna.sim.golden.files import write_file; os.write(1, b'before ');"
              f"write_file({str(tmp_path / 'stdout')!r}, b'text'); os.write(1, b' behind')")
    with (tmp_path / "out").open("ab") as file:
        subprocess.run([sys.executable, "-c", script], stdout=file, check=True)
    # Opening it truncates, as a shell's > does; what follows is not lost.
    assert (tmp_path / "out").read_bytes() == b"text behind" and names(tmp_path) == ["out", "stdout"]
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=True)
    assert done.stdout == b"before text behind"
    assert os.readlink(tmp_path / "stdout") == "/proc/self/fd/1"


def test_full_disk_leaves_the_old_file_or_none(tmp_path, small_disk):
    (tmp_path / "old").write_bytes(b"old")
    for name in ("old", "new"):
        with pytest.raises(OSError) as error:
            write_file(tmp_path / name, bytes(100_000))
        assert error.value.filename == str(tmp_path / name) and error.value.strerror
        with pytest.raises(OSError), writing(tmp_path / name) as file:
            for _ in range(100):
                file.write(bytes(1000))
    assert names(tmp_path) == ["old"] and (tmp_path / "old").read_bytes() == b"old"


def test_files_that_belong_together_are_all_written_or_none(tmp_path, small_disk):
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(OSError) as error:
        write_files({tmp_path / "a": "new", tmp_path / "b": bytes(2000), tmp_path / "c": "new"})
    assert error.value.filename == str(tmp_path / "b")
    assert names(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"old"
    write_files({tmp_path / "a": "ä", tmp_path / "c": b"new"})
    assert (tmp_path / "a").read_bytes() == "ä".encode() and names(tmp_path) == ["a", "c"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, ValueError, FileNotFoundError(2, "no such file", "other")])
def test_failure_of_the_writer_is_its_own_and_leaves_nothing(tmp_path, failure):
    kind = failure if isinstance(failure, type) else type(failure)
    with pytest.raises(kind) as error, writing(tmp_path / "f") as file:
        file.write(b"half")
        raise failure
    assert error.value is failure or isinstance(failure, type)
    assert names(tmp_path) == []


def test_longest_name_is_written(tmp_path):
    write_file(tmp_path / ("x" * 255), b"x")
    assert names(tmp_path) == ["x" * 255]


def report(path):
    """Writes a report of two rows."""
    with Report("json", path, counted=False) as rows:
        rows.add({"model": "m"})
        rows.add({"model": "n"})


def state(path):
    """Writes a small state."""
    packed = random_model(np.random.default_rng(1), Geometry(8, 8, 1, 31))
    save_state(path, State(np.ones((1, 8)), [0, 5]), packed)


@pytest.mark.parametrize("write", [report, state, lambda path: write_image(path, b"image")],
                         ids=["report", "state", "image"])
def test_commands_write_through_and_say_what_failed(tmp_path, terminal, write):
    path, reader = terminal
    write(path)
    assert os.read(reader, 4096) and path.is_char_device()
    with pytest.raises((OSError, HostError)) as error:
        write(tmp_path / "absent" / "f")
    assert str(tmp_path / "absent" / "f") in str(error.value) and "\n" not in str(error.value)


def test_report_into_a_device_is_written_once(terminal):
    path, reader = terminal
    report(path)
    assert [row["model"] for row in json.loads(os.read(reader, 4096))] == ["m", "n"]


def test_nothing_else_renames_files():
    """A module that gives a file its name by itself has none of these rules; folders are renamed as one, and so is
    the file that another package writes by its path.
    """
    found = []
    for folder in ("docs", "firmware", "host", "hw", "models", "sim"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    owner = ast.unparse(node.func.value)
                    rename = node.func.attr in ("rename", "replace") and (owner == "os" or len(node.args) == 1)
                    if rename or node.func.attr in ("mkstemp", "NamedTemporaryFile"):
                        found.append((path.name, ast.unparse(node)))
    assert sorted(item for item in found if item[0] != "files.py") == [
        ("checkpoint.py", "os.replace(part, folder)"), ("compile.py", "os.rename(work, folder)"),
        ("study.py", "(work / 'part').rename(work / 'text')"), ("ternary.py", "os.replace(part, path)")]


def test_builds_lie_where_they_can_be_written(tmp_path, monkeypatch):
    monkeypatch.delenv("STERNA_BUILD", raising=False)
    assert build_folder() == ROOT / "build"
    monkeypatch.setattr(files, "_CHECKOUT", tmp_path)  # no pyproject.toml: installed
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert build_folder() == tmp_path / "caches" / "sterna"
    for nothing in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", nothing)
        assert build_folder() == Path.home() / ".cache" / "sterna"
    monkeypatch.setenv("STERNA_BUILD", str(tmp_path / "mine"))
    assert build_folder() == tmp_path / "mine"
