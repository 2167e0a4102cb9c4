"""Whole tokens of a model of full size in simulated gateware, held against the CPU and the interpreter.

``make full-size SIZE=370m DEVICE=sim:kv260``, or ``python -m docs.figures.fullboard 370m sim:kv260 ideal``: the
model lies in the board's memory from the start, the board makes greedy tokens, and the tokens and the state behind
them must be those of ``--device cpu``, every vector of every layer that of the instruction interpreter, bit for bit.
Results are kept in build/full-size/board.json as they come, an entry per size, device and memory.
"""

import json
import os
import sys
import time
from functools import partial

import numpy as np

from docs.figures import command, ultra
from docs.figures.pages import table
from docs.figures.sweep import sweep
from sterna.firmware.program import build_program
from sterna.host.errors import UsageError
from sterna.host.model.model import Model
from sterna.host.runtime.cpu import CpuRuntime
from sterna.host.runtime.open import open_runtime, simulated_config
from sterna.host.runtime.sampling import Sampling
from sterna.host.runtime.statistics import useful_bytes
from sterna.sim.board.board import read_trace
from sterna.sim.board.compile import locked
from sterna.sim.board.dram import DEFAULT, LINEAR, SETTINGS
from sterna.sim.golden.errors import SternaError
from sterna.sim.golden.files import build_folder, write_file
from sterna.sim.machine.compare import first_difference
from sterna.sim.machine.machine import Machine

FIRST = 1  # the token that is read first
PATIENCE_S = 1e6  # a token of the largest model takes hours on a slow machine
ULTRA = "+ultra"  # behind a device: its deep memories are in UltraRAM
BARS = {"370m": 215, "1.3b": 58, "2.7b": 28.5}  # tokens per second that were aimed at, with `ideal`


class BoardDiffers(SternaError):
    """Tokens, state or a vector of the board are not those of the model."""


def setting(device, dram):
    """Options of ``SimulatedBoard`` (dict) for the memory of a device, and for its deep memories if its name ends in
    ``ULTRA``.
    """
    more = ultra.OPTIONS if device.endswith(ULTRA) else {}
    return more | ({"dram": SETTINGS[dram]} if simulated_config(device.removesuffix(ULTRA)).axi_ports else {})


def on_board(device, model, tokens, dram, trace):
    """What a simulated board makes of a model that lies in its memory.

    Parameters
    ----------
    device : str
        sim:PRESET, perhaps with ``ULTRA`` behind it.
    model : Model
    tokens : int
    dram : str
        A name in SETTINGS; without effect on a board without AXI ports, which has its own memory.
    trace : Path
        File for every vector.

    Returns
    -------
    (list of int, float64 array [L, H], Counter, dict)
        Tokens, state, counters of the accelerator, and counts of the memory, per token.
    """
    timing = setting(device, dram) | {"trace": trace}
    with open_runtime(device.removesuffix(ULTRA), model, tell=partial(print, flush=True), preload=True,
                      timing=timing) as runtime:
        runtime.device.stall_s = PATIENCE_S
        found = list(runtime.generate([FIRST], tokens, Sampling(temperature=0)))
        state, counters, board = runtime.state().values, runtime.statistics.counters, runtime.board
    return found, state, counters, board.counts | {"cycles": board.cycles}


def on_interpreter(config, image, tokens):
    """(tokens, vectors) of the instruction interpreter, as ``first_difference`` takes these."""
    program, vectors = build_program(config, image.geometry), []
    memory = np.zeros(program.memory_map.end, np.uint8)
    for address, data in image.regions(config):
        memory[address:address + len(data)] = data
    machine = Machine(config, memory, lambda *vector: vectors.append(vector))
    machine.load(program)
    machine.position = machine.start = 0
    machine.ring[0], machine.prompt_end, machine.limit = FIRST, 1, tokens
    return [report.token for report in machine.run()], vectors


def whole_tokens(image, device, dram, tokens, folder):
    """Figures (dict) of whole tokens in gateware; BoardDiffers if anything is not what it should be.

    Parameters
    ----------
    image : Path
        Image of the model, or checkpoint folder.
    device, dram, tokens
        As for ``on_board``.
    folder : Path
        For the trace, which is removed.
    """
    model, config = Model(image), simulated_config(device.removesuffix(ULTRA))
    trace, started = folder / f"trace-{os.getpid()}", time.monotonic()
    try:
        found, state, counters, counts = on_board(device, model, tokens, dram, trace)
        seconds = time.monotonic() - started
        actual = read_trace(trace, config.batch * config.lanes)
    finally:
        trace.unlink(missing_ok=True)
    with CpuRuntime(model) as cpu:
        right = list(cpu.generate([FIRST], tokens, Sampling(temperature=0)))
        if found != right:
            raise BoardDiffers(f"{device} made the tokens {found}, cpu {right}")
        if not np.array_equal(state, cpu.state().values):
            raise BoardDiffers(f"{device}: the state behind token {tokens} is not that of cpu")
    wanted, vectors = on_interpreter(config, model.image_for(config, print), tokens)
    if wanted != found or (text := first_difference(vectors, actual)):
        raise BoardDiffers(f"{device}: {text if wanted == found else f'the interpreter made {wanted}'}")
    cycles, geometry = counters["cycles"] / tokens, model.geometry
    useful = useful_bytes(geometry, config.weight_code)
    out = {"tokens": tokens, "vectors": len(vectors), "cycles": cycles, "clock_hz": config.clock_hz,
           "tokens_per_second": config.clock_hz / cycles, "share": useful / config.port_bytes / cycles,
           "bound": config.port_bytes * config.clock_hz / useful, "seconds": seconds,
           **{name: counters[name] / tokens for name in ("port_busy", "stall_stream", "stall_rows", "stall_idle",
                                                         "port_full", "port_empty")}}
    if config.axi_ports:
        setting = SETTINGS[dram]
        lost = counts["refreshes"] * (setting.rp + setting.rfc) * 1e-12 * config.clock_hz / counts["cycles"] * cycles
        out |= {"refresh": lost, "turns": counts["turns"] / counts["cycles"] * cycles}
    elif counters["refresh"]:
        lost = counters["refresh"] / tokens
        out |= {"refresh": lost, "share_less_refresh": useful / config.port_bytes / (cycles - lost)}
    return out


