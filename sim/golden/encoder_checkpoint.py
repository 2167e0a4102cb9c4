"""The shape of an encoder of the crammedBERT kind (`sterna.sim.golden.encoder`) and its checkpoint folder."""

from dataclasses import dataclass
from pathlib import Path

from sterna.sim.golden.checkpoint import Tensors, read_json
from sterna.sim.golden.geometry import PackError
from sterna.sim.golden.strictjson import short

EPS = 1e-12  # of every LayerNorm
FEEDFORWARDS = ("fff", "dense", "narrow", "none")
MOST_DEPTH = 24
_LARGE = 1 << 31
_TYPES = {"fff": "fff", "dense": "ff", "narrow": "ff", "none": "none"}  # intermed_type of config.json
# What of the published config.json changes the arithmetic: where it stands, and what it must be.
_FIXED = (
    ("norm", "LayerNorm"), ("norm_eps", EPS), ("norm_scheme", "pre"), ("nonlin", "GELU"), ("tie_weights", True),
    ("decoder_bias", False), ("skip_head_transform", True), ("use_bias", False), ("final_norm", True),
    ("ffn_layer_frequency", 1), ("embedding.pos_embedding", "scaled-sinusoidal"), ("embedding.normalization", True),
    ("attention.type", "self-attention"), ("attention.causal_attention", False),
    ("attention.skip_output_projection", False), ("attention.qkv_bias", False), ("attention.rotary_embedding", False),
    ("attention.sequence_op", "torch-softmax"),
)
_HEAD_FIXED = (("pooler", "zero_index"), ("include_ff_layer", True), ("nonlin", "Tanh"))


@dataclass(frozen=True, kw_only=True)
class EncoderGeometry:
    """Shape of an encoder; PackError for values that none has.

    ``classes`` is the width of a classification head behind ``head_size`` tanh units on the first token; with 0 there
    is a decoder over the vocabulary instead.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    feedforward: str = "fff"
    trees: int = 1
    tree_depth: int = 11
    intermediate_size: int = 0
    length: int = 128
    classes: int = 0
    head_size: int = 1024

    def __post_init__(self):
        lowest = {"classes": 0, "tree_depth": 0, "intermediate_size": 0 if self.feedforward != "dense" else 1}
        for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "trees", "tree_depth",
                     "intermediate_size", "length", "classes", "head_size"):
            value, low = getattr(self, name), lowest.get(name, 1)
            if type(value) is not int or not low <= value < _LARGE:
                raise PackError(f"{name} is {short(value)}: must be a whole number from {low} to {_LARGE - 1}")
        if self.feedforward not in FEEDFORWARDS:
            raise PackError(f"feedforward is {short(self.feedforward)}: use {', '.join(FEEDFORWARDS)}")
        if self.tree_depth > MOST_DEPTH:
            raise PackError(f"tree_depth is {self.tree_depth}: at most {MOST_DEPTH}")
        if self.hidden_size % (2 * self.num_attention_heads):
            raise PackError(f"hidden_size is {self.hidden_size}: must be a multiple of twice the "
                            f"{self.num_attention_heads} heads")

    @property
    def head_width(self):
        """Channels of an attention head (int)."""
        return self.hidden_size // self.num_attention_heads

    @property
    def levels(self):
        """Neurons that a tree visits (int)."""
        return self.tree_depth + 1

    @property
    def nodes(self):
        """Neurons of a tree (int)."""
        return 2 ** self.levels - 1

    @property
    def neurons(self):
        """Neurons of a layer's feedforward (int)."""
        return {"fff": self.trees * self.nodes, "dense": self.intermediate_size, "narrow": self.trees * self.levels,
                "none": 0}[self.feedforward]

    @property
    def visits(self):
        """Those of them that a token uses (int)."""
        return self.trees * self.levels if self.feedforward == "fff" else self.neurons

    def tensors(self):
        """Yields (tensor name, shape) of a checkpoint, in the published layout."""
        hidden = self.hidden_size
        yield "encoder.embedding.word_embedding.weight", (self.vocab_size, hidden)
        yield "encoder.embedding.pos_embedding.scale_factor", (1,)
        yield from _norm("encoder.embedding.norm", hidden)
        for layer in range(self.num_hidden_layers):
            at = f"encoder.layers.{layer}."
            yield from _norm(f"{at}norm1", hidden)
            yield from _norm(f"{at}norm2", hidden)
            yield f"{at}attn.self_attention.query_key_value.weight", (3 * hidden, hidden)
            yield f"{at}attn.self_attention.norm_factor", ()
            yield f"{at}attn.dense.weight", (hidden, hidden)
            if self.feedforward == "fff":
                yield f"{at}ffn.linear_in.weight", (self.neurons, hidden)
                yield f"{at}ffn.linear_in.bias", (self.neurons,)
                yield f"{at}ffn.linear_out.weight", (hidden, self.neurons)
            elif self.feedforward != "none":
                yield f"{at}ffn.dense_in.weight", (self.neurons, hidden)
                yield f"{at}ffn.dense_out.weight", (hidden, self.neurons)
        yield from _norm("encoder.final_norm", hidden)
        if self.classes:
            yield "pooler.dense.weight", (self.head_size, hidden)
            yield "pooler.dense.bias", (self.head_size,)
            yield "head.weight", (self.classes, self.head_size)
            yield "head.bias", (self.classes,)
        else:
            yield "decoder.weight", (self.vocab_size, hidden)

    def to_json(self):
        """The dictionary written as config.json, in the published form."""
        trees = self.feedforward == "fff"
        arch = {"num_transformer_layers": self.num_hidden_layers, "hidden_size": self.hidden_size,
                "intermed_type": _TYPES[self.feedforward], "intermed_size": self.trees if trees else self.neurons,
                "num_labels": self.classes or None}
        if trees:
            arch["intermed_depth"] = self.tree_depth
        arch["embedding"] = {"vocab_size": self.vocab_size, "embedding_dim": self.hidden_size,
                             "max_seq_length": self.length, "pad_token_id": 0}
        arch["attention"] = {"num_attention_heads": self.num_attention_heads}
        for name, value in _FIXED:
            part, _, key = name.rpartition(".")
            (arch[part] if part else arch)[key] = value
        arch["classification_head"] = {"head_dim": self.head_size} | dict(_HEAD_FIXED)
        return {"model_type": "crammedBERT", "arch": arch}


