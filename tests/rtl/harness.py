"""Compiled C++ harnesses around verilated units, without cocotb."""

import hashlib
import subprocess
from pathlib import Path

from amaranth.lib.wiring import In, Out
from sterna.sim.board import compile as board
from sterna.sim.board import toolchain
from sterna.sim.golden.files import build_folder

TRAFFIC = Path(__file__).with_name("port_traffic.hpp")


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
        Headers that it includes, of ``sim/board`` and beside it.
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
    """Path of a program of one C++ file and headers of ``sim/board``, without a verilated unit; built once per text.
    """
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


def counted(command):
    """What a harness counted, by name (dict of int), or the text of its error."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return done.stderr.strip()
    words = done.stdout.split()
    return dict(zip(words[::2], map(int, words[1::2]), strict=True))


def port_members(address_bits, port_bytes):
    """A memory port as plain ports of a unit under test: members by name."""
    return {"reads_valid": In(1), "reads_ready": Out(1), "reads_address": In(address_bits), "reads_length": In(8),
            "data_valid": Out(1), "data_read": Out(8 * port_bytes), "write_valid": In(1), "write_ready": Out(1),
            "write_address": In(address_bits), "word_data": In(8 * port_bytes), "word_mask": In(port_bytes),
            "refreshing": Out(1)}


def port_statements(port, unit):
    """Statements between a MemoryPort and the ``port_members`` of a unit."""
    reads, words, writes = port.read_command, port.read_data, port.write
    return [
        reads.valid.eq(unit.reads_valid), unit.reads_ready.eq(reads.ready),
        reads.payload.address.eq(unit.reads_address), reads.payload.length.eq(unit.reads_length),
        unit.data_valid.eq(words.valid), unit.data_read.eq(words.payload), words.ready.eq(1),
        writes.valid.eq(unit.write_valid), unit.write_ready.eq(writes.ready),
        writes.payload.address.eq(unit.write_address), writes.payload.data.eq(unit.word_data),
        writes.payload.mask.eq(unit.word_mask), unit.refreshing.eq(port.refreshing)]


def _plain(name):
    """Verilog has a word for one of a request's fields."""
    return name + "_" * (name == "write")


def controller_members(controller):
    """Requests and words of the controller of a chip as plain ports of a unit under test: members by name."""
    return {"valid": In(1), "accepted": Out(1),
            **{_plain(name): In(field.shape) for name, field in controller.requests.payload.shape()},
            "data_valid": Out(1), "data_read": Out(controller.words.payload.shape()), "refreshing": Out(1),
            "ready": Out(1)}


def controller_statements(controller, unit):
    """Statements between a controller and the ``controller_members`` of a unit."""
    requests = controller.requests
    return [
        requests.valid.eq(unit.valid), unit.accepted.eq(requests.ready),
        *(getattr(requests.payload, name).eq(getattr(unit, _plain(name))) for name, _ in requests.payload.shape()),
        unit.data_valid.eq(controller.words.valid), unit.data_read.eq(controller.words.payload),
        unit.refreshing.eq(controller.refreshing), unit.ready.eq(controller.ready)]
