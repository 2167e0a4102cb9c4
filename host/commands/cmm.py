"""sterna bench-cmm: conditional against dense matrix multiplication on this machine's processor."""

import json
from typing import Annotated

import typer

from sterna.host.console import show, tell, working
from sterna.host.errors import UsageError
from sterna.sim.cmm import report
from sterna.sim.cmm.measure import STATES
from sterna.sim.cmm.run import BATCHES, Plan, run
from sterna.sim.cmm.shape import parse
from sterna.sim.cmm.ways import NAMES
from sterna.sim.cpu.model import usable_threads

MOST_BATCH = 4096


def _numbers(option, text, most, why):
    """Numbers of 1 to ``most`` in a list like 1,64 (tuple of int); UsageError, which says ``why`` it is the most."""
    out = []
    for part in text.split(","):
        if not part.strip().isdecimal() or not 1 <= int(part) <= most:
            raise UsageError(f"{option} {text}: {part.strip() or 'nothing'!r}: use 1 to {most}{why}")
        out.append(int(part))
    return tuple(dict.fromkeys(out))


def bench_cmm(
    tree: Annotated[str, typer.Option("--tree", help="Trees and their depth, KxD.")] = "1x11",
    batch: Annotated[str, typer.Option("--batch", help="Samples of a batch, as a list.")] =
    ",".join(map(str, BATCHES)),
    threads: Annotated[str, typer.Option("-t", "--threads", help="Numbers of threads, as a list. Default: 1 and all.",
                                         show_default=False)] = None,
    states: Annotated[str, typer.Option("--states", help="Of the caches, as a list: same (input), warm, cold.")] =
    ",".join(STATES),
    without: Annotated[list[str], typer.Option("--without", help="Leave out C, torch, numba, or a way by its name; "
                                               "may be repeated.", show_default=False)] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few calls, to see that it runs.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, every row of every way.")] = False,
):
    """Time trees of neurons against dense layers here.

    On this processor: a fast feedforward layer 768 -> KxD -> 768 (docs/fff-cpu.md) reads only the rows that it
    visits. Every way to compute it or a dense layer that this machine has (a kernel in C, NumPy, torch and numba if
    they are installed; fp32 and bf16) is compared with float64 first; then the best of each side are timed in turns,
    and the ratio of their medians is shown. Dense layers have 3072 neurons (BERT), 4095, and as many as are visited.
    "cold" visits copies of the layer that fill the last cache three times.

    Leave the machine alone meanwhile: the report says if others used it. One thread and all together take a few
    minutes.

    Examples:

    sterna bench-cmm

    sterna bench-cmm --tree 32x6 --batch 1 -t 1 --quick
    """
    parse(tree)
    most = usable_threads()
    counts = _numbers("--threads", threads, most, ", the processors that it may use") if threads else \
        tuple(dict.fromkeys((1, most)))
    wanted = tuple(dict.fromkeys(part.strip() for part in states.split(",")))
    for state in wanted:
        if state not in STATES:
            raise UsageError(f"--states {states}: {state!r} is none: use {', '.join(STATES)}")
    for name in without or ():
        if name not in (*NAMES, "torch"):
            raise UsageError(f"--without {name}: no such way: use one of C, torch, {', '.join(NAMES[1:])}")
    plan = Plan(tree, _numbers("--batch", batch, MOST_BATCH, ""), wanted, counts, quick, tuple(without or ()))
    with working() as step:
        found = run(plan, step)
    for one in found["left_out"]:
        tell(f"left out: {one}")
    show(json.dumps(found, indent=1) + "\n" if as_json else report.text(found))
