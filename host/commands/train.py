"""sterna train: a model from a TOML configuration."""

import importlib.util
import signal
from pathlib import Path
from typing import Annotated

import typer

from sterna.host.console import progress_bar, tell
from sterna.host.errors import INTERRUPTED, HostError

LINE_STEPS = 100


def train(
    config: Annotated[Path, typer.Argument(help="TOML configuration; see models/configs.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="Folder of the run; one that exists is gone on with. Default: "
                                      "build/train/NAME.", show_default=False)] = None,
    device: Annotated[str, typer.Option("--device", help="auto (a GPU if PyTorch finds one), cpu or cuda.")] = "auto",
    fuse: Annotated[bool, typer.Option("--compile/--no-compile", help="Fuse operations with torch.compile: a minute "
                                       "at the start, then faster.")] = True,
):
    """Train a model.

    Writes best/ (a checkpoint folder, the best on held-out stories), log.jsonl, loss.png and state.pt into the
    folder. Ctrl-C saves the state; the same command goes on exactly there.

    Example: sterna train models/configs/tiny.toml --out build/train/tiny
    """
    for package in ("torch", "matplotlib"):
        if importlib.util.find_spec(package) is None:
            raise HostError(f"training needs {package}: pip install 'sterna[torch]'")
    from sterna.models.plot import plot_log
    from sterna.models.train import TrainConfig, Trainer, read_log
    settings = TrainConfig.load(config)
    out = out or Path("build") / "train" / config.stem
    trainer = Trainer(settings, settings.text_path(config), out, device)
    count = sum(p.numel() for p in trainer.model.parameters())
    tell(f"{count:,} parameters, {sum(map(len, trainer.train_ids)):,} tokens of text, on {trainer.device}"
         + (f"; going on behind step {trainer.step}" if trainer.step else ""))
    if trainer.step:
        plot_log(read_log(out), out / "loss.png")
    if fuse:
        trainer.compile()
    stop = []
    before = signal.signal(signal.SIGINT, lambda *_: stop.append(True))
    try:
        with progress_bar() as bars:
            task = bars.add_task("training", total=1.0, completed=trainer.progress)
            for record in trainer.run():
                held = f", held out {record['bits_per_byte']:.4f} bits per byte" if "bits_per_byte" in record else ""
                bars.update(task, completed=record["progress"],
                            description=f"step {record['step']}, loss {record['loss']:.3f}")
                if held or record["step"] % LINE_STEPS == 0:
                    line = f"step {record['step']}, loss {record['loss']:.3f}{held}"
                    # A bar on a terminal must be the one to print, or the line would land inside it.
                    tell(line) if bars.disable else bars.console.print(line, highlight=False)
                if stop:
                    trainer.save_state()
                    break
    finally:
        signal.signal(signal.SIGINT, before)
    if trainer.step:
        plot_log(read_log(out), out / "loss.png")
    if stop:
        tell(f"stopped behind step {trainer.step}: the same command goes on there")
        raise typer.Exit(INTERRUPTED)
    tell(f"{out / 'best'}: {trainer.best:.4f} bits per byte on held-out stories")
