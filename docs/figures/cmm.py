"""Conditional against dense matrix multiplication on this machine: the tables and the plot of docs/fff-cpu.md."""

from docs.figures.causes import save
from sterna.sim.cmm import report
from sterna.sim.cmm.run import Plan, run
from sterna.sim.cmm.shape import BERT, parse
from sterna.sim.cmm.ways import KINDS
from sterna.sim.cpu.model import usable_threads

STEP, PICTURE, FILE = "cmm", "picture.cmm", "fff-cpu.svg"
SOURCES = ("sim/cmm", "sim/cpu/build.py", "sim/cpu/kernels/pool.h", "sim/golden/compiler.py")
COLOURS = {"same": "#89c2d9", "warm": "#2a6f97", "cold": "#014f86"}
# (words, marker, colour, width or None: as wide as what is visited, kinds)
OTHERS = (("best of fp32 and bf16", "D", "#f77f00", BERT, KINDS), ("fp32", "X", "#d62828", None, ("fp32",)))


def measured():
    """What the step finds: all that ``sterna bench-cmm`` does with its defaults."""
    plan = Plan(threads=tuple(dict.fromkeys((1, usable_threads()))))
    found = run(plan, lambda text: print(f"  {text}", flush=True))
    return {"found": found, "how": report.machine_line(found)}


def tables(values):
    """Markdown by name (dict of str): ``values`` are those of all steps."""
    if STEP not in values:
        return {}
    found = values[STEP]["found"]
    return {"table.cmm.ratios": report.ratios(found), "table.cmm.times": report.times(found),
            "table.cmm.looks": report.looks(found), "table.cmm.faults": report.fault_table(found),
            "text.cmm.touched": report.touched(found), "text.cmm.machine": report.machine_line(found),
            "text.cmm.bars": report.bars(found), "text.cmm.warning": report.warning(found),
            "text.cmm.left": "; ".join(found["left_out"]) or "nothing"}


def names():
    """Of ``tables``, and the picture: what is made of the step (list of str)."""
    parts = ("table.cmm.ratios", "table.cmm.times", "table.cmm.looks", "table.cmm.faults", "text.cmm.touched",
             "text.cmm.machine", "text.cmm.bars", "text.cmm.warning", "text.cmm.left")
    return [*parts, PICTURE]


def draw(values, folder):
    """Write the plot: a panel for each number of threads; returns what shows it, by name (dict of str)."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    if STEP not in values:
        return {}
    found = values[STEP]["found"]
    cells, tree = report.cells(found), parse(found["plan"]["tree"])
    threads = list(dict.fromkeys(cell[0] for cell in cells))
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    panels = figure.subplots(1, len(threads), sharey=True, squeeze=False)[0]
    for panel, count in zip(panels, threads, strict=True):
        place, ticks = 0.0, []
        for batch in dict.fromkeys(cell[1] for cell in cells):
            mine = [cell for cell in cells if cell[:2] == (count, batch)]
            for cell in mine:
                pair = report.ratio(found, cell, BERT, ("fp32",))
                panel.barh(place, pair[0] - 1, left=1, height=0.8, color=COLOURS[cell[2]], zorder=2)
                panel.text(pair[0] * 1.12, place, report.number(pair[0]), va="center", fontsize=8, zorder=4)
                for _, marker, colour, width, kinds in OTHERS:
                    other = report.ratio(found, cell, width or report.narrow(found), kinds)
                    panel.plot(other[0], place, marker, color=colour, markersize=6, markeredgecolor="white", zorder=3)
                ticks.append((place, f"batch {batch}, {report.WORDS[cell[2]]}"))
                place += 1
            place += 0.6
        panel.axvline(1, color="black", linewidth=0.8, zorder=1)
        panel.axvline(BERT / tree.visits, color="#6c757d", linewidth=0.8, linestyle="--", zorder=1)
        panel.set_xscale("log")
        panel.set_xlim(0.05, 3000)
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.set_yticks(*zip(*ticks, strict=True))
        panel.set_title("one thread" if count == 1 else f"{count} threads", fontsize=10)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].invert_yaxis()
    figure.legend(handles=_legend(found, tree), loc="outside upper center", ncols=3, frameon=False, fontsize=9)
    label = "time of the dense layer / time of the trees (medians, measured)"
    if report.busy(found) or found["plan"]["quick"]:
        label += "\non a busy machine or with few calls: not for quoting"
    figure.supxlabel(label, fontsize=10)
    save(figure, folder / FILE)
    return {PICTURE: f"![How much faster {tree} is than dense layers, by batch, state and threads]({FILE})"}


def _legend(found, tree):
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    states = [state for state in COLOURS if any(cell[2] == state for cell in report.cells(found))]
    marks = [Line2D([], [], marker=marker, color=colour, linestyle="", markeredgecolor="white",
                    label=f"dense {width or report.narrow(found)}, {label}")
             for label, marker, colour, width, _ in OTHERS]
    bound = Line2D([], [], color="#6c757d", linestyle="--", linewidth=0.8,
                   label=f"{BERT} / {tree.visits}: ratio of the neurons")
    return [*(Patch(color=COLOURS[state], label=f"dense {BERT}, fp32: {report.WORDS[state]}") for state in states),
            *marks, bound]
