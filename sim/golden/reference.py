"""Level L0: the float model in NumPy, token by token."""

import numpy as np

from sterna.sim.golden.packed import load_checkpoint, lower_bounds, ternarise

INNER_EPS = 1e-6  # of the norm inside every BitLinear, whatever rms_norm_eps is
PEAK_FLOOR = 1e-5  # of max|y| in the quantiser; that of mean|W| is in packed.ternarise


def half_away(x):
    """Nearest integers of x, halves away from zero."""
    return np.copysign(np.floor(np.abs(x) + x.dtype.type(0.5)), x)


def rms_norm(x, weight, eps):
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension."""
    mean = np.mean(x * x, -1, keepdims=True)
    return x * (1 / np.sqrt(mean + x.dtype.type(eps))) * weight


def quantise(y):
    """int8 codes (as floats of y's type) [B, N] and steps [B, 1] of the rows of y: step = max(max|y|, 1e-5) / 127."""
    peak = np.maximum(np.abs(y).max(-1, keepdims=True), y.dtype.type(PEAK_FLOOR))
    return np.clip(half_away(y * (127 / peak)), -128, 127), peak / 127


def sigmoid(x):
    """1 / (1 + e^-x) without overflow, accurate in both tails."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small))


class _BitLinear:
    """norm -> int8 -> ternary product; x [B, in] -> [B, out]."""

    def __init__(self, tensors, name, dtype):
        trits, mean = ternarise(tensors[name + ".weight"])
        # Codes and trits are small integers: the float32 product is exact.
        self.trits = np.ascontiguousarray(trits.T, np.float32)
        self.mean = dtype(mean)
        self.norm = tensors[name + ".norm.weight"].astype(dtype)

    def __call__(self, x):
        codes, step = quantise(rms_norm(x, self.norm, INNER_EPS))
        return (codes.astype(np.float32) @ self.trits).astype(x.dtype) * (step * self.mean)


class Reference:
    """The float model of a checkpoint.

    Parameters
    ----------
    source : path or (Geometry, mapping)
        A checkpoint folder, or a geometry with float32 tensors under the names of ``Geometry.shapes()``.
    dtype : numpy type
        np.float64, or np.float32 to measure the noise floor of float arithmetic.

    Raises
    ------
    PackError
        The folder is not a checkpoint that Sterna runs.
    """

    def __init__(self, source, dtype=np.float64):
        self.geometry, tensors = source if isinstance(source, tuple) else load_checkpoint(source)
        self.dtype = dtype
        self._eps = self.geometry.rms_norm_eps
        self.embedding = tensors["model.embeddings.weight"].astype(dtype)
        self._lower = lower_bounds(tensors["model.lower_bounds"]).astype(dtype)
        self._layers = []
        for number in range(self.geometry.num_hidden_layers):
            at = f"model.layers.{number}."
            parts = {p: _BitLinear(tensors, f"{at}attn.{p}_proj", dtype) for p in "ifgo"}
            parts |= {p: _BitLinear(tensors, f"{at}mlp.{p}_proj", dtype) for p in ("gate", "down")}
            parts |= {n: tensors[f"{at}{n}.weight"].astype(dtype) for n in ("attn_norm", "mlp_norm", "attn.g_norm")}
            self._layers.append(parts)
        self._norm = tensors["model.norm.weight"].astype(dtype)
        self._head = _BitLinear(tensors, "lm_head", dtype)

    def start(self, batch):
        """State [L, B, H] of sequences that have not begun."""
        return np.zeros((self.geometry.num_hidden_layers, batch, self.geometry.hidden_size), self.dtype)

    def layer(self, number, x, h):
        """One block: x [B, H] -> [B, H]; the state h [B, H] is advanced in place."""
        part, lower = self._layers[number], self._lower[number]
        y = rms_norm(x, part["attn_norm"], self._eps)
        # 1 - f by the sigmoid's other tail: as accurate for f near 1 as anywhere.
        complement = (1 - lower) * sigmoid(-part["f"](y))
        value = part["i"](y)
        h += complement * (value * sigmoid(value) - h)
        gate = rms_norm(part["g"](y), part["attn.g_norm"], self._eps)
        x = x + part["o"](gate * (h * sigmoid(h)))
        gate, value = np.split(part["gate"](rms_norm(x, part["mlp_norm"], self._eps)), 2, -1)
        return x + part["down"](gate * sigmoid(gate) * value)

    def head(self, x):
        """Logits [B, V] of the last layer's output [B, H]."""
        return self._head(rms_norm(x, self._norm, self._eps))

    def step(self, ids, state):
        """Read one token per sequence.

        Parameters
        ----------
        ids : int array [B]
        state : array [L, B, H]
            Advanced in place; ``start`` makes one.

        Returns
        -------
        ndarray [B, V]
            Logits of the next token.
        """
        x = self.embedding[np.asarray(ids)]
        for number in range(self.geometry.num_hidden_layers):
            x = self.layer(number, x, state[number])
        return self.head(x)

    logits = step
