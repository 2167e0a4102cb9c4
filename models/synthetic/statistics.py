"""What the tensors of a made-up checkpoint hold: numbers spread as those of trained models are.

Modelled, and from where: the trained checkpoint of this repository (``models/story``, 4 layers) for all but the
outliers.

- Matrices: Student's t with 8 degrees of freedom (trained ones have kurtosis 3.3 to 5 and a third of zeros once
  ternarised), rows of uneven size, the head's the most (rare tokens have small rows, and more zeros). Sizes by the
  number of inputs, so that sums are as large at any width as in the story model.
- Trees, of which the story model has none: input rows as those of gate_proj; output rows as those of down_proj with
  as many inputs as a token visits neurons.
- Embedding: nearly Gaussian, standard deviation 0.65.
- Norms: mean and spread per kind, and their way from the first layer to the last: the norm inside i_proj falls, those
  inside o_proj and down_proj rise. Beyond four layers these two are smaller, so that the residual stream ends as
  large.
- Lower bounds: every channel has an uneven share of the layers, so memories go from none in the first layer to some
  hundred tokens in the last.
- Outliers (as large language models have them; the small ones here have few): in one of 256 channels of the residual
  stream, embeddings are 20 times larger for every token, and norms partly damp it, the final one entirely. In as many
  other channels of every outer norm and of the norms inside o_proj and down_proj the weight is 20 times larger.
"""

import numpy as np

FREEDOM, FREEDOM_EMBEDDING = 8, 30  # even numbers, of Student's t
LEVELS = 16  # sizes of rows
OUTLIER, OUTLIER_EVERY = 20.0, 256
BLOCK = 1 << 21  # numbers made at once, about
STORY_LAYERS = 4
# Mean |W| of the story model's matrices, and the inputs that they have there.
MEAN = {"down_proj": 0.33, "tree_out": 0.33, "lm_head": 0.72}
MEAN_INPUTS = {"down_proj": 800, "tree_out": 800}
USUAL_MEAN, USUAL_INPUTS = 0.35, 240
EMBEDDING_MEAN = 0.51
# Natural logarithm of the largest row's size over the smallest.
SPREAD = {"lm_head": 1.2, "embeddings": 0.4}
USUAL_SPREAD = 0.3
# Norms by the end of their names: in the first layer, in the last, standard deviation over mean.
NORMS = {"attn_norm": (1.08, 1.06, 0.17), "mlp_norm": (1.1, 1.1, 0.04), "g_norm": (1.15, 1.15, 0.27),
         "f_proj.norm": (0.65, 0.8, 0.24), "i_proj.norm": (0.8, 0.12, 0.25), "g_proj.norm": (1.08, 1.1, 0.12),
         "o_proj.norm": (0.3, 1.95, 0.25), "gate_proj.norm": (0.69, 0.63, 0.08), "tree_in.norm": (0.69, 0.63, 0.08),
         "down_proj.norm": (0.57, 1.5, 0.22), "model.norm": (1.0, 1.0, 0.4), "lm_head.norm": (0.36, 0.36, 0.3)}
WITH_OUTLIERS = ("attn_norm", "mlp_norm", "o_proj.norm", "down_proj.norm")
DAMPED = {"attn_norm": 0.25, "mlp_norm": 0.25, "model.norm": 1 / OUTLIER}
LOWER_BOUNDS = 0.7  # standard deviation of the raw values


