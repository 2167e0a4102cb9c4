"""Quality at size: L1 and float32 against L0 in made-up models, layer by layer, end to end and in greedy texts."""

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from docs.figures.pages import table
from sterna.host.model.model import Model
from sterna.models.data import read_stories
from sterna.models.synthetic.checkpoint import geometry_of, make_checkpoint
from sterna.sim.cpu.model import CpuModel
from sterna.sim.golden import depth
from sterna.sim.golden.packed import load_checkpoint, pack
from sterna.sim.golden.reference import Reference

LAYERS = {"370m": 24, "1.3b": 1, "2.7b": 1}  # compared, from the first on
TOKENS = 256
CAUSES_SIZE = "370m"
CAUSES = {"embedding": "int8 embedding alone: L0 with L1's embedding",
          "arithmetic": "fp24 alone: L1 with L0's embedding", "l1": "both: L1", "float32": "float32"}
TEXTS = ("370m", "2.7b")
L1_ALONE = ("2.7b",)  # L0, in plain NumPy, takes long for their texts
L0_TEXTS = "STERNA_L0_TEXTS"  # environment variable: not empty, and L0 makes these too
PROMPTS, PROMPT_TOKENS, MADE, LONG = 4, 8, 32, 256
LIMIT = 5e-4  # of the mean of 1 - cosine
REPETITION = ("distinct", "longest_run", "commonest.share", "returning.share")


