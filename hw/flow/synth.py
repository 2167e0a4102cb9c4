"""Synthesises one unit (`units`) with yosys and counts its cells: the resource table and the
budgets of the tests. Also finds and runs the tools for the rest of the flow.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from sterna.hw.flow.packing import logic_cells
from sterna.hw.flow.units import SynthesisError, create
from sterna.sim.golden.extras import install_hint

# The yosys script of each family up to LUTs and after them, and its cells by kind. In between
# stands the classic mapper: abc9, the default of these commands, stops without a message on units
# with block RAM in the WebAssembly build of yosys. An ECP5 carry cell is two LUTs with a carry, an
# iCE40 one a carry beside a LUT. Nobody here needs what a memory gives at an address in the cycle
# that writes it, the queues of amaranth.lib included, so none needs logic for that case;
# simulations give random bits there (sim/board/verilog.py).
ECP5 = "synth_ecp5 -no-rw-check -top unit -run"
ICE40 = "synth_ice40 -dsp -spram -no-rw-check -top unit -run"
# Of a whole accelerator, whose hierarchy is kept: with classic abc, since abc9 fails on the code
# buffers there. A unit alone has abc9, with which rows of the array take a quarter fewer LUTs.
XILINX = (
    "synth_xilinx -family {family} -noiopad -noclkbuf -top unit -run begin:map_luts; "
    "opt_expr -mux_undef -noclkinv; abc -luts 2:2,3,6:5,10,20; clean; xilinx_srl -fixed -minlen 3; "
    "techmap -map +/xilinx/lut_map.v -map +/xilinx/cells_map.v -D LUT_WIDTH=6; xilinx_dffopt; "
    "opt_lut_ins -tech xilinx; "
    "synth_xilinx -family {family} -noiopad -noclkbuf -top unit -run finalize:check"
)
FAMILIES = {
    "ecp5": (
        f"{ECP5} begin:map_luts; abc -lut 4; clean; {ECP5} map_cells:check",
        {
            "LUT4": "lut4",
            "CCU2C": "carry",
            "TRELLIS_FF": "flip_flops",
            "DP16KD": "block_ram",
            "PDPW16KD": "block_ram",
            "TRELLIS_DPR16X4": "lut_ram",
            "MULT18X18D": "dsp",
        },
    ),
    "ice40": (
        f"{ICE40} begin:map_luts; abc -lut 4; ice40_wrapcarry -unwrap; "
        "techmap -map +/ice40/ff_map.v; clean; "
        f"opt_lut -tech ice40; {ICE40} map_cells:check",
        {
            "SB_LUT4": "lut4",
            "SB_CARRY": "carry",
            "SB_DFF": "flip_flops",
            "SB_RAM40": "block_ram",
            "SB_SPRAM": "spram",
            "SB_MAC16": "dsp",
        },
    ),
} | {
    name: (
        f"synth_xilinx -family {name} -flatten -noiopad -noclkbuf -top unit -run begin:check",
        {
            "LUT": "lut6",
            "INV": "lut6",
            "SRL": "lut6",
            "CARRY": "carry",
            "FD": "flip_flops",
            "RAMB36": "block_ram",
            "RAMB18": "half_block_ram",
            "RAM32": "lut_ram",
            "RAM64": "lut_ram",
            "RAM128": "lut_ram",
            "RAM256": "lut_ram",
            "RAM512": "lut_ram",
            "URAM288": "ultra_ram",
            "DSP48": "dsp",
        },
    )
    for name in ("xc7", "xcup")
}
# LUTs of a cell of LUT RAM of AMD parts (UltraScale Architecture Libraries Guide, UG974)
LUT_RAM = {
    "RAM32M16": 8,
    "RAM64M8": 8,
    "RAM32M": 4,
    "RAM64M": 4,
    "RAM32X1D": 2,
    "RAM64X1D": 2,
    "RAM128X1D": 4,
    "RAM256X1D": 8,
}


@dataclass(frozen=True)
class Target:
    """Stands for the platform of a family in `elaborate`; ``device`` as in amaranth.vendor."""

    device: str


TARGETS = {
    "ecp5": Target("LFE5U-85F"),
    "ice40": Target("iCE40UP5K"),
    "xc7": Target("xc7k325t"),
    "xcup": Target("xck26"),
}


@dataclass(frozen=True)
class Cells:
    """Cells of one unit after synthesis, before place and route.

    On ECP5 `lut4` leaves out the two LUTs inside each carry cell, which `luts` counts. On iCE40
    `logic_cells` is what LUTs, flip-flops and carries take together (`packing`). `lut6` counts LUTs
    of AMD parts of any size; two small ones are not put into one here. Their `block_ram` has 36
    Kbit, `half_block_ram` 18, `ultra_ram` 288, and `lut_ram` counts LUTs rather than cells.
    """

    unit: str
    preset: str
    family: str
    lut4: int = 0
    lut6: int = 0
    carry: int = 0
    flip_flops: int = 0
    logic_cells: int = 0
    block_ram: int = 0
    half_block_ram: int = 0
    ultra_ram: int = 0
    lut_ram: int = 0
    spram: int = 0
    dsp: int = 0

    @property
    def luts(self):
        """LUTs, with what LUT RAM and, of an ECP5, carry cells take."""
        others = 2 * self.carry + 6 * self.lut_ram if self.family == "ecp5" else self.lut_ram
        return self.lut4 + self.lut6 + others

    def as_dict(self):
        """Plain dictionary, for JSON."""
        return asdict(self)


def find_tool(name, extra):
    """Path of a tool: of its package beside this Python, or on PATH; SynthesisError if there is
    none.
    """
    for candidate in (f"yowasp-{name}", name, f"{name.lower()}-cli"):
        found = shutil.which(candidate, path=str(Path(sys.executable).parent)) or shutil.which(
            candidate
        )
        if found:
            return found
    raise SynthesisError(f"{name} was not found: run {install_hint(extra)}")


def yosys():
    """Path of yosys; SynthesisError if there is none."""
    return find_tool("yosys", "synth")


def run_tool(tool, folder, arguments, **options):
    """Runs a tool of the open flow on the files of a folder.

    Parameters
    ----------
    tool : str
        Path, as ``find_tool`` gives it.
    folder : str or Path
    arguments : sequence of str
        In each of them ``{root}`` is what the tool calls the folder. The WebAssembly builds have a
        /tmp of their own, which hides the real one: they see the folder as /unit.
    options
        For ``subprocess.run``.

    Returns
    -------
    subprocess.CompletedProcess
        With its output as text, whatever its exit status is.
    """
    root = "/unit" if Path(tool).name.startswith("yowasp") else str(folder)
    return subprocess.run(
        [tool, *(argument.replace("{root}", root) for argument in arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"YOWASP_MOUNT": f"/unit={folder}"},
        **options,
    )


def failure(done):
    """What a tool that failed (CompletedProcess) had to say, its last 500 characters at most."""
    return (done.stderr.strip() or done.stdout.strip())[-500:] or f"exit status {done.returncode}"


def count_cells(component, family, unit="", preset="", step=lambda text: None):
    """Synthesises an Amaranth component and counts its cells.

    Parameters
    ----------
    component : amaranth.lib.wiring.Component
        The unit; its members are the ports.
    family : str
        One of FAMILIES.
    unit, preset : str
        Labels of the result.
    step : callable(str)
        Takes what begins, as ``sterna.sim.golden.progress.working`` shows it.

    Returns
    -------
    Cells

    Raises
    ------
    SynthesisError
        For an unknown family, a missing yosys or a failed synthesis.
    """
    if family not in FAMILIES:
        raise SynthesisError(f"unknown family {family!r}: use one of {', '.join(FAMILIES)}")
    tool = yosys()
    command, kinds = FAMILIES[family]
    from amaranth.back import verilog

    with tempfile.TemporaryDirectory() as folder:
        what = f"synthesising {unit or 'the unit'} for {family}"
        step(f"{what}: elaborating")
        text = verilog.convert(
            component,
            name="unit",
            platform=TARGETS.get(family),
            strip_internal_attrs=True,
            emit_src=False,
        )
        (Path(folder) / "unit.v").write_text(text)
        script = (
            f"read_verilog {{root}}/unit.v; {command}; tee -q -o {{root}}/cells.json stat -json"
        )
        if family == "ice40":
            script += "; write_json -selected {root}/netlist.json"
        step(f"{what}: yosys")
        done = run_tool(tool, folder, ("-q", "-p", script))
        if done.returncode:
            raise SynthesisError(
                f"yosys could not synthesise {unit or 'the unit'}: {failure(done)}"
            )
        report = json.loads((Path(folder) / "cells.json").read_text())
        counts = {}
        if family == "ice40":
            netlist = json.loads((Path(folder) / "netlist.json").read_text())
            counts["logic_cells"] = logic_cells(netlist["modules"]["unit"])
    counts |= by_kind(report["design"].get("num_cells_by_type", {}), kinds)
    return Cells(unit, preset, family, **counts)


def by_kind(by_type, kinds):
    """{kind: cells} of {type of cell: cells} (dict of int); ``kinds`` as in FAMILIES."""
    counts = {}
    for cell, number in by_type.items():
        for prefix, kind in kinds.items():
            if cell.startswith(prefix):
                counts[kind] = counts.get(kind, 0) + number * LUT_RAM.get(cell, 1)
    return counts


def synthesise(unit, config, family="ecp5", step=lambda text: None):
    """Cells of the unit called `unit` for `config` (Cells); ``step`` and errors as of `create` and
    `count_cells`.
    """
    return count_cells(create(unit, config), family, unit, config.name, step)
