"""Shapes of models, one dataclass for each kind of channel mixer, and the base of what is wrong with a checkpoint."""

import re
from dataclasses import dataclass
from typing import ClassVar

from sterna.sim.golden.errors import SternaError
from sterna.sim.golden.strictjson import short

_LARGEST = (1 << 31) - 1
MOST_TREES = MOST_ALWAYS = (1 << 12) - 1  # as an instruction counts them (docs/isa.md)
MOST_DEPTH = 30
PROJECTIONS = "ifgo"  # the matrices of the token mixer, as checkpoints order them


class PackError(SternaError, ValueError):
    """A checkpoint that cannot be packed; the message is one line that names what is wrong."""


class ModelGeometry:
    """What the shapes of all models have: H, L, V and the eps of the outer norms; PackError for values of no model.

    Attributes
    ----------
    mixer : str
        Kind of the channel mixer, the key of `GEOMETRIES`.
    """

    mixer: ClassVar[str]
    _ranges: ClassVar[dict]  # field: (least, most) of the whole numbers

    def __post_init__(self):
        for name, (least, most) in self._ranges.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
                raise PackError(f"{name} is {short(value)}: must be a whole number from {least} to {most}")
        eps = self.rms_norm_eps
        if not isinstance(eps, (int, float)) or isinstance(eps, bool) or not 0 < eps < 1 << 31:
            raise PackError(f"rms_norm_eps is {short(eps)}: must be a positive number")

    def mixer_tensors(self):
        """Yields (name behind "mlp.", shape) of the tensors of a layer's channel mixer, without ".weight"."""
        raise NotImplementedError

    def mixer_matrices(self):
        """{attribute of a packed layer: (rows, columns)} of the channel mixer's trits."""
        raise NotImplementedError

    def tensors(self):
        """Yields (tensor name, shape) of a checkpoint of this geometry, in the published layout."""
        hidden, vocab = self.hidden_size, self.vocab_size
        yield from (("model.embeddings.weight", (vocab, hidden)),
                    ("model.lower_bounds", (self.num_hidden_layers, hidden)), ("model.norm.weight", (hidden,)),
                    ("lm_head.weight", (vocab, hidden)), ("lm_head.norm.weight", (hidden,)))
        for layer in range(self.num_hidden_layers):
            at = f"model.layers.{layer}."
            yield from ((f"{at}{name}.weight", (hidden,)) for name in ("attn_norm", "mlp_norm", "attn.g_norm"))
            for p in PROJECTIONS:
                yield from ((f"{at}attn.{p}_proj.weight", (hidden, hidden)),
                            (f"{at}attn.{p}_proj.norm.weight", (hidden,)))
            yield from ((f"{at}mlp.{name}.weight", shape) for name, shape in self.mixer_tensors())

    def layer_matrices(self):
        """{attribute of a packed layer: (rows, columns)} of all trits of a layer."""
        return dict.fromkeys("figo", (self.hidden_size, self.hidden_size)) | self.mixer_matrices()

    @property
    def matrices(self):
        """Matrices with trits (int): those of the layers, and the head."""
        return len(self.layer_matrices()) * self.num_hidden_layers + 1

    def _weights(self, mixer):
        return self.num_hidden_layers * (4 * self.hidden_size ** 2 + mixer) + self.vocab_size * self.hidden_size

    @property
    def ternary_weights(self):
        """Number of the weights that are trits (int)."""
        return self._weights(sum(rows * columns for rows, columns in self.mixer_matrices().values()))

    @property
    def read_weights(self):
        """Number of the trits that one token reads (int): of trees, only the neurons that it visits."""
        return self.ternary_weights

    def shapes(self):
        """Tensor name -> shape, as a dict."""
        return dict(self.tensors())


@dataclass(frozen=True)
class Geometry(ModelGeometry):
    """Shape of a model with a gated linear unit in every layer: H, I, L, V and the eps of its outer norms."""

    mixer = "glu"
    _ranges = dict.fromkeys(
        ("hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size"), (1, _LARGEST))

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    vocab_size: int
    rms_norm_eps: float = 1e-6

    def mixer_tensors(self):
        hidden, inner = self.hidden_size, self.intermediate_size
        for name, shape in (("gate_proj", (2 * inner, hidden)), ("down_proj", (hidden, inner))):
            yield from ((name, shape), (name + ".norm", shape[1:]))

    def mixer_matrices(self):
        hidden, inner = self.hidden_size, self.intermediate_size
        return {"gate": (2 * inner, hidden), "down": (hidden, inner)}


@dataclass(frozen=True)
class TreeGeometry(ModelGeometry):
    """Shape of a model with trees of neurons, of which a token visits one path each, in place of gated linear units.

    K ``trees`` of depth D and A neurons that every token visits: ``tree_always`` (docs/numerics.md, section 7).
    """

    mixer = "tree"
    _ranges = {"hidden_size": (1, _LARGEST), "trees": (1, MOST_TREES), "tree_depth": (0, MOST_DEPTH),
               "tree_always": (0, MOST_ALWAYS), "num_hidden_layers": (1, _LARGEST), "vocab_size": (1, _LARGEST)}

    hidden_size: int
    trees: int
    tree_depth: int
    tree_always: int
    num_hidden_layers: int
    vocab_size: int
    rms_norm_eps: float = 1e-6

    def __post_init__(self):
        super().__post_init__()
        if self.neurons > _LARGEST:
            raise PackError(f"{self.trees} trees of tree_depth {self.tree_depth} have {self.neurons} neurons: "
                            f"must be at most {_LARGEST}: use fewer trees, or a smaller tree_depth")

    @property
    def levels(self):
        """Neurons on a path through a tree, D + 1 (int)."""
        return self.tree_depth + 1

    @property
    def nodes(self):
        """Neurons of a tree, 2^(D+1) - 1 (int)."""
        return (2 << self.tree_depth) - 1

    @property
    def neurons(self):
        """Neurons of a layer, E: rows of its tables (int)."""
        return self.tree_always + self.trees * self.nodes

    @property
    def visits(self):
        """Neurons that a token visits in a layer, N (int)."""
        return self.tree_always + self.trees * self.levels

    @property
    def read_weights(self):
        return self._weights(2 * self.visits * self.hidden_size)

    def mixer_tensors(self):
        table = self.neurons, self.hidden_size
        yield from (("tree_in", table), ("tree_in.norm", table[1:]), ("tree_out", table))

    def mixer_matrices(self):
        table = self.neurons, self.hidden_size
        return {"tree_in": table, "tree_out": table}


def with_trees(geometry, text):
    """The TreeGeometry that has trees in place of a Geometry's gated linear units.

    Parameters
    ----------
    geometry : Geometry
    text : str
        "KxD" or "KxD+A": K trees of depth D, and A neurons that are always on.

    Raises
    ------
    PackError
        The text is no such thing, or no model has such trees.
    """
    found = re.fullmatch(r"([0-9]{1,9})x([0-9]{1,9})(?:\+([0-9]{1,9}))?", text)
    if not found:
        raise PackError(f"trees {short(text)}: must be TREESxDEPTH or TREESxDEPTH+ALWAYS as in 1x11 or 32x4+64")
    trees, depth, always = (int(number or 0) for number in found.groups())
    return TreeGeometry(geometry.hidden_size, trees, depth, always, geometry.num_hidden_layers, geometry.vocab_size,
                        geometry.rms_norm_eps)


GEOMETRIES = {kind.mixer: kind for kind in (Geometry, TreeGeometry)}
