"""The configuration of a training run, a TOML file; docs/training.md says what each entry does."""

import difflib
import tomllib
import typing
from dataclasses import dataclass
from pathlib import Path

from sterna.sim.golden.errors import SternaError
from sterna.sim.golden.strictjson import read_bytes, short

OPTIONAL = {"dropout", "steps", "minutes"}
CONFIG_BYTES = 1 << 20  # the largest configuration that is read
MOST_PARAMETERS = 10**9
_LARGE = 10**9
LIMITS = {**{name: (1, _LARGE) for name in ("holdout_stories", "vocab_size", "hidden_size", "intermediate_size",
                                            "num_hidden_layers", "evaluate_every")},
          "row_tokens": (1, 1 << 20), "rows": (1, 1 << 20), "learning_rate": (0, 1000), "weight_decay": (0, 1000),
          "dropout": (0, 0.9), "seed": (0, 2**32 - 1), "steps": (0, _LARGE), "minutes": (0, _LARGE)}


class TrainError(SternaError, ValueError):
    """A training run that cannot start or go on; the message names the value and the way out."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run; docs/training.md says what each entry does.

    Raises
    ------
    TrainError
        A value that cannot be trained with.
    """

    text: str
    holdout_stories: int
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    row_tokens: int
    rows: int
    learning_rate: float
    weight_decay: float
    products: str
    seed: int
    evaluate_every: int
    dropout: float = 0.0
    steps: int = 0
    minutes: float = 0.0

    def __post_init__(self):
        for name, (low, high) in LIMITS.items():
            value = getattr(self, name)
            if not low <= value <= high:  # NaN is not
                raise TrainError(f"{name} {short(value)}: use {low} to {high}")
        if not self.learning_rate > 0:
            raise TrainError(f"learning_rate {self.learning_rate:g}: must be above 0")
        if not (self.steps > 0 or self.minutes > 0):
            raise TrainError(f"steps {self.steps}, minutes {self.minutes}: give one of them, above 0")
        if self.products not in ("int8", "bf16", "fp32"):
            raise TrainError(f"products {short(self.products)}: use int8, bf16 or fp32")
        if self.vocab_size < 257:
            raise TrainError(f"vocab_size {self.vocab_size}: at least 257, the 256 bytes and the end mark")
        if self.parameters > MOST_PARAMETERS:
            raise TrainError(f"the model would have {self.parameters:,} parameters: at most {MOST_PARAMETERS:,} are "
                             "trained here")
        if self.products == "int8" and (self.hidden_size % 8 or self.intermediate_size % 8 or self.vocab_size % 8):
            raise TrainError("int8 products need hidden_size, intermediate_size and vocab_size in multiples of 8: "
                             "change them or use fp32")

    @property
    def parameters(self):
        """Weights of the matrices (int)."""
        hidden = self.hidden_size
        return self.num_hidden_layers * hidden * (4 * hidden + 3 * self.intermediate_size) \
            + 2 * self.vocab_size * hidden

    @classmethod
    def load(cls, path):
        """Read a TOML file.

        Raises
        ------
        TrainError
            The file is not there or not TOML, or an entry is missing, unknown or of the wrong type.
        """
        try:
            values = tomllib.loads(read_bytes(path, CONFIG_BYTES).decode())
        except OSError as error:
            raise TrainError(f"cannot read the configuration {path}: {error.strerror}") from None
        except RecursionError:
            raise TrainError(f"cannot read the configuration {path}: nested too deeply") from None
        except ValueError as error:  # too long, no UTF-8, no TOML, or an integer of thousands of digits
            raise TrainError(f"cannot read the configuration {path}: {error}") from None
        types = typing.get_type_hints(cls)
        if unknown := sorted(set(values) - set(types)):
            near = difflib.get_close_matches(unknown[0], types, 1)
            hint = f", perhaps {near[0]!r}" if near else ""
            raise TrainError(f"{path}: unknown entry {short(unknown[0])}{hint}; the entries are {', '.join(types)} "
                             "(docs/training.md)")
        if missing := sorted(set(types) - set(values) - OPTIONAL):
            raise TrainError(f"{path}: the entry {missing[0]!r} is missing")
        for name, value in values.items():
            # A whole number may stand for a float, never the other way round.
            if type(value) is not types[name] and not (types[name] is float and type(value) is int):
                raise TrainError(f"{path}: {name} = {short(value)} must be of type {types[name].__name__}")
        try:
            return cls(**values)
        except TrainError as error:
            raise TrainError(f"{path}: {error}") from None

    def text_path(self, path):
        """The text of a configuration file ``path``: beside it, in the folder above it, or in sterna's models folder.

        Raises
        ------
        TrainError
            It is in none of them.
        """
        places = [Path(path).resolve().parent, Path(path).resolve().parent.parent, Path(__file__).resolve().parent]
        for place in places:
            if (place / self.text).is_file():
                return place / self.text
        raise TrainError(f"{path}: no text {short(self.text)} in {', '.join(str(p) for p in dict.fromkeys(places))}")
