"""How far L1 is from L0: perplexity, divergence and agreement on stories, and layer by layer on any weights."""

import numpy as np

from sterna.sim.golden.fp24 import round24
from sterna.sim.golden.model import GoldenModel
from sterna.sim.golden.packed import load_checkpoint, pack
from sterna.sim.golden.reference import Reference

MARGIN_NATS = 0.05
LIMITS = {"perplexity_change": 1e-3, "kl_nats": 1e-3, "top1_clear": 0.995}


def log_softmax(logits):
    """Natural logarithms of the probabilities, float64, over the last dimension."""
    logits = np.asarray(logits, np.float64)
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def _walk(models, stories, batch):
    """Feed the same stories to several models; yields (targets [b], one log-probability array [b, V] per model).

    Stories are grouped by length, so that the sequences of a group end at nearly the same time.
    """
    if any(len(s) < 2 for s in stories):
        raise ValueError("a story has fewer than two tokens: it must begin with its start token and end with its end")
    order = sorted(stories, key=len, reverse=True)
    for at in range(0, len(order), batch):
        group = order[at:at + batch]
        states = [model.start(len(group)) for model in models]
        lengths = np.array([len(s) for s in group])
        ids = np.zeros((len(group), lengths[0]), np.int64)
        for row, story in zip(ids, group, strict=True):
            row[:len(story)] = story
        for t in range(lengths[0] - 1):
            live = int(np.count_nonzero(lengths > t + 1))
            yield ids[:live, t + 1], [log_softmax(model.logits(ids[:live, t], state[:, :live]))
                                      for model, state in zip(models, states, strict=True)]


def evaluate(model, stories, batch=64):
    """Total negative log-likelihood (nats) and number of predicted tokens of stories.

    Parameters
    ----------
    model : Reference or GoldenModel
    stories : list of int arrays
        Each from its start token (id 0, read but not predicted) to its closing token (id 0, predicted), as
        ``models.data.encode`` makes them; each runs from its own empty state.

    Returns
    -------
    (float, int)
    """
    total, tokens = 0.0, 0
    for targets, (logs,) in _walk([model], stories, batch):
        total -= float(np.take_along_axis(logs, targets[:, None], 1).sum())
        tokens += len(targets)
    return total, tokens


class _Against:
    """Running comparison of one model with L0."""

    def __init__(self):
        self.nll = self.kl = 0.0
        self.same = self.same_clear = 0

    def add(self, base, clear, best, logs, targets):
        self.nll -= float(np.take_along_axis(logs, targets[:, None], 1).sum())
        self.kl += float((np.exp(base) * (base - logs)).sum())
        same = best == np.argmax(logs, -1)
        self.same += int(same.sum())
        self.same_clear += int((same & clear).sum())

    def report(self, base_nll, tokens, clear):
        return {"perplexity": float(np.exp(self.nll / tokens)),
                "perplexity_change": float(np.expm1((self.nll - base_nll) / tokens)),
                "kl_nats": self.kl / tokens, "top1_raw": self.same / tokens,
                "top1_clear": self.same_clear / clear if clear else 1.0}


def compare(reference, others, stories, batch=64, progress=lambda done, total: None):
    """Compare models with L0 on stories.

    Parameters
    ----------
    reference : Reference
        L0 in float64.
    others : dict
        Name -> model, each compared with ``reference``.
    stories : list of int arrays
        As for ``evaluate``.
    progress : callable(done, total)
        Told how many of the tokens have been compared.

    Returns
    -------
    dict
        tokens, clear_tokens, clear_share (tokens where the two best logits of L0 are more than 0.05 nats apart),
        perplexity (of L0), and per name a dict: perplexity, perplexity_change (relative to L0), kl_nats
        (mean KL(L0 || model) per token), top1_raw, top1_clear (agreement of the best token, on all and on the
        clear tokens).
    """
    against = {name: _Against() for name in others}
    nll, tokens, clear_tokens = 0.0, 0, 0
    total = sum(len(story) - 1 for story in stories)
    for targets, (base, *logs) in _walk([reference, *others.values()], stories, batch):
        nll -= float(np.take_along_axis(base, targets[:, None], 1).sum())
        best = np.argmax(base, -1)
        two = np.partition(base, -2, -1)[:, -2:] if base.shape[1] > 1 else np.array([[-np.inf, 0.0]])
        clear = two[:, 1] - two[:, 0] > MARGIN_NATS
        tokens += len(targets)
        clear_tokens += int(clear.sum())
        for one, theirs in zip(against.values(), logs, strict=True):
            one.add(base, clear, best, theirs, targets)
        progress(tokens, total)
    if not tokens:
        raise ValueError("no stories: give at least one")
    return {"tokens": tokens, "clear_tokens": clear_tokens, "clear_share": clear_tokens / tokens,
            "perplexity": float(np.exp(nll / tokens)),
            **{name: one.report(nll, tokens, clear_tokens) for name, one in against.items()}}


