"""sterna convert, upload and flash: image files."""

import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from sterna.firmware.layout import LayoutError, memory_map
from sterna.host.commands.options import Baud, ModelOption, SelfTest, check_output
from sterna.host.console import moving, reporting, tell
from sterna.host.device.flash import flash_image
from sterna.host.errors import HostError, UsageError
from sterna.host.model.image import MAGIC
from sterna.host.model.model import Model, check_fits, check_size
from sterna.host.runtime.known import answering, check_answer, self_test
from sterna.host.runtime.open import is_hardware, is_simulated, open_runtime
from sterna.hw.boards import BOARDS, preset
from sterna.hw.config import most_visits
from sterna.hw.presets import PRESETS
from sterna.hw.protocol import FLASH_OFFSET
from sterna.sim.golden.files import writing


def holding(geometry):
    """The Config that an image is tiled for where none is named: "sim", or a larger one that holds the model.

    The largest, where none does: such an image is for models in this process alone.
    """
    presets = [PRESETS["sim"], *sorted(PRESETS.values(), key=lambda config: config.memory_bytes)]
    presets = [config for config in presets if config.memory_bytes >= presets[0].memory_bytes]
    return next((config for config in presets if holds(config, geometry)), presets[-1])


def holds(config, geometry):
    """Whether the memory of a configuration holds a model."""
    try:
        memory_map(config, geometry)
    except LayoutError:
        return False
    return True


def convert(
    folder: Annotated[Path, typer.Argument(help="Checkpoint folder: config.json, safetensors (one file or shards), "
                                           "tokenizer.json or tokenizer.model; or an image of another tiling.",
                                           show_default=False)],
    output: Annotated[Path, typer.Option("-o", "--output", help="The .sterna file to write.", show_default=False)],
    name: Annotated[str, typer.Option("--preset", help="Configuration to tile for, see `sterna devices`. Default: "
                                      "sim, or a larger one that holds the model.", show_default=False)] = "",
    answer: Annotated[bool, typer.Option("--answer/--no-answer", help="Whether the image gets a known answer: a "
                                         "prompt and what follows it, by which devices are checked.")] = True,
):
    """Pack a checkpoint folder into an image.

    Ternarises the weights, folds the norms and tiles everything for one configuration. A matrix
    that holds only -w, 0 and w is kept as it is. Needs no torch. Weights are read one tensor after
    the other, and packed two layers at a time; the known answer takes 2 bits of memory for each
    weight. An image runs on other configurations too: it is tiled anew there.

    Example: sterna convert checkpoints/story -o story.sterna --preset lanes40
    """
    started = time.monotonic()
    if name:
        check_size(folder, preset(name))
    check_own(folder, output)
    model = Model(folder)
    config = preset(name) if name else holding(model.geometry)
    if name:  # an image's size is known only now
        check_fits(folder, config, model.geometry)
    fits = holds(config, model.geometry)
    if not fits:
        many = model.geometry.mixer == "tree" and model.geometry.visits > max(map(most_visits, PRESETS.values()))
        why = " walks as many neurons as this model visits" if many else "'s memory holds this model"
        tell(f"no preset{why}: tiled for {config.name}, it runs on models in software alone")
    model.vocabulary  # noqa: B018 (a tokenizer that does not fit is refused before anything is written)
    with moving() as progress:
        def loaded(done, total):  # the kernels take 2 bits for a weight
            size = model.geometry.ternary_weights // 4
            progress("known answer", done * size // total, size)

        make = answering(tell, loaded) if answer and model.answer is None else None
        with _written(output) as file:
            size = model.write(file, config, output.stem, answer=make, fits=fits,
                               progress=partial(progress, f"packing {folder.name} for {config.name}"))
    if model.kept:
        tell("matrices that are ternary already, kept as they are: "
             f"{len(model.kept)} of {model.geometry.matrices}")
    tell(f"{output}: {size:,} bytes for {config.name}, in {time.monotonic() - started:.1f} s")


def check_own(source, output):
    """HostError if ``output`` is a file of the checkpoint folder ``source``, other than an image."""
    if not source.is_dir() or not output.is_file():
        return
    try:
        with output.open("rb") as file:
            if file.read(len(MAGIC)) == MAGIC:
                return
        own = any(path.exists() and path.samefile(output) for path in source.iterdir())
    except OSError:  # said by whoever reads or writes it
        return
    if own:
        raise HostError(f"-o {output}: this is a file of the checkpoint in {source}, which would be lost: name "
                        "another")


@contextmanager
def _written(output):
    """``writing``, with HostError for what cannot be written; other errors are not those of the output."""
    try:
        with writing(output) as file:
            yield file
    except OSError as error:
        if error.filename != str(output):
            raise
        raise HostError(f"cannot write {output}: {error.strerror}") from None


def _write(output, data):
    with _written(output) as file:
        file.write(data)


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
    check_own(model, output)
    data = flash_image(Model(model).image_for(config, tell), config)
    _write(output, data)
    tell(f"{output}: {len(data):,} bytes for {name}; write them to 0x{FLASH_OFFSET:x} of the board's flash")


def upload(
    model: Annotated[Path, typer.Option("-m", "--model", help="Image (.sterna) or checkpoint folder.",
                                        show_default=False)],
    device: Annotated[str, typer.Option("--device", help="Serial port or URL.", show_default=False)],
    baud: Baud = 1_000_000,
    verify: Annotated[bool, typer.Option("--verify", help="Compare the memory with the image afterwards.")] = False,
    test: SelfTest = False,
):
    """Put a model into the memory of a device.

    Loads the image and its program, so that the device stands ready. Only what differs from the memory's contents is
    sent, so the same command goes on where an upload was cut off. `sterna generate` does all this by itself.
    """
    if not is_hardware(device) or is_simulated(device):
        raise UsageError(f"--device {device} keeps no model between commands: give a serial port or URL")
    loaded = Model(model)
    if test:
        check_answer(loaded)
    with reporting() as progress:
        runtime = open_runtime(device, loaded, tell=tell, baud=baud, progress=progress)
    with runtime:
        tell(runtime.uploaded.line())
        if verify:
            with reporting() as progress:
                runtime.verify(progress)
            tell("verified: every block is as in the image")
        if test:
            tell(self_test(runtime))
        tell(runtime.label)
