"""How the leaves of trees, or experts, are used: a collapse shows here and not in the loss."""

import numpy as np


class LeafUse:
    """Counts where the tokens of forward passes in evaluation mode end; false if nothing chooses.

    Parameters
    ----------
    mixers : list of modules
        Each with ``leaves`` [T, K] behind a pass: K choices of a token, of ``choices`` things each.
    """

    def __init__(self, mixers):
        self._mixers = mixers
        self._counts = [np.zeros(mixer.choices, np.int64) for mixer in mixers]

    def __bool__(self):
        return bool(self._mixers)

    def add(self, valid):
        """Count the last forward pass, of which ``valid`` (bool tensor [T]) are tokens of a text."""
        for mixer, counts in zip(self._mixers, self._counts, strict=True):
            leaves = mixer.leaves[valid].cpu().numpy()
            if len(counts) == 1:  # all choices are among the same things
                counts[0] += np.bincount(leaves.ravel(), minlength=counts.shape[1])
            else:
                for tree, row in enumerate(counts):
                    row += np.bincount(leaves[:, tree], minlength=len(row))

    def figures(self):
        """A list with a dict for each mixer.

        ``used``: share of the leaves that some token reached. ``entropy``: mean over its trees of the entropy of the
        use of leaves, by that of equal use: 1 is balance, 0 is one leaf for all. ``largest``: largest share of a
        tree's tokens in one leaf.
        """
        out = []
        for counts in self._counts:
            share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
            entropy = -(share * np.log2(np.where(share > 0, share, 1))).sum(1) / max(np.log2(counts.shape[1]), 1)
            out.append({"used": round(float((counts > 0).mean()), 4), "entropy": round(float(entropy.mean()), 4),
                        "largest": round(float(share.max()), 4)})
        return out
