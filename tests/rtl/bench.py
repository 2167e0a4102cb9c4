"""Runs a cocotb bench on an Amaranth component: `run` for the launcher, `start` and `cycles` for the bench.

One rule keeps benches right on both simulators (Icarus shows values before a rising edge, Verilator after it):
everything is driven just after the rising edge and sampled at the falling edge. At the falling edge all signals have
settled to the values that the next rising edge sees, so `valid & ready` sampled there is a transfer.

The simulator imports this module too, for each bench anew, so it imports little (`builds` has Amaranth).
"""

import hashlib
import os
import random
import shutil
import sys
from pathlib import Path
from unittest.mock import patch

HERE = Path(__file__).parent
SEED = int(os.environ.get("STERNA_SEED", "1"))
# Of pytest the simulator's Python takes only what shows the values of an assertion, and that for the benches' own.
PYTEST = {"COCOTB_REWRITE_ASSERTION_FILES": f"{HERE}/*.py", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


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
    from builds import build
    runner, folder = build(component, name, simulator, sources, waves, platform)
    label = hashlib.sha256(repr((module, testcase, sorted((env or {}).items()), seed)).encode()).hexdigest()[:10]
    test_folder = folder / f"{module}-{label}-{os.getpid()}"
    shutil.rmtree(test_folder, ignore_errors=True)
    test_folder.mkdir()
    log, results = test_folder / "run.log", test_folder / "results.xml"
    if str(HERE) not in sys.path:  # the simulator's Python starts with this process's path
        sys.path.insert(0, str(HERE))
    print(f"{name} on {simulator}: seed {seed} (STERNA_SEED), log {os.path.relpath(log)}")
    plusargs = []
    if simulator == "verilator":
        plusargs = ["+verilator+rand+reset+2", f"+verilator+seed+{seed % 2147483646 + 1}"]
    problem = None
    # The runner lets this process's environment win over extra_env, and COLUMNS, for one, is often set there.
    parameters = PYTEST | {"STERNA_SEED": str(seed)} | {k: str(v) for k, v in (env or {}).items()}
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
