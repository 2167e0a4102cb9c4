"""Where the cycles of the memory port go, before the changes of docs/performance.md and now:
its table and its plot.
"""

import json
from pathlib import Path

from sterna.sim.golden.files import writing

BEFORE_FILE = Path(__file__).with_name("performance-before.json")
BEFORE = json.loads(BEFORE_FILE.read_text())["cycles_per_token"]  # {preset: {cause: cycles}}
CAUSES = {"useful": "weights, norms, embedding", "other": "padding, stored zeros, state", "refresh": "refresh",
          "full": "buffer full: the array waits", "empty": "nothing to fetch", "wait": "latency, writes"}
COLOURS = ("#2a6f97", "#89c2d9", "#adb5bd", "#d62828", "#f77f00", "#fcbf49")


def of_figures(values):
    """{cause: cycles per token} of one ``speed`` figure's values."""
    return {cause: values[f"port_{cause}.cycles"] for cause in CAUSES}


def _bars(after):
    """(preset, "before" or "now", {cause: cycles}), in the order in which they are shown."""
    return [(name, when, source[name]) for name in after for when, source in (("before", BEFORE), ("now", after))]


def table(after):
    """Markdown table of cycles per token by cause; ``after`` as of ``of_figures``, by preset."""
    lines = [["preset", "", *CAUSES.values(), "cycles"], ["---"] * (len(CAUSES) + 3)]
    for name, when, cycles in _bars(after):
        lines.append([name, when, *(f"{cycles[cause]:,.0f}" for cause in CAUSES), f"{sum(cycles.values()):,.0f}"])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def draw(after, path):
    """Write the plot: a bar per preset and version, as shares of the cycles of the version before."""
    from matplotlib.figure import Figure

    bars = _bars(after)
    figure = Figure(figsize=(9, 0.55 * len(bars) + 1.6), layout="constrained")
    axes = figure.add_subplot()
    places = [k + 0.35 * (k // 2) for k in range(len(bars))]
    left = [0.0] * len(bars)
    for (cause, label), colour in zip(CAUSES.items(), COLOURS, strict=True):
        widths = [100 * cycles[cause] / sum(BEFORE[name].values()) for name, _, cycles in bars]
        axes.barh(places, widths, left=left, color=colour, label=label, height=0.8)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.set_yticks(places, [f"{name} {when}" for name, when, _ in bars])
    axes.invert_yaxis()
    axes.set_xlabel("cycles of the memory port per token, % of those before")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    save(figure, path)


def save(figure, path):
    """Write a matplotlib figure as SVG; the same figures give the same file."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    with rc_context({"svg.hashsalt": "sterna"}), writing(path) as file:
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})
