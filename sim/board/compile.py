"""Compiles the simulated board once per configuration and source text, without make and without elaborating again."""

import hashlib
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor, as_completed
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from sterna.hw.protocol import FLASH_OFFSET
from sterna.sim.board import toolchain
from sterna.sim.board.ddr3 import ddr3_numbers
from sterna.sim.board.sdram import sdram_numbers
from sterna.sim.golden.compiler import ToolError, locked, must_run
from sterna.sim.golden.files import write_file

HERE = Path(__file__).resolve().parent
# What elaboration imports. More than it reads, so that no list has to follow the imports: a build whose text has not
# changed is found again by its Verilog.
PACKAGES = ("sterna.hw", "sterna.firmware", "sterna.sim.golden", "sterna.sim.board")
SUFFIXES = (".py", ".cpp", ".hpp", ".h", ".v")
RUNTIME = ("verilated.cpp", "verilated_threads.cpp")
HEADERS = ("memory", "string", "verilated.h", "verilated_dpi.h", "verilated_vpi.h", "verilated_syms.h")
# Of each format of waveforms: BOARD_WAVES, and the files of Verilator that write it.
TRACERS = {None: (0, ()), "vcd": (1, ("verilated_vcd_c.cpp",)), "fst": (2, ("verilated_fst_c.cpp",))}
ACCELERATOR = "sterna.hw.accelerator:Accelerator"
FAST, SLOW = ("-O3",), ("-O0",)  # code that runs every cycle; code that runs once


def _digest(*parts):
    total = hashlib.sha256()
    for part in parts:
        part = part.read_bytes() if isinstance(part, Path) else str(part).encode()
        total.update(len(part).to_bytes(8, "little") + part)
    return total.hexdigest()[:20]


def _tools():
    return version("verilator"), version("amaranth"), toolchain.compiler_version()


def sources(*packages):
    """Source files of packages and the packages in them, sorted by path (list of pathlib.Path).

    Parameters
    ----------
    packages : str
        Names; ``PACKAGES`` if none is given.
    """
    folders = [find_spec(name).submodule_search_locations[0] for name in packages or PACKAGES]
    return sorted(path for folder in folders for path in Path(folder).rglob("*") if path.suffix in SUFFIXES)


def key(config, device=ACCELERATOR, device_sources=(), waves=None, baud=None, flash=False, netlist=None):
    """Name of the build: changes with the configuration, the gateware's and harness's text and the tools (str).

    Nothing is elaborated: the key is a hash of files, computed in some milliseconds.
    """
    files = [*sources(), *map(Path, device_sources)]
    if netlist:
        netlist += toolchain.yosys_version()
    return _digest(config.digest, device, waves, baud, flash, netlist, *_tools(), *sorted(files))


def tool_flags(include):
    root = toolchain.verilator_root()
    # The sanitizer is on by default in one of the compilers; the warnings are about generated code.
    # The FST writer's compression comes from pack/, which is looked into before the system's folders.
    return ["-std=c++20", "-w", "-fno-sanitize=undefined", "-DVM_COVERAGE=0", "-DVM_SC=0", "-DVERILATOR=1",
            f"-I{include}", f"-I{HERE / 'pack'}",
            f"-I{root / 'include'}", f"-I{root / 'include' / 'vltstd'}"]


def _compile(jobs, folder, flags, step=lambda text: None):
    """Compiles (source, level) pairs on all processors, largest first; returns the object files.

    ``step`` takes how far it is (str). What is not compiled yet when one fails, or at Ctrl-C, is not begun.
    """
    jobs = sorted(jobs, key=lambda job: -job[0].stat().st_size)

    def one(job):
        source, level = job
        target = folder / (source.stem + ".o")
        must_run([*toolchain.compiler(), *flags, *level, "-c", source, "-o", target], f"compiling {source.name}")
        return target
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        begun = [pool.submit(one, job) for job in jobs]
        try:
            for done, _ in enumerate(as_completed(begun)):
                step(f"compiling, {done} of {len(jobs)} files done")
            return [each.result() for each in begun]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _publish(work, folder):
    """Gives the finished folder `work` its name; a folder left there by a broken disk is replaced."""
    shutil.rmtree(folder, ignore_errors=True)
    os.rename(work, folder)


