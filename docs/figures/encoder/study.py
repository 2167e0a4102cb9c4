"""Feedforwards of an encoder compared: same code, data, steps and seeds; results are kept run by run."""

import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from docs.figures.encoder.texts import TASKS, write_task, write_texts
from docs.figures.encoder.variants import (BASE, FINE_TUNING, MOST_ROWS, PRETRAINING, SHAPE, VARIANTS, keep, order,
                                           read)
from sterna.host.errors import HostError
from sterna.models.encoder.finetune import FineTuning
from sterna.models.encoder.pretrain import NONE, Pretraining
from sterna.models.encoder.settings import ClassifyConfig, PretrainConfig
from sterna.models.encoder.words import Words, read_texts


def pretraining(variant, seed):
    """The PretrainConfig of a run."""
    return PretrainConfig(task="mlm", text="", seed=seed, **SHAPE, **PRETRAINING, **VARIANTS[variant])


def last_record(run):
    """Trains a run to its end; its last record."""
    record = {}
    for record in run.run():
        pass
    return {key: value for key, value in record.items() if key not in ("progress", "lr")}


def unigram(run):
    """Masked loss, in nats, of the training rows' frequencies alone; every token counts once more."""
    counts = np.bincount(run.rows.ravel(), minlength=run.words.size) + 1.0
    targets = run.held_rows[1][run.held_rows[1] != NONE]
    return float(-np.log(counts / counts.sum())[targets].mean())


def vocabulary(tokenizer, text, results):
    """Train the one tokenizer of all runs into a folder, with what the text's frequencies alone give ("text" of the
    results). HostError if the results are of another one: trained twice it is not the same.
    """
    if tokenizer.exists():
        return
    if read(results):
        raise HostError(f"{results} holds runs with another tokenizer than {tokenizer} will: use --force to run all "
                        "again")
    words = Words.trained(read_texts(text), SHAPE["vocab_size"])
    with tempfile.TemporaryDirectory() as folder:
        words.tokenizer.save(str(Path(folder) / "tokenizer.json"))
        run = Pretraining(pretraining(BASE, 0), text, Path(folder) / "run", Path(folder))
        keep(results, "text", {"unigram": unigram(run), "tokens": int(run.rows.size)})
        shutil.copytree(folder, tokenizer)


def study(data, work, results, deadline=None, tell=print):
    """Run what has no result yet.

    Parameters
    ----------
    data : Path
        See ``docs.figures.encoder.texts``.
    work : Path
        Folder for texts, tasks and models.
    results : Path
        JSON file that holds the results.
    deadline : float or None
        ``time.time()`` behind which no further run begins.
    tell : callable(str)
    """
    torch.set_num_threads(1)
    if not (work / "text").exists():
        write_texts(data, work / "part")
        (work / "part").rename(work / "text")
    for task in TASKS:
        if not (work / "tasks" / task / "dev.tsv").exists():
            write_task(data, task, work / "tasks" / task)
    tokenizer = work / "tokenizer"
    vocabulary(tokenizer, work / "text", results)
    for variant, seed in order():
        folder = work / f"{variant}.{seed}"
        for part in ("mlm", *TASKS):
            name = f"{variant}.{seed}.{part}"
            if name in read(results):
                continue
            if deadline and time.time() > deadline:
                return
            started = time.monotonic()
            if part == "mlm":
                shutil.rmtree(folder, ignore_errors=True)
                run = Pretraining(pretraining(variant, seed), work / "text", folder, tokenizer)
                found = last_record(run) | {"parameters": sum(p.numel() for p in run.model.parameters())}
            else:
                shutil.rmtree(folder / part, ignore_errors=True)
                config = ClassifyConfig(task="classify", model="", data="", seed=seed, **FINE_TUNING,
                                        most_rows=MOST_ROWS.get(part, 0))
                run = FineTuning(config, folder / "model", work / "tasks" / part, folder / part)
                found = last_record(run) | {"train": len(run.train_rows), "dev": len(run.dev_rows)}
                shutil.rmtree(folder / part)
            keep(results, name, found)
            tell(f"{name}: {time.monotonic() - started:.0f} s, {found}")