def missed(figures):
    """Names of the ``LIMITS`` that the figures of a model in ``compare`` miss (list of str)."""
    kept = {"perplexity_change": abs(figures["perplexity_change"]) <= LIMITS["perplexity_change"],
            "kl_nats": figures["kl_nats"] <= LIMITS["kl_nats"],
            "top1_clear": figures["top1_clear"] >= LIMITS["top1_clear"]}
    return [name for name, keeps in kept.items() if not keeps]  # NaN keeps none


def gate(folder, stories, batch=64, progress=lambda done, total: None, exact=GoldenModel):
    """The gate of L1 against L0, with float32 against float64 as the noise floor.

    ``exact`` makes the model of L1 of a PackedModel; any that has the methods of `GoldenModel`.

    A text is too small to judge a limit by if float32 misses it there too, or if a single token decides: fewer clear
    tokens than make the share of one of them smaller than the limit allows.

    Returns
    -------
    dict
        That of ``compare`` with the names "l1" and "float32"; "missed": the names of the limits that l1 misses;
        "too_small": those of them that the text is too small to judge; "passed": whether it misses none.

    Raises
    ------
    PackError
        The folder is not a checkpoint that Sterna runs.
    """
    geometry, tensors = load_checkpoint(folder)
    source = (geometry, tensors)
    out = compare(Reference(source), {"l1": exact(pack(*source)), "float32": Reference(source, np.float32)},
                  stories, batch, progress)
    out["missed"] = missed(out["l1"])
    unfit = set(missed(out["float32"]))
    if out["clear_tokens"] * (1 - LIMITS["top1_clear"]) < 1:
        unfit.add("top1_clear")
    out["too_small"] = [name for name in out["missed"] if name in unfit]
    out["passed"] = not out["missed"]
    return out


def cosines(a, b):
    """Cosines [B] of rows; two zero rows agree, a zero and another row do not."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    size = np.sqrt((a * a).sum(-1) * (b * b).sum(-1))
    same = np.all(a == b, -1)
    return np.where(same, 1.0, (a * b).sum(-1) / np.where(size == 0, 1.0, size))


def layerwise(geometry, tensors, ids, inputs=None):
    """Every layer of L1 and of float32, fed with the input that L0 gives it.

    End to end, random weights amplify single rounding flips until nothing can be concluded; layer by layer they
    cannot. The states are not fed: each model keeps its own over the T tokens, as the hardware does.

    Parameters
    ----------
    geometry : Geometry
    tensors : mapping
        Float32 tensors, as ``packed.random_tensors`` or ``Tensors`` gives them.
    ids : int array [T, B]
        Tokens of B sequences.
    inputs : callable, optional
        (x [B, H] float64, t) -> the first layer's input at token t, to make embeddings adversarial.

    Returns
    -------
    list of dict
        Per layer, cosines of the layer's output: mean and worst for l1, float32_mean and float32_worst; and the
        same of what the layer adds to x: added_mean, added_worst, float32_added_mean, float32_added_worst.
    """
    exact = Reference((geometry, tensors))
    models = {"": GoldenModel(pack(geometry, tensors)), "float32_": Reference((geometry, tensors), np.float32)}
    count, (_, batch) = geometry.num_hidden_layers, np.shape(ids)
    state = exact.start(batch)
    states = {name: model.start(batch) for name, model in models.items()}
    found = [{f"{name}{kind}": [] for name in models for kind in ("", "added_")} for _ in range(count)]
    for t, row in enumerate(np.asarray(ids)):
        x = exact.embedding[row]
        if inputs:
            x = inputs(x, t)
        for number in range(count):
            # All start from the same numbers, which are both fp24 and float32 ones: only the layer is compared.
            x = round24(x)
            after = exact.layer(number, x, state[number])
            for name, model in models.items():
                theirs = model.layer(number, x.astype(model.start(0).dtype), states[name][number])
                found[number][name].append(cosines(after, theirs))
                found[number][name + "added_"].append(cosines(after - x, theirs - x))
            x = after
    return [{f"{name}{kind}": float(value) for name, all_ in layer.items()
             for kind, value in (("mean", np.mean(all_)), ("worst", np.min(all_)))} for layer in found]


def adversarial(tensors, rng, kind):
    """Tensors made hard for the arithmetic: a copy of ``tensors``.

    kind : "outliers" (some embedding and norm channels x20), "memory" (lower bounds that put f near 1 in later
    layers), "tiny" and "huge" (norm weights times 2^-12, 2^12 on random channels of every norm).
    """
    out = {name: np.array(tensors[name]) for name in tensors}
    for name, value in out.items():
        channels = rng.random(value.shape[-1]) < 0.05
        if kind == "outliers" and (value.ndim == 1 or "embeddings" in name):
            value[..., channels] *= 20
        elif kind == "memory" and name == "model.lower_bounds":
            value[:] = -4
            value[min(1, len(value) - 1)] = 4
        elif kind in ("tiny", "huge") and value.ndim == 1:
            value[rng.random(value.shape) < 0.5] *= 2.0 ** (-12 if kind == "tiny" else 12)
    return out
