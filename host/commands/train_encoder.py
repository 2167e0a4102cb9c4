"""sterna train with a task: an encoder's pre-training and fine-tuning."""

import gc

import typer

from sterna.host.console import progress_bar, tell
from sterna.host.errors import INTERRUPTED, UsageError
from sterna.host.interrupts import Interrupts, ended_by_interrupt

LINE_STEPS = 100
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
            last = _run(run)
        except KeyboardInterrupt:
            with interrupts.held():
                saved = run.step and run.save_state()
            tell(f"stopped behind step {run.step}: the same command goes on there" if saved else
                 f"stopped behind step {run.step}: no model was written")
            gc.freeze()
            raise typer.Exit(INTERRUPTED) from None
    found = ", ".join(style.format(last[name]) for name, style in FOUND.items() if name in last)
    tell(f"{out / 'model'}: {found}" if found else f"{out / 'model'}: nothing left to train")


def _run(run):
    """Trains to the end: a bar on a terminal, lines for the first step, some others, evaluations; the last record."""
    record, first = {}, True
    with progress_bar() as bars:
        task = bars.add_task("the first step", total=1.0, completed=run.progress)
        for record in run.run():
            line = f"step {record['step']}, loss {record['loss']:.3f}"
            bars.update(task, completed=record["progress"], description=line)
            found = [style.format(record[name]) for name, style in FOUND.items() if name in record]
            if first or found or record["step"] % LINE_STEPS == 0:
                line = ", ".join([line, *found])
                tell(line) if bars.disable else bars.console.print(line, highlight=False)
            first = False
    return record
