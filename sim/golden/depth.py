"""How far L1 is from L0 in large models: every layer over a whole sequence, and long greedy texts.

`sterna.sim.golden.gate` compares small models token by token. Here each layer is made, run over all tokens and given
up, so that a model takes the memory of one layer and the products of all tokens are one.
"""

from collections import Counter

import numpy as np

from sterna.sim.golden.fp24 import round24
from sterna.sim.golden.gate import MARGIN_NATS, cosines, log_softmax
from sterna.sim.golden.model import GoldenModel, Rows
from sterna.sim.golden.packed import pack
from sterna.sim.golden.reference import Reference

GRAM = 4  # tokens whose return counts as a repetition


def distances(found, exact):
    """Per row |found - exact| / |exact|, Euclidean: float64 [T]; 0 where both are zero."""
    size = np.linalg.norm(exact, axis=-1)
    return np.linalg.norm(np.asarray(found, np.float64) - exact, axis=-1) / np.where(size == 0, 1.0, size)


def layers_over(geometry, tensors, ids, count=None, progress=lambda done, total: None):
    """Each layer of L1 and of float32 against float64, over one sequence.

    All three get the input that float64 has there, rounded to fp24, which float32 holds too: only one layer is
    compared at a time, as errors of codes that flip at an edge would hide all others further down. States are each
    one's own over the whole sequence.

    Parameters
    ----------
    geometry : Geometry
    tensors : mapping
        Float32 tensors, as ``Tensors`` gives them.
    ids : int array [T]
        Tokens of the sequence.
    count : int, optional
        Only so many layers, from the first on.
    progress : callable(done, total)
        Told after every layer.

    Returns
    -------
    list of dict
        Per layer, of "l1" and "float32" each: ``NAME.mean`` and ``NAME.worst``, over the tokens, of the cosine
        between what the layer adds to its input and what float64 adds; ``NAME.state``, the largest relative distance of a
        token's state; ``l1.largest_h``, ``l0.largest_h``, ``l1.largest_x``, ``l0.largest_x``: the largest magnitudes
        in state and output. The first also has ``embedding.mean`` and ``embedding.worst``, cosines between the
        embeddings of L1 and those of float64.
    """
    source = (geometry, tensors)
    exact = Reference(source, kept=False)
    models = {"l1": GoldenModel(pack(*source)), "float32": Reference(source, np.float32, kept=False)}
    x, out = exact.embedding[np.asarray(ids)], []
    close = cosines(x, models["l1"].embed(ids))
    embedded = {"embedding.mean": float(close.mean()), "embedding.worst": float(close.min())}
    count = min(count or geometry.num_hidden_layers, geometry.num_hidden_layers)
    for number in range(count):
        x = round24(x)
        after, states = exact.layer_over(number, x, np.zeros(geometry.hidden_size))
        row = {"l0.largest_h": np.abs(states).max(), "l0.largest_x": np.abs(after).max()}
        for name, model in models.items():
            dtype = model.start(0).dtype
            theirs, their_states = model.layer_over(number, x.astype(dtype), np.zeros(geometry.hidden_size, dtype))
            close = cosines(after - x, theirs - x)
            row |= {f"{name}.mean": close.mean(), f"{name}.worst": close.min(),
                    f"{name}.state": distances(their_states, states).max()}
            if name == "l1":
                row |= {"l1.largest_h": np.abs(their_states).max(), "l1.largest_x": np.abs(theirs).max()}
        out.append({key: float(value) for key, value in row.items()})
        x = after
        progress(number + 1, count)
    out[0] |= embedded
    return out


def repetition(tokens):
    """How repetitive a text is (dict).

    ``distinct``: different tokens; ``longest_run``: of one token; ``commonest.share``: of the commonest token;
    ``returning.share``: of the runs of `GRAM` tokens that stood there before.
    """
    tokens = [int(token) for token in tokens]
    longest = run = 0
    for at, token in enumerate(tokens):
        run = run + 1 if at and token == tokens[at - 1] else 1
        longest = max(longest, run)
    grams = list(zip(*(tokens[k:] for k in range(GRAM)), strict=False))
    return {"distinct": len(set(tokens)), "longest_run": longest,
            "commonest.share": max(Counter(tokens).values(), default=0) / max(1, len(tokens)),
            "returning.share": 1 - len(set(grams)) / len(grams) if grams else 0.0}


