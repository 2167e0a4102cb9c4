"""What docs/fff-learning.md shows of the results: tables and the plot."""

import json
import statistics
from pathlib import Path

from docs.figures import pages
from docs.figures.learning import forms, runs

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "fff-learning.md"
PICTURE = "fff-learning.svg"
# Mixers whose losses are set beside each other by seed: what the difference says, the mixer, and the other one.
PAIRS = (
    ("trees against the GLU of as many bytes", "tree", "glu.equal"),
    ("trees against a dense layer of as many bytes", "tree", "dense"),
    ("trees against a dense layer of as many parameters", "tree", "dense.whole"),
    ("trees against no mixer", "tree", "none"),
    ("trees against the wide GLU", "tree", "glu"),
    ("trees against experts of as many bytes", "tree", "experts"),
    ("routing gradient, or none", "tree", "tree.plain"),
    ("learned routing against fixed random routing", "tree.plain", "frozen"),
    ("learned routing against chance", "tree.plain", "coin"),
    ("always-on part, or more trees", "always", "tree"),
    ("always-on part with the gradient, or without", "always", "always.plain"),
    ("many shallow trees against deeper ones", "shallow", "tree"),
    ("one deep tree against no mixer", "deep", "none"),
    ("one deep tree against a dense layer of as many bytes", "deep", "dense.deep"),
)
STYLES = {"trees": ("#d62828", "o"), "dense": ("#2a6f97", "s"), "GLU": ("#014f86", "D"), "experts": ("#6a4c93", "P"),
          "controls of routing": ("#f77f00", "X"), "no mixer": ("#495057", "v")}
KINDS = {"none": "no mixer", "glu": "GLU", "glu.equal": "GLU", "dense": "dense", "dense.whole": "dense",
         "dense.deep": "dense", "frozen": "controls of routing", "coin": "controls of routing", "experts": "experts"}


def by_name(results):
    """{mixer: {seed: result}} of the results of the present settings, in the order of the mixers."""
    out = {name: {seed: results[f"{name} {seed}"] for seed in runs.SEEDS if runs.is_done(name, seed, results)}
           for name in runs.MIXERS}
    return {name: seeds for name, seeds in out.items() if seeds}


def spread(values):
    """"mean ± deviation" of losses (str); of one value that alone."""
    mean = f"{statistics.mean(values):.4f}"
    return f"{mean} ± {statistics.stdev(values):.4f}" if len(values) > 1 else mean


def rows_of(found):
    """The table of all mixers, from the lowest loss to the highest."""
    rows = []
    for name, seeds in sorted(found.items(), key=lambda item: statistics.mean(losses(item[1]).values())):
        one = next(iter(seeds.values()))
        layers = [layer for result in seeds.values() for layer in result["leaf_use"]]
        use = [f"{min(layer['used'] for layer in layers):.0%}",
               f"{statistics.mean(layer['entropy'] for layer in layers):.2f}",
               f"{max(layer['largest'] for layer in layers):.0%}"] if layers else ["", "", ""]
        rows.append([runs.MIXERS[name][0], spread(list(losses(seeds).values())), len(seeds),
                     f"{one['mixer_bytes']:,.0f}", f"{one['token_bytes']:,.0f}", f"{one['parameters']:,}", *use])
    return pages.table(["mixer", "nats per token", "seeds", "mixer bytes, a layer", "bytes of a token", "parameters",
                        "leaves used", "entropy of use", "largest share"], rows)


def losses(seeds):
    """{seed: nats per token}"""
    return {seed: result["nats_per_token"] for seed, result in seeds.items()}


def pairs_of(found):
    """The table of differences by seed."""
    rows = []
    for what, name, other in PAIRS:
        first, second = (losses(found.get(part, {})) for part in (name, other))
        both = [first[seed] - second[seed] for seed in first if seed in second]
        if both:
            rows.append([what, f"{statistics.mean(both):+.4f}", f"{min(both):+.4f} to {max(both):+.4f}",
                         f"{sum(value < 0 for value in both)} of {len(both)}"])
    return pages.table(["difference in nats per token", "mean", "range over the seeds", "lower in"], rows)


def forms_of(measured):
    """The table of times of a training step."""
    rows = []
    for row in measured["rows"]:
        levels = row["depth"] + 1
        nodes = 2**levels - 1
        rows.append([f"{row['trees']}x{row['depth']}", f"{nodes / levels:.0f}",
                     *(f"{row[key]:.0f}" for key in ("masked.none", "walk.none", "masked.child", "walk.child")),
                     f"{row['masked.child'] / row['walk.child']:.1f}"])
    return pages.table(["trees", "rows per visited row", "all rows, ms", "path, ms", "all rows, routing gradient, ms",
                        "path, routing gradient, ms", "all by path"], rows)


