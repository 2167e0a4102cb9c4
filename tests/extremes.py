"""Models whose numbers saturate, flush or fall below the floors."""

from sterna.sim.golden.gate import adversarial
from sterna.sim.golden.packed import Geometry, pack, random_tensors

KINDS = ("plain", "outliers", "memory", "tiny", "huge", "floor", "zero")
GEOMETRY = Geometry(72, 530, 2, 33)  # more than 64 and more than 516 columns: long sums, acc beyond 2^16


def extreme(rng, kind, geometry=GEOMETRY):
    """A PackedModel of one of KINDS; ``rng`` is a numpy Generator."""
    tensors = random_tensors(rng, geometry)
    if kind == "floor":
        for value in tensors.values():
            if value.ndim == 1:
                value *= 1e-6
    elif kind == "zero":
        tensors["model.embeddings.weight"][:] = 0
    elif kind != "plain":
        tensors = adversarial(tensors, rng, kind)
    if kind == "huge":
        tensors["model.embeddings.weight"] *= 2.0**60  # squares near the end of the range
        for value in tensors.values():
            if value.ndim == 1:
                value *= 2.0**15
    if kind == "tiny":
        tensors["model.embeddings.weight"] *= 2.0**-50
    return pack(geometry, tensors)
