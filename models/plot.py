"""Picture of a training run: the loss of every step and the bits per byte of the held-out stories."""

import math

import numpy as np

from sterna.sim.golden.files import writing

SMOOTH_STEPS = 50


def _finite(value):
    return isinstance(value, (int, float)) and math.isfinite(value)


def drawable(records):
    """The records of a log (list of dict) whose loss is a number, without bits per byte that are none.

    Runs of older versions went on when they had diverged: their logs hold NaN.
    """
    return [{name: value for name, value in record.items() if name != "bits_per_byte" or _finite(value)}
            for record in records if _finite(record.get("loss"))]


def plot_log(records, path):
    """Write a PNG of the records of log.jsonl.

    Parameters
    ----------
    records : list of dict
        With ``step``, ``loss`` (nats per token) and, on some, ``bits_per_byte``.
    path : Path
        The file to write.

    Raises
    ------
    ValueError
        No record that could be drawn.
    OSError
        The file cannot be written.
    """
    records = drawable(records)
    if not records:
        raise ValueError("no training steps to plot: the log is empty")
    # Without a display: the canvas of the file format alone, no window system.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps = np.array([r["step"] for r in records])
    loss = np.array([r["loss"] for r in records])
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(steps, loss, linewidth=0.5, alpha=0.35, color="tab:blue")
    size = min(SMOOTH_STEPS, len(loss))
    smooth = np.convolve(loss, np.ones(size) / size, "valid")
    axes.plot(steps[size - 1:], smooth, color="tab:blue", label=f"training loss, mean of {size} steps")
    # The first steps lie far above the rest and would flatten it.
    axes.set_ylim(min(loss.min(), np.percentile(loss, 1)) - 0.1, np.percentile(loss, 98) + 0.3)
    axes.set_xlabel("step")
    axes.set_ylabel("nats per token", color="tab:blue")
    held = [(r["step"], r["bits_per_byte"]) for r in records if "bits_per_byte" in r]
    handles, labels = axes.get_legend_handles_labels()
    if held:
        right = axes.twinx()
        right.plot(*zip(*held, strict=True), "o-", markersize=3, color="tab:orange", label="held-out stories")
        right.set_ylabel("bits per byte", color="tab:orange")
        best = min(held, key=lambda pair: pair[1])
        axes.set_title(f"step {steps[-1]}; best {best[1]:.3f} bits per byte at step {best[0]}")
        more = right.get_legend_handles_labels()
        handles, labels = handles + more[0], labels + more[1]
    axes.legend(handles, labels)
    with writing(path) as file:
        figure.savefig(file, format="png", dpi=110)
