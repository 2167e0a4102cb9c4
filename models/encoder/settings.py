"""The configurations of an encoder's training: TOML files with a ``task``; docs/encoder.md lists the entries."""

from dataclasses import MISSING, dataclass, fields
from pathlib import Path

from sterna.models.settings import MOST_PARAMETERS, TrainError, made, table
from sterna.sim.golden.encoder_checkpoint import FEEDFORWARDS, EncoderGeometry
from sterna.sim.golden.geometry import PackError
from sterna.sim.golden.strictjson import short

_LARGE = 10**9
_LIMITS = {"rows": (1, 1 << 16), "seed": (0, 2**32 - 1), "weight_decay": (0, 1000), "dropout": (0, 0.9),
           "steps": (0, _LARGE), "minutes": (0, _LARGE), "holdout_rows": (1, _LARGE), "evaluate_every": (1, _LARGE),
           "epochs": (1, 10**6), "skip_words": (0, 100), "most_rows": (0, _LARGE), "vocab_size": (64, 1 << 20),
           "length": (4, 4096), "clip": (0, 1000)}


def _check(config):
    """TrainError for a value out of its range."""
    for name, (low, high) in _LIMITS.items():
        value = getattr(config, name, low)
        if not low <= value <= high:  # NaN is not
            raise TrainError(f"{name} {short(value)}: use {low} to {high}")
    if not 0 < config.learning_rate <= 1000:
        raise TrainError(f"learning_rate {config.learning_rate:g}: use above 0, to 1000")


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Masked pre-training; TrainError for a value that cannot be trained with."""

    task: str
    text: str
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    vocab_size: int
    feedforward: str = "fff"
    trees: int = 1
    tree_depth: int = 11
    intermediate_size: int = 0
    length: int = 128
    tokenizer: str = ""
    rows: int = 32
    steps: int = 0
    minutes: float = 0.0
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    clip: float = 0.5
    dropout: float = 0.0
    seed: int = 0
    holdout_rows: int = 200
    evaluate_every: int = 500

    def __post_init__(self):
        _check(self)
        if self.feedforward not in FEEDFORWARDS:
            raise TrainError(f"feedforward {short(self.feedforward)}: use {', '.join(FEEDFORWARDS)}")
        if not (self.steps or self.minutes):
            raise TrainError(f"steps {self.steps}, minutes {self.minutes:g}: give one of them, above 0")
        try:
            geometry = self.geometry()
        except PackError as error:
            raise TrainError(str(error)) from None
        hidden = self.hidden_size
        count = hidden * (self.vocab_size + self.num_hidden_layers * (4 * hidden + 2 * geometry.neurons))
        if count > MOST_PARAMETERS:
            raise TrainError(f"the encoder would have {count:,} parameters: at most {MOST_PARAMETERS:,} are "
                             "trained here")

    def geometry(self):
        """The EncoderGeometry; PackError for one that cannot be."""
        names = {field.name for field in fields(EncoderGeometry)} & {field.name for field in fields(self)}
        return EncoderGeometry(**{name: getattr(self, name) for name in names})


@dataclass(frozen=True, kw_only=True)
class ClassifyConfig:
    """Fine-tuning on a folder in one of GLUE's formats; TrainError for a value that cannot be trained with."""

    task: str
    model: str
    data: str
    train: str = ""
    dev: str = ""
    skip_words: int = 0
    most_rows: int = 0
    epochs: int = 5
    rows: int = 16
    learning_rate: float = 4e-5
    weight_decay: float = 0.01
    clip: float = 0.0
    dropout: float = 0.1
    head_size: int = 1024
    length: int = 128
    seed: int = 0

    def __post_init__(self):
        _check(self)
        if not 1 <= self.head_size <= 1 << 16:
            raise TrainError(f"head_size {self.head_size}: use 1 to {1 << 16}")


TASKS = {"mlm": PretrainConfig, "classify": ClassifyConfig}


def has_task(path):
    """Whether a file is a configuration with a task: an encoder's (bool); False for one that cannot be read, too."""
    try:
        return "task" in table(path)
    except TrainError:
        return False


def load_config(path):
    """The PretrainConfig or ClassifyConfig of a TOML file; TrainError, one line, for what is neither."""
    values = table(path)
    task = values.get("task")
    if not isinstance(task, str) or task not in TASKS:
        raise TrainError(f"{path}: task {short(task)}: use {' or '.join(TASKS)}")
    kind = TASKS[task]
    needed = {field.name for field in fields(kind) if field.default is MISSING}
    return made(kind, path, values, needed, "docs/encoder.md")


def place_of(path, name):
    """The file or folder that an entry of the configuration ``path`` names: beside it or from the working folder.

    Raises
    ------
    TrainError
        It is in neither.
    """
    for place in (Path(path).resolve().parent / name, Path(name)):
        try:
            if place.exists():
                return place
        except ValueError:  # a name that no file can have
            break
    raise TrainError(f"{path}: there is no {short(name)}, neither beside it nor in the working folder")