@contextmanager
def made(size, folder):
    """Gives the folder of a checkpoint that is made for the block below ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="depth-") as place:
        make_checkpoint(geometry_of(size), Path(place) / "checkpoint")
        yield Path(place) / "checkpoint"


def tokens_of(checkpoint, text, stories):
    """The tokens (list of int arrays) of the first stories of a file."""
    vocabulary = Model(checkpoint).vocabulary
    return [np.array(vocabulary.encode(story)) for story in read_stories(text)[:stories]]


def layers(size, folder, text, count, tokens=TOKENS):
    """``depth.layers_over`` of a made-up model: every layer's figures, and the worst.

    Parameters
    ----------
    size : str
        As ``sterna.models.synthetic`` takes it.
    folder : Path
        For its checkpoint.
    text : Path
        Stories.
    count, tokens : int
        Layers and tokens.

    Returns
    -------
    dict
        By "NUMBER.KEY" what ``layers_over`` gives with 1 - cosine for each cosine; "worst.layer" and
        "worst.token.layer", the layers with the largest mean and with the largest of a single token.
    """
    with made(size, folder) as checkpoint:
        ids = np.concatenate(tokens_of(checkpoint, text, 16))[:tokens]
        rows = depth.layers_over(*load_checkpoint(checkpoint), ids, count)
    out = {}
    for number, row in enumerate(rows):
        for key, value in row.items():
            out[f"{number}.{key}"] = 1 - value if key.endswith((".mean", ".worst")) else value
    for name, key in (("worst.layer", "mean"), ("worst.token.layer", "worst")):
        out[name] = max(range(len(rows)), key=lambda k: out[f"{k}.l1.{key}"])
    return out | {"layers": len(rows), "tokens": len(ids),
                  "how": f"computed: made-up models of full size (models/synthetic, seed 0); {len(ids)} tokens of "
                         f"{text.name}; every layer has the input of L0"}


def with_l0(size):
    """Whether L0 makes a text of a size, too (bool)."""
    return size not in L1_ALONE or bool(os.environ.get(L0_TEXTS))


def texts(size, folder, text, made_tokens=MADE, long=LONG):
    """Greedy texts of L1 and, unless ``with_l0`` says no, of L0 behind the same prompts.

    Returns
    -------
    dict
        Per level ("l0", "l1" and, of the longer texts of L1, "long") means over the prompts of ``depth.repetition``,
        but the largest of the longest runs; the largest state and output of any layer; "same.tokens", the fewest
        tokens of a prompt that both levels begin with.
    """
    with made(size, folder) as checkpoint:
        prompts = np.stack([ids[:PROMPT_TOKENS] for ids in tokens_of(checkpoint, text, PROMPTS)], 1)
        source = load_checkpoint(checkpoint)
        cpu = CpuModel(pack(*source))
        spoken = depth.greedy(cpu, prompts, long)
        cpu.close()
        said = depth.greedy(Reference(source), prompts, made_tokens) if with_l0(size) else None
    ways = "L0 in float64" if said else f"without L0, which takes long here ({L0_TEXTS}=1 runs it)"
    return text_figures(spoken, said, made_tokens) | {
        "how": f"computed: a made-up {size} model (models/synthetic, seed 0), greedy, behind the first "
               f"{PROMPT_TOKENS} tokens of {prompts.shape[1]} stories of {text.name}; L1 by the kernels of sim/cpu, "
               f"{ways}"}


def text_figures(spoken, said, count=MADE):
    """Figures of what ``depth.greedy`` gave for L1 and, of ``count`` tokens, for L0; ``said`` may be None."""
    texts = {"l1": (spoken[0][:count],), "long": spoken} | ({"l0": said} if said else {})
    out = {"made": count, "long": len(spoken[0]), "prompts": spoken[0].shape[1]}
    if said:
        out["same.tokens"] = int(np.cumprod(said[0] == spoken[0][:count], 0).sum(0).min())
    for name, (tokens, *largest) in texts.items():
        rows = [depth.repetition(column) for column in tokens.T]
        out |= {f"{name}.{key}": float(np.mean([row[key] for row in rows])) for key in REPETITION}
        out[f"{name}.longest_run"] = max(row["longest_run"] for row in rows)
        out |= {f"{name}.{key}": float(value.max())
                for key, value in zip(("largest_h", "largest_x"), largest, strict=False)}
    return out


def causes(size, folder, text, tokens=TOKENS):
    """``depth.causes`` of a made-up model."""
    with made(size, folder) as checkpoint:
        ids = np.concatenate(tokens_of(checkpoint, text, 16))[:tokens]
        found = depth.causes(*load_checkpoint(checkpoint), ids)
    return found | {"tokens": len(ids), "how": f"computed: a made-up {size} model (models/synthetic, seed 0) over "
                                               f"{len(ids)} tokens of {text.name}"}


def steps(folder, text):
    """{name: callable} of the steps."""
    out = {f"depth.{size}": lambda size=size, count=count: layers(size, folder, text, count)
           for size, count in LAYERS.items()}
    out["depth.causes"] = lambda: causes(CAUSES_SIZE, folder, text)
    return out | {f"depth.text.{size}": lambda size=size: texts(size, folder, text) for size in TEXTS}


def tables(values):
    """Markdown by name.

    Parameters
    ----------
    values : dict of str to dict
        What the steps returned, by name.
    """
    out = {}
    found = {size: values[f"depth.{size}"] for size in LAYERS if f"depth.{size}" in values}
    rows = [row(size, f, number) for size, f in found.items() for number in range(f["layers"])]
    if rows:
        out["table.depth"] = table(["model", "layer", "L1, mean", "L1, worst token", "float32, mean",
                                    "float32, worst token", "L1, states", "float32, states", "largest h: L0, L1",
                                    "largest x: L0, L1"], rows)
    if "depth.causes" in values:
        f = values["depth.causes"]
        rows = [[label, *(f"{f[f'{cause}.kl_nats']:.1e} {f[f'{cause}.top1_clear']:.1%}".split())]
                for cause, label in CAUSES.items()]
        out["table.depth.causes"] = table(["against L0, end to end", "KL, nats per token",
                                           "same best token, where it is clear"], rows)
    for size in TEXTS:
        if f"depth.text.{size}" in values:
            out[f"table.depth.text.{size}"] = text_table(size, values[f"depth.text.{size}"])
    return out


def row(size, f, number):
    """A row of the table of layers."""
    at = f"{number}."
    notes = [word for word, key in (("worst mean", "worst.layer"), ("worst token", "worst.token.layer"))
             if f["layers"] > 1 and f[key] == number]
    if f[f"{at}l1.mean"] > LIMIT:
        notes.append("OVER THE LIMIT")
    return [size.upper(), f"{number}" + (f" ({', '.join(notes)})" if notes else ""),
            *(f"{f[f'{at}{key}']:.1e}" for key in ("l1.mean", "l1.worst", "float32.mean", "float32.worst", "l1.state",
                                                   "float32.state")),
            *(f"{f[f'{at}l0.largest_{name}']:.2f}, {f[f'{at}l1.largest_{name}']:.2f}" for name in "hx")]


def text_table(size, f):
    """The table of greedy texts of a size."""
    names = {"l0": f"L0, {f['made']} tokens", "l1": f"L1, {f['made']} tokens", "long": f"L1, {f['long']} tokens"}
    words = {"distinct": "different tokens", "longest_run": "longest run of one token",
             "commonest.share": "share of the commonest token",
             "returning.share": f"share of {depth.GRAM}-token runs that return"}
    rows = []
    for key, label in words.items():
        style = "{:.1%}" if key.endswith("share") else "{:.0f}" if key == "longest_run" else "{:.1f}"
        rows.append([label, *(style.format(f[at]) if (at := f"{name}.{key}") in f else "not run" for name in names)])
    for key, label in (("largest_h", "largest state of any layer"), ("largest_x", "largest output of any layer")):
        rows.append([label, *(f"{f[at]:.2f}" if (at := f"{name}.{key}") in f else "" for name in names)])
    return table([f"greedy text, {size.upper()}", *names.values()], rows)
