"""sterna eval and gate: how good a model is, and how close the hardware's arithmetic is to the float model."""

import json
import math
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from sterna.host.commands.options import (
    Baud,
    DramSetting,
    Latency,
    Refresh,
    RefreshEvery,
    Threads,
    check_threads,
    simulation,
)
from sterna.host.console import progress_bar, reporting, table_console, tell
from sterna.host.errors import HostError, UsageError
from sterna.host.model.model import Model
from sterna.host.model.text import TextError
from sterna.host.runtime.golden import GoldenRuntime
from sterna.host.runtime.open import DEFAULT_DEVICE, is_hardware, open_runtime
from sterna.host.runtime.sampling import Demands, Sampling
from sterna.models.data import read_stories
from sterna.sim.cpu.evaluate import evaluate as evaluate_stream
from sterna.sim.cpu.model import CpuModel
from sterna.sim.golden.compiler import ToolError
from sterna.sim.golden.extras import install_hint
from sterna.sim.golden.gate import LIMITS
from sterna.sim.golden.gate import evaluate as evaluate_stories
from sterna.sim.golden.gate import gate as compare_levels
from sterna.sim.golden.model import GoldenModel
from sterna.sim.golden.reference import Reference

BATCH = 64
Limit = Annotated[int, typer.Option("--stories", help="Only the first stories of each file; 0: all.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def load_stories(path, vocabulary, limit):
    """(token arrays, bytes) of a text file; each story runs from its start mark to its end mark."""
    stories = read_stories(path)[:limit or None]
    if not stories:
        raise HostError(f"{path} holds no text")
    try:
        ids = [np.array([*vocabulary.encode(story), vocabulary.end], np.int32) for story in stories]
    except TextError as error:
        raise TextError(f"{path}: {error}") from None
    return ids, sum(len(story.encode()) for story in stories)


def exact_model(packed):
    """The CpuModel of a PackedModel, or the GoldenModel, which is the same but slow, where there is no compiler."""
    try:
        return CpuModel(packed)
    except ToolError as error:
        tell(f"computing with the golden model, slowly: {error}")
        return GoldenModel(packed)


def scorer(device, model, threads=None):
    """Function of a list of stories -> (nats, tokens), for the models in this process.

    ``device`` is one of them, or "exact": the hardware's arithmetic by whatever is there.
    """
    if device in ("cpu", "golden", "exact"):
        exact = CpuModel(model.packed, threads) if device == "cpu" else \
            GoldenModel(model.packed) if device == "golden" else exact_model(model.packed)
        if isinstance(exact, CpuModel):
            return lambda stories: evaluate_stream(exact, stories)
        return lambda stories: evaluate_stories(exact, stories, BATCH)
    if model.image:
        raise UsageError(f"--device {device} computes with the float weights, an image holds the ternary ones: give "
                         "the checkpoint folder")
    if device == "float":
        reference = Reference(model.path)
        return lambda stories: evaluate_stories(reference, stories, BATCH)
    return torch_scorer(model.path)


def torch_scorer(folder):
    """As ``scorer``, with the PyTorch model."""
    try:
        import torch
    except ImportError:
        raise HostError(f"--device torch needs PyTorch: run {install_hint('torch')}") from None
    from sterna.models.checkpoint import load_checkpoint
    model = load_checkpoint(folder)

    @torch.no_grad()
    def score(stories):
        total = 0.0
        for ids in stories:
            ids = torch.from_numpy(ids).long()
            logits = model(ids[None, :-1], torch.arange(len(ids) - 1)[None] > 0)
            total += torch.nn.functional.cross_entropy(logits.double(), ids[1:], reduction="sum").item()
        return total, sum(len(ids) - 1 for ids in stories)

    return score


def greedy_of(runtime, story, count):
    """The device's best next token (list of int) behind each of the first ``count`` tokens of a story."""
    out, sampling = [], Sampling()
    for at in range(min(count, len(story) - 1)):
        if at:
            runtime.tokens[-1] = int(story[at])  # not read yet: the story's own token takes the place of the made one
        out += runtime.generate([] if at else [int(story[0])], 1, sampling)
    return out


def check_device(device, model, story, count, baud, options):
    """Compare a device's next tokens with the golden model's; returns how many, HostError if one differs."""
    demands = Demands(tokens=min(count + 1, len(story)))
    with reporting() as progress:
        runtime = open_runtime(device, model, tell=tell, baud=baud, demands=demands, progress=progress, **options)
    with runtime:
        found = greedy_of(runtime, story, count)
    wanted = greedy_of(GoldenRuntime(model), story, count)
    wrong = [k for k, pair in enumerate(zip(wanted, found, strict=True)) if pair[0] != pair[1]]
    if wrong:
        raise HostError(f"{device} differs from the golden model at {len(wrong)} of {len(wanted)} tokens, first at "
                        f"position {wrong[0]}: its figures would not be those of the golden model")
    return len(wanted)


def evaluate(
    texts: Annotated[list[Path], typer.Argument(help="Text files: stories between lines of <|endoftext|>; .xz is "
                                                "read too.", show_default=False)],
    model: Annotated[Path, typer.Option("-m", "--model", help="Image (.sterna) or checkpoint folder.",
                                        show_default=False)],
    device: Annotated[str, typer.Option("--device", help="cpu, golden, float, torch, or a device of "
                                        "`sterna devices`.")] = DEFAULT_DEVICE,
    stories: Limit = 0,
    check: Annotated[int, typer.Option("--check", help="Tokens to compare between a device and the golden "
                                       "model.")] = 32,
    threads: Threads = None,
    baud: Baud = 1_000_000,
    latency: Latency = None,
    refresh_every: RefreshEvery = None,
    refresh: Refresh = None,
    dram: DramSetting = None,
    as_json: AsJson = False,
):
    """Print bits per byte and perplexity of text files.

    Every story starts from an empty state; its end mark is predicted too, and the bytes are those of its text.
    cpu and golden are the arithmetic of the hardware, bit for bit, float is the NumPy float64 model and torch the
    PyTorch model.

    A device gives tokens, not probabilities, so its figures are those of the golden model, which it equals bit for
    bit; that is checked on the device itself, with its best next token at --check positions of the first story.
    """
    if stories < 0:
        raise UsageError(f"--stories {stories}: use 0 (all) or more")
    if check < 1:
        raise UsageError(f"--check {check}: use at least 1")
    check_threads(threads, device)
    options = simulation(device, None, None, latency, refresh_every, refresh, dram)
    loaded = Model(model)
    hardware = is_hardware(device)
    files = [(path, *load_stories(path, loaded.vocabulary, stories)) for path in texts]
    checked = check_device(device, loaded, files[0][1][0], check, baud, options) if hardware else None
    score = scorer("exact" if hardware else device, loaded, threads)
    results = []
    with progress_bar() as bars:
        for path, ids, size in files:
            ids = sorted(ids, key=len, reverse=True)
            nats = tokens = 0
            for at in bars.track(range(0, len(ids), BATCH), description=str(path)):
                part = score(ids[at:at + BATCH])
                nats, tokens = nats + part[0], tokens + part[1]
            results.append({"file": str(path), "device": device, "stories": len(ids), "tokens": tokens, "bytes": size,
                            "bits_per_byte": nats / math.log(2) / size, "perplexity": math.exp(nats / tokens),
                            "checked_tokens": checked})
    if as_json:
        print(json.dumps(results, indent=2))
        return
    table = Table("file", "stories", "tokens", "bytes", "bits per byte", "perplexity")
    for r in results:
        table.add_row(r["file"], f"{r['stories']:,}", f"{r['tokens']:,}", f"{r['bytes']:,}",
                      f"{r['bits_per_byte']:.4f}", f"{r['perplexity']:.3f}")
    table_console().print(table)
    if hardware:
        tell(f"figures of the golden model; {device} gave the same best next token at {checked} of {checked} "
             "positions")


def mark_of(found, key):
    """What stands at the end of a row of the gate's table (str)."""
    return "text too small" if key in found["too_small"] else "MISSED" if key in found["missed"] else ""


def verdict_of(found):
    """Last words of the gate (str)."""
    if found["passed"]:
        return "passed"
    if len(found["too_small"]) < len(found["missed"]):
        return "FAILED"
    return ("not judged: the text is too small; float32 itself misses these limits on it, or one token decides: give "
            "more stories")


def gate(
    folder: Annotated[Path, typer.Argument(help="Checkpoint folder.", show_default=False)],
    text: Annotated[Path, typer.Option("--text", help="Stories that were not trained on.", show_default=False)],
    stories: Limit = 0,
    as_json: AsJson = False,
):
    """Compare the hardware's arithmetic (L1) with floats (L0).

    Also compares float32 with float64, the noise floor of any arithmetic. The exit code is 1 if L1 misses a limit,
    be it that the text is too small to judge it by: on a few hundred tokens float32 misses limits too.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is no checkpoint folder: an image does not hold the float weights")
    model = Model(folder)
    ids, _ = load_stories(text, model.vocabulary, stories)
    with progress_bar() as bars:
        task = bars.add_task("comparing", total=None)
        found = compare_levels(folder, ids, BATCH, lambda done, total: bars.update(task, completed=done, total=total),
                               exact_model)
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        table = Table("figure", "L1", "float32", "limit", "")
        rows = (("perplexity", "{:.4f}", None), ("perplexity_change", "{:+.4%}", "{:.2%}"),
                ("kl_nats", "{:.2e}", "{:.0e}"),
                ("top1_raw", "{:.2%}", None), ("top1_clear", "{:.2%}", "{:.1%}"))
        for key, style, limit in rows:
            table.add_row(key, style.format(found["l1"][key]), style.format(found["float32"][key]),
                          limit.format(LIMITS[key]) if limit else "", mark_of(found, key))
        console = table_console()
        console.print(table)
        console.print(f"L0 perplexity {found['perplexity']:.4f} on {found['tokens']:,} tokens, "
                      f"{found['clear_share']:.1%} of them with a clear best token: "
                      f"{verdict_of(found)}")
    if not found["passed"]:
        raise typer.Exit(1)
