"""Training of a MatMul-free language model from a TOML configuration."""

import json
import math
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from sterna.models import data, layers
from sterna.models.checkpoint import save_checkpoint
from sterna.models.model import LanguageModel, ModelConfig


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run; see models/configs for what each entry does."""

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
    steps: int = 0
    minutes: float = 0.0

    @classmethod
    def load(cls, path):
        """Read a TOML file; ``text`` is relative to the repository's models folder."""
        values = tomllib.loads(Path(path).read_text())
        config = cls(**values)
        if not (config.steps or config.minutes):
            raise ValueError(f"{path}: give steps or minutes")
        return config


def learning_rate(progress, warmup=0.02, decay_from=0.4, floor=0.02):
    """Factor of the peak rate at progress 0..1: linear rise, plateau, linear fall to ``floor``."""
    if progress < warmup:
        return progress / warmup + 1e-3
    if progress < decay_from:
        return 1.0
    return max(floor, 1 - (1 - floor) * (progress - decay_from) / (1 - decay_from))


class Trainer:
    """Holds everything that a resumed run needs; ``run`` yields one progress record per step.

    Parameters
    ----------
    config : TrainConfig
    text : Path
        The training stories.
    folder : Path
        Receives ``best/`` (a checkpoint folder), ``state.pt`` (to resume) and ``log.jsonl``.
    """

    def __init__(self, config, text, folder):
        self.config, self.folder = config, Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        stories = data.read_stories(text)
        train, hold = stories[:-config.holdout_stories], stories[-config.holdout_stories:]
        torch.manual_seed(config.seed)
        self.tokenizer = data.train_tokenizer(train, config.vocab_size)
        self.train_ids = data.encode(self.tokenizer, train)
        self.hold_rows = data.pack_rows(data.encode(self.tokenizer, hold), config.row_tokens, np.random.default_rng(0))
        self.hold_bytes = sum(len(s.encode()) for s in hold)
        self.model = LanguageModel(ModelConfig(
            vocab_size=config.vocab_size, hidden_size=config.hidden_size,
            num_hidden_layers=config.num_hidden_layers, intermediate_size=config.intermediate_size))
        self.model.set_products(config.products)
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=config.learning_rate, betas=(0.9, 0.98),
                                           weight_decay=config.weight_decay)
        self.loss = cross_entropy
        self.step, self.tokens, self.elapsed, self.best, self.epoch, self.row = 0, 0, 0.0, math.inf, 0, 0
        if (self.folder / "state.pt").exists():
            self._resume()

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
            while self.row < count:
                batch = [torch.from_numpy(r[self.row:self.row + self.config.rows]) for r in rows]
                self.row += self.config.rows
                yield batch
            self.epoch, self.row = self.epoch + 1, 0

    def run(self):
        """Train to the end; yields {step, loss, lr, tokens, progress[, bits_per_byte]} after every step."""
        log = (self.folder / "log.jsonl").open("a")
        for inputs, targets, keep in self._batches():
            started = time.monotonic()
            rate = self.config.learning_rate * learning_rate(self.progress)
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            loss = self.loss(self.model(inputs, keep), targets.reshape(-1).long(), ignore_index=-1)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimiser.step()
            self.step += 1
            self.tokens += int((targets >= 0).sum())
            # The first steps compile; they do not count as training time.
            self.elapsed += time.monotonic() - started if self.step > 2 else 0.0
            record = {"step": self.step, "loss": round(loss.item(), 4), "lr": rate, "tokens": self.tokens,
                      "seconds": round(self.elapsed, 1)}
            done = self.progress >= 1
            if done or self.step % self.config.evaluate_every == 0:
                record["bits_per_byte"] = self.evaluate()
                self._save(record["bits_per_byte"])
            log.write(json.dumps(record) + "\n")
            log.flush()
            yield record | {"progress": self.progress}
            if done:
                return

    @torch.no_grad()
    def evaluate(self):
        """Bits per byte on the held-out stories."""
        total, rows = 0.0, self.config.rows
        inputs, targets, keep = self.hold_rows
        for at in range(0, len(inputs), rows):
            short = rows - len(inputs[at:at + rows])
            batch = [torch.from_numpy(np.pad(part[at:at + rows], ((0, short), (0, 0)), constant_values=fill))
                     for part, fill in ((inputs, 0), (targets, -1), (keep, False))]
            total += cross_entropy(self.model(batch[0], batch[2]), batch[1].reshape(-1).long(), ignore_index=-1,
                                   reduction="sum").item()
        return total / math.log(2) / self.hold_bytes

    def _save(self, bits):
        if bits < self.best:
            self.best = bits
            save_checkpoint(self.folder / "best", self.model, self.tokenizer)
        state = {"model": self.model.state_dict(), "optimiser": self.optimiser.state_dict()} | {
            k: getattr(self, k) for k in ("step", "tokens", "elapsed", "best", "epoch", "row")}
        torch.save(state, self.folder / "state.part")
        (self.folder / "state.part").replace(self.folder / "state.pt")

    def _resume(self):
        state = torch.load(self.folder / "state.pt", weights_only=True)
        self.model.load_state_dict(state.pop("model"))
        self.optimiser.load_state_dict(state.pop("optimiser"))
        for key, value in state.items():
            setattr(self, key, value)
