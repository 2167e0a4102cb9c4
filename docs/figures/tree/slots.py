"""Fast feedforward against the gated linear unit with several slots, by the cycle model: sequences share no rows."""

from dataclasses import replace

from docs.figures.pages import table
from docs.figures.tree.cycles import LAYERS
from docs.figures.tree.shapes import DEPTH, GLU, SHAPES, geometry
from docs.figures.tree.speed import CASES, CUT, whole
from sterna.host.runtime.statistics import useful_bytes
from sterna.hw.protocol import BATCHES
from sterna.sim.perf.memory import TIMING
from sterna.sim.perf.predict import predict

CASE = "lanes40"
STEP = f"tree.slots.{CASE}"


def cycles(shape, batch):
    """Cycles (float) of a run of the whole model, with a token in every slot: projected as those of the RTL are."""
    config = replace(CASES[CASE], batch=batch)

    def run(layers):
        return predict(config, geometry(shape, layers, CUT), timing=TIMING[CASE]).cycles_per_run

    token = run(LAYERS)
    return whole(CASE, token, token - run(LAYERS - 1))


def step():
    """{"shape.B": cycles per run} and "how"."""
    found = {f"{shape}.{batch}": cycles(shape, batch) for shape in (GLU, *SHAPES) for batch in BATCHES}
    return found | {"how": f"predicted by the cycle model (sim/perf): {CASE}, {DEPTH} layers"}


def bound(shape, batch):
    """The ratio of the bytes that a run of ``batch`` tokens cannot do without (float)."""
    unit, trees = (useful_bytes(geometry(which), "trit5", tokens=batch) for which in (GLU, shape))
    return unit / trees


def gains(values):
    """{shape: [times as fast as the GLU, by BATCHES]}."""
    return {shape: [values[f"{GLU}.{batch}"] / values[f"{shape}.{batch}"] for batch in BATCHES] for shape in SHAPES}


def tables(results):
    """Markdown by name (dict of str), of what is there of the figures: ``results`` are values by step."""
    if STEP not in results:
        return {}
    rows = [[shape, *(f"{gain:.2f} ({bound(shape, batch):.2f})" for gain, batch in zip(found, BATCHES, strict=True))]
            for shape, found in gains(results[STEP]).items()]
    return {"table.tree.slots": table(["trees x depth", *(f"B = {batch}" for batch in BATCHES)], rows)}