def _norm(name, hidden):
    yield f"{name}.weight", (hidden,)
    yield f"{name}.bias", (hidden,)


def _part(raw, key, path):
    part = raw.get(key)
    if not isinstance(part, dict):
        raise PackError(f"{path}: {key!r} is missing: this is no crammedBERT configuration")
    return part


def read_geometry(folder):
    """The EncoderGeometry of a folder's config.json; PackError, one line, if it is not of this architecture."""
    path = Path(folder) / "config.json"
    raw = read_json(folder)
    if raw.get("model_type") != "crammedBERT":
        raise PackError(f"{path}: model_type is {short(raw.get('model_type'))}: only 'crammedBERT' is an encoder")
    arch = _part(raw, "arch", path)
    embedding, attention = _part(arch, "embedding", path), _part(arch, "attention", path)
    head = arch.get("classification_head") or {}
    classes = arch.get("num_labels") or 0
    for name, wanted in _FIXED:
        _check_fixed(path, arch, name, wanted)
    if classes:
        for name, wanted in _HEAD_FIXED:
            _check_fixed(path, arch, f"classification_head.{name}", wanted)
    if embedding.get("embedding_dim", arch.get("hidden_size")) != arch.get("hidden_size"):
        raise PackError(f"{path}: embedding.embedding_dim is {short(embedding['embedding_dim'])}: must be "
                        "hidden_size")
    kind = arch.get("intermed_type", "ff")
    if kind not in _TYPES.values():
        raise PackError(f"{path}: intermed_type is {short(kind)}: use fff, ff or none")
    size = arch.get("intermed_size")
    more = {"fff": {"feedforward": "fff", "trees": size, "tree_depth": arch.get("intermed_depth")},
            "ff": {"feedforward": "dense", "intermediate_size": size}, "none": {"feedforward": "none"}}[kind]
    try:
        return EncoderGeometry(
            vocab_size=embedding.get("vocab_size"), hidden_size=arch.get("hidden_size"),
            num_hidden_layers=arch.get("num_transformer_layers"),
            num_attention_heads=attention.get("num_attention_heads"), length=embedding.get("max_seq_length", 128),
            classes=classes, head_size=head.get("head_dim", 1024), **more)
    except PackError as error:
        raise PackError(f"{path}: {error}") from None


def _check_fixed(path, arch, name, wanted):
    """PackError unless the entry called "part.key" is what this encoder computes; one that is left out is."""
    part, _, key = name.rpartition(".")
    value = (arch.get(part) or {}).get(key, wanted) if part else arch.get(key, wanted)
    if value != wanted or isinstance(value, bool) != isinstance(wanted, bool):
        raise PackError(f"{path}: {name} is {short(value)}: only {wanted!r} is supported")


class EncoderTensors(Tensors):
    """The tensors of an encoder's checkpoint folder as float32 arrays, read one at a time."""

    def check(self, geometry):
        """PackError, one line that names it, for the first key that is missing, too many, or of a wrong shape."""
        self._check_exactly(geometry, "this encoder")


def load_encoder(folder):
    """(EncoderGeometry, EncoderTensors) of a folder, with every name and shape checked; PackError otherwise."""
    geometry = read_geometry(folder)
    tensors = EncoderTensors(folder)
    tensors.check(geometry)
    return geometry, tensors
