"""Masked pre-training of an encoder."""

import hashlib
from dataclasses import asdict

import numpy as np
import torch
from torch.nn import functional

from sterna.models.encoder.network import Encoder
from sterna.models.encoder.run import Run
from sterna.models.encoder.words import Words, fill_rows, read_texts
from sterna.models.settings import TrainError
from sterna.sim.golden.files import writing
from sterna.sim.golden.strictjson import short

MASKED = 0.25  # share of the tokens that are predicted
KEPT, SWAPPED = 0.1, 0.1  # of those, the shares that stay, and that become any token
RESUMED = ("step", "tokens", "elapsed", "evaluated")
MAY_CHANGE = {"steps", "minutes", "evaluate_every", "text"}
NONE = -100  # the target of a token that is not predicted


def triangle(progress, base=0.25, peak_at=0.75):
    """Factor of the peak rate at progress 0..1: from ``base`` up to 1 at ``peak_at``, then down to 0, both linear."""
    return min(base + progress * (1 - base) / peak_at, (1 - progress) / (1 - peak_at))


def hide(rows, words, rng):
    """Rows [N, T] with a quarter of the tokens of each hidden, and the targets [N, T], NONE where none is.

    Of the hidden ones 80 % are the mask, 10 % any token, 10 % stay. Special tokens are never hidden.
    """
    special = np.isin(rows, (words.pad, words.start, words.end))
    place = np.where(special, 2.0, rng.random(rows.shape))
    count = round(MASKED * (rows.shape[1] - 1))
    border = np.partition(place, count - 1, 1)[:, count - 1:count]
    hidden = (place <= border) & ~special
    kind = rng.random(rows.shape)
    shown = np.where(kind < 1 - KEPT - SWAPPED, words.mask,
                     np.where(kind < 1 - KEPT, rng.integers(0, words.size, rows.shape), rows))
    return np.where(hidden, shown, rows).astype(np.int64), np.where(hidden, rows, NONE).astype(np.int64)


class Pretraining(Run):
    """Masked pre-training.

    Parameters
    ----------
    config : PretrainConfig
    text, tokenizer : Path
        Of ``read_texts`` and ``Words.load``; without the latter a tokenizer is trained on the text.
    folder : Path
        Receives ``model/``, ``log.jsonl`` and ``state.pt``, from which a further run goes on.
    tell : callable(str)

    Raises
    ------
    TrainError
    """

    schedule = staticmethod(triangle)

    def __init__(self, config, text, folder, tokenizer=None, tell=lambda line: None):
        super().__init__(config, folder)
        state = self._saved()
        tell(f"reading {text}")
        texts = read_texts(text)
        if state:
            tokenizer = self.folder / "model"
        tell("turning the text into tokens" if tokenizer else f"training a tokenizer of {config.vocab_size} tokens")
        self.words = Words.load(tokenizer) if tokenizer else Words.trained(texts, config.vocab_size)
        if self.words.size != config.vocab_size:
            raise TrainError(f"the tokenizer has {self.words.size} tokens, vocab_size is {config.vocab_size}: "
                             f"{'change vocab_size' if tokenizer else 'lower vocab_size or give more text'}")
        rows = fill_rows(self.words, texts, config.length)
        if len(rows) < config.holdout_rows + config.rows:
            raise TrainError(f"{text} fills {len(rows)} rows of {config.length} tokens, and holdout_rows "
                             f"{config.holdout_rows} and rows {config.rows} need more: lower them or give more text")
        self._digest = hashlib.sha256(rows.tobytes()).hexdigest()
        if state and state["digest"] != self._digest:
            raise TrainError(f"{self.folder} was trained on another text than {text}: give that text or use another "
                             "--out")
        order = np.random.default_rng(0).permutation(len(rows))  # the same rows are held out whatever the seed is
        held, self.rows = rows[order[:config.holdout_rows]], rows[order[config.holdout_rows:]]
        self.held_rows = hide(held, self.words, np.random.default_rng(0))
        torch.manual_seed(config.seed)
        self._start(Encoder(config.geometry(), config.dropout))
        if state:
            self._resume(state)

    @property
    def progress(self):
        """Fraction of the run that is done, 0..1."""
        c = self.config
        return max(self.step / c.steps if c.steps else 0.0, self.elapsed / (60 * c.minutes) if c.minutes else 0.0)

    def _is_due(self):
        return self.progress >= 1 or self.step % self.config.evaluate_every == 0

    def _loss(self):
        count, per_epoch = self.config.rows, len(self.rows) // self.config.rows
        epoch, at = divmod(self.step, per_epoch)
        order = np.random.default_rng([self.config.seed, epoch]).permutation(len(self.rows))
        rows = self.rows[order[at * count:(at + 1) * count]]
        inputs, targets = hide(rows, self.words, np.random.default_rng([self.config.seed, self.step, 1]))
        return self._masked(inputs, targets, "mean"), inputs.size

    def _masked(self, inputs, targets, reduction):
        states = self.model.states(torch.from_numpy(inputs))
        targets = torch.from_numpy(targets)
        return functional.cross_entropy(self.model.decoder(states[targets != NONE]), targets[targets != NONE],
                                        reduction=reduction)

    def evaluate(self):
        """{"masked_loss": nats per hidden token of the rows held out}."""
        inputs, targets = self.held_rows
        total = sum(self._masked(inputs[at:at + 32], targets[at:at + 32], "sum").item()
                    for at in range(0, len(inputs), 32))
        return {"masked_loss": total / int((targets != NONE).sum())}

    def _keep(self):
        self._write()
        self.save_state()

    def save_state(self):
        """Write the state behind the last step, from which another run goes on (True); TrainError."""
        state = {"model": self.model.state_dict(), "optimiser": self.optimiser.state_dict(),
                 "config": asdict(self.config), "digest": self._digest}
        state |= {name: getattr(self, name) for name in RESUMED}
        if not (self.folder / "model").exists():  # it holds the tokenizer
            self._write()
        try:
            with writing(self.folder / "state.pt") as file:
                torch.save(state, file)
        except (OSError, RuntimeError) as error:
            raise TrainError(f"cannot write {self.folder / 'state.pt'}: {error}") from None
        return True

    def _saved(self):
        path = self.folder / "state.pt"
        if not path.exists():
            if (self.folder / "model").exists():
                raise TrainError(f"{self.folder} holds a model but no state.pt to go on from: use another --out")
            return None
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            numbers = all(type(state[key]) in (int, float) for key in RESUMED)
            wrong = not (numbers and isinstance(state["config"], dict) and isinstance(state["digest"], str))
        except Exception as error:  # torch raises several kinds for a damaged file
            raise TrainError(f"cannot resume from {path}: {(str(error).splitlines() or ['damaged'])[0]}") from None
        if wrong:
            raise TrainError(f"cannot resume from {path}: it is no state of an encoder's pre-training")
        for name, value in state["config"].items():
            if name not in MAY_CHANGE and getattr(self.config, name, None) != value:
                raise TrainError(f"{self.folder} was trained with {name} {short(value)}, not "
                                 f"{short(getattr(self.config, name, None))}: use another --out")
        return state

    def _resume(self, state):
        try:
            self.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise TrainError(f"cannot resume from {self.folder / 'state.pt'}: "
                             f"{(str(error).splitlines() or [type(error).__name__])[0]}") from None
        for name in RESUMED:
            setattr(self, name, state[name])
