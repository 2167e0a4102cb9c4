"""Fast feedforward against the gated linear unit in the RTL: the 1.3B shape at three widths."""

import tempfile
from dataclasses import replace
from pathlib import Path

from docs.figures.pages import table
from docs.figures.tree.cycles import LAYERS, intervals, period, traced
from docs.figures.tree.shapes import DEPTH, GLU, HIDDEN, INNER, SHAPES, VOCABULARY, geometry
from sterna.host.model.model import Model
from sterna.host.runtime.statistics import useful_bytes
from sterna.hw.presets import PRESETS
from sterna.sim.perf.memory import TIMING

CUT = 512  # rows of the head that is simulated
# The presets with vector banks that hold vectors of this width, and strips of as many rows as a program takes: an
# operation takes 16 cycles at least. At 320 lanes the FIFO is as deep as the block memory that it takes anyway.
CASES = {
    "lanes10": replace(PRESETS["lanes10"], vector_words=16384),
    "lanes40": replace(PRESETS["lanes40"], vector_words=4096, strip=120),
    "lanes320": replace(PRESETS["lanes320"], strip=120, fifo_words=4096),
}
LABELS = {"lanes10": "10 lanes, 2-byte port", "lanes40": "40 lanes, 8-byte port",
          "lanes320": "320 lanes, 64-byte port"}
PARTS = {"products": "its products", "vectors": "loads of vectors", "update": "update of x and next norm",
         "mixer": "mixer, barrier to barrier", "layer": "layer", "whole": f"token of {DEPTH} layers"}


def mixer_bytes(shape):
    """Bytes (float) of the channel mixer's weights that a layer reads for a token, at 1.6 bits each."""
    return (3 * INNER if shape == GLU else 2 * geometry(shape).visits) * HIDDEN * 0.2


def token_bytes(shape):
    """Bytes (float) that a token of the whole model cannot do without."""
    return useful_bytes(geometry(shape), "trit5")


def whole(name, token, layer):
    """Cycles of a token of the whole model, of those of one with LAYERS layers and CUT rows and those of a layer:
    rows of the head come as the memory gives them.
    """
    timing, words = TIMING[name], (VOCABULARY - CUT) * HIDDEN * 0.2 / CASES[name].port_bytes
    return token + (DEPTH - LAYERS) * layer + words * timing.interval / (timing.interval - timing.refresh)


def speed(name, shape, image):
    """Cycles of a shape on a case's configuration; ``image`` gives the tokenizer."""
    timing = TIMING[name]
    options = {"latency_cycles": timing.latency, "refresh_interval_cycles": timing.interval,
               "refresh_cycles": timing.refresh}

    def run(layers):
        with tempfile.TemporaryDirectory() as folder:
            return traced(CASES[name], geometry(shape, layers, CUT), Path(folder), Model(image).tokenizer_json,
                          options)

    found = intervals(*run(LAYERS), shape != GLU)
    layer = found.token - period(*run(LAYERS - 1), LAYERS - 1)
    return {**found._asdict(), "layer": layer, "whole": whole(name, found.token, layer),
            "mixer_bytes": mixer_bytes(shape), "token_bytes": token_bytes(shape),
            "how": f"cycles simulated: random weights, hidden {HIDDEN}, {LAYERS} layers and a head of {CUT} rows, "
                   f"the last of three greedy tokens; a layer: difference to {LAYERS - 1} layer; memory latency "
                   f"{timing.latency} cycles, refresh {timing.refresh} of every {timing.interval}; whole: projected "
                   f"to {DEPTH} layers, and {VOCABULARY} rows as fast as the memory gives them"}


def names():
    """(case, shape) of every step."""
    return [(name, shape) for name in CASES for shape in (GLU, *SHAPES)]


def gain(name, shape):
    """Name of the figure that says how many times as fast as the GLU's a token is."""
    return f"tree.gain.{name}.{shape}"


def ratios(results, name, shape):
    """{of what: the GLU's over the shape's} and the bound of the token, or None where one was not run."""
    glu, tree = (results.get(f"tree.speed.{name}.{which}") for which in (GLU, shape))
    if not glu or not tree:
        return None
    return {"bytes": glu["mixer_bytes"] / tree["mixer_bytes"], "products": glu["products"] / tree["products"],
            "mixer": glu["mixer"] / tree["mixer"], "token": glu["whole"] / tree["whole"],
            "bound": glu["token_bytes"] / tree["token_bytes"]}


def tables(results):
    """Markdown by name (dict of str), of what is there of the figures: ``results`` are values by step."""
    rows, cycles, out = [], [], {}
    for name, shape in names():
        found, values = ratios(results, name, shape), results.get(f"tree.speed.{name}.{shape}")
        if values:
            cycles.append([LABELS[name], shape.upper() if shape == GLU else shape,
                           *(f"{values[key]:,.0f}" for key in PARTS)])
        if found and shape != GLU:
            out[gain(name, shape)] = f"{found['token']:.2f}"
            rows.append([LABELS[name], shape, *(f"{found[key]:,.0f}" for key in ("bytes", "products", "mixer")),
                         f"{found['token']:.2f}", f"{found['bound']:.2f}"])
    if rows:
        out["table.tree.speed"] = table(["configuration", "trees x depth", "mixer's bytes", "product cycles",
                                         "mixer, barrier to barrier", "token", "bound of the token"], rows)
    if cycles:
        out["table.tree.cycles"] = table(["configuration", "mixer", *PARTS.values()], cycles)
    return out
