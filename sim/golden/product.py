"""Products of integer codes with trits by the float32 BLAS, exact below 2^24; large models hold no operand."""

import numpy as np

HELD_WEIGHTS = 1 << 27  # of a model whose operands, 4 bytes each, are held
BLOCK_WEIGHTS = 1 << 22  # of an operand that is made for a moment


def are_held(geometry):
    """Whether the operands of a model of a Geometry are held (bool)."""
    return geometry.ternary_weights <= HELD_WEIGHTS


class Product:
    """codes [B, columns] float32 -> their products with the rows of trits, float32 [B, rows].

    Parameters
    ----------
    trits : int8 array [rows, columns]
    held : bool
        Whether the operand is held; otherwise it is made anew of the trits, some rows at a time.
    """

    def __init__(self, trits, held=True):
        self._operand = np.ascontiguousarray(trits.T, np.float32) if held else None
        self._trits = None if held else trits

    def __call__(self, codes):
        if self._operand is not None:
            return codes @ self._operand
        out = np.empty((len(codes), len(self._trits)), np.float32)
        step = max(1, BLOCK_WEIGHTS // self._trits.shape[1])
        for at in range(0, len(self._trits), step):
            out[:, at:at + step] = codes @ self._trits[at:at + step].astype(np.float32).T
        return out
