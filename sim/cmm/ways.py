"""Every way to compute the layer, conditional or dense, each as a function without arguments.

A way has a group, which says what is computed, a kind of numbers ("fp32" or "bf16") and a name; the ways of a group
and kind compete. All read their input from the buffers of the batch and leave their output there.
"""

import importlib.util
import itertools
from dataclasses import dataclass, replace

import numpy as np

from sterna.sim.cmm import weights
from sterna.sim.cmm.shape import BERT, HIDDEN, LARGEST, Tree
from sterna.sim.cmm.weights import aligned

CONDITIONAL = "conditional"
KINDS = ("fp32", "bf16")
NAMES = ("C", "numba", "torch gather", "NumPy gather", "NumPy", "torch Linear", "torch mm", "torch packed")
PACKED_COPIES = 12  # copies of weights in an order of torch's own


def has(package):
    """Whether a package is installed (bool)."""
    return importlib.util.find_spec(package) is not None


@dataclass(frozen=True)
class Bench:
    """What the ways work with.

    Attributes
    ----------
    tree : Tree
    layers : weights.Layers
    kernel : kernel.Kernel or None
    torch : module or None
    numba : function or None
        As ``numba_walk`` gives it.
    """

    tree: Tree
    layers: weights.Layers
    kernel: object
    torch: object
    numba: object


class Buffers:
    """Input and output of a batch, in both kinds.

    Attributes
    ----------
    x, y : float32 [batch, HIDDEN]
    x_half, y_half : uint16 [batch, HIDDEN]
        Bits of bfloat16.
    """

    def __init__(self, batch):
        self.x, self.y = aligned((batch, HIDDEN)), aligned((batch, HIDDEN))
        self.x_half, self.y_half = aligned((batch, HIDDEN), np.uint16), aligned((batch, HIDDEN), np.uint16)
        for array in (self.x, self.y, self.x_half, self.y_half):
            array[:] = 0
        self._scratch = {}

    def scratch(self, name, make):
        """What ``make()`` gives, made once for a name: the functions of all copies work in the same memory."""
        if name not in self._scratch:
            self._scratch[name] = make()
        return self._scratch[name]

    def torch(self, torch, kind):
        """(x, y) as tensors of a kind, in the same memory."""
        if kind == "fp32":
            return torch.from_numpy(self.x), torch.from_numpy(self.y)
        return tuple(torch.from_numpy(a.view(np.int16)).view(torch.bfloat16) for a in (self.x_half, self.y_half))


@dataclass(frozen=True)
class Way:
    """One way to compute.

    Attributes
    ----------
    group : str
        CONDITIONAL, or "dense W" of W neurons.
    kind, name : str
    prepare : callable(bench, copy, buffers)
        Gives the function for a copy of the layer.
    width : int
        Neurons of a dense layer; 0 if it is conditional.
    half : bool
        Whether it reads x_half and writes y_half.
    linear : bool
        Whether the second matrix is [HIDDEN, width], as torch's Linear keeps it, and not [width, HIDDEN].
    own : bool
        Whether its weights are no part of the layers' memory: PACKED_COPIES of them.
    """

    group: str
    kind: str
    name: str
    prepare: object
    width: int = 0
    half: bool = False
    linear: bool = False
    own: bool = False

    @property
    def label(self):
        """For people (str)."""
        return f"{self.group}, {self.kind}, {self.name}"


def matrices(bench, copy, width, kind, linear):
    """(in [width, HIDDEN], out) of a dense layer; out is [HIDDEN, width] if ``linear``, else [width, HIDDEN]."""
    table_in, table_out = (bench.layers.table(copy, which, kind == "bf16")[:width] for which in (0, 1))
    return table_in, table_out.reshape(HIDDEN, width) if linear else table_out


def c_walk(tree, kind):
    """The kernel in C, for trees; those of depth 0 are a dense layer."""
    def prepare(bench, copy, buffers):
        tables = (bench.layers.table(copy, which, kind == "bf16") for which in (0, 1))
        room = buffers.scratch(f"C {tree}", lambda: bench.kernel.room(tree, len(buffers.x)))
        return bench.kernel.prepare(tree, *tables, buffers.x, buffers.y, room)
    return prepare


def numpy_dense(width):
    """Two products of NumPy's OpenBLAS, the activation in place between them."""
    def prepare(bench, copy, buffers):
        table_in, out = matrices(bench, copy, width, "fp32", False)
        x, y, across = buffers.x, buffers.y, table_in.T
        a, e = buffers.scratch(f"NumPy {width}", lambda: [aligned((len(x), width)) for _ in range(2)])

        def run():
            np.matmul(x, across, out=a)
            np.negative(a, out=e)
            np.exp(e, out=e)
            np.add(e, 1, out=e)
            np.divide(a, e, out=a)
            np.matmul(a, out, out=y)
        return run
    return prepare


def numpy_gather(bench, copy, buffers):
    """Level by level: the rows of all samples gathered, and the products of pairs of rows."""
    table_in, table_out = (bench.layers.table(copy, which) for which in (0, 1))
    tree, x, y = bench.tree, buffers.x, buffers.y
    roots = np.arange(tree.trees)[None] * tree.nodes

    def run():
        n = np.zeros((len(x), tree.trees), np.int64)
        y[:] = 0
        for _ in range(tree.levels):
            rows = n + roots
            a = np.matmul(table_in[rows], x[:, :, None])
            y[:] += np.matmul((a / (1 + np.exp(-a))).transpose(0, 2, 1), table_out[rows])[:, 0]
            n = 2 * n + 1 + (a[:, :, 0] > 0)
    return run


