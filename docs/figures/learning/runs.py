"""The runs: channel mixers by name, the training of one model of a seed, and the file of what they found."""

import json
import time
from pathlib import Path

import numpy as np

from sterna.models import data
from sterna.models.settings import TrainConfig
from sterna.sim.golden.compiler import locked
from sterna.sim.golden.files import build_folder, write_file

ROOT = Path(__file__).resolve().parents[3]
RESULTS = Path(__file__).with_name("results.json")
TRAIN = ROOT / "models/data/tinystories-train.txt.xz"
VALIDATION = ROOT / "models/data/tinystories-valid.txt.xz"
STORIES = 2000  # the first ones of the text, of which HOLDOUT are held out
HOLDOUT = 40
COMMON = {"text": TRAIN.name, "holdout_stories": HOLDOUT, "vocab_size": 512, "hidden_size": 64,
          "num_hidden_layers": 2, "row_tokens": 256, "rows": 4, "learning_rate": 0.01, "weight_decay": 0.0,
          "products": "fp32", "steps": 300, "evaluate_every": 300}
SEEDS = (1, 2, 3)
TREE = {"channel_mixer": "tree"}
SMALL, WIDE = TREE | {"trees": 8, "tree_depth": 4}, TREE | {"trees": 4, "tree_depth": 4, "tree_always": 20}
PLAIN = {"tree_gradient": "none"}
# Label and entries of the configuration by name, in the order of the runs. Where nothing else is said a token reads
# 40 rows of either table in a layer.
MIXERS = {
    "none": ("no mixer", {"channel_mixer": "none"}),
    "glu": ("GLU, 168 wide", {"intermediate_size": 168}),
    "glu.equal": ("GLU, 27 wide (equal bytes)", {"intermediate_size": 27}),
    "dense": ("dense, 40 wide (equal bytes)", TREE | {"trees": 40, "tree_depth": 0}),
    "dense.whole": ("dense, 248 wide (equal parameters)", TREE | {"trees": 248, "tree_depth": 0}),
    "tree": ("8x4, routing gradient", SMALL),
    "tree.plain": ("8x4", SMALL | PLAIN),
    "always": ("4x4 + 20 always on, routing gradient", WIDE),
    "always.plain": ("4x4 + 20 always on", WIDE | PLAIN),
    "frozen": ("8x4, fixed random routing", SMALL | PLAIN | {"tree_routing": "frozen"}),
    "experts": ("3 of 31 experts of 8", {"channel_mixer": "experts", "experts": 31, "experts_used": 3,
                                         "expert_size": 8, "balance": 0.01}),
    "shallow": ("20x1, routing gradient", TREE | {"trees": 20, "tree_depth": 1}),
    "deep": ("1x11, routing gradient", TREE | {"trees": 1, "tree_depth": 11}),
    "coin": ("8x4, routing by chance", SMALL | PLAIN | {"tree_routing": "coin"}),
    "dense.deep": ("dense, 12 wide (bytes of 1x11)", TREE | {"trees": 12, "tree_depth": 0}),
}
LAST = ("coin", "dense.deep")  # behind all seeds of the others
TRITS_PER_BYTE = 5
PROMPT, TEXT_TOKENS, TEMPERATURE = "Once upon a time", 100, 0.7


def settings_of(name, seed):
    """What the configuration of a run says (dict)."""
    return COMMON | MIXERS[name][1] | {"seed": seed}


def bytes_of(config):
    """Bytes of trits that a token reads in a layer's mixer, and in the whole model, at 1.6 bits a trit (floats)."""
    hidden = config.hidden_size
    if config.channel_mixer == "tree":
        rows = 2 * (config.tree_always + config.trees * (config.tree_depth + 1))
    elif config.channel_mixer == "experts":
        rows = 2 * config.experts_used * config.expert_size + config.experts
    else:
        rows = 3 * config.intermediate_size
    mixer = rows * hidden / TRITS_PER_BYTE
    others = config.num_hidden_layers * 4 * hidden**2 + config.vocab_size * hidden
    return mixer, config.num_hidden_layers * mixer + others / TRITS_PER_BYTE


