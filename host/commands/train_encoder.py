"""sterna train with a task: an encoder's pre-training and fine-tuning."""

import gc

import typer

from sterna.host.commands.following import follow
from sterna.host.console import tell
from sterna.host.errors import INTERRUPTED, UsageError
from sterna.host.interrupts import Interrupts, ended_by_interrupt

FOUND = {"masked_loss": "masked loss {:.4f} nats", "accuracy": "accuracy {:.1%}", "majority": "largest class {:.1%}",
         "pearson": "Pearson {:.3f}", "leaf_use": "leaf use {:.1%}"}


def train_encoder(config, out, device):
    """Train the encoder of a configuration file into the folder ``out``.

    Raises
    ------
    TrainError, PackError
        The run cannot start or go on.
    UsageError
        Another device than the CPU.
    """
    from sterna.models.encoder.open import open_run
    if device not in ("auto", "cpu"):
        raise UsageError(f"--device {device}: an encoder is trained on the cpu: leave it out")
    with ended_by_interrupt():
        run = open_run(config, out, tell)
    count = sum(p.numel() for p in run.model.parameters())
    tell(f"{count:,} parameters" + (f"; going on behind step {run.step}" if run.step else ""))
    with Interrupts() as interrupts:
        run.held = interrupts.held
        try:
            last = follow(run, _found_in)
        except KeyboardInterrupt:
            with interrupts.held():
                saved = run.step and run.save_state()
            tell(f"stopped behind step {run.step}: the same command goes on there" if saved else
                 f"stopped behind step {run.step}: no model was written")
            gc.freeze()
            raise typer.Exit(INTERRUPTED) from None
    found = ", ".join(_found_in(last))
    tell(f"{out / 'model'}: {found}" if found else f"{out / 'model'}: nothing left to train")


def _found_in(record):
    return [style.format(record[name]) for name, style in FOUND.items() if name in record]
