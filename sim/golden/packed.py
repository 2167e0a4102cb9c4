"""The quantised model, independent of any tiling: checkpoint folders to trits, codes and fp24 constants."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sterna.sim.golden.checkpoint import load_checkpoint, read_config  # noqa: F401 (for its readers)
from sterna.sim.golden.fp24 import round24
from sterna.sim.golden.geometry import (  # noqa: F401
    Geometry,
    ModelGeometry,
    PackError,
    TreeGeometry,
)
from sterna.sim.golden.ternary import NotFiniteError, derive, float32_of, ternarise, ternary_already  # noqa: F401

SMALL_WEIGHTS = 1 << 24  # a model with more trits is made layer by layer, on demand
EMBEDDING_ROWS = 1 << 10  # quantised together
# Of a geometry's mixer: attribute of a packed layer -> name of the tensor behind "mlp.".
MIXER_TENSORS = {"glu": {"gate": "gate_proj", "down": "down_proj"},
                 "tree": {"tree_in": "tree_in", "tree_out": "tree_out"}}


@dataclass(frozen=True, eq=False)
class _CommonLayer:
    """What the layers of all models have."""

    f: np.ndarray  # [H, H] trits, as i, g and o
    i: np.ndarray
    g: np.ndarray
    o: np.ndarray
    ws_f: float  # scales, round(mean|W| / 127)
    ws_i: float
    ws_g: float
    ws_o: float
    attn_outer: np.ndarray  # [H]
    w_f: np.ndarray  # [H] folded weights: outer times inner, as w_i, w_g_in and that of the channel mixer
    w_i: np.ndarray
    w_g_in: np.ndarray
    keep: np.ndarray  # [H] 1 - lb
    g_norm: np.ndarray  # [H] w_g
    o_in: np.ndarray  # [H] w_o, the norm inside o_proj
    mlp_outer: np.ndarray  # [H]


@dataclass(frozen=True, eq=False)
class PackedLayer(_CommonLayer):
    """One layer. Trits are int8 -1, 0, 1; everything else is float64 with fp24 values."""

    gate: np.ndarray  # [2 I, H] trits: the gate half, then the value half
    down: np.ndarray  # [H, I] trits
    ws_gate: float
    ws_down: float
    w_gate: np.ndarray  # [H] folded
    w_down: np.ndarray  # [I] w_d, the norm inside down_proj


@dataclass(frozen=True, eq=False)
class PackedTreeLayer(_CommonLayer):
    """One layer of a model with trees; as `PackedLayer`, with two tables of E rows in place of gate and down."""

    tree_in: np.ndarray  # [E, H] trits: the input row of each neuron
    tree_out: np.ndarray  # [E, H] trits: the output row of each neuron
    ws_tree_in: float
    ws_tree_out: float
    w_tree: np.ndarray  # [H] folded


PACKED_LAYERS = {"glu": PackedLayer, "tree": PackedTreeLayer}  # of a geometry's mixer


@dataclass(frozen=True, eq=False)
class PackedModel:
    """A quantised model; embedding row v is ``embedding_codes[v] * embedding_scale[v]``."""

    geometry: ModelGeometry
    embedding_codes: np.ndarray  # [V, H] int8
    embedding_scale: np.ndarray  # [V] float64, fp24 values
    layers: tuple  # of PackedLayer or PackedTreeLayer
    final_outer: np.ndarray  # [H]
    w_head: np.ndarray  # [H] folded
    head: np.ndarray  # [V, H] trits
    ws_head: float


class Layers(Sequence):
    """Layers that are made whenever one is asked for, and not kept.

    Parameters
    ----------
    count : int
    make : callable(int) -> PackedLayer
    """

    def __init__(self, count, make):
        self._count, self._make = count, make

    def __len__(self):
        return self._count

    def __getitem__(self, number):
        if not -self._count <= number < self._count:
            raise IndexError(f"layer {number} of {self._count}")
        return self._make(number % self._count)


class OnDemand(PackedModel):
    """A PackedModel whose layers, head and embedding are made at every access, and not kept.

    What is made together is made once for both: the embedding's codes and scales, the head and its
    scale. So whoever takes each once has everything made once.

    Parameters
    ----------
    geometry : ModelGeometry
    layer : callable(int) -> PackedLayer or PackedTreeLayer
    embedding : callable() -> (int8 array [V, H], float64 array [V])
        Codes and scales.
    head : callable() -> (int8 array [V, H], float)
        Trits and scale.
    ends : dict
        ``final_outer`` and ``w_head``.
    """

    def __init__(self, geometry, layer, embedding, head, ends):
        made = {"geometry": geometry, "layers": Layers(geometry.num_hidden_layers, layer),
                "_makers": {"embedding": embedding, "head": head}, "_scales": {}, "_waiting": {}}
        for name, value in (made | ends).items():
            object.__setattr__(self, name, value)

    def _take(self, name):
        if name in self._waiting:
            return self._waiting.pop(name)
        large, self._scales[name] = self._makers[name]()
        return large

    def _scale(self, name):
        if name not in self._scales:
            self._waiting[name], self._scales[name] = self._makers[name]()
        return self._scales[name]

    @property
    def embedding_codes(self):
        return self._take("embedding")

    @property
    def embedding_scale(self):
        return self._scale("embedding")

    @property
    def head(self):
        return self._take("head")

    @property
    def ws_head(self):
        return self._scale("head")


def is_small(geometry):
    """Whether a model of a geometry is held whole in memory."""
    return geometry.ternary_weights <= SMALL_WEIGHTS


def eager(packed):
    """A PackedModel that holds everything."""
    return PackedModel(**{name: tuple(packed.layers) if name == "layers" else getattr(packed, name)
                          for name in PackedModel.__dataclass_fields__})


def lower_bounds(raw):
    """lb [L, H] float64: the cumulative sum over layers of a softmax over layers, less its first row."""
    raw = np.asarray(raw, np.float64)
    share = np.exp(raw - raw.max(0))
    share /= share.sum(0)
    return np.cumsum(share, 0) - share[0]


def quantise_embedding(rows):
    """int8 codes [V, H] and fp24 row scales [V] of embedding rows, float32 or stored numbers [V, H]."""
    codes, scales = np.empty(np.shape(rows), np.int8), np.empty(len(rows))
    for at in range(0, len(rows), EMBEDDING_ROWS):
        block = rows[at:at + EMBEDDING_ROWS]
        stored = np.asarray(block).dtype in (np.uint16, np.float16)
        block = np.asarray(float32_of(block) if stored else block, np.float64)
        scale = round24(np.abs(block).max(1) / 127)
        scale[scale == 0] = 1.0
        codes[at:at + EMBEDDING_ROWS] = np.clip(np.rint(block / scale[:, None]), -127, 127)
        scales[at:at + EMBEDDING_ROWS] = scale
    return codes, scales


class _Packer:
    """Makes the parts of a PackedModel out of tensors, see `pack`."""

    def __init__(self, geometry, tensors, kept):
        self.geometry, self._tensors, self._kept = geometry, tensors, kept
        self._stored = getattr(tensors, "stored", tensors.__getitem__)
        self._keep = round24(1 - lower_bounds(tensors["model.lower_bounds"]))

    def _vector(self, name):
        return self._tensors[name + ".weight"].astype(np.float64)

    def _matrix(self, name):
        """(trits, ws)"""
        try:
            trits, s, kept = derive(self._stored(name + ".weight"))
        except NotFiniteError:
            raise self._not_finite(name + ".weight") from None
        if kept and self._kept:
            self._kept(name)
        return trits, float(round24(s / 127))

    def _not_finite(self, name):
        path = getattr(self._tensors, "path_of", lambda name: "")(name)
        return PackError(f"{path}: tensor {name!r} holds infinities or NaN".removeprefix(": "))

    def layer(self, number):
        at = f"model.layers.{number}."
        names = {p: f"{at}attn.{p}_proj" for p in "figo"}
        names |= {p: f"{at}mlp.{name}" for p, name in MIXER_TENSORS[self.geometry.mixer].items()}
        parts = {}
        for part, name in names.items():
            parts[part], parts["ws_" + part] = self._matrix(name)
        outer, mlp_outer = self._vector(at + "attn_norm"), self._vector(at + "mlp_norm")
        folded = {"w_f": "f", "w_i": "i", "w_g_in": "g"}
        common = dict(
            **parts, **{key: round24(outer * self._vector(names[p] + ".norm")) for key, p in folded.items()},
            attn_outer=round24(outer), keep=self._keep[number], g_norm=round24(self._vector(at + "attn.g_norm")),
            o_in=round24(self._vector(names["o"] + ".norm")), mlp_outer=round24(mlp_outer))
        if self.geometry.mixer == "tree":
            return PackedTreeLayer(**common, w_tree=round24(mlp_outer * self._vector(names["tree_in"] + ".norm")))
        return PackedLayer(**common, w_gate=round24(mlp_outer * self._vector(names["gate"] + ".norm")),
                           w_down=round24(self._vector(names["down"] + ".norm")))

    def embedding(self):
        """(codes, scales)"""
        name = "model.embeddings.weight"
        rows = self._stored(name)
        for at in range(0, len(rows), EMBEDDING_ROWS):
            if not np.isfinite(float32_of(rows[at:at + EMBEDDING_ROWS])).all():
                raise self._not_finite(name)
        return quantise_embedding(rows)

    def ends(self):
        """The attributes of the model that are vectors."""
        outer = self._vector("model.norm")
        return {"final_outer": round24(outer), "w_head": round24(outer * self._vector("lm_head.norm"))}

    def head(self):
        """(trits, ws)"""
        return self._matrix("lm_head")


def pack(geometry, tensors, kept=None):
    """The PackedModel of float32 tensors, each read once where its parts are taken once and in order.

    Parameters
    ----------
    geometry : ModelGeometry
    tensors : mapping
        With the names of ``geometry.shapes()``. ``stored(name)``, if it has that, gives the numbers
        as `derive` takes them.
    kept : callable(str), optional
        Is given the name of each matrix that is ternary already, whenever it is made.

    Raises
    ------
    PackError
        A matrix holds infinities or NaN; of a large model when that is made.
    """
    packer = _Packer(geometry, tensors, kept)
    packed = OnDemand(geometry, packer.layer, packer.embedding, packer.head, packer.ends())
    return eager(packed) if is_small(geometry) else packed


def pack_checkpoint(folder):
    """The PackedModel of a checkpoint folder (config.json, safetensors in bf16, f16 or f32); PackError otherwise."""
    return pack(*load_checkpoint(folder))


def random_tensors(rng, geometry):
    """Float32 tensors of a random model with uneven norms and lower bounds, for tests and benches."""
    out = {}
    for name, shape in geometry.shapes().items():
        if len(shape) == 1:
            out[name] = rng.uniform(0.3, 1.7, shape).astype(np.float32)
        else:
            spread = 1.0 if name in ("model.embeddings.weight", "model.lower_bounds") else shape[1] ** -0.5
            out[name] = (rng.standard_normal(shape) * spread).astype(np.float32)
    return out


def random_model(rng, geometry):
    """The PackedModel of ``random_tensors``; ``rng`` is a numpy Generator."""
    return pack(geometry, random_tensors(rng, geometry))
