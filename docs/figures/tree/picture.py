"""The plot of docs/fff.md: times as fast as the gated linear unit, by trees, lanes and slots."""

import math

from docs.figures.tree import slots
from docs.figures.tree.shapes import SHAPES
from docs.figures.tree.speed import CASES, LABELS, ratios
from sterna.hw.protocol import BATCHES

COLOURS = ("#89c2d9", "#2a6f97", "#013a63")
SHADES = ("#013a63", "#2a6f97", "#61a5c2", "#a9d6e5")
BOUND = "#d62828"
PICTURE = "picture.tree.speed"


def draw(results, folder):
    """Write fff-speed.svg; returns what shows it, by name (dict of str)."""
    from matplotlib.figure import Figure

    from docs.figures.causes import save
    found = {(name, shape): ratios(results, name, shape) for name in CASES for shape in SHAPES}
    if not all(found.values()) or slots.STEP not in results:
        return {}
    figure = Figure(figsize=(11, 4), layout="constrained")
    tokens, mixers, batches = figure.subplots(1, 3)
    places = range(len(SHAPES))
    for number, (name, colour) in enumerate(zip(CASES, COLOURS, strict=True)):
        at = [place + 0.27 * (number - 1) for place in places]
        for panel, key in ((tokens, "token"), (mixers, "mixer")):
            panel.bar(at, [found[name, shape][key] for shape in SHAPES], 0.25, color=colour,
                      label=LABELS[name] if panel is tokens else None)
    for place, shape in enumerate(SHAPES):
        tokens.plot([place - 0.42, place + 0.42], [found["lanes10", shape]["bound"]] * 2, color=BOUND,
                    label=None if place else "ratio of the bytes")
    for (shape, gains), colour in zip(slots.gains(results[slots.STEP]).items(), SHADES, strict=True):
        batches.plot(BATCHES, gains, "o-", color=colour)
        batches.plot(BATCHES, [slots.bound(shape, batch) for batch in BATCHES], ":", color=BOUND)
        batches.annotate(shape, (BATCHES[-1], gains[-1]), (6, -3), textcoords="offset points", fontsize=8)
    for panel, title in ((tokens, "token of 24 layers (projected)"),
                         (mixers, "channel mixer, barrier to barrier (simulated)"),
                         (batches, "a token in each slot, 40 lanes (predicted)")):
        panel.set_title(title, fontsize=9)
        panel.set_ylabel("times as fast as the GLU")
        panel.spines[["top", "right"]].set_visible(False)
    for panel in (tokens, mixers):
        panel.set_xticks(places, SHAPES)
        panel.set_xlabel("trees x depth")
    batches.set_xticks(BATCHES)
    batches.set_xlabel("slots B")
    top = math.ceil(2 * max(ratio["bound"] for ratio in found.values())) / 2
    for panel in (tokens, batches):
        panel.set_ylim(0, top)
    mixers.set_yscale("log")
    figure.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=8)
    save(figure, folder / "fff-speed.svg")
    return {PICTURE: "![Speed-up of fast feedforward layers over the GLU](fff-speed.svg)"}
