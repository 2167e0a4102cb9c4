"""What the encoder's study compares, and its results; without PyTorch."""

import json
from pathlib import Path

from sterna.sim.golden.files import write_file

RESULTS = Path(__file__).with_name("results.json")  # of the runs that docs/encoder.md quotes
SHAPE = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 2048, "length": 64}
PRETRAINING = {"rows": 8, "steps": 1000, "learning_rate": 1e-3, "holdout_rows": 256, "evaluate_every": 1000}
FINE_TUNING = {"rows": 32, "epochs": 3, "learning_rate": 1e-3, "length": 64}
MOST_ROWS = {"SST-2": 3000, "TREC": 3000, "AGNews": 2000, "Subjectivity": 2000}
VARIANTS = {"fff": {"feedforward": "fff", "trees": 1, "tree_depth": 8},
            "dense": {"feedforward": "dense", "intermediate_size": 512},
            "narrow": {"feedforward": "narrow", "trees": 1, "tree_depth": 8},
            "none": {"feedforward": "none"},
            "fff16": {"feedforward": "fff", "trees": 16, "tree_depth": 4},
            "narrow80": {"feedforward": "narrow", "trees": 16, "tree_depth": 4}}
BASE = "dense"  # what scores are relative to
FIRST = (BASE, "fff", "none", "narrow")  # of every seed, before the others
LATER = tuple(name for name in VARIANTS if name not in FIRST)
SEEDS = (0, 1, 2)


def order():
    """Yields (variant, seed) in the order of their runs: seed 0 of every variant first."""
    for variants, seeds in ((FIRST, SEEDS[:1]), (FIRST, SEEDS[1:]), (LATER, SEEDS)):
        for seed in seeds:
            yield from ((variant, seed) for variant in variants)


def read(path):
    """Results by "VARIANT.SEED.PART" (dict)."""
    return json.loads(path.read_text()) if path.exists() else {}


def keep(path, name, found):
    """Add a result to the file."""
    write_file(path, json.dumps(read(path) | {name: found}, indent=1) + "\n")
