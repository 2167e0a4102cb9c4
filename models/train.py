"""Training of a MatMul-free language model from a TOML configuration."""

import hashlib
import math
import time
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import numpy as np
import tokenizers
import torch
from torch.nn.functional import cross_entropy

from sterna.models import data, layers, tree
from sterna.models.checkpoint import save_checkpoint
from sterna.models.leafuse import LeafUse
from sterna.models.model import LanguageModel, ModelConfig
from sterna.models.runlog import RunLog
from sterna.models.settings import TrainError
from sterna.models.tree import TreeOptions
from sterna.sim.golden.files import writing
from sterna.sim.golden.strictjson import short

RESUMED = ("step", "tokens", "elapsed", "best", "epoch", "row", "evaluated")
PARTS = {"model", "optimiser", "config", "stories", *RESUMED}  # of a state
MAY_CHANGE = {"text", "steps", "minutes", "evaluate_every"}  # on resuming: how long a run lasts, not what it computes


class DivergedError(TrainError):
    """A loss or gradient is not finite; nothing of that step is kept."""


def learning_rate(progress, warmup=0.02, decay_from=0.4, floor=0.02):
    """Factor of the peak rate at progress 0..1: linear rise, plateau, linear fall to ``floor``."""
    if progress < warmup:
        return progress / warmup + 1e-3
    if progress < decay_from:
        return 1.0
    return max(floor, 1 - (1 - floor) * (progress - decay_from) / (1 - decay_from))


