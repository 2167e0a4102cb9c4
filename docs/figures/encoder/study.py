"""Feedforwards of an encoder compared: same code, data, steps and seeds; results are kept run by run."""

import json
import shutil
import time

import torch

from docs.figures.encoder.texts import TASKS, write_task, write_texts
from sterna.models.encoder.finetune import FineTuning
from sterna.models.encoder.pretrain import Pretraining
from sterna.models.encoder.settings import ClassifyConfig, PretrainConfig
from sterna.sim.golden.files import write_file

SHAPE = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 4096, "length": 64}
PRETRAINING = {"rows": 8, "steps": 1500, "learning_rate": 1e-3, "holdout_rows": 256, "evaluate_every": 1500}
FINE_TUNING = {"rows": 16, "epochs": 3, "learning_rate": 5e-4, "length": 64}
MOST_ROWS = {"SST-2": 5000, "AGNews": 2000, "Subjectivity": 3000}
VARIANTS = {"fff": {"feedforward": "fff", "trees": 1, "tree_depth": 8},
            "dense": {"feedforward": "dense", "intermediate_size": 512},
            "narrow": {"feedforward": "narrow", "trees": 1, "tree_depth": 8},
            "none": {"feedforward": "none"},
            "fff16": {"feedforward": "fff", "trees": 16, "tree_depth": 4},
            "narrow80": {"feedforward": "narrow", "trees": 16, "tree_depth": 4}}
FIRST = ("dense", "fff", "none", "narrow")  # of every seed, before the others
SEEDS = (0, 1, 2)


def order():
    """Yields (variant, seed) in the order of their runs: seed 0 of every variant first."""
    for variants, seeds in ((FIRST, SEEDS[:1]), (FIRST, SEEDS[1:]), (set(VARIANTS) - set(FIRST), SEEDS)):
        for seed in seeds:
            yield from ((variant, seed) for variant in variants)


def read(path):
    """Results by "VARIANT.SEED.PART" (dict)."""
    return json.loads(path.read_text()) if path.exists() else {}


def keep(path, name, found):
    """Add a result to the file."""
    write_file(path, json.dumps(read(path) | {name: found}, indent=1) + "\n")


def last_record(run):
    """Trains a run to its end; its last record."""
    record = {}
    for record in run.run():
        pass
    return {key: value for key, value in record.items() if key not in ("progress", "lr")}


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
    for variant, seed in order():
        tokenizer = work / "tokenizer"
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
                config = PretrainConfig(task="mlm", text="", seed=seed, **SHAPE, **PRETRAINING, **VARIANTS[variant])
                run = Pretraining(config, work / "text", folder, tokenizer if tokenizer.exists() else None)
                found = last_record(run) | {"parameters": sum(p.numel() for p in run.model.parameters())}
                if not tokenizer.exists():  # one vocabulary for all
                    tokenizer.mkdir()
                    run.words.tokenizer.save(str(tokenizer / "tokenizer.json"))
            else:
                shutil.rmtree(folder / part, ignore_errors=True)
                config = ClassifyConfig(task="classify", model="", data="", seed=seed, **FINE_TUNING,
                                        most_rows=MOST_ROWS.get(part, 0))
                run = FineTuning(config, folder / "model", work / "tasks" / part, folder / part)
                found = last_record(run) | {"train": len(run.train_rows), "dev": len(run.dev_rows)}
                shutil.rmtree(folder / part)
            keep(results, name, found)
            tell(f"{name}: {time.monotonic() - started:.0f} s, {found}")
