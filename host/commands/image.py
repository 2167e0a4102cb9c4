"""sterna convert, inspect, upload and flash: image files."""

import json
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from sterna.host.commands.options import Baud, ModelOption, check_output
from sterna.host.console import printable, reporting, table_console, tell, working
from sterna.host.device.flash import flash_image
from sterna.host.errors import HostError, UsageError
from sterna.host.model.image import Image
from sterna.host.model.model import Model, check_size
from sterna.host.runtime.open import is_simulated, open_runtime
from sterna.hw.boards import BOARDS, preset
from sterna.hw.config import PRESETS
from sterna.hw.protocol import FLASH_OFFSET
from sterna.sim.golden.files import write_file


def convert(
    folder: Annotated[Path, typer.Argument(help="Checkpoint folder: config.json, safetensors, tokenizer.json; or an "
                                           "image of another tiling.", show_default=False)],
    output: Annotated[Path, typer.Option("-o", "--output", help="The .sterna file to write.", show_default=False)],
    name: Annotated[str, typer.Option("--preset", help="Configuration to tile for; see `sterna devices`.")] = "sim",
):
    """Pack a checkpoint folder into an image.

    Ternarises the weights, folds the norms and tiles everything for one configuration. A matrix
    that holds only -w, 0 and w is kept as it is. Needs no torch. An image runs on other
    configurations too: it is tiled anew in memory there.

    Example: sterna convert checkpoints/story -o story.sterna --preset lanes40
    """
    config = preset(name)
    started = time.monotonic()
    check_size(folder, config)
    model = Model(folder)
    model.vocabulary  # noqa: B018 (a tokenizer that does not fit is refused before anything is written)
    with working() as step:
        step(f"packing {folder} for {name}")
        data = model.build(config, output.stem)
    _write(output, data)
    if model.kept:
        tell("matrices that are ternary already, kept as they are: "
             f"{len(model.kept)} of {model.geometry.matrices}")
    tell(f"{output}: {len(data):,} bytes for {name}, in {time.monotonic() - started:.1f} s")


def _write(output, data):
    try:
        write_file(output, data)
    except OSError as error:
        raise HostError(f"cannot write {output}: {error.strerror}") from None


def check_flash(name):
    """UsageError unless a board with the configuration called ``name``, or a changed one, starts from its flash."""
    boards = [board for board in BOARDS.values() if board.flash_offset is not None]
    digests = {board.config.digest for board in boards}
    known = [config.name for config in PRESETS.values() if config.digest in digests]
    known += [board.name for board in boards]
    if name.partition(",")[0] not in known:
        raise UsageError(f"--preset {name}: no board with it starts from a flash: use one of "
                         f"{', '.join(known)}, and upload or generate for others")


def flash(
    model: ModelOption,
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write.", show_default=False)],
    name: Annotated[str, typer.Option("--preset", help="Configuration of the board's bitstream.")] = "up5k",
):
    """Make the file for the flash of a board that starts by itself.

    The file holds a model and its program as the board loads them after power-up, so that a host sends prompts only.

    Example: sterna flash -m models/tiny/tiny.sterna -o tiny.flash
    """
    config = preset(name)
    check_flash(name)
    check_output("-o", output)
    data = flash_image(Model(model).image_for(config, tell), config)
    _write(output, data)
    tell(f"{output}: {len(data):,} bytes for {name}; write them to 0x{FLASH_OFFSET:x} of the board's flash")


def describe(path):
    """Everything that ``inspect`` shows, as a dictionary; raises ImageError for a damaged file."""
    image = Image.load(path)
    return {
        "file": str(path), "bytes": len(image.data), "name": image.name,
        "eos": image.eos, "ends": image.ends,
        "geometry": dict(vars(image.geometry)), "tiling": image.tiling,
        "ternary_weights": image.geometry.ternary_weights,
        "sections": [{"name": s["name"], "offset": s["offset"], "bytes": s["bytes"],
                      "crc32c": f"{s['crc32c']:08x}", "checksum": "ok"} for s in image.sections.values()],
    }


def inspect(
    path: Annotated[Path, typer.Argument(help="A .sterna file.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
):
    """Check an image and show what is in it.

    Verifies magic, versions, lengths and every checksum before it prints anything.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder: pack it with sterna convert first")
    found = describe(path)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    console, ends = table_console(), ", ".join(map(str, found["ends"]))
    console.print(f"{printable(found['file'])}: {printable(found['name'])}, {found['bytes']:,} bytes, "
                  f"{found['ternary_weights']:,} ternary weights, end of text {ends}")
    console.print("geometry: " + ", ".join(f"{k} {v}" for k, v in found["geometry"].items()))
    console.print("tiling:   " + ", ".join(f"{k} {v}" for k, v in found["tiling"].items()))
    table = Table("section", "offset", "bytes", "crc32c", "checksum")
    for s in found["sections"]:
        table.add_row(s["name"], f"{s['offset']:,}", f"{s['bytes']:,}", s["crc32c"], s["checksum"])
    console.print(table)


def upload(
    model: Annotated[Path, typer.Option("-m", "--model", help="Image (.sterna) or checkpoint folder.",
                                        show_default=False)],
    device: Annotated[str, typer.Option("--device", help="Serial port or URL.", show_default=False)],
    baud: Baud = 1_000_000,
    verify: Annotated[bool, typer.Option("--verify", help="Compare the memory with the image afterwards.")] = False,
):
    """Put a model into the memory of a device.

    Loads the image and its program, so that the device stands ready. Only what differs from the memory's contents is
    sent, so the same command goes on where an upload was cut off. `sterna generate` does all this by itself.
    """
    if device == "golden" or is_simulated(device):
        raise UsageError(f"--device {device} keeps no model between commands: give a serial port or URL")
    with reporting() as progress:
        runtime = open_runtime(device, Model(model), tell=tell, baud=baud, progress=progress)
    with runtime:
        tell(runtime.uploaded.line())
        if verify:
            with reporting() as progress:
                runtime.verify(progress)
            tell("verified: every block is as in the image")
        tell(runtime.label)