def loaded():
    """What was found so far: {"NAME SEED": result}."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def is_done(name, seed, results):
    """Whether a result is there that has the present settings."""
    return results.get(f"{name} {seed}", {}).get("settings") == settings_of(name, seed)


def keep(name, seed, result):
    """Add a result to the file, to which another process may have added some."""
    with locked(build_folder() / "learning.lock"):
        kept = loaded() | {f"{name} {seed}": result}
        lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in kept.items())
        write_file(RESULTS, "{\n" + lines + "\n}\n")


def shortened(folder):
    """Path of a file with the first STORIES of the training text."""
    path = folder / f"stories-{STORIES}.txt"
    if not path.exists():
        write_file(path, f"\n{data.END_OF_TEXT}\n".join(data.read_stories(TRAIN)[:STORIES]))
    return path


def train(name, seed, folder, tell):
    """Train a model and measure it on the validation stories; what is kept of it (dict)."""
    from sterna.models.train import Trainer
    config, started = TrainConfig(**settings_of(name, seed)), time.process_time()
    trainer = Trainer(config, shortened(folder), folder / f"{name}-{seed}")
    for record in trainer.run():
        if record["step"] % 100 == 0:
            tell(f"{name} {seed}: step {record['step']}, loss {record['loss']:.3f}")
    ids = data.encode(trainer.tokenizer, data.read_stories(VALIDATION))
    packed = data.pack_rows(ids, config.row_tokens, np.random.default_rng(0))
    targets = int((packed[1] >= 0).sum())
    mixer, whole = bytes_of(config)
    return {"settings": settings_of(name, seed), "nats_per_token": trainer.nats(packed) / targets, "targets": targets,
            "trained_tokens": trainer.tokens, "mixer_bytes": mixer, "token_bytes": whole,
            "parameters": sum(p.numel() for p in trainer.model.parameters()),
            "leaf_use": trainer.leaf_use.figures(), "cpu_seconds": round(time.process_time() - started, 1)}


def best_of_trees(results):
    """(mixer, seed) of the lowest loss of a model with trees whose routing is its own, or None."""
    found = [(result["nats_per_token"], name, seed) for name in MIXERS for seed in SEEDS
             if is_done(name, seed, results) and MIXERS[name][1].get("tree_depth")
             and "tree_routing" not in MIXERS[name][1] for result in [results[f"{name} {seed}"]]]
    return min(found)[1:] if found else None


def text_of(name, seed, folder):
    """What the model of a run writes behind PROMPT at a temperature (str), by its checkpoint."""
    import tokenizers
    import torch

    from sterna.models.checkpoint import load_checkpoint
    best = folder / f"{name}-{seed}" / "best"
    tokenizer, model = tokenizers.Tokenizer.from_file(str(best / "tokenizer.json")), load_checkpoint(best).eval()
    ids = [0, *tokenizer.encode(PROMPT, add_special_tokens=False).ids]
    chance = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _ in range(TEXT_TOKENS):
            keep = torch.arange(len(ids))[None] > 0
            shares = torch.softmax(model(torch.tensor([ids]), keep)[-1] / TEMPERATURE, -1)
            ids.append(int(torch.multinomial(shares, 1, generator=chance)))
            if not ids[-1]:
                break
    return tokenizer.decode(ids)


def _prepare():
    """One thread, and compiled functions."""
    import torch

    from sterna.models import layers, tree
    torch.set_num_threads(1)
    torch._dynamo.config.recompile_limit = 200  # one for each shape of all mixers
    torch._dynamo.config.accumulated_recompile_limit = 2000
    layers.compile_elementwise()
    tree.compile_elementwise()


def run(names, seeds, folder, tell):
    """Make the runs that have no result yet, seed by seed, so that every stop leaves a comparison."""
    if all(is_done(name, seed, loaded()) for name in names for seed in seeds):
        return
    _prepare()
    for name, seed in sorted(((name, seed) for seed in seeds for name in names), key=lambda run: run[0] in LAST):
        if not is_done(name, seed, loaded()):
            result = train(name, seed, folder, tell)
            keep(name, seed, result)
            tell(f"{name} {seed}: {result['nats_per_token']:.4f} nats per token, {result['cpu_seconds']} s")


def write_text(folder):
    """Keep a text of the best model with trees, if its checkpoint is there."""
    results = loaded()
    best = best_of_trees(results)
    if best and (folder / f"{best[0]}-{best[1]}" / "best").is_dir():
        name, seed = best
        keep(name, seed, results[f"{name} {seed}"] | {"text": text_of(name, seed, folder)})
