"""Training of a MatMul-free language model from a TOML configuration."""

import json
import math
import time
import tomllib
import typing
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tokenizers
import torch
from torch.nn.functional import cross_entropy

from sterna.models import data, layers
from sterna.models.checkpoint import save_checkpoint
from sterna.models.model import LanguageModel, ModelConfig
from sterna.sim.golden.errors import SternaError
from sterna.sim.golden.strictjson import read_bytes, short

RESUMED = ("step", "tokens", "elapsed", "best", "epoch", "row")
OPTIONAL = {"dropout", "steps", "minutes"}
CONFIG_BYTES = 1 << 20  # the largest configuration that is read
MOST_PARAMETERS = 10**9
_LARGE = 10**9
LIMITS = {**{name: (1, _LARGE) for name in ("holdout_stories", "vocab_size", "hidden_size", "intermediate_size",
                                            "num_hidden_layers", "evaluate_every")},
          "row_tokens": (1, 1 << 20), "rows": (1, 1 << 20), "learning_rate": (0, 1000), "weight_decay": (0, 1000),
          "dropout": (0, 0.9), "seed": (0, 2**32 - 1), "steps": (0, _LARGE), "minutes": (0, _LARGE)}


class TrainError(SternaError, ValueError):
    """A training run that cannot start; the message names the value and the way out."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run; see models/configs for what each entry does.

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
            raise TrainError(f"{path}: unknown entry {short(unknown[0])}")
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


def learning_rate(progress, warmup=0.02, decay_from=0.4, floor=0.02):
    """Factor of the peak rate at progress 0..1: linear rise, plateau, linear fall to ``floor``."""
    if progress < warmup:
        return progress / warmup + 1e-3
    if progress < decay_from:
        return 1.0
    return max(floor, 1 - (1 - floor) * (progress - decay_from) / (1 - decay_from))


def pick_device(name="auto"):
    """The torch.device called ``name``: "cpu", "cuda", "cuda:1", or "auto" for the GPU if there is one.

    Raises
    ------
    TrainError
        No such device, or none that PyTorch can use here.
    """
    usable = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if usable else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise TrainError(f"device {short(name)}: use auto, cpu or cuda") from None
    if device.type not in ("cpu", "cuda"):
        raise TrainError(f"device {short(name)}: use auto, cpu or cuda")
    if device.type == "cuda" and not (usable and (device.index or 0) < torch.cuda.device_count()):
        raise TrainError(f"device {name}: PyTorch {torch.__version__} finds no such GPU here: use cpu")
    return device


class Trainer:
    """Holds everything that a resumed run needs; ``run`` yields one progress record per step.

    Parameters
    ----------
    config : TrainConfig
    text : Path
        The training stories.
    folder : Path
        Receives ``best/`` (a checkpoint folder), ``state.pt`` (to resume) and ``log.jsonl``.
    device : str
        As for ``pick_device``; a run may be resumed on another one.
    """

    def __init__(self, config, text, folder, device="cpu"):
        self.config, self.folder, self.device = config, Path(folder), pick_device(device)
        self.folder.mkdir(parents=True, exist_ok=True)
        stories = data.read_stories(text)
        if len(stories) <= config.holdout_stories:
            count = "1 story" if len(stories) == 1 else f"{len(stories)} stories"
            raise TrainError(f"{text} holds {count} and holdout_stories is {config.holdout_stories}: "
                             "at least one story must be left to train on; a line with "
                             f"{data.END_OF_TEXT} separates stories")
        train, hold = stories[:-config.holdout_stories], stories[-config.holdout_stories:]
        torch.manual_seed(config.seed)
        # A resumed run goes on with its own tokenizer, whatever today's package would make of the text.
        kept = self.folder / "best" / "tokenizer.json"
        resumed = (self.folder / "state.pt").exists()
        self.tokenizer = (self._kept_tokenizer(kept) if resumed and kept.exists() else
                          data.train_tokenizer(train, config.vocab_size))
        if self.tokenizer.get_vocab_size() != config.vocab_size:
            raise TrainError(f"the text gives {self.tokenizer.get_vocab_size()} tokens, vocab_size is "
                             f"{config.vocab_size}: lower vocab_size or give more text")
        self.train_ids = data.encode(self.tokenizer, train)
        hold_ids = data.encode(self.tokenizer, hold)
        self.hold_rows = data.pack_rows(hold_ids, config.row_tokens, np.random.default_rng(0))
        # A story longer than a row is cut there, and only the bytes before the cut are scored.
        self.hold_bytes = sum(len(self.tokenizer.decode(ids[:config.row_tokens + 1].tolist()).encode())
                              for ids in hold_ids)
        self.model = LanguageModel(ModelConfig(
            vocab_size=config.vocab_size, hidden_size=config.hidden_size,
            num_hidden_layers=config.num_hidden_layers, intermediate_size=config.intermediate_size),
            config.dropout)
        self.model.set_products(config.products)
        self.model.to(self.device)  # the first weights come from the CPU's generator, so they are the same everywhere
        self.optimiser = torch.optim.AdamW(self._groups(), lr=config.learning_rate, betas=(0.9, 0.98),
                                           fused=self.device.type == "cuda")
        self.loss = cross_entropy
        self.step, self.tokens, self.elapsed, self.best, self.epoch, self.row = 0, 0, 0.0, math.inf, 0, 0
        if resumed:
            self._resume()

    def _groups(self):
        """Parameters with and without weight decay: norms and lower bounds are not pulled towards zero."""
        named = list(self.model.named_parameters())
        decayed = [name for name, p in named if p.ndim == 2 and not name.endswith("lower_bounds")]
        return [{"params": [p for name, p in named if (name in decayed) == chosen], "weight_decay": decay}
                for chosen, decay in ((True, self.config.weight_decay), (False, 0.0))]

    @staticmethod
    def _kept_tokenizer(path):
        try:
            return tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the tokenizers package raises bare Exception
            raise TrainError(f"cannot resume with {path}: {error}") from None

    def compile(self):
        """Fuse element-wise work with torch.compile; worth its minute on runs longer than that."""
        layers.compile_elementwise()
        self.loss = torch.compile(cross_entropy)

    @property
    def progress(self):
        """Fraction of the run that is done, 0..1."""
        c = self.config
        return max(self.step / c.steps if c.steps else 0.0, self.elapsed / (60 * c.minutes) if c.minutes else 0.0)

    def _batches(self):
        while True:
            rows = data.pack_rows(self.train_ids, self.config.row_tokens,
                                  np.random.default_rng([self.config.seed, self.epoch]))
            count = len(rows[0]) // self.config.rows * self.config.rows
            if not count:
                raise TrainError(f"the text fills {len(rows[0])} rows of {self.config.row_tokens} tokens, a step "
                                 f"takes {self.config.rows}: lower rows or give more text")
            while self.row < count:
                batch = [torch.from_numpy(r[self.row:self.row + self.config.rows]) for r in rows]
                self.row += self.config.rows
                yield batch
            self.epoch, self.row = self.epoch + 1, 0

    def run(self):
        """Train to the end; yields {step, loss, lr, tokens, seconds, progress[, bits_per_byte]} after every step.

        Between two records everything is consistent: a caller may call ``save_state`` and stop there.
        """
        if self.progress >= 1:
            return
        with (self.folder / "log.jsonl").open("a") as log:
            yield from self._steps(log)

    def _steps(self, log):
        for taken, batch in enumerate(self._batches()):
            started = time.monotonic()
            counted = int((batch[1] >= 0).sum())
            inputs, targets, keep = (part.to(self.device) for part in batch)
            if self.config.dropout:  # a function of seed and step, so that a resumed run drops the same
                torch.manual_seed((self.config.seed << 32) + self.step)
            rate = self.config.learning_rate * learning_rate(self.progress)
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            loss = self.loss(self.model(inputs, keep), targets.reshape(-1).long(), ignore_index=-1)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimiser.step()
            self.step += 1
            self.tokens += counted
            loss = loss.item()  # waits for the device
            # The first steps of a process compile; they do not count as training time.
            self.elapsed += time.monotonic() - started if taken >= 2 else 0.0
            record = {"step": self.step, "loss": round(loss, 4), "lr": rate, "tokens": self.tokens,
                      "seconds": round(self.elapsed, 1)}
            done = self.progress >= 1
            if done or self.step % self.config.evaluate_every == 0:
                record["bits_per_byte"] = self.evaluate()
                self._keep(record["bits_per_byte"])
            log.write(json.dumps(record) + "\n")
            log.flush()
            yield record | {"progress": self.progress}
            if done:
                return

    @torch.no_grad()
    def evaluate(self):
        """Bits per byte on the held-out stories."""
        total, rows = 0.0, self.config.rows
        self.model.eval()
        inputs, targets, keep = self.hold_rows
        for at in range(0, len(inputs), rows):
            short = rows - len(inputs[at:at + rows])
            batch = [torch.from_numpy(np.pad(part[at:at + rows], ((0, short), (0, 0)), constant_values=fill))
                     .to(self.device) for part, fill in ((inputs, 0), (targets, -1), (keep, False))]
            total += cross_entropy(self.model(batch[0], batch[2]), batch[1].reshape(-1).long(), ignore_index=-1,
                                   reduction="sum").item()
        self.model.train()
        return total / math.log(2) / self.hold_bytes

    def _keep(self, bits):
        if bits < self.best:
            self.best = bits
            save_checkpoint(self.folder / "best", self.model, self.tokenizer)
        self.save_state()

    def save_state(self):
        """Write ``state.pt``, from which a Trainer over the same folder goes on exactly here."""
        state = {"model": self.model.state_dict(), "optimiser": self.optimiser.state_dict(),
                 "config": asdict(self.config)} | {
            k: getattr(self, k) for k in RESUMED}
        part = self.folder / "state.part"
        try:
            torch.save(state, part)
            part.replace(self.folder / "state.pt")
        except (OSError, RuntimeError) as error:  # torch's own writer raises RuntimeError when the disk is full
            part.unlink(missing_ok=True)
            raise TrainError(f"cannot write {self.folder / 'state.pt'}: {str(error).splitlines()[0]}") from None

    def _resume(self):
        try:
            state = torch.load(self.folder / "state.pt", map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises several kinds for a damaged file
            reason = str(error).splitlines()[0]
            raise TrainError(f"cannot resume from {self.folder / 'state.pt'}: {reason}") from None
        if not isinstance(state, dict) or set(state) != {"model", "optimiser", "config", *RESUMED} or \
                not isinstance(state["config"], dict):
            raise TrainError(f"cannot resume from {self.folder / 'state.pt'}: it is no state of a training run")
        saved = state.pop("config")
        # How long a run lasts may change on resuming; what it computes may not.
        for name in saved.keys() - {"text", "steps", "minutes", "evaluate_every"}:
            if saved[name] != getattr(self.config, name, None):
                raise TrainError(f"{self.folder} was trained with {name} {short(saved[name])}, not "
                                 f"{getattr(self.config, name, None)}: use another --out")
        try:
            self.model.load_state_dict(state.pop("model"))
            self.optimiser.load_state_dict(state.pop("optimiser"))
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise TrainError(f"cannot resume from {self.folder / 'state.pt'}: "
                             f"{(str(error).splitlines() or [type(error).__name__])[0]}") from None
        for key, value in state.items():
            if type(value) not in (int, float):
                raise TrainError(f"cannot resume from {self.folder / 'state.pt'}: {key} is {short(value)}")
            setattr(self, key, value)
        self._cut_log()

    def _cut_log(self):
        """Drop the records of steps that the saved state has not seen; they will be made again."""
        path = self.folder / "log.jsonl"
        if not path.exists():
            return
        kept = [record for record in read_log(self.folder) if record["step"] <= self.step]
        part = path.with_suffix(".part")
        part.write_text("".join(json.dumps(record) + "\n" for record in kept))
        part.replace(path)


def read_log(folder):
    """The records (list of dict) of a run's log.jsonl; a last line that was cut off is left out.

    Raises
    ------
    TrainError
        A line is no record.
    """
    path = Path(folder) / "log.jsonl"
    records = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True), 1):
        if not line.endswith("\n"):
            break
        try:
            record = json.loads(line)  # not the strict reader: the loss of a run that diverged is NaN
        except (ValueError, RecursionError) as error:
            raise TrainError(f"{path}, line {number}: not valid JSON: {error}") from None
        if not isinstance(record, dict) or type(record.get("step")) is not int:
            raise TrainError(f"{path}, line {number}: no record of a step")
        records.append(record)
    return records
