"""Finds the compiler of this machine, and runs it; for simulated boards and for the kernels of a CPU."""

import errno
import fcntl
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from contextlib import contextmanager
from functools import cache

from sterna.sim.golden.errors import SternaError
from sterna.sim.golden.extras import install_hint
from sterna.sim.golden.files import BUILD_VARIABLE, NoFolderError, build_folder


class ToolError(SternaError, RuntimeError):
    """A tool is missing or failed; the message names it and the way out."""


@cache
def compiler():
    """Command of the C++ compiler: $CXX, c++, g++, clang++ or the one in the package ``ziglang`` (tuple of str).

    Raises
    ------
    ToolError
        If there is none.
    """
    if os.environ.get("CXX", "").strip():
        try:
            command = shlex.split(os.environ["CXX"])
        except ValueError as error:
            raise ToolError(f"C++ compiler {os.environ['CXX']!r} of $CXX is no command ({error}): unset CXX or name "
                            "another") from None
        if shutil.which(command[0]) is None:
            raise ToolError(f"C++ compiler {os.environ['CXX']!r} of $CXX was not found: unset CXX or name another")
        return tuple(command)
    for name in ("c++", "g++", "clang++"):
        if shutil.which(name):
            return (name,)
    if importlib.util.find_spec("ziglang"):
        return (sys.executable, "-m", "ziglang", "c++")
    raise ToolError(f"no C++ compiler found: install g++ or clang++, or run {install_hint('compiler')}")


@cache
def compiler_version():
    """First line that the compiler prints about itself; part of the names of build folders (str)."""
    done = subprocess.run([*compiler(), "--version"], capture_output=True, text=True)
    return " ".join(compiler()) + " " + done.stdout.partition("\n")[0]


def must_run(command, what, **options):
    """Runs a command; ToolError with the end of what it said unless it succeeds."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, **options)
    if done.returncode:
        raise ToolError(f"{what} failed ({done.returncode}): {(done.stderr or done.stdout)[-2000:]}")


@contextmanager
def locked(path):
    """Holds an exclusive lock on the file `path`; other processes wait. ToolError if it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = open(path, "w")
    except OSError as error:
        raise ToolError(f"cannot build in {path.parent}: {path}: {error.strerror}: name another folder with "
                        f"{BUILD_VARIABLE}") from None
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def builds_folder(name):
    """A folder of ``build_folder()``, made if it is not there (pathlib.Path).

    Raises
    ------
    ToolError
        If it cannot be made or written.
    """
    try:
        folder = build_folder() / name
    except NoFolderError as error:
        raise ToolError(str(error)) from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise ToolError(f"cannot build in {folder}: {error.strerror}: name another folder with "
                        f"{BUILD_VARIABLE}") from None
    return folder
