"""The cycle model against the RTL: cycles of the simulated board on geometries that the model was not made from.

What counts is the prediction that ``sterna plan`` makes, of a model's sizes alone ("assumed"); beside it stands that
of one who knows the numbers that come up ("known"), which tells whether an error lies in the cycles or in these.
"""

from collections import Counter
from dataclasses import replace

import numpy as np

from docs.figures.pages import table
from sterna.host.model.image import build_image
from sterna.host.model.model import Model
from sterna.host.runtime.open import open_simulation
from sterna.host.runtime.session import Sequence
from sterna.host.runtime.sampling import Demands, Sampling
from sterna.hw.boards import preset
from sterna.sim.golden.model import GoldenModel
from sterna.sim.golden.geometry import Geometry, TreeGeometry
from sterna.sim.golden.packed import random_model
from sterna.sim.perf.memory import TIMING, Timing
from sterna.sim.perf.predict import Conversions, predict

CASES = ("lanes10", "lanes40", "sim", "lanes160", "lanes320", "ulx3s-85f", "ecpix5-85", "up5k",
         "lanes10,batch=2", "lanes40,batch=2", "lanes40,batch=4", "lanes40,batch=8", "ulx3s-85f,batch=2")
KINDS = {"greedy": Sampling(), "sampled": Sampling(0.8, 3), "listed": Sampling(0.8, 3, 40), "prompt": None}
WORDS = {"greedy": "greedy", "sampled": "sampled", "listed": "top-k 40", "prompt": "prompt"}
TREE_CASES = ("lanes10", "lanes40", "sim", "lanes160", "lanes320", "ulx3s-85f", "lanes40,batch=2", "lanes40,batch=4")
GEOMETRIES, SEED = 3, 11
# Of models with trees: hidden, trees, depth, neurons always on, layers, vocabulary.
LEAST_TREES, MOST_TREES = (40, 1, 0, 0, 1, 100), (400, 24, 6, 20, 4, 800)
LEAST, MOST = (40, 60, 1, 100), (200, 400, 4, 800)  # hidden, intermediate, layers, vocabulary
SMALL = (80, 160, 4, 400)  # what up5k holds
FIRST, RUNS = 3, 8  # runs of a text before those that are looked at, and these
PROMPT = (1, 2, 3, 5, 7)
PRODUCTS = ("f", "i", "g", "o", "gate", "down")


def geometries(name, count=GEOMETRIES):
    """Random geometries for a case (list of Geometry), the same ones every time."""
    rng = np.random.default_rng([SEED, *name.encode()])
    most = SMALL if name == "up5k" else MOST
    return [Geometry(*map(int, rng.integers(LEAST, np.add(most, 1)))) for _ in range(count)]


def tree_geometries(name, count=GEOMETRIES):
    """As ``geometries``, of models with trees (list of TreeGeometry)."""
    rng = np.random.default_rng([SEED, *b"tree", *name.encode()])
    return [TreeGeometry(*map(int, rng.integers(LEAST_TREES, np.add(MOST_TREES, 1)))) for _ in range(count)]


def configuration(name):
    """The Config of a case, with counters."""
    return replace(preset(name), counters=True)


def timing_of(name):
    """Timing of a case's memory behind the port."""
    return TIMING.get(name.partition(",")[0], Timing())


def options(config, timing):
    """Options of the simulated board (dict) for a Timing."""
    if config.sdram or config.ddr3 or config.memory == "onchip":
        return {}
    return {"latency_cycles": timing.latency, "refresh_interval_cycles": timing.interval,
            "refresh_cycles": timing.refresh, "bandwidth": timing.bandwidth}


def counted(runtime, kind):
    """Counter of RUNS runs of the program in the steady state: those by which a longer text exceeds a shorter one."""
    batch, found = runtime.device.info.batch, []
    sampling = KINDS[kind]
    for count in (FIRST, FIRST + RUNS):
        runtime.restart()
        figures = runtime.statistics
        if kind == "prompt":
            ids = [*PROMPT] * (FIRST + RUNS)
            figures.prompt_counters.clear()
            for _ in runtime.generate(ids[:count * batch + 1], 0, Sampling()):
                pass
            found.append(Counter(figures.prompt_counters))
            continue
        if batch > 1:
            figures.counters.clear()
            texts = [Sequence(list(PROMPT[:2]), count, replace(sampling, seed=sampling.seed + slot))
                     for slot in range(batch)]
            for _ in runtime.generate_all(texts):
                pass
        else:
            for _ in runtime.generate(list(PROMPT[:2]), 1, sampling):
                pass
            figures.counters.clear()
            for _ in runtime.generate([], count, sampling):
                pass
        found.append(Counter(figures.counters))
    found[1].subtract(found[0])
    return found[1]