def quoted(found):
    """The text of a model, as a quotation, or None."""
    best = runs.best_of_trees(runs.loaded())
    text = found[best[0]][best[1]].get("text") if best else None
    return f"{runs.MIXERS[best[0]][0]}, seed {best[1]}:\n\n" + pages.demo(text, "").partition("\n\n```")[0] \
        if text else None


def tables():
    """Markdown by name of everything that is there (dict of str)."""
    out, results = {}, runs.loaded()
    found = by_name(results)
    if forms.RESULTS.exists():
        out["table.learning.forms"] = forms_of(json.loads(forms.RESULTS.read_text()))
    if found:
        one = next(iter(next(iter(found.values())).values()))
        done = sum(map(len, found.values()))
        out |= {"table.learning": rows_of(found), "table.learning.pairs": pairs_of(found),
                "learning.targets": f"{one['targets']:,}", "learning.tokens": f"{one['trained_tokens']:,}",
                "learning.steps": f"{one['settings']['steps']:,}",
                "learning.hidden": str(one["settings"]["hidden_size"]),
                "learning.layers": str(one["settings"]["num_hidden_layers"]),
                "learning.runs": f"{done} of {len(runs.MIXERS) * len(runs.SEEDS)}",
                "picture.learning": f"![Loss against the bytes that a token reads]({PICTURE})"}
    if text := quoted(found):
        out["learning.text"] = text
    return out


def draw(path):
    """Write the plot: loss against bytes of a token, a point for each mixer, with the spread over the seeds."""
    from matplotlib.figure import Figure

    from docs.figures.causes import save
    found = by_name(runs.loaded())
    figure = Figure(figsize=(10, 6), layout="constrained")
    wide, near = figure.subplots(1, 2, width_ratios=(1, 1.25))
    crowd = [name for name, seeds in found.items() if abs(next(iter(seeds.values()))["token_bytes"]
                                                           - next(iter(found["tree"].values()))["token_bytes"]) < 200]
    seen = set()
    for name, seeds in found.items():
        kind = KINDS.get(name, "trees")
        colour, mark = STYLES[kind]
        values, one = list(losses(seeds).values()), next(iter(seeds.values()))
        mean = statistics.mean(values)
        error = statistics.stdev(values) if len(values) > 1 else 0
        wide.errorbar(one["token_bytes"] / 1000, mean, yerr=error, fmt=mark, color=colour, capsize=3,
                      label=None if kind in seen else kind)
        seen.add(kind)
        if name not in crowd:
            wide.annotate(runs.MIXERS[name][0].partition(" (")[0], (one["token_bytes"] / 1000, mean), fontsize=8,
                          xytext=(6, 5), textcoords="offset points", ha="right" if name in ("glu", "dense.whole") else
                          "left")
    for place, name in enumerate(sorted(crowd, key=lambda name: statistics.mean(losses(found[name]).values()))):
        colour, mark = STYLES[KINDS.get(name, "trees")]
        values = list(losses(found[name]).values())
        near.errorbar(statistics.mean(values), place, xerr=statistics.stdev(values) if len(values) > 1 else 0,
                      fmt=mark, color=colour, capsize=4)
        near.scatter(values, [place] * len(values), s=9, color=colour, alpha=0.5)
        near.annotate(runs.MIXERS[name][0], (statistics.mean(values), place), fontsize=8, xytext=(0, 8),
                      textcoords="offset points", ha="center")
    wide.set_xlabel("kB of weights that a token reads, 1.6 bits a trit")
    wide.set_ylabel("nats per token, validation stories")
    wide.margins(0.15, 0.08)
    near.set_xlabel("nats per token: mean, deviation and each seed")
    near.set_title("those of about as many bytes as 8x4", fontsize=10)
    near.set_yticks([])
    near.margins(0.25, 0.1)
    for axes in (wide, near):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=6, frameon=False)
    save(figure, path)


def fill(tell):
    """Refill the page and draw the plot."""
    from sterna.sim.golden.files import write_file
    shown = tables()
    if "picture.learning" in shown:
        draw(ROOT / "docs" / PICTURE)
    text, missing = pages.fill(PAGE.read_text(), shown)
    write_file(PAGE, text)
    if missing:
        tell(f"{PAGE.name}: left as they are: {', '.join(missing)}")