def trace_flags(waves):
    """Options of the compiler for a format of waveforms."""
    return [f"-DVM_TRACE={int(bool(waves))}", f"-DVM_TRACE_VCD={int(waves == 'vcd')}",
            f"-DVM_TRACE_FST={int(waves == 'fst')}"]


def runtime_objects(waves=None, names=None, level=("-O1",)):
    """Object files of Verilator's run time, the same for all designs: compiled once.

    Parameters
    ----------
    waves : str or None
        Format of the waveforms that it writes, as ``board_program`` takes it.
    names : tuple of str or None
        Files of Verilator; None: those that every design needs.
    level : tuple of str
        Options of the compiler.
    """
    names = names or RUNTIME + TRACERS[waves][1]
    flags = [*tool_flags(HERE), *trace_flags(waves)]
    include = toolchain.verilator_root() / "include"
    folder = _made_once(f"runtime-{_digest(*_tools(), *flags, *level, *names)}", lambda work: _compile(
        [(include / name, level) for name in names], work, flags))
    return sorted(folder.glob("*.o"))


def headers(waves=None):
    """Options of a compilation without optimisation that reads Verilator's headers as compiled before (list of str).

    For the price of one small design the headers, most of its compilation, are read once. Of the compilers only GCC
    does so without more ado; for another one the list is empty.
    """
    if "clang" in toolchain.compiler_version().lower():
        return []
    flags = [*tool_flags(HERE), *trace_flags(waves), *SLOW]

    def make(work):
        path = work / "headers.h"
        path.write_text("".join(f"#include <{name}>\n" for name in HEADERS))
        must_run([*toolchain.compiler(), *flags, "-x", "c++-header", path, "-o", f"{path}.gch"],
                 "compiling Verilator's headers")
    return ["-include", str(_made_once(f"headers-{_digest(*_tools(), *flags, *HEADERS)}", make) / "headers.h")]


def _made_once(name, make):
    """Folder `name` of the compiled simulators, filled by ``make(folder)`` if it is not there."""
    builds = toolchain.simulator_folder()
    folder = builds / name
    with locked(builds / "locks" / name):
        if not folder.exists():
            work = Path(tempfile.mkdtemp(prefix="work-", dir=builds))
            try:
                make(work)
                _publish(work, folder)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    return folder


def board_program(config, device=ACCELERATOR, device_sources=(), waves=None, on_compile=None, baud=None,
                  flash=False, netlist=None):
    """Path of the compiled simulated board; compiles it if this configuration and text has not been compiled before.

    Parameters
    ----------
    config : sterna.hw.config.Config
        Configuration of the accelerator.
    device : str
        "module:Class" of the accelerator.
    device_sources : sequence of path
        Source files of `device` outside hw/; they are part of the key.
    waves : str or None
        Format of the waveforms that the program can record, "vcd" or "fst" (slower); None: none.
    on_compile : callable or None
        Called with what begins, for the user, before anything that takes more than a second; as
        ``sterna.sim.golden.progress.working`` shows it.
    baud : int or None
        Rate of a serial line in front of the device; None: bytes go in and out directly.
    flash : bool
        The board has a flash and starts from it.
    netlist : str or None
        Family of FPGAs (sim.board.netlist): the gateware is simulated after its synthesis; None: the gateware itself.

    Raises
    ------
    ToolError
        If a tool is missing or fails.
    """
    builds = toolchain.simulator_folder()
    pointer = builds / "keys" / key(config, device, device_sources, waves, baud, flash, netlist)
    program = _pointed(pointer)
    if program is None:
        with locked(builds / "locks" / pointer.name):
            program = _pointed(pointer)
            if program is None:
                program = _program(config, device, waves, on_compile or (lambda text: None), baud, flash,
                                   netlist)
                write_file(pointer, program.parent.name)
    return program


def _pointed(pointer):
    """Program that the file `pointer` names, or None."""
    if not pointer.exists():
        return None
    program = pointer.parent.parent / pointer.read_text() / "board"
    return program if program.exists() else None