def results_file():
    """Where results are kept (Path)."""
    return build_folder() / "full-size" / "board.json"


def kept():
    """Results by "SIZE DEVICE MEMORY" (dict)."""
    path = results_file()
    return json.loads(path.read_text()) if path.exists() else {}


def keep(name, figures):
    """Adds a result; other processes may add theirs."""
    path = results_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_suffix(".lock")):
        write_file(path, json.dumps(kept() | {name: figures}, indent=1))


def tables(results):
    """Markdown of the table of whole tokens, by its name.

    Parameters
    ----------
    results : dict of str to dict
        As ``kept`` gives them.
    """
    def of_stream(device, dram, f):
        """Share of what a linear stream gets of the memory; of DDR3, of the peak less refresh."""
        if dram in LINEAR:
            config = simulated_config(device.removesuffix(ULTRA))
            return f["share"] * config.port_bytes * config.clock_hz / 1e9 / LINEAR[dram]
        return f["share_less_refresh"]

    rows, together = [], []
    for name, f in sorted(results.items()):
        size, device, dram = name.split(" ")
        if "slots" in f:
            alone = results.get(f"{size} {device.partition(',')[0]} {dram}")
            of_alone = f"{f['tokens_per_second'] / f['slots'] / alone['tokens_per_second']:.1%}" if alone else ""
            together.append([size, device, dram, f["slots"], f"{f['cycles']:,.0f}", f"{f['tokens_per_second']:.1f}",
                             of_alone, f"{f['prompt_cycles']:,.0f}", f"{f['prompt_tokens_per_second']:.1f}",
                             f"{f['vectors'] + f['prompt_vectors']:,}"])
            continue
        rows.append([size, device, dram, f"{f['cycles']:,.0f}", f"{f['tokens_per_second']:.2f}", f"{f['bound']:.1f}",
                     f"{f['share']:.1%}", f"{of_stream(device, dram, f):.1%}",
                     f"{f['stall_stream'] / f['cycles']:.1%}", f"{f['stall_rows'] / f['cycles']:.1%}",
                     f"{f['stall_idle'] / f['cycles']:.1%}", f"{f['vectors']:,}"])
    head = ["model", "device", "memory", "cycles per token", "tokens/s at its clock", "bound", "share of all cycles",
            "share of a linear stream", "array waits for words", "for room of rows", "for a product",
            "vectors compared"]
    slots = ["model", "device", "memory", "B", "cycles of a sweep", "tokens/s of all", "of B times the one alone",
             "cycles of a prompt of B", "tokens/s of a prompt", "vectors compared, of B slots each"]
    return ({"table.fullboard": table(head, rows)} if rows else {}) | (
        {"table.fullboard.slots": table(slots, together)} if together else {})


def main(arguments):
    """Runs the command line, a size, a device and a memory; returns the exit code."""
    def work():
        from docs.figures.fullsize import SIZES, made
        if not 2 <= len(arguments) <= 3 or arguments[0] not in SIZES:
            raise UsageError(f"{' '.join(arguments) or 'no size'}: give one of {', '.join(SIZES)}, a device, and one "
                             f"of {', '.join(SETTINGS)}")
        size, device, dram = [*arguments, DEFAULT][:3]
        if dram not in SETTINGS:
            raise UsageError(f"memory {dram}: use one of {', '.join(SETTINGS)}")
        config = simulated_config(device.removesuffix(ULTRA))
        if config is None:
            raise UsageError(f"device {device}: use a simulated board, for instance sim:kv260")
        memory = dram if config.axi_ports else config.ddr3 or config.sdram or config.memory
        folder = build_folder() / "full-size" / size
        if config.batch > 1 and not device.endswith(ULTRA):
            figures = sweep(made(size, folder), device, setting(device, dram), folder, FIRST)
            keep(f"{size} {device} {memory}", figures)
            print(f"{size} on {device}, memory {memory}: {figures['cycles']:,} cycles for a token in each slot, "
                  f"{figures['tokens_per_second']:.1f} tokens/s together, of a prompt "
                  f"{figures['prompt_tokens_per_second']:.1f}, at {figures['clock_hz'] / 1e6:g} MHz, "
                  f"{figures['vectors'] + figures['prompt_vectors']} vectors of each bit for bit")
            return
        figures = whole_tokens(made(size, folder), device, dram, 1, folder)
        keep(f"{size} {device} {memory}", figures)
        print(f"{size} on {device}, memory {memory}: {figures['cycles']:,.0f} cycles a token, "
              f"{figures['tokens_per_second']:.2f} tokens/s at {figures['clock_hz'] / 1e6:g} MHz, "
              f"{figures['vectors']} vectors bit for bit")
    return command.run(work)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
