"""Fine-tuning of an encoder on a task in one of GLUE's formats."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import torch
from torch.nn import functional

from sterna.models.encoder import glue
from sterna.models.encoder.checkpoint import load
from sterna.models.encoder.network import Encoder
from sterna.models.encoder.run import Run
from sterna.models.encoder.words import Words
from sterna.models.settings import TrainError
from sterna.sim.golden.encoder_checkpoint import read_geometry
from sterna.sim.golden.strictjson import short

NEIGHBOURS = 16


def cosine(progress, warmup=0.1):
    """Factor of the peak rate at progress 0..1: linear rise over ``warmup``, then half a cosine down to 0."""
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def batches(lengths, rows, seed):
    """Rows of an epoch's steps, list of arrays, in random order; texts of about one length share a step, as all of a
    step are padded to its longest: each NEIGHBOURS steps' rows are sorted by length.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(lengths))
    near = rows * NEIGHBOURS
    order = np.concatenate([sorted(order[at:at + near], key=lengths.__getitem__)
                            for at in range(0, len(order), near)])
    out = [order[at:at + rows] for at in range(0, len(order), rows)]
    return [out[k] for k in rng.permutation(len(out))]


class FineTuning(Run):
    """Fine-tuning of a pre-trained encoder: a class of a text or of a pair, or its score, from the first token.

    The last epoch's model is kept: none is chosen by the development set.

    Parameters
    ----------
    config : ClassifyConfig
    model, data : Path
        Folders of the encoder and of the task.
    folder : Path
        Receives ``model/`` and ``log.jsonl``.
    tell : callable(str)

    Raises
    ------
    TrainError
    PackError
        Of the encoder's folder.
    """

    schedule = staticmethod(cosine)

    def __init__(self, config, model, data, folder, tell=lambda line: None):
        super().__init__(config, folder)
        if (self.folder / "model").exists():
            raise TrainError(f"{self.folder} holds a finished run: use another --out")
        tell(f"reading {data}")
        tables = [glue.read_table(glue.find(data, part, name), config.skip_words)
                  for part, name in (("train", config.train), ("dev", config.dev))]
        for table in tables:
            if table.broken:
                tell(f"left out {table.broken} rows with another number of columns")
        train, dev = tables
        if len(train.texts[0]) != len(dev.texts[0]) or train.scored != dev.scored:
            raise TrainError(f"{data}: the tables of train and dev have other columns")
        self.scored = train.scored
        self.labels = [] if self.scored else sorted(set(train.labels))
        if not self.scored and (new := set(dev.labels) - set(self.labels)):
            raise TrainError(f"{data}: dev has the class {short(min(new))}, which train has not")
        if len(self.labels) == 1:
            raise TrainError(f"{data}: train has the class {short(self.labels[0])} alone")
        geometry = read_geometry(model)
        if config.length > geometry.length:
            raise TrainError(f"length {config.length}: the encoder {model} takes at most {geometry.length}")
        self.words = Words.load(model)
        if self.words.size > geometry.vocab_size:
            raise TrainError(f"{model}: its tokenizer has {self.words.size} tokens and it {geometry.vocab_size}")
        self.train_rows, self.train_labels = self._rows(train)
        self.dev_rows, self.dev_labels = self._rows(dev)
        if config.most_rows and config.most_rows < len(self.train_rows):
            chosen = np.random.default_rng(0).permutation(len(self.train_rows))[:config.most_rows]
            self.train_rows = [self.train_rows[k] for k in chosen]
            self.train_labels = self.train_labels[chosen]
        self.per_epoch = -(-len(self.train_rows) // config.rows)
        self._epoch, self._batches = None, []
        torch.manual_seed(config.seed)
        network = Encoder(replace(geometry, classes=len(self.labels) or 1, head_size=config.head_size),
                          config.dropout)
        state = load(model).state_dict()
        network.load_state_dict({name: tensor for name, tensor in state.items() if name.startswith("encoder.")},
                                strict=False)
        self._start(network)

    def _rows(self, table):
        labels = table.labels if self.scored else [self.labels.index(label) for label in table.labels]
        kind = np.float32 if self.scored else np.int64
        return self.words.inputs(table.texts, self.config.length), np.array(labels, kind)

    @property
    def progress(self):
        """Fraction of the run that is done, 0..1."""
        return self.step / (self.per_epoch * self.config.epochs)

    def _is_due(self):
        return self.step % self.per_epoch == 0

    def _batch(self, rows):
        longest = max(map(len, rows))
        ids = np.full((len(rows), longest), self.words.pad, np.int64)
        for row, one in zip(ids, rows, strict=True):
            row[:len(one)] = one
        keep = np.arange(longest)[None] < np.array([len(row) for row in rows])[:, None]
        return torch.from_numpy(ids), torch.from_numpy(keep)

    def _loss(self):
        epoch, at = divmod(self.step, self.per_epoch)
        if self._epoch != epoch:
            lengths = [len(row) for row in self.train_rows]
            self._epoch, self._batches = epoch, batches(lengths, self.config.rows, (self.config.seed, epoch))
        chosen = self._batches[at]
        ids, keep = self._batch([self.train_rows[k] for k in chosen])
        labels = torch.from_numpy(self.train_labels[chosen])
        logits = self.model(ids, keep)
        loss = functional.mse_loss(logits[:, 0], labels) if self.scored else functional.cross_entropy(logits, labels)
        return loss, int(keep.sum())

    def evaluate(self):
        """{"accuracy", "majority"} of the development set, or {"pearson"} of its scores."""
        out = np.zeros((len(self.dev_rows), len(self.labels) or 1), np.float32)
        order = np.argsort([len(row) for row in self.dev_rows], kind="stable")
        for at in range(0, len(order), 64):
            chosen = order[at:at + 64]
            out[chosen] = self.model(*self._batch([self.dev_rows[k] for k in chosen])).numpy()
        if self.scored:
            return {"pearson": float(np.corrcoef(out[:, 0], self.dev_labels)[0, 1])}
        majority = Counter(self.train_labels.tolist()).most_common(1)[0][0]
        return {"accuracy": float((out.argmax(1) == self.dev_labels).mean()),
                "majority": float((self.dev_labels == majority).mean())}

    def _keep(self):
        if self.progress >= 1:
            self._write(labels=self.labels)
