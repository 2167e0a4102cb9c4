"""Trees of neurons, of which a token visits one path each: the integers of docs/numerics.md, section 7, batched.

Which neurons a token visits depends on signs of exact integers alone, so every level of the model that has the same
codes takes the same paths.
"""

import numpy as np

BLOCK_WEIGHTS = 1 << 22  # of rows that are made float32 together


class Trees:
    """The two tables of a layer's channel mixer.

    Sums are those of the float32 BLAS, exact below 2^24: |sum| <= 127 H of a row, 127 N of an output.

    Parameters
    ----------
    geometry : TreeGeometry
    into, out : int8 arrays [E, H]
        Trits of the input and of the output rows. Neuron A + k nodes + n is node n of tree k, whose children are
        2 n + 1 and 2 n + 2; neurons 0 to A - 1 are those that every token visits.
    """

    def __init__(self, geometry, into, out):
        self._geometry, self._into, self._out = geometry, into, out

    def _batches(self, batch, rows):
        """Slices of a batch that take so many rows of a table each."""
        step = max(1, BLOCK_WEIGHTS // (rows * self._into.shape[1]))
        return [slice(at, at + step) for at in range(0, batch, step)]

    def _sums(self, codes, rows):
        """Sums [B, n] of codes [B, H] with the input rows [B, n] of each."""
        out = np.empty(rows.shape, np.float32)
        for part in self._batches(*rows.shape):
            out[part] = np.matmul(self._into[rows[part]].astype(np.float32), codes[part, :, None])[..., 0]
        return out

    def walk(self, codes):
        """The sums of the visited neurons, and which they are, in the order of the visit.

        Parameters
        ----------
        codes : float32 array [B, H]
            Integers.

        Returns
        -------
        sums, path : float32 and int64 arrays [B, N]
            Sums, and numbers of the neurons: first those that every token visits, then level by level, one
            neuron of each tree.
        """
        g, batch = self._geometry, len(codes)
        path = np.empty((batch, g.visits), np.int64)
        path[:, :g.tree_always] = np.arange(g.tree_always)
        sums = np.empty(path.shape, np.float32)
        if g.tree_always:
            sums[:, :g.tree_always] = codes @ self._into[:g.tree_always].astype(np.float32).T
        first, node = g.tree_always + g.nodes * np.arange(g.trees), np.zeros((batch, g.trees), np.int64)
        for level in range(g.levels):
            here = slice(g.tree_always + level * g.trees, g.tree_always + (level + 1) * g.trees)
            path[:, here] = first + node
            sums[:, here] = self._sums(codes, path[:, here])
            node = 2 * node + 1 + (sums[:, here] > 0)
        return sums, path

    def gather(self, codes, path):
        """Sums [B, H] float32 of the output rows ``path`` [B, N], each times its code [B, N]."""
        out = np.empty((len(path), self._out.shape[1]), np.float32)
        for part in self._batches(*path.shape):
            out[part] = np.matmul(codes[part, None], self._out[path[part]].astype(np.float32))[:, 0]
        return out
