"""Runs a cocotb bench on an Amaranth component: `run` for the launcher, `start` and `cycles` for the bench.

One rule keeps benches right on both simulators (Icarus shows values before a rising edge, Verilator after it):
everything is driven just after the rising edge and sampled at the falling edge. At the falling edge all signals have
settled to the values that the next rising edge sees, so `valid & ready` sampled there is a transfer.
"""

import hashlib
import os
import random
import re
import shutil
import sys
import tempfile
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from unittest.mock import patch

from sterna.hw.flow.bitstream import without_collisions
from sterna.sim.board import toolchain
from sterna.sim.board.compile import locked
from sterna.sim.board.verilog import NOISE_BITS, random_collisions, yosys_verilog
from sterna.sim.golden.files import build_folder

PASSES = ("proc -nomux -norom", "memory_collect")  # those of amaranth.back.verilog
BUILD = build_folder() / "rtl"
SEED = int(os.environ.get("STERNA_SEED", "1"))


def verilog(component, top, platform=None):
    """Verilog text of an Amaranth component whose ports are its members, random before the reset and where a memory
    word is read in the cycle of its write (str).
    """
    from amaranth.back import rtlil
    text = without_collisions(rtlil.convert(component, name=top, platform=platform, emit_src=False))
    bits = random.Random(f"{SEED}/collisions")
    return random_start(random_collisions(yosys_verilog(text, PASSES), lambda: bits.getrandbits(NOISE_BITS)))


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


def _runtime(waves):
    """Folder of the objects that all builds share: Verilator's run time. Each has a main program of its own."""
    tools = [*map(version, ("verilator", "cocotb")), toolchain.compiler_version(), str(waves)]
    return BUILD / f"verilated-{hashlib.sha256(repr(tools).encode()).hexdigest()[:16]}"


def _make_variables(waves):
    """Variables for make, which cocotb's runner calls: the compiler, the Python that runs this (Verilator's own would
    be `python`, which many machines have not), and the shared objects in place of a build's own, which would take
    most of its time.
    """
    compiler, shared = toolchain.compiler(), sorted(map(str, _runtime(waves).glob("*.o")))
    variables = {"CXX": compiler, "LINK": [*compiler, *shared], "PYTHON3": [sys.executable]}
    if shared:
        variables["VK_GLOBAL_OBJS"] = []
    return " ".join([toolchain.MAKEFLAGS, *(f"{name}=" + "\\ ".join(value) for name, value in variables.items())])


@contextmanager
def _first_build(simulator, waves):
    """Whether this build makes the objects that all share; others wait for it before they begin."""
    folder = _runtime(waves) if simulator == "verilator" else None
    if folder is None or folder.exists():
        yield False
    else:
        with locked(BUILD / "locks" / folder.name):
            yield not folder.exists()


def _share_objects(built, waves):
    """Keeps the objects of the first build for the others."""
    work = Path(tempfile.mkdtemp(prefix="work-", dir=BUILD))
    for path in built.glob("verilated*.o"):
        shutil.copy(path, work)
    work.rename(_runtime(waves))


def _commands():
    """Folder with the command `verilator`: the program itself, not the package's script around it, which needs perl."""
    program = toolchain.verilator_root() / "bin" / "verilator_bin"
    folder = BUILD / f"bin-{hashlib.sha256(str(program).encode()).hexdigest()[:16]}"
    with locked(BUILD / "locks" / folder.name):
        folder.mkdir(exist_ok=True)
        if not (folder / "verilator").exists():
            (folder / "verilator").symlink_to(program)
    return folder


def build(component, top, simulator, sources=(), waves=False, platform=None):
    """Builds `component` for `simulator` once per content and returns (runner, build folder).

    `component` is an Amaranth component, or None if `sources` hold a Verilog module named `top`. A build that was cut
    off is not taken for a finished one: the marker `built` is written last.
    """
    from cocotb_tools.runner import get_runner
    text = verilog(component, top, platform) if component is not None else ""
    material = [text, simulator, top, str(waves), *(Path(s).read_text() for s in sources)]
    digest = hashlib.sha256("\0".join(material).encode()).hexdigest()[:16]
    folder = BUILD / f"{top}-{simulator}-{digest}"
    if simulator == "icarus" and shutil.which("iverilog") is None:
        raise toolchain.ToolError("simulator icarus is missing: put iverilog on PATH "
                                  "(Debian: apt-get install iverilog)")
    if simulator == "verilator":
        # cocotb's runner looks the simulator up on the PATH of this process
        variables = toolchain.environment()
        variables["PATH"] = os.pathsep.join([str(_commands()), variables["PATH"]])
        os.environ.update(variables)
    runner = get_runner(simulator)
    arguments = []
    if simulator == "verilator":
        arguments = ["-Wno-fatal", "-Wno-lint", "-Wno-style", "--x-initial", "unique", "-O3", "-CFLAGS", "-O0",
                     "--output-split", "0"]
    with locked(BUILD / "locks" / folder.name):
        marker = folder / "built"
        if not marker.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            files = [str(Path(s).resolve()) for s in sources]
            if component is not None:
                (folder / f"{top}.v").write_text(text)
                files.append(str(folder / f"{top}.v"))
            log = folder / "build.log"
            with _first_build(simulator, waves) as first:
                # cocotb's runner calls make itself, where Verilator's -MAKEFLAGS has no effect
                environment = {"MAKEFLAGS": _make_variables(waves)} if simulator == "verilator" else {}
                try:
                    with patch.dict(os.environ, environment):
                        runner.build(sources=files, hdl_toplevel=top, build_dir=folder, build_args=arguments,
                                     waves=waves, timescale=("1ns", "1ps"), always=True, log_file=log)
                except (Exception, SystemExit) as error:
                    detail = log.read_text()[-3000:] if log.exists() else ""
                    raise AssertionError(f"{simulator} could not build {top}: {error}\n{detail}") from error
                if first:
                    _share_objects(folder, waves)
            marker.touch()
    runner.build_dir, runner.hdl_toplevel = folder, top
    return runner, folder


