"""Speeds of the published models by the cycle model: a table and a plot, one stream and all slots together."""

from dataclasses import asdict

from docs.figures.pages import table
from sterna.host.commands.plan import speed
from sterna.host.plan.advice import buy
from sterna.host.plan.model import NAMES
from sterna.host.plan.rows import SLOTS, megabytes, rows

PRESETS = ("lanes40", "lanes160", "lanes320", "ecpix5-85", "kv260")  # that hold a published model
COLOURS = ("#89c2d9", "#2a6f97", "#014f86", "#fcbf49", "#f77f00")
BAR = 0.8 / len(PRESETS)
LABELS = {"370m": "370M", "1.3b": "1.3B", "2.7b": "2.7B", "13b": "13B (assumed geometry)"}
PICTURE = "picture.plan"


def found(name):
    """What a step finds of a model: rows by configuration, and which board to buy."""
    geometry = NAMES[name]
    every = rows(geometry)
    out = {row.name: asdict(row) for row in every}
    return out | {"buy": buy(geometry, every),
                  "how": "predicted by the cycle model (sim/perf) at the clocks of boards and presets"}


def _pairs(values):
    """(preset, row of one slot, row of several) of what has speeds."""
    for name in PRESETS:
        one, all_ = values.get(name), values.get(f"{name},batch={SLOTS}")
        if one and all_ and one["tokens_per_second"]:
            yield name, one, all_


def tables(results):
    """Markdown by name (dict of str), of what is there of the figures: ``results`` are values by step."""
    lines, said = [], []
    for name, label in LABELS.items():
        values = results.get(f"plan.{name.replace('.', '_')}")
        if not values:
            continue
        said.append(f"- **{label}**: {values['buy']}")
        for preset, one, all_ in _pairs(values):
            would = not one["fits"]
            lines.append([label, preset + (" with more memory" if would else ""), megabytes(one["image_bytes"]),
                          speed(one["stream_tokens_per_second"], would), speed(all_["tokens_per_second"], would),
                          speed(one["prompt_tokens_per_second"], would),
                          speed(all_["prompt_tokens_per_second"], would),
                          f"{one['share']:.1%}", f"{one['clock_hz'] / 1e6:.0f} MHz {one['clock']}"])
    if not lines:
        return {}
    return {"table.plan": table(["model", "timing model", "image", "tokens/s, one stream (1 slot)",
                                 f"tokens/s, all slots together ({SLOTS} slots)", "prompt, 1 slot",
                                 f"prompt, {SLOTS} slots", "share", "clock"], lines),
            "table.buy": "\n".join(said)}


def draw(results, folder):
    """Write plan.svg: a panel for one stream and one for all slots; returns what shows it, by name (dict of str)."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    from docs.figures.causes import save
    models = [name for name in LABELS if f"plan.{name.replace('.', '_')}" in results]
    if not models:
        return {}
    figure = Figure(figsize=(10, 1.2 * len(models) + 1.5), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for panel, (title, part, key) in zip(panels, (
            ("one stream (1 slot)", 1, "stream_tokens_per_second"),
            (f"all slots together ({SLOTS} slots)", 2, "tokens_per_second")), strict=True):
        for number, (preset, colour) in enumerate(zip(PRESETS, COLOURS, strict=True)):
            for place, model in enumerate(models):
                for name, *pair in _pairs(results[f"plan.{model.replace('.', '_')}"]):
                    if name == preset:
                        row, at = pair[part - 1], place + BAR * (number - (len(PRESETS) - 1) / 2)
                        panel.barh(at, row[key], height=0.92 * BAR, color=colour if row["fits"] else "white",
                                   edgecolor=colour, hatch=None if row["fits"] else "////")
                        panel.text(row[key] * 1.06, at, speed(row[key], not row["fits"]), va="center", fontsize=7)
        panel.set_xscale("log")
        panel.set_xlim(1, 4000)
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("tokens/s at the preset's clock (predicted)")
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(range(len(models)), [LABELS[model].replace(" (", "\n(") for model in models])
    panels[0].invert_yaxis()
    from matplotlib.patches import Patch
    figure.legend(handles=[*(Patch(color=colour, label=name) for name, colour in zip(PRESETS, COLOURS, strict=True)),
                           Patch(facecolor="white", edgecolor=COLOURS[-1], hatch="////",
                                 label="if it had the memory")],
                  loc="outside upper center", ncols=4, frameon=False)
    save(figure, folder / "plan.svg")
    return {PICTURE: "![Tokens per second of the published models](plan.svg)"}
