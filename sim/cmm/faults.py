"""What the benchmark published with UltraFastBERT (its benchmark_cpu) would have found with this kernel.

Three faults, each in a run of its own. Its first level takes rows of its outputs, where those of the second matrix
should be. Its second level gives every sample the pointers of one input and of one output. Neither weights nor inputs
are ever written: they are fresh memory, all of which is one page of zeros, so nothing is read from memory and every
walk goes left.
"""

import mmap
from dataclasses import replace

import numpy as np

from sterna.sim.cmm.shape import BERT, HIDDEN
from sterna.sim.cmm.ways import Way, numpy_dense, torch_dense

GROUP, DENSE = "fault", f"fault dense {BERT}"
NONE, OUTPUTS, POINTER, FRESH, ALL = "none", "outputs read", "one pointer", "never initialised", "all three"
MEANING = {NONE: "the kernel as it is", OUTPUTS: "rows of the outputs in place of the second matrix's",
           POINTER: "every sample has one input and one output", FRESH: "weights are never initialised",
           ALL: "all three together"}


class Fresh:
    """Tables in memory that nobody has written; as ``weights.Layers`` of float32, one copy."""

    def __init__(self, neurons):
        self._maps = [mmap.mmap(-1, neurons * HIDDEN * 4) for _ in range(2)]
        self._neurons = neurons

    def table(self, copy, which, half=False):
        """Table 0 (in) or 1 (out), float32 [neurons, HIDDEN]."""
        return np.frombuffer(self._maps[which], np.float32).reshape(self._neurons, HIDDEN)


def ways(bench):
    """The kernel without and with the faults, and dense layers without and with the only one that they have.

    Parameters
    ----------
    bench : ways.Bench
        With a kernel.

    Returns
    -------
    list of Way
    """
    fresh = replace(bench, layers=Fresh(bench.layers.neurons))

    def faulty(outputs, pointer, never):
        def prepare(_, copy, buffers):
            layers = fresh.layers if never else bench.layers
            table_in, table_out = (layers.table(copy, which) for which in (0, 1))
            y = buffers.y
            if outputs:
                # As many rows as the largest number of a node, zeros at the beginning as there.
                table_out = np.zeros((bench.layers.neurons, HIDDEN), np.float32)
                y = table_out[:len(y)]
            return bench.kernel.prepare(bench.tree, table_in, table_out, buffers.x, y,
                                        stride=0 if pointer else HIDDEN)
        return prepare

    found = {NONE: (0, 0, 0), OUTPUTS: (1, 0, 0), POINTER: (0, 1, 0), FRESH: (0, 0, 1), ALL: (1, 1, 1)}
    out = [Way(GROUP, "fp32", name, faulty(*which)) for name, which in found.items()]
    dense = torch_dense(BERT, "fp32", False) if bench.torch else numpy_dense(BERT)
    for name, used in ((NONE, bench), (FRESH, fresh)):
        out.append(Way(DENSE, "fp32", name, lambda _, copy, buffers, used=used: dense(used, copy, buffers), BERT))
    return out