def run(component, module, name, simulator, sources=(), testcase=None, env=None, seed=None,
        platform=None):
    """Runs the cocotb tests of a bench on a component; fails with the simulator's log if one of them fails.

    Parameters
    ----------
    component : amaranth.lib.wiring.Component or None
        The device under test; None if `sources` hold a Verilog module called `name`.
    module : str
        Python module with the cocotb tests, e.g. "bench_decoder" (a file beside this one).
    name : str
        Name of the top module; also the beginning of the build folder's name.
    simulator : str
        "icarus" or "verilator"; a test hands on its parameter ``simulator`` (see conftest).
    sources : sequence of path
        Verilog files that are compiled as well.
    testcase : str or None
        Only this cocotb test; None: all of the module.
    env : dict or None
        Parameters for the bench, as environment variables (values are turned into text).
    seed : int or None
        Seed of all randomness, STERNA_SEED (default 1) if None. It is printed.
    platform : object or None
        What `elaborate` is given.

    Raises
    ------
    AssertionError
        If a test of the bench fails, the bench has no tests or the component cannot be built.
    sterna.sim.board.toolchain.ToolError
        If the simulator is missing.
    """
    seed = SEED if seed is None else seed
    waves = os.environ.get("WAVES", "0") not in ("", "0")
    runner, folder = build(component, name, simulator, sources, waves, platform)
    label = hashlib.sha256(repr((module, testcase, sorted((env or {}).items()), seed)).encode()).hexdigest()[:10]
    test_folder = folder / f"{module}-{label}-{os.getpid()}"
    shutil.rmtree(test_folder, ignore_errors=True)
    test_folder.mkdir()
    log, results = test_folder / "run.log", test_folder / "results.xml"
    here = str(Path(__file__).parent)
    if here not in sys.path:  # the simulator's Python starts with this process's path
        sys.path.insert(0, here)
    print(f"{name} on {simulator}: seed {seed} (STERNA_SEED), log {os.path.relpath(log)}")
    plusargs = []
    if simulator == "verilator":
        plusargs = ["+verilator+rand+reset+2", f"+verilator+seed+{seed % 2147483646 + 1}"]
    problem = None
    # The runner lets this process's environment win over extra_env, and COLUMNS, for one, is often set there.
    parameters = {"STERNA_SEED": str(seed)} | {k: str(v) for k, v in (env or {}).items()}
    try:
        with patch.dict(os.environ, parameters):
            runner.test(test_module=module, hdl_toplevel=name, hdl_toplevel_lang="verilog", testcase=testcase,
                        seed=seed, plusargs=plusargs, build_dir=folder, test_dir=test_folder,
                        results_xml=str(results), waves=waves, timescale=("1ns", "1ps"), log_file=log)
    except (Exception, SystemExit) as error:
        problem = str(error) or "the simulator failed"
    if problem is None:
        from cocotb_tools.runner import get_results
        ran, failed = get_results(results)
        problem = "the bench ran no tests" if ran == 0 else f"{failed} of {ran} tests failed" if failed else None
    if problem is not None:
        detail = log.read_text(errors="replace")[-6000:] if log.exists() else ""
        raise AssertionError(f"{module} on {name} ({simulator}, STERNA_SEED={seed}): {problem}\n{detail}")
    if not waves:
        shutil.rmtree(test_folder, ignore_errors=True)


def rng(salt=0):
    """Random generator of a bench, derived from the run's seed and `salt` (random.Random)."""
    return random.Random(f"{SEED}/{salt}")


async def start(dut, reset_cycles=2, period_ns=10):
    """Starts the clock and resets the device; returns just after a rising edge, when inputs may be driven.

    Inputs that the bench needs low during reset must be set before. A device without clock gets no clock.
    """
    from cocotb.clock import Clock
    from cocotb.triggers import Timer
    if not hasattr(dut, "clk"):
        await Timer(1, "ns")
        return
    if hasattr(dut, "rst"):
        dut.rst.value = 1
    Clock(dut.clk, period_ns, unit="ns").start()
    await cycles(dut, reset_cycles)
    if hasattr(dut, "rst"):
        dut.rst.value = 0


async def cycles(dut, count=1):
    """Waits for `count` rising edges; afterwards inputs may be driven for the cycle that begins."""
    from cocotb.triggers import RisingEdge
    for _ in range(count):
        await RisingEdge(dut.clk)


async def settled(dut):
    """Waits until the signals of the present cycle have settled (falling edge); afterwards they may be sampled."""
    from cocotb.triggers import FallingEdge
    await FallingEdge(dut.clk)


async def until(dut, condition, limit_cycles=10_000, what="the condition"):
    """Waits until `condition()` holds in a settled cycle; returns the number of cycles waited.

    Raises AssertionError after `limit_cycles`.
    """
    for waited in range(limit_cycles):
        await settled(dut)
        if condition():
            await cycles(dut)
            return waited
        await cycles(dut)
    raise AssertionError(f"{what} did not hold within {limit_cycles} cycles")
