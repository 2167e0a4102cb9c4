"""How likely a model finds texts, by the kernels: all texts as one stream in blocks."""

import numpy as np

from sterna.sim.cpu.model import BLOCK


def evaluate(model, stories):
    """Total negative log-likelihood (nats) and number of predicted tokens; as `sim.golden.gate.evaluate`, faster.

    The logits are those of the golden model bit for bit; the sums over them are of float64, in another order.

    Parameters
    ----------
    model : CpuModel
    stories : list of int arrays
        Each from its start token to its closing token, and from its own empty state.

    Returns
    -------
    (float, int)
    """
    if any(len(story) < 2 for story in stories):
        raise ValueError("a story has fewer than two tokens: it must begin with its start token and end with its end")
    if not stories:
        return 0.0, 0
    tokens = np.concatenate([story[:-1] for story in stories])
    targets = np.concatenate([story[1:] for story in stories])
    number = np.repeat(np.arange(len(stories)), [len(story) - 1 for story in stories])
    state, total, before = model.start(BLOCK), 0.0, -1
    for at in range(0, len(tokens), BLOCK):
        here = number[at:at + BLOCK]
        slots = here - here[0]
        # The story that goes on from the last block stands in the first slot; every other one begins.
        if before == here[0]:
            state[:, 0] = state[:, last]
            state[:, 1:] = 0
        else:
            state[:] = 0
        head = model.columns(tokens[at:at + BLOCK], slots, state, np.arange(len(here)))
        total -= float(model.likelihood(head, targets[at:at + BLOCK]).sum())
        before, last = here[-1], slots[-1]
    return total, len(tokens)
