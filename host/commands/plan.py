"""sterna plan: which board for which model."""

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from sterna.host.console import printable, show, table_console, working
from sterna.host.plan import rows as planned
from sterna.host.plan.advice import buy
from sterna.host.plan.mixer import planted, saving, unit_beside
from sterna.host.plan.model import NAMES, geometry_of

HEAD = ("board or preset", "slots", "tokens/s,\none stream", "tokens/s,\nall slots", "tokens/s,\nprompt", "share",
        "image", "load", "clock", "fits")
GAIN = "speed\nover GLU"  # of models with trees


def duration(seconds):
    """A time for people (str); "" for None."""
    if seconds is None:
        return ""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def speed(value, would):
    """Tokens per second (str), in brackets where it ``would`` be so; "" for None."""
    return "" if value is None else f"({planned.speed(value)})" if would else planned.speed(value)


def cells(row):
    """The cells of a Row, in the order of HEAD (list of str)."""
    would = not row.fits
    share = "" if row.share is None else f"{row.share:.1%}"
    return [row.name, str(row.slots), speed(row.stream_tokens_per_second, would), speed(row.tokens_per_second, would),
            speed(row.prompt_tokens_per_second, would), share, planned.megabytes(row.image_bytes),
            duration(row.load_seconds),
            f"{row.clock_hz / 1e6:.3g} MHz {row.clock}", "yes" if row.fits else "no"]


def gain(saved, row):
    """The cell of GAIN (str); "" where one of the speeds is not known."""
    found = saved.speed[row.name]
    return "" if found is None else f"{found:.2f}"


def shape(geometry):
    """The sizes of a model, for people (str)."""
    if geometry.mixer == "tree":
        always = f" and {geometry.tree_always:,} neurons always on" * (geometry.tree_always > 0)
        inner = (f"{geometry.trees:,} trees of depth {geometry.tree_depth}{always} ({geometry.visits:,} of "
                 f"{geometry.neurons:,} neurons visited)")
    else:
        inner = f"intermediate {geometry.intermediate_size}"
    return (f"hidden {geometry.hidden_size}, {inner}, {geometry.num_hidden_layers} layers, "
            f"{geometry.vocab_size:,} tokens, {geometry.ternary_weights:,} ternary weights")


def report(name, geometry, found, saved=None):
    """What --json prints (dict)."""
    return {"model": name, "geometry": dict(vars(geometry)), "ternary_weights": geometry.ternary_weights,
            "rows": [asdict(row) for row in found], "unit": saved and asdict(saved), "buy": buy(geometry, found)}


def plan(
    model: Annotated[str, typer.Argument(help="Image, checkpoint folder (config.json alone will do), one of "
                                         f"{', '.join(NAMES)}, or hidden,intermediate,layers,vocabulary.",
                                         show_default=False)],
    configs: Annotated[list[str], typer.Option("--config", help="Only this board or preset, or one with other "
                                               "parameters as lanes40,batch=4; may be repeated.",
                                               show_default=False)] = None,
    tree: Annotated[str, typer.Option("--tree", metavar="KxD[+A]", help="K trees of depth D, and A neurons always "
                                      "on, in place of gated linear units.", show_default=False)] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
):
    """Show which boards hold a model, and how fast they would be.

    Speeds come from the cycle model, at the clock that the board's bitstream meets in nextpnr's
    model, or that a preset assumes. Nothing is simulated and no weights are needed. Tokens are
    sampled; of several slots each has a text of its own. In brackets: with the memories that the
    model wants. A model with trees is held against one with gated linear units: that whose place
    they take, or one as large as the published models have it.

    Example: sterna plan 1.3b --tree 8x9
    """
    name, geometry = geometry_of(model)
    unit, saved = geometry, None
    if tree:
        geometry, name = planted(unit, tree), f"{name} with trees {tree}"
    elif geometry.mixer == "tree":
        unit = unit_beside(geometry)
    with working() as step:
        found = planned.rows(geometry, configs, lambda row: step(f"planning {name}: {row}"))
        if unit is not geometry:
            beside = planned.rows(unit, configs, lambda row: step(f"planning {name}: {row} without trees"))
            saved = saving(geometry, unit, found, beside)
    if as_json:
        show(json.dumps(report(name, geometry, found, saved), indent=2) + "\n")
        return
    console = table_console()
    console.print(f"{printable(name)}: {shape(geometry)}")
    if saved:
        console.print(saved.text)
    table = Table(*HEAD, *([GAIN] if saved else []))
    table.columns[0].no_wrap = True
    for row in found:
        table.add_row(*cells(row), *([gain(saved, row)] if saved else []))
    console.print(table)
    for row in found:
        if not row.fits and row.slots == 1:
            console.print(f"{row.name}: " + "; ".join(row.reasons))
        elif row.joules_per_token:
            low, likely, high = (f"{1e3 * joules:.2g}" for joules in row.joules_per_token)
            console.print(f"{row.name}: {likely} mJ per token ({low} to {high}), projected from the mean power of "
                          "docs/energy.md")
    for row in found:
        if row.assumed:
            console.print(f"{row.name}: {row.assumed}")
    console.print(printable(buy(geometry, found)))