def hash_of(stories):
    """Hex SHA-256 of a list of stories, whatever file they come from."""
    digest = hashlib.sha256()
    for story in stories:
        content = story.encode()
        digest.update(len(content).to_bytes(8, "little") + content)
    return digest.hexdigest()


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
        Receives ``best/`` (a checkpoint folder), ``state.pt`` (to resume) and ``log.jsonl``; made with the first
        step.
    device : str
        As for ``pick_device``; a run may be resumed on another one.
    tell : callable(str)
        Takes lines of progress while the text is prepared.

    Attributes
    ----------
    held : callable
        Gives a context manager around what must not be interrupted: in it the model and the counters change
        together. ``sterna.host.interrupts.Interrupts.held``, for one.
    saved : int
        The step behind which the saved state stands, 0 if there is none.

    Raises
    ------
    TrainError
        The run cannot start, or not go on from what the folder holds.
    """

    def __init__(self, config, text, folder, device="cpu", tell=lambda line: None):
        self.config, self.folder, self.device = config, Path(folder), pick_device(device)
        self.held, self.saved = nullcontext, 0
        tell(f"reading {text}")
        stories = data.read_stories(text)
        self._stories = hash_of(stories)
        state = self._saved_state(text)
        if len(stories) <= config.holdout_stories:
            count = "1 story" if len(stories) == 1 else f"{len(stories)} stories"
            raise TrainError(f"{text} holds {count} and holdout_stories is {config.holdout_stories}: "
                             "at least one story must be left to train on; a line with "
                             f"{data.END_OF_TEXT} separates stories")
        train, hold = stories[:-config.holdout_stories], stories[-config.holdout_stories:]
        torch.manual_seed(config.seed)
        # A resumed run goes on with its own tokenizer, whatever today's package would make of the text.
        kept = self.folder / "best" / "tokenizer.json"
        if state and kept.exists():
            self.tokenizer = self._kept_tokenizer(kept)
        else:
            tell(f"training a tokenizer of {config.vocab_size} tokens")
            self.tokenizer = data.train_tokenizer(train, config.vocab_size)
        if self.tokenizer.get_vocab_size() != config.vocab_size:
            raise TrainError(f"the text gives {self.tokenizer.get_vocab_size()} tokens, vocab_size is "
                             f"{config.vocab_size}: lower vocab_size or give more text")
        tell("turning the text into tokens")
        self.train_ids = data.encode(self.tokenizer, train)
        hold_ids = data.encode(self.tokenizer, hold)
        self.hold_rows = data.pack_rows(hold_ids, config.row_tokens, np.random.default_rng(0))
        # A story longer than a row is cut there, and only the bytes before the cut are scored.
        self.hold_bytes = sum(len(self.tokenizer.decode(ids[:config.row_tokens + 1].tolist()).encode())
                              for ids in hold_ids)
        self.model = LanguageModel(ModelConfig.of(asdict(config)), config.dropout, TreeOptions(
            gradient=config.tree_gradient, routing=config.tree_routing, balance=config.balance))
        self.model.set_products(config.products)
        self.model.to(self.device)  # the first weights come from the CPU's generator, so they are the same everywhere
        self.optimiser = torch.optim.AdamW(self._groups(), lr=config.learning_rate, betas=(0.9, 0.98),
                                           fused=self.device.type == "cuda")
        self.loss = cross_entropy
        self.step, self.tokens, self.elapsed, self.best, self.epoch, self.row = 0, 0, 0.0, math.inf, 0, 0
        self.evaluated, self.leaf_use = 0, None
        if state:
            self._resume(state)
        self._log = RunLog(self.folder, self.step)

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
        tree.compile_elementwise()
        self.loss = torch.compile(cross_entropy)

    @property
    def progress(self):
        """Fraction of the run that is done, 0..1."""
        c = self.config
        return max(self.step / c.steps if c.steps else 0.0, self.elapsed / (60 * c.minutes) if c.minutes else 0.0)

    def _batches(self):
        """Yields (inputs, targets, keep) and the place behind them in the text, as (epoch, row)."""
        epoch, row = self.epoch, self.row
        while True:
            rows = data.pack_rows(self.train_ids, self.config.row_tokens,
                                  np.random.default_rng([self.config.seed, epoch]))
            count = len(rows[0]) // self.config.rows * self.config.rows
            if not count:
                raise TrainError(f"the text fills {len(rows[0])} rows of {self.config.row_tokens} tokens, a step "
                                 f"takes {self.config.rows}: lower rows or give more text")
            while row < count:
                batch = [torch.from_numpy(r[row:row + self.config.rows]) for r in rows]
                row += self.config.rows
                yield batch, (epoch, row)
            epoch, row = epoch + 1, 0

    def run(self):
        """Train to the end; yields {step, loss, lr, tokens, seconds, progress[, bits_per_byte]} after every step.

        Between two records everything is consistent, and after an exception too, a KeyboardInterrupt for one: a
        caller may call ``save_state`` and stop there.

        Raises
        ------
        DivergedError
            A loss or a gradient is not finite. The saved state is the one of the last evaluation.
        TrainError
            The text is too short, or a file cannot be written.
        """
        if self._is_due():  # the run was stopped before it was evaluated
            record = (self._log.last() or {}) | {"step": self.step} | self._evaluated()
            self._log.replace_last(record)
            self._keep(record["bits_per_byte"])
            yield record | {"progress": self.progress}
        if self.progress < 1:
            yield from self._steps()

    def _steps(self):
        for taken, (batch, place) in enumerate(self._batches()):
            started = time.monotonic()
            rate = self.config.learning_rate * learning_rate(self.progress)
            loss = self._gradients(batch, rate)
            record = None
            try:
                with self.held():
                    self.optimiser.step()
                    self.step += 1
                    self.tokens += int((batch[1] >= 0).sum())
                    self.epoch, self.row = place
                    # The first steps of a process compile; they do not count as training time.
                    self.elapsed += time.monotonic() - started if taken >= 2 else 0.0
                    record = {"step": self.step, "loss": round(loss, 4), "lr": rate, "tokens": self.tokens,
                              "seconds": round(self.elapsed, 1)}
                if self._is_due():
                    record |= self._evaluated()
            finally:  # a step that was taken is in the log, even if the run is stopped before its evaluation
                if record:
                    self._log.add(record)
            if "bits_per_byte" in record:
                self._keep(record["bits_per_byte"])
            yield record | {"progress": self.progress}
            if self.progress >= 1:
                return

    def _gradients(self, batch, rate):
        """The loss (float) of a batch whose gradients, cut to norm 1, are ready for a step at a learning rate."""
        inputs, targets, keep = (part.to(self.device) for part in batch)
        if self.config.dropout or self.config.tree_routing == "coin":
            # Chance is a function of seed and step, so that a resumed run drops the same.
            torch.manual_seed((self.config.seed << 32) + self.step)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        loss = self.loss(self.model(inputs, keep), targets.reshape(-1).long(), ignore_index=-1)
        self.optimiser.zero_grad(set_to_none=True)
        (loss + self.model.penalty()).backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        loss, norm = torch.stack([loss.detach().float(), norm.float()]).tolist()  # waits for the device, once
        self._check_finite("loss", loss, self.step + 1)
        self._check_finite("gradient", norm, self.step + 1)
        return loss

    def _check_finite(self, what, value, step):
        if not math.isfinite(value):
            kept = (f"{self.folder} keeps the state behind step {self.saved}" if self.saved else
                    "no state was saved yet")
            raise DivergedError(f"the {what} of step {step} is {value}, and {kept}: lower learning_rate "
                                f"{self.config.learning_rate:g} and train into another --out")

    def _is_due(self):
        """Whether the model has to be evaluated as it is."""
        return self.evaluated < self.step and (self.progress >= 1 or self.step % self.config.evaluate_every == 0)

    def _evaluated(self):
        """What an evaluation adds to the record of a step (dict)."""
        bits = self.evaluate()
        self._check_finite("bits per byte", bits, self.step)
        return {"bits_per_byte": bits} | ({"leaf_use": self.leaf_use.figures()} if self.leaf_use else {})

    def evaluate(self):
        """Bits per byte on the held-out stories; ``leaf_use`` is then that of the model on them."""
        return self.nats(self.hold_rows) / math.log(2) / self.hold_bytes

    @torch.no_grad()
    def nats(self, packed):
        """Sum of the losses (float) over all targets of packed rows, as ``data.pack_rows`` makes them."""
        total, rows = 0.0, self.config.rows
        inputs, targets, keep = packed
        self.leaf_use = LeafUse(self.model.routed())
        if self.config.tree_routing == "coin":
            torch.manual_seed(self.config.seed)
        self.model.eval()
        try:
            for at in range(0, len(inputs), rows):
                short = rows - len(inputs[at:at + rows])
                batch = [torch.from_numpy(np.pad(part[at:at + rows], ((0, short), (0, 0)), constant_values=fill))
                         .to(self.device) for part, fill in ((inputs, 0), (targets, -1), (keep, False))]
                wanted = batch[1].reshape(-1).long()
                logits = self.model(batch[0], batch[2])
                total += cross_entropy(logits, wanted, ignore_index=-1, reduction="sum").item()
                self.leaf_use.add(wanted >= 0)
        finally:
            self.model.train()
        return total

    def _keep(self, bits):
        """Save what an evaluation was about: the checkpoint, if it is the best so far, and the state."""
        if bits < self.best:
            try:
                save_checkpoint(self.folder / "best", self.model, self.tokenizer)
            except OSError as error:
                raise TrainError(f"cannot write {error.filename}: {error.strerror}") from None
            self.best = bits
        self.evaluated = self.step
        self.save_state()

    def save_state(self):
        """Write ``state.pt``, from which a Trainer over the same folder goes on exactly here. TrainError if it cannot
        be written; a former one is then still there.
        """
        state = {"model": self.model.state_dict(), "optimiser": self.optimiser.state_dict(),
                 "config": asdict(self.config), "stories": self._stories} | {k: getattr(self, k) for k in RESUMED}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with writing(self.folder / "state.pt") as file:
                torch.save(state, file)
        except (OSError, RuntimeError) as error:
            # Torch's writer raises a RuntimeError of its own in place of the file's error.
            reason = next((e.strerror for e in (error, error.__context__) if isinstance(e, OSError)), str(error))
            raise TrainError(f"cannot write {self.folder / 'state.pt'}: {reason}") from None
        self.saved = self.step

    def _saved_state(self, text):
        """What ``save_state`` has written (dict), None if nothing; TrainError if it is of another run."""
        path = self.folder / "state.pt"
        if not path.exists():
            if (self.folder / "best").exists():
                raise TrainError(f"{self.folder} holds a model in best/ but no state.pt to go on from: remove it "
                                 "or use another --out")
            return None
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises several kinds for a damaged file
            raise TrainError(f"cannot resume from {path}: {str(error).splitlines()[0]}") from None
        if not isinstance(state, dict) or set(state) != PARTS or not isinstance(state["config"], dict):
            raise TrainError(f"cannot resume from {path}: it is no state of a training run of this version")
        for name in state["config"].keys() - MAY_CHANGE:
            if state["config"][name] != getattr(self.config, name, None):
                raise TrainError(f"{self.folder} was trained with {name} {short(state['config'][name])}, not "
                                 f"{getattr(self.config, name, None)}: use another --out")
        if state["stories"] != self._stories:
            raise TrainError(f"{self.folder} was trained on another text than {text}: give that text or use another "
                             "--out")
        return state

    def _resume(self, state):
        path = self.folder / "state.pt"
        try:
            self.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise TrainError(f"cannot resume from {path}: "
                             f"{(str(error).splitlines() or [type(error).__name__])[0]}") from None
        for key in RESUMED:
            if type(state[key]) not in (int, float):
                raise TrainError(f"cannot resume from {path}: {key} is {short(state[key])}")
            setattr(self, key, state[key])
        self.saved = self.step
