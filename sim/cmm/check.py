"""One function: what every way computes, beside float64, before anything is timed."""

import numpy as np

from sterna.sim.cmm import weights
from sterna.sim.cmm.shape import CmmError

LIMITS = {False: 1e-5, True: 0.03}  # of the largest error to the largest output; True: results are bfloat16


class Truth:
    """Outputs in float64 of the first inputs of a batch, computed when they are asked for.

    Parameters
    ----------
    bench : ways.Bench
    x : float32 [samples, HIDDEN]
    """

    def __init__(self, bench, x):
        self._bench, self._x, self._known = bench, x, {}

    def tables(self, way):
        """Both tables that a way reads, as float32 and in the order of its elements."""
        layers, kernel = self._bench.layers, self._bench.kernel
        if way.kind == "fp32":
            return [layers.table(0, which) for which in (0, 1)]
        bits = [layers.table(0, which, True) for which in (0, 1)]
        return [weights.widened(b if way.half else kernel.unpacked(b)) for b in bits]

    def of(self, way, batch):
        """float64 [batch, HIDDEN] for a Way."""
        x = self._x[:batch]
        key = way.width, way.kind, way.half, way.linear
        known = self._known.get(key)
        if known is None or len(known) < batch:
            table_in, out = self.tables(way)
            x = weights.rounded(x) if way.half else x
            if not way.width:
                known = weights.walk(self._bench.tree, table_in, out, x)[0]
            else:
                out = out[:way.width]
                out = out.reshape(-1, way.width).T if way.linear else out
                known = weights.dense(way.width, table_in, out, x)
            self._known[key] = known
        return known[:batch]


def check(way, found, wanted, batch):
    """The largest error as a part of the largest output (float).

    Raises
    ------
    CmmError
        It is larger than rounding explains.
    """
    error = float(np.max(np.abs(found - wanted)) / np.max(np.abs(wanted)))
    if not error <= LIMITS[way.half]:
        raise CmmError(f"{way.label}, batch {batch}: {error:.2g} of the largest output off from float64, more than "
                       f"{LIMITS[way.half]:g}: nothing wrong is timed; leave it out with --without {way.name!r}")
    return error
