"""Fast feedforward against the gated linear unit on --device cpu: tokens a second and bytes of the 1.3B shape."""

import time
from statistics import median

import numpy as np

from docs.figures.pages import table
from docs.figures.tree import shapes
from docs.figures.tree.shapes import DEPTH, GLU, SHAPES
from docs.figures.versus.machine import busy, cpu_name
from sterna.sim.cpu.model import BLOCK, CpuModel, usable_threads
from sterna.sim.golden.packed import PACKED_LAYERS, OnDemand

STEP = "tree.cpu"
MIXERS = (GLU, *SHAPES)
SLOTS, WARM = 32, 2
ROUNDS, TOKENS = 7, 6  # in each round every model reads so many tokens one by one, SLOTS at once, and a prompt
KINDS = {"token": 1, "slots": SLOTS, "prompt": BLOCK}  # what is measured, and the tokens of a measurement


def packed(shape, seed=1, layers=DEPTH):
    """A model of random trits (PackedModel): its layers are equal, but each lies in memory by itself once loaded."""
    g, rng = shapes.geometry(shape, layers, shapes.VOCABULARY), np.random.default_rng(seed)

    def trits(rows, columns):
        return rng.integers(-1, 2, (rows, columns), np.int8)

    matrices = {name: trits(*size) for name, size in g.layer_matrices().items()}
    kind, inner = PACKED_LAYERS[g.mixer], {"w_down": shapes.INNER}
    # A scale as trits of a normal matrix have it; every vector is of ones.
    values = {name: 0.8 * size[1] ** -0.5 / 127 for name, size in
              ((f"ws_{name}", size) for name, size in g.layer_matrices().items())}
    if g.mixer == "tree":
        values["ws_tree_out"] = 0.8 * g.visits ** -0.5 / 127
    vectors = {name: np.ones(inner.get(name, shapes.HIDDEN)) for name in kind.__dataclass_fields__
               if name not in matrices | values}
    vectors["keep"] = np.full(shapes.HIDDEN, 0.9)
    layer = kind(**matrices, **values, **vectors)
    ones, rows = np.ones(shapes.HIDDEN), (shapes.VOCABULARY, shapes.HIDDEN)
    return OnDemand(g, lambda number: layer,
                    lambda: (rng.integers(-127, 128, rows, np.int8), np.full(rows[0], 2.0**-7)),
                    lambda: (trits(*rows), values["ws_f"]), {"final_outer": ones, "w_head": ones})


class Player:
    """A model under measurement, and the texts that it reads: random tokens, other ones every time."""

    def __init__(self, model, rng):
        self.model, self._rng = model, rng
        self._states = {kind: model.start(SLOTS if kind == "slots" else 1) for kind in KINDS}

    def seconds(self, kind):
        """Seconds of a measurement (float)."""
        state, tokens = self._states[kind], self._rng.integers(0, shapes.VOCABULARY, KINDS[kind])
        begun = time.perf_counter()
        if kind == "prompt":
            self.model.read(tokens, state)
        else:
            self.model.sample(self.model.step(tokens, state))
        return time.perf_counter() - begun


def measure(layers=DEPTH, rounds=ROUNDS):
    """Medians and least seconds of a measurement by model and kind, and how often the unit's seconds each takes.

    The models take turns, and what is divided is of the same round: what else the machine does meets all of them.
    """
    threads, out, share = usable_threads(), {}, busy()
    players = {}
    for shape in MIXERS:
        players[shape] = Player(CpuModel(packed(shape, layers=layers), threads), np.random.default_rng(2))
        out[f"{shape}.bytes"] = players[shape].model.weight_bytes
    times = {(shape, kind): [] for shape in MIXERS for kind in KINDS}
    for number in range(WARM + rounds):
        for kind in KINDS:
            for shape, player in players.items():
                found = [player.seconds(kind) for _ in range(TOKENS if kind == "token" else 1)]
                if number >= WARM:
                    times[shape, kind].append(found)
    for (shape, kind), found in times.items():
        out[f"{shape}.{kind}"] = median(np.concatenate(found)) / KINDS[kind]
        out[f"{shape}.{kind}.least"] = float(np.min(found)) / KINDS[kind]
        ratios = [median(unit) / median(own) for unit, own in zip(times[GLU, kind], found, strict=True)]
        out[f"{shape}.{kind}.gain"] = median(ratios)
    for player in players.values():
        player.model.close()
    return out | {"how": f"measured on {cpu_name()}, {threads} threads, others taking {share:.0%} of the processors "
                         f"before: random trits, hidden {shapes.HIDDEN}, {layers} layers, "
                         f"{shapes.VOCABULARY:,} tokens, greedy; "
                         f"{rounds} rounds in which the models take turns, medians of seconds and of the rounds' "
                         "ratios"}


def tables(results):
    """Markdown by name (dict of str), of what is there of the figures: ``results`` are values by step."""
    found = results.get(STEP)
    if not found:
        return {}
    rows = [[shape.upper() if shape == GLU else shape, f"{found[f'{shape}.bytes'] / 1e6:,.0f} MB",
             *(cell for kind in KINDS for cell in (f"{1 / found[f'{shape}.{kind}']:,.1f}",
                                                   f"{found[f'{shape}.{kind}.gain']:.2f}"))] for shape in MIXERS]
    return {f"table.{STEP}": table(
        ["mixer", "weights that a token reads", "tokens/s, one text", "over the GLU", f"tokens/s, {SLOTS} texts",
         "over the GLU", "tokens/s, prompt", "over the GLU"], rows)}