def _program(config, device, waves, on_compile, baud, flash, netlist):
    """Elaborates; compiles unless the same Verilog text has been compiled before (most edits of sources
    change none).
    """
    from sterna.sim.board import verilog  # Amaranth is imported only here
    what = f"building the simulated board {config.name!r} (once per configuration)"

    def step(text):
        on_compile(f"{what}: {text}")

    step("elaborating")
    each = " ".join(f"DO({k}, {k or ''})" for k in range(config.engines))
    plain = config.memory == "external" and not (config.sdram or config.ddr3 or config.axi_ports)
    header = (f"#define BOARD_ENGINES {config.engines}\n#define BOARD_EACH_ENGINE(DO) {each}\n"
              f"#define BOARD_EXTERNAL {int(plain)}\n"
              f"#define BOARD_AXI_PORTS {config.axi_ports}\n#define BOARD_BLOCK_BYTES {config.block_bytes}\n"
              f"#define BOARD_EACH_PORT(X) {' '.join(f'X({k})' for k in range(config.axi_ports))}\n"
              f"#define BOARD_SDRAM {int(bool(config.sdram))}\n"
              f"#define BOARD_SDRAM_NUMBERS {sdram_numbers(config)}\n"
              f"#define BOARD_DDR3 {int(bool(config.ddr3))}\n#define BOARD_DDR3_NUMBERS {ddr3_numbers(config)}\n"
              f"#define BOARD_MEMORY_HZ {config.memory_hz if config.own_memory_clock else 0}\n"
              f"#define BOARD_MEMORY_BYTES {config.memory_bytes}ull\n#define BOARD_PORT_BYTES {config.port_bytes}\n"
              f"#define BOARD_LANES {config.batch * config.lanes}\n#define BOARD_WAVES {TRACERS[waves][0]}\n"
              f"#define BOARD_TRACE {int(not netlist)}\n"
              f"#define BOARD_BAUD {baud or 0}\n#define BOARD_CLOCK_HZ {config.clock_hz}\n"
              f"#define BOARD_FLASH {int(flash)}\n#define BOARD_FLASH_OFFSET {FLASH_OFFSET}\n")
    text = verilog.board_verilog(config, device, bool(waves), baud, flash, netlist)
    digest = _digest(text, header, *_tools(), *sources("sterna.sim.board"))
    builds = toolchain.simulator_folder()
    folder = builds / f"board-{digest}"
    with locked(builds / "locks" / folder.name):
        if not (folder / "board").exists():
            step("verilating")
            runtime = runtime_objects(waves)
            work = Path(tempfile.mkdtemp(prefix="work-", dir=folder.parent))
            try:
                (work / "board.v").write_text(text)
                (work / "board_config.h").write_text(header)
                _build(work, verilog.TOP, waves, runtime, netlist, step)
                _publish(work, folder)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    return folder / "board"


def _build(work, top, waves, runtime, netlist, step):
    """Verilates and compiles board.v and board_config.h of the folder `work` into `work`/board.

    What a `netlist` leaves undefined is drawn at the start; the gateware leaves nothing undefined.
    """
    must_run([toolchain.verilator_root() / "bin" / "verilator_bin", "--cc", work / "board.v", "--top-module", top,
          "--prefix", "Vboard", "-Mdir", work / "obj", "-O3", "--x-assign",
          "unique" if netlist else "fast", "--x-initial", "unique",
          "--no-timing", "--no-assert", "--output-split", "40000", "--output-split-cfuncs", "5000",
          "-Wno-fatal", "-Wno-lint", "-Wno-style", "-Werror-USERFATAL", *([f"--trace-{waves}"] if waves else [])],
         "verilator", env=toolchain.environment())
    # Small files cost mostly the headers, so they share a compilation, as does all that runs once;
    # large files of code that runs every cycle are spread over the processors.
    jobs, shared = [], {SLOW: [], FAST: []}
    for path in sorted((work / "obj").glob("*.cpp")):
        level = SLOW if "__Slow" in path.name else FAST
        if level is FAST and path.stat().st_size > 100_000:
            jobs.append((path, level))
        else:
            shared[level].append(f'#include "{path.name}"\n')
    for level, lines in shared.items():
        path = work / "obj" / f"shared{level[0]}.cpp"
        path.write_text("".join(lines))
        jobs.append((path, level))
    shutil.copy(HERE / "board.cpp", work / "harness.cpp")
    flags = [*tool_flags(work), f"-I{HERE}", f"-I{work / 'obj'}", *trace_flags(waves)]
    objects = _compile([*jobs, (work / "harness.cpp", FAST)], work / "obj", flags, step)
    step("linking")
    must_run([*toolchain.compiler(), *objects, *runtime, "-lpthread", "-o", work / "board"],
         "linking the simulated board")
    shutil.rmtree(work / "obj")