def to_bfloat16(values):
    """Bits (uint16) of the bfloat16 numbers nearest to float32 values, ties to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(np.uint16)


def from_bfloat16(bits):
    """float32 values of bfloat16 bits (uint16)."""
    return (np.asarray(bits, np.uint32) << np.uint32(16)).view(np.float32)


def quantiles(freedom, count=1 << 16):
    """``count`` equally likely values (float64, ascending, mean magnitude 1) of Student's t.

    An even number of degrees of freedom has its distribution in closed form, in s = t / sqrt(freedom + t^2).
    """
    s = np.concatenate([[0.0], 1 - np.geomspace(1, 1e-9, 8192)[1:]])
    term, total = np.ones_like(s), np.ones_like(s)
    for k in range(1, freedom // 2):
        term = term * (1 - s * s) * (2 * k - 1) / (2 * k)
        total = total + term
    upper = (np.arange(count // 2) + 0.5) / (count // 2)  # of the distribution of |t|
    s = np.interp(upper, s * total, s)
    t = s * np.sqrt(freedom) / np.sqrt(1 - s * s)
    t /= t.mean()
    return np.concatenate([-t[::-1], t])


class Statistics:
    """The tensors of one checkpoint, each a function of (seed, geometry, name) and of no other tensor.

    Which are made first, and in how many files, changes nothing. Another version of NumPy or of the C library may:
    norms and lower bounds are NumPy's normal numbers, and tables of matrices end in the library's exp and powers.

    Parameters
    ----------
    geometry : ModelGeometry
    seed : int
    """

    def __init__(self, geometry, seed):
        self.geometry, self.seed = geometry, seed
        self._quantiles = {n: quantiles(n).astype(np.float32) for n in (FREEDOM, FREEDOM_EMBEDDING)}
        self._residual = self._channels(self._random("outliers"), geometry.hidden_size)

    def _random(self, name):
        return np.random.Generator(np.random.SFC64(np.random.SeedSequence([self.seed, *name.encode()])))

    @staticmethod
    def _channels(random, count, without=()):
        """Numbers of the outlier channels among ``count``."""
        free = np.setdiff1d(np.arange(count), without)
        return random.choice(free, min(len(free), -(-count // OUTLIER_EVERY)), replace=False)

    def blocks(self, name, shape):
        """Yields the bits of a tensor (uint16, bfloat16) in order, some rows at a time.

        Parameters
        ----------
        name : str
        shape : tuple of int
            Both as the geometry's ``tensors()`` gives them.
        """
        if name == "model.lower_bounds":
            yield to_bfloat16(self._random(name).standard_normal(shape) * LOWER_BOUNDS)
        elif len(shape) == 1:
            yield to_bfloat16(self._norm(name, *shape))
        else:
            yield from self._matrix(name, *shape)

    def _norm(self, name, count):
        """Weights (float64) of a norm."""
        random, kind = self._random(name), _kind(name, NORMS)
        first, last, spread = NORMS[kind]
        layers = self.geometry.num_hidden_layers
        depth = int(name.split(".")[2]) / max(1, layers - 1) if "layers." in name else 0.0
        middle = first * (last / first) ** depth
        if kind in ("o_proj.norm", "down_proj.norm"):
            middle *= min(1.0, (STORY_LAYERS / layers) ** 0.5)
        out = middle * (1 + spread * random.standard_normal(count))
        if kind in DAMPED:
            out[self._residual] *= DAMPED[kind]
        if kind in WITH_OUTLIERS:
            residual = self._residual if kind in DAMPED else ()
            out[self._channels(random, count, residual)] = OUTLIER * middle
        return out

    def _matrix(self, name, rows, columns):
        embedding = name == "model.embeddings.weight"
        kind = _kind(name, (*MEAN, *SPREAD), "")
        inputs = self.geometry.visits if kind == "tree_out" else columns
        mean = EMBEDDING_MEAN if embedding else \
            MEAN.get(kind, USUAL_MEAN) * (MEAN_INPUTS.get(kind, USUAL_INPUTS) / inputs) ** 0.5
        tables = self._tables(FREEDOM_EMBEDDING if embedding else FREEDOM, mean, SPREAD.get(kind, USUAL_SPREAD))
        random, step = self._random(name), max(1, BLOCK // columns)
        for at in range(0, rows, step):
            count = min(step, rows - at)
            # Raw words: the fastest numbers there are, and the same ones in every version of NumPy.
            words = random.bit_generator.random_raw(-(-count * columns // 4)).astype("<u8").view("<u2")
            words = words[:count * columns].reshape(count, columns)
            levels = random.bit_generator.random_raw(count) % LEVELS
            out = np.empty((count, columns), np.uint16)
            for level in range(LEVELS):
                chosen = np.flatnonzero(levels == level)
                out[chosen] = tables[level][words[chosen]]
            if embedding:
                out[:, self._residual] = to_bfloat16(from_bfloat16(out[:, self._residual]) * np.float32(OUTLIER))
            yield out

    def _tables(self, freedom, mean, spread):
        """Per size of a row the bits of its equally likely values: uint16 [LEVELS, 65536]."""
        sizes = np.exp(np.linspace(-spread / 2, spread / 2, LEVELS))
        sizes *= mean / sizes.mean()
        return np.stack([to_bfloat16(self._quantiles[freedom] * np.float32(size)) for size in sizes])


def _kind(name, kinds, default=None):
    """The one of ``kinds`` that a tensor's name ends with, ``.weight`` apart."""
    name = name.removesuffix(".weight")
    return next((kind for kind in kinds if name.endswith(kind)), default)
