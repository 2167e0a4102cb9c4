"""Quality at size: L1 and float32 against L0 in made-up models, layer by layer, end to end and in greedy texts."""

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
TEXT_SIZE, PROMPTS, PROMPT_TOKENS, MADE, LONG = "2.7b", 4, 8, 64, 256
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


def texts(size, folder, text, made_tokens=MADE, long=LONG):
    """Greedy texts of L1 and of L0 behind the same prompts.

    Returns
    -------
    dict
        Per level means over the prompts of ``depth.repetition``, the largest state of any layer; of L1 the same of
        long texts; and how L0 follows the first text of L1.
    """
    with made(size, folder) as checkpoint:
        prompts = np.stack([ids[:PROMPT_TOKENS] for ids in tokens_of(checkpoint, text, PROMPTS)], 1)
        source = load_checkpoint(checkpoint)
        cpu = CpuModel(pack(*source))
        print("  texts of L1", flush=True)
        spoken, largest = depth.greedy(cpu, prompts, long)
        first = np.concatenate([prompts[:, 0], spoken[:made_tokens, 0]])
        outputs = depth.largest_outputs(cpu, first)
        found = cpu.block_logits(first, cpu.start(1))
        cpu.close()
        print("  L0 behind them", flush=True)
        model = Reference(source, kept=False)
        exact, exact_largest, exact_outputs = depth.follow(model, model.embedding[first])
        out = {f"follow.l1.{key}": value for key, value in depth.agreement(exact, found).items()}
        del exact, found, model
        out |= {"l1.largest_h": largest.max(), "l1.largest_h.layer": int(largest.argmax()),
                "l1.largest_x": outputs.max(), "follow.largest_h": exact_largest.max(),
                "follow.largest_x": exact_outputs.max()}
        print("  texts of L0", flush=True)
        said, largest = depth.greedy(Reference(source), prompts, made_tokens)
    out |= {"l0.largest_h": largest.max()}
    for name, tokens in (("l1", spoken[:made_tokens]), ("l0", said), ("long", spoken)):
        rows = [depth.repetition(column) for column in tokens.T]
        out |= {f"{name}.{key}": float(np.mean([row[key] for row in rows])) for key in REPETITION}
        out[f"{name}.longest_run"] = max(row["longest_run"] for row in rows)
    out["same.tokens"] = int(np.cumprod(said == spoken[:made_tokens], 0).sum(0).min())
    out = {key: value if isinstance(value, int) else float(value) for key, value in out.items()}
    return out | {"made": made_tokens, "long": long, "prompts": prompts.shape[1],
                  "how": f"computed: a made-up {size} model (models/synthetic, seed 0), greedy, behind the first "
                         f"{PROMPT_TOKENS} tokens of {prompts.shape[1]} stories of {text.name}; L1 by the kernels of "
                         "sim/cpu, L0 in float64"}


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
    return out | {"depth.causes": lambda: causes(CAUSES_SIZE, folder, text),
                  "depth.text": lambda: texts(TEXT_SIZE, folder, text)}


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
    if "depth.text" in values:
        out["table.depth.text"] = text_table(values["depth.text"])
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


def text_table(f):
    """The table of greedy texts."""
    names = {"l0": f"L0, {f['made']} tokens", "l1": f"L1, {f['made']} tokens", "long": f"L1, {f['long']} tokens"}
    words = {"distinct": "different tokens", "longest_run": "longest run of one token",
             "commonest.share": "share of the commonest token",
             "returning.share": f"share of {depth.GRAM}-token runs that return"}
    rows = []
    for key, label in words.items():
        style = "{:.1%}" if key.endswith("share") else "{:.0f}" if key == "longest_run" else "{:.1f}"
        rows.append([label, *(style.format(f[f"{name}.{key}"]) for name in names)])
    rows.append(["largest state of any layer", f"{f['l0.largest_h']:.2f}", "", f"{f['l1.largest_h']:.2f}"])
    return table(["greedy text", *names.values()], rows)
