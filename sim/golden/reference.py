"""Level L0: the float model in NumPy, token by token."""

import numpy as np

from sterna.sim.golden.packed import load_checkpoint, lower_bounds, ternarise
from sterna.sim.golden.product import Product, are_held
from sterna.sim.golden.tree import Trees

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
    """norm -> int8 -> ternary product; x [B, in] -> [B, out].

    Codes and trits are small integers: their product in float32 is exact. Unless its operand is ``held``, it is made
    anew of trits of one byte, some rows at a time.
    """

    def __init__(self, tensors, name, dtype, held):
        trits, mean = ternarise(tensors[name + ".weight"])
        self._product = Product(trits, held)
        self.mean = dtype(mean)
        self.norm = tensors[name + ".norm.weight"].astype(dtype)

    def __call__(self, x):
        codes, step = quantise(rms_norm(x, self.norm, INNER_EPS))
        return self._product(codes.astype(np.float32)).astype(x.dtype) * (step * self.mean)


class _TreeMixer:
    """norm -> int8 -> walk -> SiLU -> norm -> int8 -> gather; x [B, H] -> [B, H].

    The branch is the sign of the integer sum of codes and trits, as on the hardware, and not that of a float: from
    the same codes all levels take the same path. Codes of different levels differ by single steps where
    a number lies at the edge between two, so paths of L0 and L1 part only where a sum is that close to 0.
    """

    def __init__(self, geometry, tensors, at, dtype):
        into, mean = ternarise(tensors[at + "tree_in.weight"])
        out, mean_out = ternarise(tensors[at + "tree_out.weight"])
        self._trees, self._means = Trees(geometry, into, out), (dtype(mean), dtype(mean_out))
        self._norm = tensors[at + "tree_in.norm.weight"].astype(dtype)

    def __call__(self, x):
        codes, step = quantise(rms_norm(x, self._norm, INNER_EPS))
        sums, path = self._trees.walk(codes.astype(np.float32))
        t = sums.astype(x.dtype) * (step * self._means[0])
        codes, step = quantise(rms_norm(t * sigmoid(t), x.dtype.type(1), INNER_EPS))
        return self._trees.gather(codes.astype(np.float32), path).astype(x.dtype) * (step * self._means[1])


class Reference:
    """The float model of a checkpoint.

    Parameters
    ----------
    source : path or (ModelGeometry, mapping)
        A checkpoint folder, or a geometry with float32 tensors under the names of its ``shapes()``.
    dtype : numpy type
        np.float64, or np.float32 to measure the noise floor of float arithmetic.
    kept : bool
        False: a layer is made of the tensors whenever it is asked for, and not kept, so that a
        model takes the memory of one layer.

    Raises
    ------
    PackError
        The folder is not a checkpoint that Sterna runs.
    """

    def __init__(self, source, dtype=np.float64, kept=True):
        self.geometry, tensors = source if isinstance(source, tuple) else load_checkpoint(source)
        self._tensors = tensors
        self.dtype = dtype
        self._eps = self.geometry.rms_norm_eps
        self.embedding = tensors["model.embeddings.weight"].astype(dtype)
        self._lower = lower_bounds(tensors["model.lower_bounds"]).astype(dtype)
        self._held = are_held(self.geometry)
        self._layers = [self._make(k) for k in range(self.geometry.num_hidden_layers)] if kept else None
        if kept:
            self._tensors = None
        self._norm = tensors["model.norm.weight"].astype(dtype)
        self._head = _BitLinear(tensors, "lm_head", dtype, self._held)

    def _make(self, number):
        """The parts (dict) of a layer."""
        tensors, dtype, at = self._tensors, self.dtype, f"model.layers.{number}."
        trees = self.geometry.mixer == "tree"
        names = {p: f"{at}attn.{p}_proj" for p in "ifgo"}
        names |= {} if trees else {p: f"{at}mlp.{p}_proj" for p in ("gate", "down")}
        parts = {p: _BitLinear(tensors, name, dtype, self._held) for p, name in names.items()}
        if trees:
            parts["trees"] = _TreeMixer(self.geometry, tensors, at + "mlp.", dtype)
        return parts | {n: tensors[f"{at}{n}.weight"].astype(dtype) for n in ("attn_norm", "mlp_norm", "attn.g_norm")}

    def _layer(self, number):
        return self._layers[number] if self._tensors is None else self._make(number)

    def start(self, batch):
        """State [L, B, H] of sequences that have not begun."""
        return np.zeros((self.geometry.num_hidden_layers, batch, self.geometry.hidden_size), self.dtype)

    def embed(self, ids):
        """x [B, H] of token ids [B]."""
        return self.embedding[np.asarray(ids)]

    def layer(self, number, x, h):
        """One block: x [B, H] -> [B, H]; the state h [B, H] is advanced in place."""
        part = self._layer(number)
        complement, value, gate = self._gates(part, self._lower[number], x)
        h += complement * (value - h)
        return self._behind(part, x, h, gate)

    def layer_over(self, number, x, h):
        """One block over T tokens of one sequence: x [T, H], the state h [H] advanced in place.

        Returns
        -------
        x, states : arrays [T, H]
            The block's outputs, and the state behind every token.
        """
        part = self._layer(number)
        complement, value, gate = self._gates(part, self._lower[number], x)
        states = np.empty_like(value)
        for token, state in enumerate(states):
            h += complement[token] * (value[token] - h)
            state[:] = h
        return self._behind(part, x, states, gate), states

    def _gates(self, part, lower, x):
        """Of x [B, H] what of the old state stays away, what comes, and the output gate; all [B, H]."""
        y = rms_norm(x, part["attn_norm"], self._eps)
        # 1 - f by the sigmoid's other tail: as accurate for f near 1 as anywhere.
        complement = (1 - lower) * sigmoid(-part["f"](y))
        value = part["i"](y)
        return complement, value * sigmoid(value), rms_norm(part["g"](y), part["attn.g_norm"], self._eps)

    def _behind(self, part, x, h, gate):
        """The block's output of its input x, new state h and output gate; all [B, H]."""
        x = x + part["o"](gate * (h * sigmoid(h)))
        y = rms_norm(x, part["mlp_norm"], self._eps)
        if "trees" in part:
            return x + part["trees"](y)
        gate, value = np.split(part["gate"](y), 2, -1)
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
