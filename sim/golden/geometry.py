"""Shapes of models, and the base of what is wrong with a checkpoint."""

from dataclasses import dataclass

from sterna.sim.golden.errors import SternaError
from sterna.sim.golden.strictjson import short


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
