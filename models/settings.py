"""The configuration of a training run, a TOML file; docs/training.md says what each entry does."""

import difflib
import tomllib
import typing
from dataclasses import dataclass, fields
from pathlib import Path

from sterna.sim.golden.errors import SternaError
from sterna.sim.golden.geometry import MOST_ALWAYS, MOST_TREES
from sterna.sim.golden.strictjson import read_bytes, short

# Entries that only some channel mixers have, and may have.
OWN = {"glu": {"intermediate_size"},
       "tree": {"trees", "tree_depth", "tree_always", "tree_gradient", "tree_routing", "balance"},
       "none": set(), "experts": {"experts", "experts_used", "expert_size", "balance"}}
NEEDED = {"glu": {"intermediate_size"}, "tree": {"trees", "tree_depth"}, "none": set(),
          "experts": {"experts", "experts_used", "expert_size"}}
GRADIENTS = ("none", "child", "path")  # models/tree.py says what they are
ROUTINGS = ("own", "frozen", "coin")
CHOICES = {"products": ("int8", "bf16", "fp32"), "channel_mixer": tuple(OWN),
           "tree_gradient": GRADIENTS, "tree_routing": ROUTINGS}
OPTIONAL = {"dropout", "steps", "minutes", "channel_mixer"} | set().union(*OWN.values())
CONFIG_BYTES = 1 << 20  # the largest configuration that is read
MOST_PARAMETERS = 10**9
_LARGE = 10**9
LIMITS = {**{name: (1, _LARGE) for name in ("holdout_stories", "vocab_size", "hidden_size", "num_hidden_layers",
                                            "evaluate_every")},
          **{name: (0, _LARGE) for name in ("intermediate_size", "experts", "experts_used", "expert_size")},
          "trees": (0, MOST_TREES), "tree_depth": (0, 20), "tree_always": (0, MOST_ALWAYS), "balance": (0, 1000),
          "row_tokens": (1, 1 << 20), "rows": (1, 1 << 20), "learning_rate": (0, 1000), "weight_decay": (0, 1000),
          "dropout": (0, 0.9), "seed": (0, 2**32 - 1), "steps": (0, _LARGE), "minutes": (0, _LARGE)}


class TrainError(SternaError, ValueError):
    """A training run that cannot start or go on; the message names the value and the way out."""


def table(path):
    """The entries (dict) of a TOML file; TrainError if it cannot be read."""
    try:
        return tomllib.loads(read_bytes(path, CONFIG_BYTES).decode())
    except OSError as error:
        raise TrainError(f"cannot read the configuration {path}: {error.strerror}") from None
    except RecursionError:
        raise TrainError(f"cannot read the configuration {path}: nested too deeply") from None
    except ValueError as error:  # too long, no UTF-8, no TOML, or an integer of thousands of digits
        raise TrainError(f"cannot read the configuration {path}: {error}") from None


def made(kind, path, values, needed, page):
    """A dataclass ``kind`` out of the entries of the configuration ``path``.

    TrainError, which names the file: an entry that ``kind`` has not (``page`` tells of those that it has), one of
    ``needed`` that is missing, one of the wrong type, or a value that ``kind`` refuses.
    """
    types = typing.get_type_hints(kind)
    if unknown := sorted(set(values) - set(types)):
        near = difflib.get_close_matches(unknown[0], types, 1)
        hint = f", perhaps {near[0]!r}" if near else ""
        raise TrainError(f"{path}: unknown entry {short(unknown[0])}{hint}; the entries are {', '.join(types)} "
                         f"({page})")
    if missing := sorted(needed - set(values)):
        raise TrainError(f"{path}: the entry {missing[0]!r} is missing")
    for name, value in values.items():
        # A whole number may stand for a float, never the other way round.
        if type(value) is not types[name] and not (types[name] is float and type(value) is int):
            raise TrainError(f"{path}: {name} = {short(value)} must be of type {types[name].__name__}")
    try:
        return kind(**values)
    except TrainError as error:
        raise TrainError(f"{path}: {error}") from None


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
    channel_mixer: str = "glu"
    intermediate_size: int = 0
    trees: int = 0
    tree_depth: int = 0
    tree_always: int = 0
    tree_gradient: str = "child"
    tree_routing: str = "own"
    experts: int = 0
    experts_used: int = 0
    expert_size: int = 0
    num_hidden_layers: int
    row_tokens: int
    rows: int
    learning_rate: float
    weight_decay: float
    products: str
    seed: int
    evaluate_every: int
    balance: float = 0.0
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
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise TrainError(f"{name} {short(getattr(self, name))}: use {', '.join(choices[:-1])} or "
                                 f"{choices[-1]}")
        self._check_mixer()
        if self.vocab_size < 257:
            raise TrainError(f"vocab_size {self.vocab_size}: at least 257, the 256 bytes and the end mark")
        if self.parameters > MOST_PARAMETERS:
            raise TrainError(f"the model would have {self.parameters:,} parameters: at most {MOST_PARAMETERS:,} are "
                             "trained here")
        if self.products == "int8" and (self.hidden_size % 8 or self.intermediate_size % 8 or self.vocab_size % 8):
            raise TrainError("int8 products need hidden_size, intermediate_size and vocab_size in multiples of 8: "
                             "change them or use fp32")
        if self.products == "int8" and (self.neurons % 8 or self.experts % 8):
            what = f"experts {self.experts}" if self.experts % 8 else f"{self.neurons} neurons of a layer"
            raise TrainError(f"int8 products need multiples of 8, and {what} is none: change tree_always, trees or "
                             "experts, or use fp32")

    def _check_mixer(self):
        """TrainError for entries that do not go with the channel mixer, or with each other."""
        mixer = self.channel_mixer
        for name in sorted(set().union(*OWN.values()) - OWN[mixer]):
            if getattr(self, name) != getattr(type(self), name):
                raise TrainError(f"{name} {short(getattr(self, name))}: channel_mixer {mixer} has none: leave it "
                                 f"out, or choose another channel_mixer")
        for name in sorted(NEEDED[mixer] - {"tree_depth"}):
            if not getattr(self, name):
                raise TrainError(f"{name} 0: channel_mixer {mixer} needs it, use 1 or more")
        if self.experts_used > self.experts:
            raise TrainError(f"experts_used {self.experts_used}: use at most experts, {self.experts}")

    @property
    def neurons(self):
        """Rows of either table of a layer of trees or experts (int), 0 for other channel mixers."""
        if self.channel_mixer == "experts":
            return self.experts * self.expert_size
        return self.tree_always + self.trees * (2 ** (self.tree_depth + 1) - 1) if self.trees else 0

    @property
    def parameters(self):
        """Weights of the matrices (int)."""
        hidden = self.hidden_size
        rows = 4 * hidden + 3 * self.intermediate_size + 2 * self.neurons + self.experts
        return self.num_hidden_layers * hidden * rows + 2 * self.vocab_size * hidden

    @classmethod
    def load(cls, path):
        """Read a TOML file.

        Raises
        ------
        TrainError
            The file is not there or not TOML, or an entry is missing, unknown or of the wrong type.
        """
        values = table(path)
        mixer = values.get("channel_mixer", "glu")
        needed = NEEDED[mixer] if isinstance(mixer, str) and mixer in NEEDED else set()
        names = {field.name for field in fields(cls)}
        return made(cls, path, values, (names - OPTIONAL) | needed, "docs/training.md")

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