def greedy(model, prompts, count, progress=lambda done, total: None):
    """Greedy texts of a model behind prompts, all in one batch.

    Parameters
    ----------
    model : Reference, GoldenModel or CpuModel
    prompts : int array [T, B]
        Tokens of B prompts of one length.
    count : int
        Tokens to make for each.
    progress : callable(done, total)

    Returns
    -------
    tokens : int array [count, B]
    largest : float64 array [L]
        The largest magnitude that each layer's state ever had.
    """
    prompts = np.asarray(prompts)
    state, made = model.start(prompts.shape[1]), []
    largest = np.zeros(len(state))
    total = len(prompts) + count - 1
    for at in range(total):
        logits = model.logits(prompts[at] if at < len(prompts) else made[-1], state)
        largest = np.maximum(largest, np.abs(state).max((1, 2)))
        if at + 1 >= len(prompts):
            made.append(np.argmax(logits, -1))
        progress(at + 1, total)
    return np.array(made), largest


def largest_outputs(model, ids):
    """The largest magnitude of each layer's output (float64 [L]) over a text [T], of GoldenModel or CpuModel."""
    state = model.start(1)
    largest = np.zeros(len(state))
    for token in ids:
        x = model.embed([token])
        for number, h in enumerate(state):
            x = model.layer(number, x, h)
            largest[number] = max(largest[number], np.abs(x).max())
    return largest


def follow(model, x, progress=lambda done, total: None):
    """A model's logits behind every token of a given text, layer by layer.

    Parameters
    ----------
    model : Reference or GoldenModel
    x : array [T, H]
        Embeddings of the text, in the numbers of the model.

    Returns
    -------
    logits : array [T, V]
    largest_h, largest_x : float64 arrays [L]
        The largest magnitudes of each layer's state and output.
    """
    count, largest_h, largest_x = model.geometry.num_hidden_layers, [], []
    for number in range(count):
        x, states = model.layer_over(number, x, np.zeros_like(x[0]))
        largest_h.append(np.abs(states).max())
        largest_x.append(np.abs(x).max())
        progress(number + 1, count)
    head = model.head(x)
    logits = round24(head.rows * head.scale[:, None]) if isinstance(head, Rows) else head
    return logits, np.array(largest_h, np.float64), np.array(largest_x, np.float64)


def causes(geometry, tensors, ids):
    """What moves the logits of L1 away from those of L0, over a text ``ids`` [T].

    Returns
    -------
    dict
        `agreement` with L0 by "CAUSE.KEY": "embedding", L0 with the int8 embeddings of L1; "arithmetic", L1 with the
        embeddings of L0, rounded to fp24; "l1"; "float32".
    """
    source = (geometry, tensors)
    exact, single = (Reference(source, dtype, kept=False) for dtype in (np.float64, np.float32))
    golden = GoldenModel(pack(*source))
    x, coded = exact.embedding[np.asarray(ids)], golden.embed(ids)
    wanted, _, _ = follow(exact, x)
    cases = {"embedding": (exact, coded), "arithmetic": (golden, round24(x)), "l1": (golden, coded),
             "float32": (single, x.astype(np.float32))}
    return {f"{cause}.{key}": value for cause, case in cases.items()
            for key, value in agreement(wanted, follow(*case)[0]).items()}


def agreement(exact, found):
    """Two models' logits [T, V] of one text: mean KL(exact || found) in nats, and agreement of the best tokens.

    Returns
    -------
    dict
        ``kl_nats``; ``top1``: the share of tokens with the same best one; ``clear.share``: of the tokens whose two
        best logits are more than `MARGIN_NATS` apart in ``exact``; ``top1_clear``: agreement among these.
    """
    exact, found = log_softmax(exact), log_softmax(found)
    two = np.partition(exact, -2, -1)[:, -2:]
    clear, same = two[:, 1] - two[:, 0] > MARGIN_NATS, np.argmax(exact, -1) == np.argmax(found, -1)
    return {"kl_nats": float((np.exp(exact) * (exact - found)).sum(-1).mean()), "top1": float(same.mean()),
            "clear.share": float(clear.mean()), "top1_clear": float(same[clear].mean()) if clear.any() else 1.0}
