"""How long a training step of a mixer takes: all rows for all tokens, against the visited rows alone."""

import json
import time
from pathlib import Path

from sterna.sim.golden.files import write_file

RESULTS = Path(__file__).with_name("forms.json")
HIDDEN, TOKENS = 128, 1024
SHAPES = ((16, 4), (8, 6), (4, 8), (1, 7), (2, 9), (1, 9), (1, 10), (1, 11))  # K, D
REPEATS = 5


def milliseconds(trees, depth, form, gradient):
    """The shortest of some times of a forward and backward pass, of the processor and not of the clock (float)."""
    import torch

    from sterna.models.tree import Tree, TreeOptions
    torch.manual_seed(1)
    mixer = Tree(HIDDEN, trees, depth, 0, HIDDEN**-0.5, TreeOptions(form=form, gradient=gradient))
    x, times = torch.randn(TOKENS, HIDDEN, requires_grad=True), []
    for _ in range(REPEATS):
        started = time.process_time()
        mixer(x).square().sum().backward()
        times.append(time.process_time() - started)
    return 1000 * min(times)


def run(tell):
    """Measure all shapes and keep the results."""
    import torch
    torch.set_num_threads(1)
    rows = []
    for trees, depth in SHAPES:
        rows.append({"trees": trees, "depth": depth} | {
            f"{form}.{gradient}": round(milliseconds(trees, depth, form, gradient), 2)
            for form in ("masked", "walk") for gradient in ("none", "child")})
        tell(json.dumps(rows[-1]))
    write_file(RESULTS, json.dumps({"hidden": HIDDEN, "tokens": TOKENS, "torch": torch.__version__, "rows": rows},
                                   indent=1) + "\n")
