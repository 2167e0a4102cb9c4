"""python -m sterna.sim.cmm.worker SETTINGS: measures with so many threads, and prints what it finds as lines of JSON.

A process of its own for every number of threads: OpenBLAS and OpenMP want to know theirs when they are loaded.
"""

import gc
import json
import os
import sys
from dataclasses import asdict, dataclass

QUICK_SAMPLES = 256  # inputs
THREADS_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True)
class Settings:
    """What a worker is asked for.

    Attributes
    ----------
    tree : str
    batches, states : list
    threads : int
    copies : int
        Of the layer, for the state "cold".
    distance : int
        Bytes between two visits of a copy.
    quick, faults : bool
        Whether it makes few calls; whether it runs the published faults.
    without : list of str
        Names of ways to leave out.
    seed : int
    path : str
        Of the kernel: a name of ``sim.cpu.build.PATHS``.
    """

    tree: str
    batches: list
    states: list
    threads: int
    copies: int
    distance: int
    quick: bool
    faults: bool
    without: list
    seed: int = 1
    path: str = "native"


def _bench(settings, tree, layers, tell):
    """A Bench of what this machine has; what it lacks is told."""
    import importlib

    from sterna.sim.cmm import ways
    from sterna.sim.cmm.kernel import Kernel
    from sterna.sim.golden.compiler import ToolError
    kernel = torch = numba = None
    if "C" in settings.without:
        tell(left_out="C: as asked")
    else:
        try:
            kernel = Kernel(settings.threads, settings.path)
        except ToolError as error:
            tell(left_out=f"C: {error}")
    if ways.has("torch") and "torch" not in settings.without:
        torch = importlib.import_module("torch")
        torch.set_num_threads(settings.threads)
        torch.set_grad_enabled(False)
    else:
        tell(left_out="torch: not installed" if not ways.has("torch") else "torch: as asked")
    if ways.has("numba") and "numba" not in settings.without:
        numba = ways.numba_walk()
    else:
        tell(left_out="numba: not installed" if not ways.has("numba") else "numba: as asked")
    return ways.Bench(tree, layers, kernel, torch, numba)


def work(settings, tell):
    """Measures; every finding is told as keywords, which are JSON.

    Raises
    ------
    SternaError
        A way computes something else.
    """
    import numpy as np

    from sterna.sim.cmm import faults, measure, ways, weights
    from sterna.sim.cmm.check import Truth
    from sterna.sim.cmm.shape import parse
    threads = "one thread" if settings.threads == 1 else f"{settings.threads} threads"
    tree, rng = parse(settings.tree), np.random.default_rng(settings.seed)
    tell(progress=f"{threads}: writing the weights of {settings.copies} copies of the layer")
    layers = weights.Layers(rng, tree.neurons, settings.copies)
    bench = _bench(settings, tree, layers, tell)
    tables = [layers.table(0, 0)]
    if bench.kernel:
        tables.append(weights.widened(bench.kernel.unpacked(layers.table(0, 0, True))))
        tell(kernel=bench.kernel.path)
    samples = max(QUICK_SAMPLES if settings.quick else weights.SAMPLES, 4 * max(settings.batches))
    x, again = weights.clear_inputs(rng, tree, tables, samples)
    x_half = (weights.rounded(x).view(np.uint32) >> 16).astype(np.uint16)
    path = weights.walk(tree, tables[0], tables[0], x)[1]
    truth = Truth(bench, x)
    cold = measure.Copies(layers, settings.distance) if "cold" in settings.states else None
    counts = (measure.QUICK_TURNS, measure.QUICK_CALLS) if settings.quick else (measure.TURNS, measure.CALLS)
    contests, every = {}, {}
    for batch in settings.batches:
        tell(progress=f"{threads}, batch {batch}: every way beside float64")
        starts = range(0, min(16 * batch, samples - batch + 1), batch)
        rows = [len(np.unique(path[:, at:at + batch])) for at in starts]
        tell(touched={"batch": batch, "rows": float(np.mean(rows)), "share": float(np.mean(rows) / tree.neurons),
                      "samples": samples, "drawn_again": again})
        contest = measure.Contest(bench, measure.Inputs(x, x_half, batch), settings.threads, cold, *counts)
        every[batch] = [way for way in ways.every(bench, batch) if way.name not in settings.without]
        for way in every[batch]:
            tell(checked={"threads": settings.threads, "batch": batch, "way": way.label,
                          "error": contest.check(way, truth)})
        contests[batch] = contest
    gc.disable()
    for batch, contest in contests.items():
        tell(progress=f"{threads}, batch {batch}: a first look")
        kept, looks = contest.look(every[batch])
        for row in looks:
            tell(row=asdict(row))
        for state in settings.states:
            tell(progress=f"{threads}, batch {batch}: {state}")
            for row in contest.run(kept, state):
                tell(row=asdict(row))
    if settings.faults and bench.kernel:
        batch = max((b for b in settings.batches if b <= 64), default=min(settings.batches))
        tell(progress=f"batch {batch}: the published faults")
        for row in contests[batch].run(faults.ways(bench), "same"):
            tell(row=asdict(row))


def main(arguments):
    """Runs the command line; returns the exit code."""
    settings = Settings(**json.loads(arguments[0]))
    for name in THREADS_VARIABLES:
        os.environ[name] = str(settings.threads)

    def tell(**found):
        print(json.dumps(found), flush=True)

    from sterna.sim.golden.errors import SternaError
    try:
        work(settings, tell)
    except SternaError as error:
        tell(error=str(error))
        return error.exit_code
    except MemoryError:
        tell(error="out of memory: use a smaller tree, or leave out the state cold")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
