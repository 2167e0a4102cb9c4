"""A run of an encoder's training: its steps and their log, and how evenly the leaves of its trees are used."""

import math
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch

from sterna.models.encoder.checkpoint import save_encoder
from sterna.models.runlog import RunLog
from sterna.models.settings import TrainError

BETAS = (0.9, 0.98)


class LeafUse:
    """Counts the leaves that the trees of a model reach while it is entered; ``share`` is the measure."""

    def __init__(self, model):
        self._trees = model.trees()
        self._counts = [torch.zeros(trees.trees * 2**trees.depth) for trees in self._trees]

    def __enter__(self):
        for trees, counts in zip(self._trees, self._counts, strict=True):
            first = torch.arange(trees.trees) * 2**trees.depth - (2**trees.depth - 1)

            def watch(path, counts=counts, first=first):
                counts += torch.bincount((path[:, :, -1] + first).flatten(), minlength=len(counts))
            trees.watch = watch
        return self

    def __exit__(self, *_):
        for trees in self._trees:
            trees.watch = None

    def share(self):
        """Perplexity of the distribution over a tree's leaves as a share of their number, 0..1, mean over trees and
        layers; 1 is even use. None without trees.
        """
        found = []
        for trees, counts in zip(self._trees, self._counts, strict=True):
            share = counts.view(trees.trees, -1) / counts.view(trees.trees, -1).sum(1, keepdim=True)
            entropy = -torch.xlogy(share, share).sum(1)
            found.append((entropy.exp() / share.shape[1]).mean().item())
        return float(np.mean(found)) if found else None


class Run:
    """What both tasks share: steps, their rate, the log; ``run`` yields a record per step.

    Attributes
    ----------
    model : Encoder
    step, tokens : int
    elapsed : float
        Seconds of training.
    held : callable
        Gives a context manager around what must not be interrupted.
    """

    schedule = None

    def __init__(self, config, folder):
        self.config, self.folder, self.held = config, Path(folder), nullcontext
        self.step, self.tokens, self.elapsed, self.evaluated = 0, 0, 0.0, 0

    def _start(self, model):
        self.model = model.train()
        matrices = [p for p in model.parameters() if p.ndim == 2]
        others = [p for p in model.parameters() if p.ndim != 2]
        self.optimiser = torch.optim.AdamW([{"params": matrices, "weight_decay": self.config.weight_decay},
                                            {"params": others, "weight_decay": 0.0}],
                                           betas=BETAS, fused=True)

    def run(self):
        """Train to the end; yields {step, loss, lr, tokens, seconds, progress} after every step, and where it was
        evaluated what was found.

        Raises
        ------
        TrainError
            A loss is not finite, or a file cannot be written.
        """
        log = RunLog(self.folder, self.step)
        if self.evaluated < self.step and self._is_due():  # the run was stopped before it was evaluated
            record = (log.last() or {}) | {"step": self.step} | self._measured()
            log.replace_last(record)
            yield record | {"progress": self.progress}
        while self.progress < 1:
            started = time.monotonic()
            torch.manual_seed((self.config.seed << 32) + self.step)  # of the dropout: a resumed run drops the same
            rate = self.config.learning_rate * self.schedule(self.progress)
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            loss, tokens = self._loss()
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            if self.config.clip:
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
            if not math.isfinite(loss.item()):
                raise TrainError(f"the loss of step {self.step + 1} is {loss.item()}: lower learning_rate "
                                 f"{self.config.learning_rate:g} and train into another --out")
            with self.held():
                self.optimiser.step()
                self.step += 1
                self.tokens += tokens
                self.elapsed += time.monotonic() - started
            record = {"step": self.step, "loss": round(loss.item(), 4), "lr": rate, "tokens": self.tokens,
                      "seconds": round(self.elapsed, 1)}
            if self._is_due():
                record |= self._measured()
            log.add(record)
            yield record | {"progress": self.progress}

    def save_state(self):
        """Write the state behind the last step, if this task can go on from one (bool); TrainError."""
        return False

    def _measured(self):
        """What ``evaluate`` finds, and the use of the leaves; kept."""
        self.model.eval()
        try:
            with torch.no_grad(), LeafUse(self.model) as leaves:
                found = self.evaluate()
            share = leaves.share()
        finally:
            self.model.train()
        self.evaluated = self.step
        self._keep()
        return found if share is None else found | {"leaf_use": round(share, 4)}

    def _write(self, **more):
        try:
            save_encoder(self.folder / "model", self.model, self.words.tokenizer, **more)
        except OSError as error:
            raise TrainError(f"cannot write {error.filename}: {error.strerror}") from None