def _tensors(bench, arrays, kind):
    torch = bench.torch
    if kind == "fp32":
        return [torch.from_numpy(array) for array in arrays]
    return [torch.from_numpy(array.view(np.int16)).view(torch.bfloat16) for array in arrays]


def torch_dense(width, kind, linear):
    """``linear`` as torch.nn.Linear twice; else the second product with a matrix [width, HIDDEN]."""
    def prepare(bench, copy, buffers):
        torch = bench.torch
        x, y = buffers.torch(torch, kind)
        table_in, out = _tensors(bench, matrices(bench, copy, width, kind, linear), kind)
        across, second = table_in.t(), out.t() if linear else out
        a = buffers.scratch(f"torch {width} {kind}", lambda: torch.empty(len(x), width, dtype=x.dtype))

        def run():
            torch.mm(x, across, out=a)
            torch.nn.functional.silu(a, inplace=True)
            torch.mm(a, second, out=y)
        return run
    return prepare


def torch_packed(width):
    """bfloat16 in the order that oneDNN likes best for the batch, with the activation in the first product."""
    def prepare(bench, copy, buffers):
        torch, ops = bench.torch, bench.torch.ops.mkldnn
        x, y = buffers.torch(torch, "bf16")
        table_in, out = (tensor.clone() for tensor in
                         _tensors(bench, matrices(bench, 0, width, "bf16", True), "bf16"))
        packed = [ops._reorder_linear_weight(tensor, len(x)) for tensor in (table_in, out)]

        def run():
            a = ops._linear_pointwise(x, packed[0], None, "swish", [], "")
            y.copy_(ops._linear_pointwise(a, packed[1], None, "none", [], ""))
        return run
    return prepare


def torch_gather(bench, copy, buffers):
    """As ``numpy_gather``."""
    torch = bench.torch
    x, y = buffers.torch(torch, "fp32")
    tree = bench.tree
    table_in, table_out = _tensors(bench, [bench.layers.table(copy, which) for which in (0, 1)], "fp32")
    roots = (torch.arange(tree.trees) * tree.nodes)[None]
    column = x[:, :, None]

    def run():
        n = torch.zeros(len(x), tree.trees, dtype=torch.int64)
        y.zero_()
        for _ in range(tree.levels):
            rows = (n + roots).view(-1)
            shape = (len(x), tree.trees, HIDDEN)
            a = torch.bmm(table_in.index_select(0, rows).view(shape), column)
            z = torch.nn.functional.silu(a).transpose(1, 2)
            y.add_(torch.bmm(z, table_out.index_select(0, rows).view(shape))[:, 0])
            n = 2 * n + 1 + (a[:, :, 0] > 0)
    return run


def numba_walk():
    """The walk as numba compiles it: a function (in, out, x, y, trees, levels)."""
    import math

    import numba

    @numba.njit(fastmath=True, error_model="numpy", parallel=False)
    def walk(table_in, table_out, x, y, trees, levels):
        nodes = (1 << levels) - 1
        for s in range(x.shape[0]):
            y[s, :] = 0
            for k in range(trees):
                n = 0
                for _ in range(levels):
                    row, a = k * nodes + n, np.float32(0)
                    for j in range(HIDDEN):
                        a += table_in[row, j] * x[s, j]
                    z = np.float32(a / (1 + math.exp(-a)))
                    for j in range(HIDDEN):
                        y[s, j] += z * table_out[row, j]
                    n = 2 * n + 1 + (1 if a > 0 else 0)
    return walk


def numba_prepared(bench, copy, buffers):
    """``numba_walk``, by one thread."""
    tables = [bench.layers.table(copy, which) for which in (0, 1)]
    arguments = (*tables, buffers.x, buffers.y, bench.tree.trees, bench.tree.levels)
    return lambda: bench.numba(*arguments)


def every(bench, batch):
    """All ways that this machine has for a batch (list of Way), those of a group and kind one after the other.

    The kernel in C has no blocks for many samples: a wide dense layer is left to others where there are some.
    """
    tree, out = bench.tree, []
    if bench.kernel:
        out += [Way(CONDITIONAL, kind, "C", c_walk(tree, kind)) for kind in KINDS]
    if bench.numba:
        out.append(Way(CONDITIONAL, "fp32", "numba", numba_prepared))
    if bench.torch:
        out.append(Way(CONDITIONAL, "fp32", "torch gather", torch_gather))
    out.append(Way(CONDITIONAL, "fp32", "NumPy gather", numpy_gather))
    for width in dict.fromkeys((BERT, LARGEST, min(tree.visits, LARGEST))):
        dense = Way(f"dense {width}", "fp32", "", None, width)
        out.append(replace(dense, name="NumPy", prepare=numpy_dense(width)))
        if bench.kernel and (batch == 1 or width == tree.visits):
            out += [replace(dense, kind=kind, name="C", prepare=c_walk(Tree(width, 0), kind)) for kind in KINDS]
        if not bench.torch:
            continue
        for kind, linear in itertools.product(KINDS, (True, False)):
            out.append(replace(dense, kind=kind, name="torch Linear" if linear else "torch mm", linear=linear,
                               prepare=torch_dense(width, kind, linear), half=kind == "bf16"))
        if hasattr(bench.torch.ops.mkldnn, "_linear_pointwise") and bench.torch.backends.mkldnn.is_available():
            out.append(replace(dense, kind="bf16", name="torch packed", linear=True, half=True, own=True,
                               prepare=torch_packed(width)))
    return sorted(out, key=lambda way: (way.group, KINDS.index(way.kind)))