class Known(Conversions):
    """What a serial conversion really takes with a model: mean places by product, counted by the golden model."""

    def __init__(self, packed):
        super().__init__(packed.geometry.hidden_size)
        model, self._places = GoldenModel(packed), {}
        for matrices in (*(layer.matrices for layer in model._layers), {"head": model._head}):
            for name, matrix in matrices.items():
                matrix.rows = self._counting(name, matrix.rows)
        state = model.start(1)
        for token in PROMPT * 3:
            model.step([token], state)

    def _counting(self, name, rows):
        def counted_rows(code):
            found = rows(code)
            sums = found.astype(int).ravel()
            self._places.setdefault(name, []).append(
                np.mean([16 - int(value if value >= 0 else -value - 1).bit_length() for value in sums]))
            return found
        return counted_rows

    def rows(self, columns, product):
        """Of the head where a run has gone through all layers: it is the seventh of the last one."""
        del columns
        return float(np.mean(self._places[PRODUCTS[product % 6]]))


def keys_of(packed, sampling):
    """The next row's logit, callable, of the runs that are looked at and the one before."""
    model = GoldenModel(packed)
    state, text, rows = model.start(1), list(PROMPT[:2]), []
    for position in range(1 + FIRST + RUNS + 1):
        head = model.step([text[position]], state)
        if position:
            text.append(int(model.sample(head, sampling.seed, position, sampling.temperature, sampling.top_k)[0]))
        if position >= FIRST:
            rows.append(head.rows[0])
    values = iter(np.concatenate(rows).tolist())
    return lambda: next(values)


def compare(config, packed, path, tokenizer_json, timing, kinds=tuple(KINDS)):
    """{kind: (cycles per run of the RTL, Prediction, Prediction)} of a random model; ``path`` takes its image.

    Where cycles follow from numbers, these are the model's own for the first prediction (the keys of the rows of one
    slot; the lengths of serial conversions), and what the cycle model assumes for the second.
    """
    path.write_bytes(build_image(packed, config, tokenizer_json, "random", 0))
    out, conversions = {}, Known(packed) if config.compact else None
    with open_simulation(config, Model(path), print, Demands(), preload=config.memory == "external",
                         timing=options(config, timing)) as runtime:
        for kind in kinds:
            if kind == "listed" and not config.top_k:
                continue
            counters = counted(runtime, kind)
            common = {"prompt": kind == "prompt", "sampled": kind in ("sampled", "listed"),
                      "top_k": KINDS["listed"].top_k * (kind == "listed"), "timing": timing, "runs": RUNS}
            given = {"conversions": conversions}
            if kind == "listed" and config.batch == 1:
                given["keys"] = keys_of(packed, KINDS[kind])
            out[kind] = (counters["cycles"] / counters["runs"], predict(config, packed.geometry, **common, **given),
                         predict(config, packed.geometry, **common))
    return out


def errors(name, folder, tokenizer_json, shapes=geometries):
    """What a step finds: for each kind the errors of the geometries, predicted / measured - 1.

    ``shapes`` is ``geometries`` or ``tree_geometries``: steps "perf.NAME" and "perf.tree.NAME".
    """
    out = {}
    for number, geometry in enumerate(shapes(name)):
        packed = random_model(np.random.default_rng([SEED, number]), geometry)
        found = compare(configuration(name), packed, folder / "random.sterna", tokenizer_json, timing_of(name))
        for kind, (cycles, *predictions) in found.items():
            for given, prediction in zip(("known", "assumed"), predictions, strict=True):
                out.setdefault(f"{kind}.{given}", []).append(prediction.cycles_per_run / cycles - 1)
    return out | {"how": f"RTL simulated over {RUNS} runs on {GEOMETRIES} random geometries, against sim/perf"}


def tables(results):
    """Markdown by name (dict of str), of what is there of the figures: ``results`` are values by step."""
    return _table(results, "perf", CASES) | _table(results, "perf.tree", TREE_CASES)


def _table(results, steps, cases):
    rows = []
    for name in cases:
        found = results.get(f"{steps}.{step_of(name)}")
        if found:
            values = {key: max(value, key=abs) for key, value in found.items() if key != "how"}
            worst = [max((value for key, value in values.items() if key.endswith(f".{given}")), key=abs)
                     for given in ("assumed", "known")]
            rows.append([name, *(f"{values[f'{kind}.assumed']:+.2%}" if f"{kind}.assumed" in values else ""
                                 for kind in KINDS), *(f"{value:+.2%}" for value in worst)])
    if not rows:
        return {}
    head = ["configuration", *WORDS.values(), "worst of these", "worst, knowing the numbers"]
    return {f"table.{steps}": table(head, rows)}


def step_of(name):
    """Name of a case in figures: those are words."""
    return name.replace(",batch=", "b")
