"""Compiled C++ harnesses around verilated units, without cocotb."""

import hashlib

from sterna.sim.board import compile as board
from sterna.sim.board import toolchain
from sterna.sim.golden.files import build_folder


def compiled(name, top, text, harness, headers=()):
    """Path of the program; built once per text of gateware, harness and headers.

    Parameters
    ----------
    name : str
        Beginning of the build folder's name.
    top : str
        Module of the Verilog ``text``; the harness includes its class as V + top.
    harness : Path
    headers : sequence of Path
        Headers of ``sim/board`` that the harness includes.
    """
    texts = [text, harness.read_text(), *(path.read_text() for path in headers)]
    digest = hashlib.sha256("".join(texts).encode()).hexdigest()[:16]
    builds = build_folder() / "rtl"
    folder = builds / f"{name}-{digest}"
    program = folder / harness.stem
    with board.locked(builds / "locks" / folder.name):
        if not program.exists():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{top}.v").write_text(text)
            board.must_run([toolchain.verilator_root() / "bin" / "verilator_bin", "--cc", folder / f"{top}.v",
                            "--top-module", top, "--prefix", f"V{top}", "-Mdir", folder, "-O3", "--x-initial",
                            "unique", "--no-timing", "-Wno-fatal", "-Wno-lint", "-Wno-style", "-Werror-USERFATAL"],
                           "verilator", env=toolchain.environment())
            everything = folder / "everything.cpp"
            everything.write_text("".join(f'#include "{path.name}"\n' for path in sorted(folder.glob(f"V{top}*.cpp")))
                                  + f'#include "{harness}"\n')
            board.must_run([*toolchain.compiler(), *board.tool_flags(folder), f"-I{board.HERE}", "-DVM_TRACE=0",
                            "-O2", everything, *board.runtime_objects(), "-lpthread", "-o", program],
                           f"compiling {harness.name}")
    return program


def program(harness, headers=()):
    """Path of a program of one C++ file and headers of ``sim/board``, without a verilated unit; built once per text."""
    digest = hashlib.sha256("".join(path.read_text() for path in (harness, *headers)).encode()).hexdigest()[:16]
    builds = build_folder() / "rtl"
    folder = builds / f"{harness.stem}-{digest}"
    path = folder / harness.stem
    with board.locked(builds / "locks" / folder.name):
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            board.must_run([*toolchain.compiler(), "-std=c++20", "-fno-sanitize=undefined", f"-I{board.HERE}", "-O1",
                            harness, "-o", path], f"compiling {harness.name}")
    return path
