"""Writes the project of a board whose bitstream only AMD's Vivado makes, and has Vivado make it
where there is one.
"""

import json
import shutil
import subprocess
from pathlib import Path

from sterna.hw.boards.board import load
from sterna.hw.boards.zynq_system import block_design, boot_image, overlay
from sterna.hw.config import ConfigError
from sterna.hw.flow.bitstream import EXTRA, board_folder, versions
from sterna.hw.flow.units import SynthesisError
from sterna.sim.golden.extras import install_hint
from sterna.sim.golden.files import BUILD_VARIABLE, write_files

TOOL = "vivado"
SYSTEM = "system.tcl"  # the block design, which the project's script sources


def project(board, folder=None, tell=lambda text: None):
    """Writes everything that Vivado needs into the folder of the board's build, made anew.

    Files: NAME.v, NAME.xdc and NAME.tcl (the whole run, as amaranth.vendor writes them), the block
    design (SYSTEM), NAME.bif and NAME.dtso (for loading it on the board), build.json.

    Returns
    -------
    pathlib.Path
        The script for Vivado.

    Raises
    ------
    SynthesisError
        amaranth-boards is missing, or the folder cannot be written.
    """
    folder = Path(folder or board_folder(board)).absolute()
    name, config = board.name, board.config
    tell(f"writing the project of {name}: elaborating")
    try:
        platform = load(board.platform)()
        top = load(board.top)(board)
    except ConfigError as error:
        raise SynthesisError(f"{error} ({install_hint(EXTRA)} brings what it needs)") from None
    plan = platform.prepare(
        top,
        name=name,
        emit_src=False,
        script_after_read=f"source {SYSTEM}\nset_property top {name} [current_fileset]",
    )
    wanted = {path: plan.files[path] for path in (f"{name}.v", f"{name}.xdc", f"{name}.tcl")}
    report = {"board": name, "build": config.digest[:8], "versions": versions()}
    wanted |= {
        SYSTEM: block_design(config),
        f"{name}.bif": boot_image(name),
        f"{name}.dtso": overlay(config, name),
        "build.json": json.dumps(report | {"file": f"{name}.bit"}, indent=2),
    }
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
        write_files({folder / path: content for path, content in wanted.items()})
    except OSError as error:
        raise SynthesisError(
            f"cannot build in {folder}: {error.strerror}: name another folder with {BUILD_VARIABLE}"
        ) from None
    return folder / f"{name}.tcl"


def bitstream(board, tell=lambda text: None):
    """Path of the bitstream that Vivado makes of the board's project (pathlib.Path).

    Raises
    ------
    SynthesisError
        As of `project`; there is no Vivado, which leaves the project, or it fails.
    """
    script = project(board, tell=tell)
    tool = shutil.which(TOOL)
    if not tool:
        raise SynthesisError(
            f"{board.name}: the project is in {script.parent}, and only AMD's Vivado makes a "
            f"bitstream of it: run {TOOL} -mode batch -source {script.name} there, or put it on "
            f"PATH and run make bitstream BOARD={board.name}"
        )
    tell(f"{board.name}: {TOOL}, for an hour or more")
    log = script.with_suffix(".log")
    command = [tool, "-mode", "batch", "-log", log.name, "-source", script.name]
    done = subprocess.run(command, cwd=script.parent, capture_output=True, text=True)
    made = script.with_suffix(".bit")
    if done.returncode or not made.exists():
        errors = [line for line in done.stdout.splitlines() if line.startswith("ERROR")]
        raise SynthesisError(f"{board.name}: {TOOL} failed: {(errors or ['see ' + str(log)])[0]}")
    return made
