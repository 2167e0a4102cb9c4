"""sterna train: a model from a TOML configuration."""

import gc
import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from sterna.host.commands.following import follow
from sterna.host.console import tell
from sterna.host.errors import INTERRUPTED, HostError
from sterna.host.interrupts import Interrupts, ended_by_interrupt
from sterna.sim.golden.extras import install_hint


def train(
    config: Annotated[Path, typer.Argument(help="TOML configuration; see models/configs.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="Folder of the run; one that exists is gone on with. Default: "
                                      "build/train/NAME.", show_default=False)] = None,
    device: Annotated[str, typer.Option("--device", help="auto (a GPU if PyTorch finds one), cpu or cuda.")] = "auto",
    fuse: Annotated[bool, typer.Option("--compile/--no-compile", help="Fuse operations with torch.compile: a minute "
                                       "at the start, then faster.")] = True,
):
    """Train a model or an encoder (needs PyTorch).

    With an entry `task` in the configuration it is an encoder (docs/encoder.md). Writes best/ (a checkpoint folder,
    the best on held-out stories), log.jsonl, loss.png and state.pt into the folder. Ctrl-C saves the state behind the
    last whole step; the same command goes on exactly there. All entries of the configuration:
    docs/training.md.

    Example: sterna train models/configs/tiny.toml --out build/train/tiny
    """
    for package in ("torch", "matplotlib"):
        if importlib.util.find_spec(package) is None:
            raise HostError(f"training needs {package}: run {install_hint('torch')}")
    from sterna.models.encoder.settings import has_task
    if has_task(config):
        from sterna.host.commands.train_encoder import train_encoder
        train_encoder(config, out or Path("build") / "train" / config.stem, device)
        return
    from sterna.models.settings import TrainConfig
    from sterna.models.train import DivergedError, Trainer
    settings = TrainConfig.load(config)
    out = out or Path("build") / "train" / config.stem
    with ended_by_interrupt():
        trainer = Trainer(settings, settings.text_path(config), out, device, tell)
    count = sum(p.numel() for p in trainer.model.parameters())
    tell(f"{count:,} parameters, {sum(map(len, trainer.train_ids)):,} tokens of text, on {trainer.device}"
         + (f"; going on behind step {trainer.step}" if trainer.step else ""))
    if fuse:
        trainer.compile()
    if trainer.progress < 1:
        tell("compiling; the first step takes a minute" if fuse else "training; waiting for the first step")
    with Interrupts() as interrupts:
        trainer.held = interrupts.held
        try:
            follow(trainer, lambda record: _found_in(record, out))
        except DivergedError:
            _plot(out)
            raise
        except KeyboardInterrupt:
            if not trainer.step:
                tell("stopped before the end of the first step: nothing was written")
                gc.freeze()
                raise typer.Exit(INTERRUPTED) from None
            with interrupts.held():  # a second Ctrl-C waits for the state
                trainer.save_state()
            tell(f"stopped behind step {trainer.step}: the same command goes on there")
            gc.freeze()  # or the end of the process searches the objects of PyTorch for garbage, for seconds
            raise typer.Exit(INTERRUPTED) from None
    _plot(out)
    tell(f"{out / 'best'}: {trainer.best:.4f} bits per byte on held-out stories")


def _found_in(record, out):
    """What an evaluation found. Each draws the plot, so that nothing is left to draw when the run is stopped."""
    found = []
    if "bits_per_byte" in record:
        found.append(f"held out {record['bits_per_byte']:.4f} bits per byte")
        _plot(out)
    if use := record.get("leaf_use"):
        found.append(f"leaves used {min(layer['used'] for layer in use):.0%}, largest share "
                     f"{max(layer['largest'] for layer in use):.0%}")
    return found


def _plot(folder):
    """Draws the log of a run into loss.png, if there is anything to draw."""
    from sterna.models.plot import drawable, plot_log
    from sterna.models.runlog import read_log
    if records := drawable(read_log(folder)):
        plot_log(records, folder / "loss.png")
