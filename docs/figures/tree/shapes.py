"""The 1.3B model with its gated linear unit and with trees in place of it: what docs/fff.md has figures of."""

from sterna.sim.golden.geometry import Geometry, TreeGeometry

HIDDEN, INNER, DEPTH, VOCABULARY, EPS = 2048, 5632, 24, 32000, 1e-6
GLU = "glu"
SHAPES = {"1x11": (1, 11), "8x9": (8, 9), "32x7": (32, 7), "128x5": (128, 5)}  # trees, depth


def geometry(shape, layers=DEPTH, vocabulary=VOCABULARY):
    """Geometry or TreeGeometry of a shape, GLU or one of SHAPES."""
    if shape == GLU:
        return Geometry(HIDDEN, INNER, layers, vocabulary, EPS)
    return TreeGeometry(HIDDEN, *SHAPES[shape], 0, layers, vocabulary, EPS)
