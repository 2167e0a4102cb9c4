"""The quantised model, independent of any tiling: checkpoint folders to trits, codes and fp24 constants."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sterna.sim.golden import strictjson, tensorfile
from sterna.sim.golden.errors import SternaError
from sterna.sim.golden.fp24 import round24
from sterna.sim.golden.strictjson import short

FLOOR = 1e-5  # of mean|W|, in the derivation of the trits
CONFIG_BYTES, INDEX_BYTES = 1 << 20, 1 << 26  # the largest config.json and index that are read


class PackError(SternaError, ValueError):
    """A checkpoint that cannot be packed; the message is one line that names what is wrong."""


@dataclass(frozen=True)
class Geometry:
    """Shape of a model: H, I, L, V and the eps of its outer norms; PackError for values that no model has."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    vocab_size: int
    rms_norm_eps: float = 1e-6

    def __post_init__(self):
        for name in ("hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 1 << 31:
                raise PackError(f"{name} is {short(value)}: must be a whole number from 1 to {(1 << 31) - 1}")
        eps = self.rms_norm_eps
        if not isinstance(eps, (int, float)) or isinstance(eps, bool) or not 0 < eps < 1 << 31:
            raise PackError(f"rms_norm_eps is {short(eps)}: must be a positive number")

    def tensors(self):
        """Yields (tensor name, shape) of a checkpoint of this geometry, in the published layout."""
        hidden, inner, vocab = self.hidden_size, self.intermediate_size, self.vocab_size
        yield from (("model.embeddings.weight", (vocab, hidden)),
                    ("model.lower_bounds", (self.num_hidden_layers, hidden)), ("model.norm.weight", (hidden,)),
                    ("lm_head.weight", (vocab, hidden)), ("lm_head.norm.weight", (hidden,)))
        for layer in range(self.num_hidden_layers):
            at = f"model.layers.{layer}."
            yield from ((f"{at}{name}.weight", (hidden,)) for name in ("attn_norm", "mlp_norm", "attn.g_norm"))
            for name, shape in (*((f"attn.{p}_proj", (hidden, hidden)) for p in "ifgo"),
                                ("mlp.gate_proj", (2 * inner, hidden)), ("mlp.down_proj", (hidden, inner))):
                yield from ((f"{at}{name}.weight", shape), (f"{at}{name}.norm.weight", shape[1:]))

    @property
    def matrices(self):
        """Matrices with trits (int): six a layer, and the head."""
        return 6 * self.num_hidden_layers + 1

    @property
    def ternary_weights(self):
        """Number of the weights that are trits (int)."""
        hidden, inner = self.hidden_size, self.intermediate_size
        per_layer = 4 * hidden ** 2 + 3 * hidden * inner
        return self.num_hidden_layers * per_layer + self.vocab_size * hidden

    def shapes(self):
        """Tensor name -> shape, as a dict."""
        return dict(self.tensors())


@dataclass(frozen=True, eq=False)
class PackedLayer:
    """One layer. Trits are int8 -1, 0, 1; everything else is float64 with fp24 values."""

    f: np.ndarray  # [H, H] trits, as i, g and o
    i: np.ndarray
    g: np.ndarray
    o: np.ndarray
    gate: np.ndarray  # [2 I, H] trits: the gate half, then the value half
    down: np.ndarray  # [H, I] trits
    ws_f: float  # scales, round(mean|W| / 127)
    ws_i: float
    ws_g: float
    ws_o: float
    ws_gate: float
    ws_down: float
    attn_outer: np.ndarray  # [H]
    w_f: np.ndarray  # [H] folded weights: outer times inner, as w_i, w_g_in and w_gate
    w_i: np.ndarray
    w_g_in: np.ndarray
    keep: np.ndarray  # [H] 1 - lb
    g_norm: np.ndarray  # [H] w_g
    o_in: np.ndarray  # [H] w_o, the norm inside o_proj
    mlp_outer: np.ndarray  # [H]
    w_gate: np.ndarray  # [H]
    w_down: np.ndarray  # [I] w_d, the norm inside down_proj


@dataclass(frozen=True, eq=False)
class PackedModel:
    """A quantised model; embedding row v is ``embedding_codes[v] * embedding_scale[v]``."""

    geometry: Geometry
    embedding_codes: np.ndarray  # [V, H] int8
    embedding_scale: np.ndarray  # [V] float64, fp24 values
    layers: tuple  # of PackedLayer
    final_outer: np.ndarray  # [H]
    w_head: np.ndarray  # [H] folded
    head: np.ndarray  # [V, H] trits
    ws_head: float


def ternary_already(magnitude):
    """Whether a matrix is ternary already: it holds only -s, 0 and +s, and not zeros alone.

    This is the one definition of it, for every level and for training.

    Parameters
    ----------
    magnitude : ndarray or torch.Tensor
        |W|, of any shape.

    Returns
    -------
    s, found : scalar of the kind of ``magnitude``, and a boolean
        ``s`` is the largest magnitude.
    """
    top = magnitude.max()
    return top, (top > 0) & ((magnitude == top) | (magnitude == 0)).all()


def ternarise(weight):
    """Trits (int8) and scale (float) of a float32 weight: round-half-even of W s, s = 1 / max(mean|W|, 1e-5).

    Of a weight that is ternary already (`ternary_already`) trits and s are kept, because the mean
    over its zeros too would be a smaller scale.
    """
    weight = np.asarray(weight, np.float32)
    magnitude = np.abs(weight)
    top, kept = ternary_already(magnitude)
    if kept:
        return np.sign(weight).astype(np.int8), float(top)
    mean = max(float(magnitude.mean(dtype=np.float64)), FLOOR)
    return np.clip(np.rint(weight * (np.float32(1) / np.float32(mean))), -1, 1).astype(np.int8), mean


def read_json(folder):
    """The object in a checkpoint folder's config.json (dict); PackError if there is none."""
    path = Path(folder) / "config.json"
    try:
        raw = strictjson.read(path, CONFIG_BYTES)
    except OSError as error:
        raise PackError(f"cannot read {path}: {error.strerror}: give a folder with config.json and "
                        "model.safetensors") from None
    except strictjson.JsonError as error:
        raise PackError(f"{path}: {error}") from None
    if not isinstance(raw, dict):
        raise PackError(f"{path}: must hold a JSON object")
    return raw


def read_config(folder):
    """The Geometry of a checkpoint folder's config.json; PackError if this is not a model that Sterna runs."""
    raw, path = read_json(folder), Path(folder) / "config.json"
    for key, default, allowed in (
            ("model_type", None, ("hgrn_bit",)), ("num_heads", 1, (1,)), ("expand_ratio", 1, (1,)),
            ("use_short_conv", False, (False,)), ("use_lower_bound", True, (True,)),
            ("hidden_act", "swish", ("swish", "silu")), ("tie_word_embeddings", False, (False,))):
        if raw.get(key, default) not in allowed:
            raise PackError(f"{path}: {key} is {short(raw.get(key))}: only {' or '.join(map(repr, allowed))} is "
                            "supported")
    try:
        if raw.get("intermediate_size") is None:
            ratio = raw.get("hidden_ratio")
            ratio = 4 if ratio is None else ratio  # as the published code takes null
            if not isinstance(ratio, (int, float)) or isinstance(ratio, bool) or not 0 < ratio < 1 << 31:
                raise PackError(f"hidden_ratio is {short(ratio)}: must be a positive number")
            hidden = Geometry(raw.get("hidden_size"), 1, 1, 1).hidden_size
            raw["intermediate_size"] = -(-int(hidden * float(ratio) * 2 / 3) // 256) * 256
        return Geometry(*(raw.get(name) for name in ("hidden_size", "intermediate_size", "num_hidden_layers",
                                                     "vocab_size")), raw.get("rms_norm_eps", 1e-6))
    except PackError as error:
        raise PackError(f"{path}: {error}") from None


class Tensors:
    """The tensors of a checkpoint folder as float32 arrays, read one at a time.

    Parameters
    ----------
    folder : path
        Holds model.safetensors, or the files that model.safetensors.index.json names.

    Raises
    ------
    PackError
        A missing or damaged file.
    """

    _KINDS = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}

    def __init__(self, folder):
        self.folder = Path(folder)
        self._entries, self.size_bytes = {}, 0
        for path in self._files():
            try:
                entries, _, size = tensorfile.scan(path, {kind: int(code[-1]) for kind, code in self._KINDS.items()})
            except OSError as error:
                raise PackError(f"cannot read {path}: {error.strerror}") from None
            except ValueError as error:  # also a name that no file can have
                raise PackError(f"{path}: {error}") from None
            if twice := sorted(set(entries) & set(self._entries)):
                raise PackError(f"{path}: tensor {short(twice[0])} is in another file of the folder too")
            self._entries |= entries
            self.size_bytes += size

    def _files(self):
        index, single = self.folder / "model.safetensors.index.json", self.folder / "model.safetensors"
        if single.exists():
            return [single]
        if not index.exists():
            raise PackError(self._without_weights())
        try:
            raw = strictjson.read(index, INDEX_BYTES)
        except OSError as error:
            raise PackError(f"cannot read {index}: {error.strerror}") from None
        except strictjson.JsonError as error:
            raise PackError(f"{index}: {error}") from None
        names = raw.get("weight_map") if isinstance(raw, dict) else None
        if not isinstance(names, dict) or not names:
            raise PackError(f"{index}: no weight_map: download the folder again")
        if any(not isinstance(n, str) or not n.isprintable() or not n or Path(n).name != n for n in names.values()):
            raise PackError(f"{index}: names a file outside the folder")
        return [self.folder / name for name in sorted(set(names.values()))]

    def _without_weights(self):
        """What is wrong with a folder that has no safetensors."""
        for pattern in ("pytorch_model*.bin", "*.bin", "*.pt", "*.pth"):
            if other := sorted(self.folder.glob(pattern)):
                return (f"{self.folder} holds {short(other[0].name)} and no model.safetensors: load it with "
                        "transformers and save it by save_pretrained(FOLDER, safe_serialization=True)")
        return (f"{self.folder} holds no model.safetensors: download the folder's weights, or give a folder with "
                "config.json, model.safetensors and tokenizer.json")

    def check(self, geometry):
        """PackError unless names and shapes are exactly those of the geometry."""
        wanted = set()
        # One after the other: a config.json may ask for more layers than there is memory for their names.
        for name, shape in geometry.tensors():
            wanted.add(name)
            if name not in self._entries:
                raise PackError(f"{self.folder}: tensor {name!r} is missing: config.json asks for "
                                f"shape {list(shape)}")
            if self._entries[name].shape != shape:
                raise PackError(f"{self.folder}: tensor {name!r} has shape {list(self._entries[name].shape)}: "
                                f"config.json asks for {list(shape)}")
        for name in self._entries:
            if name not in wanted:
                raise PackError(f"{self.folder}: tensor {short(name)} is not part of this model type: its effect "
                                "would be lost")

    def __getitem__(self, name):
        entry = self._entries[name]
        try:
            data = entry.read(self._KINDS[entry.kind])
        except (OSError, ValueError) as error:
            raise PackError(f"{entry.path}: {error}") from None
        if entry.kind == "BF16":
            data = (data.astype(np.uint32) << 16).view(np.float32)
        data = data.astype(np.float32, copy=False).reshape(entry.shape)
        if not np.isfinite(data).all():
            raise PackError(f"{entry.path}: tensor {name!r} holds infinities or NaN")
        return data


def lower_bounds(raw):
    """lb [L, H] float64: the cumulative sum over layers of a softmax over layers, less its first row."""
    raw = np.asarray(raw, np.float64)
    share = np.exp(raw - raw.max(0))
    share /= share.sum(0)
    return np.cumsum(share, 0) - share[0]


def quantise_embedding(rows):
    """int8 codes [V, H] and fp24 row scales [V] of embedding rows."""
    rows = np.asarray(rows, np.float64)
    scale = round24(np.abs(rows).max(1) / 127)
    scale[scale == 0] = 1.0
    return np.clip(np.rint(rows / scale[:, None]), -127, 127).astype(np.int8), scale


def load_checkpoint(folder):
    """(Geometry, Tensors) of a folder, with every name and shape checked; PackError otherwise."""
    geometry = read_config(folder)
    tensors = Tensors(folder)
    tensors.check(geometry)
    return geometry, tensors


def pack(geometry, tensors, kept=None):
    """The PackedModel of float32 tensors.

    Parameters
    ----------
    geometry : Geometry
    tensors : mapping
        With the names of ``geometry.shapes()``.
    kept : callable(str), optional
        Is given the name of each matrix that is ternary already.
    """
    def vector(name):
        return tensors[name + ".weight"].astype(np.float64)

    def matrix(name):
        weight = tensors[name + ".weight"]
        trits, mean = ternarise(weight)
        if kept and ternary_already(np.abs(weight))[1]:
            kept(name)
        return trits, float(round24(mean / 127))

    keep = round24(1 - lower_bounds(tensors["model.lower_bounds"]))
    layers = []
    for number in range(geometry.num_hidden_layers):
        at = f"model.layers.{number}."
        names = {p: f"{at}attn.{p}_proj" for p in "figo"} | {p: f"{at}mlp.{p}_proj" for p in ("gate", "down")}
        parts = {}
        for part, name in names.items():
            parts[part], parts["ws_" + part] = matrix(name)
        outer, mlp_outer = vector(at + "attn_norm"), vector(at + "mlp_norm")
        folded = {"w_f": "f", "w_i": "i", "w_g_in": "g"}
        layers.append(PackedLayer(
            **parts, **{key: round24(outer * vector(names[p] + ".norm")) for key, p in folded.items()},
            attn_outer=round24(outer), keep=keep[number], g_norm=round24(vector(at + "attn.g_norm")),
            o_in=round24(vector(names["o"] + ".norm")), mlp_outer=round24(mlp_outer),
            w_gate=round24(mlp_outer * vector(names["gate"] + ".norm")),
            w_down=round24(vector(names["down"] + ".norm"))))
    codes, scale = quantise_embedding(tensors["model.embeddings.weight"])
    head, ws_head = matrix("lm_head")
    outer = vector("model.norm")
    return PackedModel(geometry, codes, scale, tuple(layers), round24(outer),
                       round24(outer * vector("lm_head.norm")), head, ws_head)


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
