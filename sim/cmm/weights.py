"""Weights and inputs: all of them initialised, and every copy of the layer in memory of its own."""

from pathlib import Path

import numpy as np

from sterna.sim.cmm.shape import HIDDEN, LARGEST

SAMPLES = 2048  # inputs; batches are parts of them
CLEAR = 1e-5  # a sum nearer to zero than this may have another sign in float32 than in float64
ASSUMED_CACHE_BYTES = 32 << 20
_LINE, _PAGE = 64, 2 << 20


def aligned(shape, dtype=np.float32):
    """An array that begins at a page: NumPy's own begin 16 bytes behind one, where every vector crosses two lines."""
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    block = np.empty(count + 4096, np.uint8)
    start = -block.ctypes.data % 4096
    return block[start:start + count].view(dtype).reshape(shape)


def caches(folder=Path("/sys/devices/system/cpu/cpu0/cache")):
    """Bytes of the caches for data of the first processor, by level (dict of int to int); empty if nobody says."""
    found = {}
    for index in sorted(folder.glob("index*")):
        try:
            kind, level, size = ((index / name).read_text().strip() for name in ("type", "level", "size"))
            if kind != "Instruction":
                found[int(level)] = int(size[:-1]) << {"K": 10, "M": 20}[size[-1]]
        except (OSError, ValueError, KeyError, IndexError):
            continue
    return found


class Layers:
    """Copies of the two tables of the layer, one behind the other in memory.

    Elements of bfloat16 are drawn, and an element of float32 is two of them: the second one is the end of the first
    one's mantissa. So the same memory holds a layer of either type. The first rows are the layer of a narrower one.

    Parameters
    ----------
    rng : numpy.random.Generator
    neurons : int
        Rows of a table.
    copies : int

    Attributes
    ----------
    copy_bytes, count : int
    """

    def __init__(self, rng, neurons, copies):
        self.neurons = max(neurons, LARGEST)
        self._memory = aligned((copies, 2, self.neurons * HIDDEN * 2), np.uint16)
        self.count, self.copy_bytes = copies, self._memory[0].nbytes
        for table in self._memory[0]:
            # Deviation 1 / sqrt(HIDDEN): sums over inputs of deviation 1 are about 1 then.
            values = rng.standard_normal(table.size, np.float32) / np.float32(HIDDEN**0.5)
            table[:] = values.view(np.uint32) >> 16
        for copy in self._memory[1:]:
            copy[:] = self._memory[0]

    def table(self, copy, which, half=False):
        """Table 0 (in) or 1 (out) of a copy: float32, or the bits of bfloat16 as uint16 [neurons, HIDDEN]."""
        memory = self._memory[copy, which]
        if half:
            return memory[:self.neurons * HIDDEN].reshape(self.neurons, HIDDEN)
        return memory.view(np.float32).reshape(self.neurons, HIDDEN)

    def touch(self, copy):
        """Reads one line of every large page (12 of 393 thousand): where the machine is a virtual one, its host may
        take 0.1 ms for a page that was not used for long, which is no matter of caches.
        """
        return int(np.add.reduce(self._memory[copy].reshape(-1).view(np.uint64)[::_PAGE // 8]))

    def read(self, copy):
        """Reads a copy from end to end, so that all others become older in the caches."""
        return int(np.add.reduce(self._memory[copy].reshape(-1).view(np.uint64)[::_LINE // 8]))


def widened(half):
    """float32 values of the bits of bfloat16."""
    return (half.astype(np.uint32) << 16).view(np.float32)


def rounded(values):
    """float32 values rounded to bfloat16, ties to even, as float32."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7fff + ((bits >> 16) & 1)) & np.uint32(0xffff0000)).view(np.float32)


def silu(a):
    """a / (1 + exp(-a))."""
    return a / (1 + np.exp(-a))


def walk(tree, table_in, table_out, x):
    """The layer in float64.

    Parameters
    ----------
    tree : Tree
    table_in, table_out : array [neurons, HIDDEN]
    x : array [samples, HIDDEN]

    Returns
    -------
    y : float64 [samples, HIDDEN]
    path : int64 [visits, samples]
        Rows in the order tree by tree, level by level.
    nearest : float64 [samples]
        Of the sums that decide a branch, the least absolute value; infinity without a branch.
    """
    x = x.astype(np.float64)
    y, path, nearest = np.zeros_like(x), [], np.full(len(x), np.inf)
    for root in range(0, tree.neurons, tree.nodes):
        n = np.zeros(len(x), np.int64)
        for level in range(tree.levels):
            a = np.einsum("sh,sh->s", table_in[root + n].astype(np.float64), x)
            y += silu(a)[:, None] * table_out[root + n]
            path.append(root + n)
            if level < tree.depth:
                nearest = np.minimum(nearest, np.abs(a))
            n = 2 * n + 1 + (a > 0)
    return y, np.array(path), nearest


def dense(width, table_in, out, x):
    """A dense layer in float64: ``out`` is [width, HIDDEN]; the result [samples, HIDDEN]."""
    return silu(x.astype(np.float64) @ table_in[:width].T.astype(np.float64)) @ out.astype(np.float64)


def clear_inputs(rng, tree, tables, samples=SAMPLES):
    """Inputs whose branches float32 decides as float64 does, and how many were drawn again for that.

    Parameters
    ----------
    rng : numpy.random.Generator
    tree : Tree
    tables : sequence of array [neurons, HIDDEN]
        Those of the inputs that are in use.

    Returns
    -------
    (float32 [samples, HIDDEN], int)
    """
    x, again, which = aligned((samples, HIDDEN)), 0, np.arange(samples)
    while which.size:
        x[which] = rng.standard_normal((which.size, HIDDEN))
        near = np.min([walk(tree, table, table, x[which])[2] for table in tables], axis=0)
        which = which[near < CLEAR]
        again += which.size
    return x, again
