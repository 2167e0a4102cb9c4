"""A whole benchmark: a worker for every number of threads, and what all of them found."""

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass

from sterna.sim.cmm import machine
from sterna.sim.cmm.measure import STATES, WARMER
from sterna.sim.cmm.shape import HIDDEN, LARGEST, CmmError, parse
from sterna.sim.cmm.weights import ASSUMED_CACHE_BYTES, caches
from sterna.sim.cmm.worker import Settings

SPARE_BYTES = 1 << 30  # besides the copies of the layer: torch, inputs, what is computed
BATCHES = (1, 64, 512)


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes
    ----------
    tree : str
        KxD.
    batches, states, threads : tuple
    quick : bool
    without : tuple of str
        Names of ways, or of packages.
    path : str
        Of the kernel.
    """

    tree: str = "1x11"
    batches: tuple = BATCHES
    states: tuple = STATES
    threads: tuple = (1,)
    quick: bool = False
    without: tuple = ()
    path: str = "native"


def copies(tree, last_cache, available):
    """Copies of the layer for the state "cold" and the bytes between two visits of one; (1, 0) without room for them.

    Parameters
    ----------
    tree : Tree
    last_cache : int
    available : int or None
        Bytes of memory, if they are known.

    Returns
    -------
    (int, int)
    """
    size, distance = 8 * HIDDEN * max(tree.neurons, LARGEST), WARMER * last_cache
    count = -(-distance // size) + 2
    if available is not None and count * size + SPARE_BYTES > available:
        return 1, 0
    return count, distance


def run(plan, progress=lambda text: None):
    """Measures.

    Parameters
    ----------
    plan : Plan
    progress : callable(text)
        Told what is done now.

    Returns
    -------
    dict
        "plan", "machine", "kernel" (which vectors), "copies", "distance_bytes", "seconds", "left_out" (list of str),
        and lists of what the workers told: "touched", "checked", "rows".

    Raises
    ------
    SternaError
        The name is no tree, a way computes something else, or a worker ended.
    """
    started, tree = time.monotonic(), parse(plan.tree)
    out = {"plan": asdict(plan), "machine": machine.describe(), "kernel": None, "left_out": [], "touched": [],
           "checked": [], "rows": []}
    levels = caches()
    last = levels[max(levels)] if levels else ASSUMED_CACHE_BYTES
    states, count, distance = list(plan.states), 1, 0
    if "cold" in states:
        count, distance = copies(tree, last, machine.available_bytes())
        if not levels:
            out["left_out"].append(f"size of the last cache: not known, {last >> 20} MiB assumed")
        if not distance:
            states.remove("cold")
            out["left_out"].append(f"cold: {WARMER} times the last cache of {last >> 20} MiB are more than the free "
                                   "memory")
    out |= {"copies": count, "distance_bytes": distance}
    for number, threads in enumerate(plan.threads):
        settings = Settings(plan.tree, list(plan.batches), states, threads, count, distance, plan.quick, not number,
                            list(plan.without), path=plan.path)
        _ask(settings, out, progress)
    out["left_out"] = list(dict.fromkeys(out["left_out"]))
    return out | {"seconds": time.monotonic() - started}


def _ask(settings, out, progress):
    """One worker's findings, put into ``out``."""
    command = [sys.executable, "-m", "sterna.sim.cmm.worker", json.dumps(asdict(settings))]
    lists = {"row": "rows", "touched": "touched", "checked": "checked", "left_out": "left_out"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            for line in process.stdout:
                for name, value in json.loads(line).items():
                    if name == "error":
                        raise CmmError(value)
                    if name == "progress":
                        progress(value)
                    elif name in lists:
                        # What the inputs are like does not depend on the threads.
                        if name != "touched" or value not in out["touched"]:
                            out[lists[name]].append(value)
                    else:
                        out[name] = value
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise CmmError(f"the worker of {settings.threads} threads ended with {process.returncode}: free some memory, "
                       "or leave out the state cold")
