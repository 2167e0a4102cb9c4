"""The kernels of this machine's processor as a runtime."""

import time
from collections import deque
from functools import partial

import numpy as np

from sterna.host.device.run import stop_tokens
from sterna.host.runtime.runtime import RunError, Runtime, untold
from sterna.sim.cpu.model import BLOCK, CpuModel

SLOTS = 32  # texts side by side
LARGE = 50_000_000  # weights that take long enough to be told about
PIECE = 32  # tokens of a prompt that a text reads at a time while others are made


class CpuRuntime(Runtime):
    """The accelerator's arithmetic in kernels for this machine's processor; bit for bit what the hardware computes.

    Parameters
    ----------
    model : Model
    threads : int, optional
        Threads that compute; all that this process may use, or $STERNA_THREADS, if it is not given.
    progress : callable(what, done, total)
        Told about the loading.

    Raises
    ------
    ToolError
        There is no compiler for the kernels.
    """

    def __init__(self, model, threads=None, progress=untold):
        super().__init__(model)
        large = model.geometry.ternary_weights >= LARGE  # smaller ones are there before a bar is
        self._cpu = CpuModel(model.packed, threads, progress=partial(progress if large else untold, "loading"))
        self.threads = count = self._cpu.threads
        self.label = f"cpu: {model.name}, {count} thread{'s' * (count > 1)}, {self._cpu.path}"
        self.statistics.weight_bytes, self.statistics.slots = self._cpu.weight_bytes, SLOTS
        self._state = self._cpu.start(1)

    def close(self):
        self._cpu.close()

    def clear(self):
        super().clear()
        self._state = self._cpu.start(1)

    def _read(self, tokens, cancelled):
        for at in range(0, len(tokens), BLOCK):
            if cancelled():
                return
            piece = tokens[at:at + BLOCK]
            self._cpu.read(piece, self._state)
            yield at + len(piece)

    def _make(self, token, n, sampling, stop, cancelled):
        stops = stop_tokens(stop)
        for _ in range(n):
            if cancelled():
                return
            head = self._cpu.step([token], self._state)
            token = int(self._sampled(head, [sampling], [self.position])[0])
            self.statistics.passes += 1
            yield token
            if token in stops:
                return

    def _sampled(self, head, samplings, positions):
        """Next tokens (int array [B]) of Rows, each by its own Sampling."""
        out, kinds = np.empty(len(samplings), np.int64), {}
        for row, sampling in enumerate(samplings):
            kinds.setdefault((sampling.temperature, sampling.top_k, sampling.top_p), []).append(row)
        for (temperature, top_k, top_p), rows in kinds.items():
            part = head if len(rows) == len(out) else type(head)(head.rows[rows], head.scale[rows])
            seeds = np.array([samplings[row].seed for row in rows], np.int64)
            out[rows] = self._cpu.sample(part, seeds, np.array(positions)[rows], temperature, top_k, top_p)
        return out

    def generate_all(self, sequences, cancelled=lambda: False):
        if len(sequences) == 1:
            yield from super().generate_all(sequences, cancelled)
            return
        settled = {sequence: sequence.sampling.within(self.rows) for sequence in sequences}
        for sequence in sequences:
            self.check(sequence.ids)
            if sequence.n and not sequence.ids:
                raise RunError("there is no text to go on with: give a prompt")
        self.clear()
        figures, started = self.statistics, time.monotonic()
        figures.together += len(sequences)
        try:
            for sequence, token in self._side_by_side(deque(sequences), settled, cancelled):
                if token is not None:
                    sequence.tokens.append(token)
                    figures.tokens += 1
                yield sequence, token
        finally:
            figures.seconds += time.monotonic() - started

    def _side_by_side(self, waiting, settled, cancelled):
        """Runs sequences in slots; yields (sequence, token or None) as ``generate_all``."""
        state, slots = self._cpu.start(min(SLOTS, len(waiting))), {}

        def over(sequence):
            return sequence.closed or not sequence.n or cancelled()

        while waiting or slots:
            for slot in range(state.shape[1]):
                while slot not in slots and waiting:
                    sequence = waiting.popleft()
                    if over(sequence):
                        yield sequence, None
                    else:
                        slots[slot] = _Text(sequence)
                        state[:, slot] = 0
                        self.statistics.prompt_tokens += len(sequence.ids) - 1
            if not slots:
                return
            for slot, token in self._step(state, slots, settled):
                text = slots[slot]
                if token is not None:
                    yield text.sequence, token
                if over(text.sequence) or token is not None and text.ended(token):
                    del slots[slot]
                    yield text.sequence, None

    def _step(self, state, slots, settled):
        """Every text reads what it has next: [(slot, token or None where the prompt goes on)]."""
        pieces = {slot: text.next_piece(PIECE) for slot, text in slots.items()}
        ends = np.cumsum([len(piece) for piece in pieces.values()]) - 1
        made = [not text.waiting for text in slots.values()]
        head = self._cpu.columns([token for piece in pieces.values() for token in piece],
                                 [slot for slot, piece in pieces.items() for _ in piece], state, ends[made])
        self.statistics.passes += -(-(int(ends[-1]) + 1) // BLOCK)
        making = [text for text in slots.values() if not text.waiting]
        tokens = iter(self._sampled(head, [settled[text.sequence] for text in making],
                                    [text.position - 1 for text in making]))
        return [(slot, None if text.waiting else text.made(int(next(tokens)))) for slot, text in slots.items()]

    def _values(self):
        return self._state[:, 0].copy()

    def _set_values(self, values):
        self._state = np.array(values, np.float64)[:, None]


class _Text:
    """A sequence in a slot: what of it is to be read next.

    Attributes
    ----------
    sequence : Sequence
    waiting : list of int
        Tokens that are known and not read.
    position : int
        Of the next token to be read.
    """

    def __init__(self, sequence):
        self.sequence, self.waiting, self.position = sequence, list(sequence.ids), 0
        self._left, self._stops = sequence.n, stop_tokens(sequence.stop)

    def next_piece(self, most):
        """The next tokens to read (list of int), no longer waiting."""
        piece, self.waiting = self.waiting[:most], self.waiting[most:]
        self.position += len(piece)
        return piece

    def made(self, token):
        """Takes the token that follows, and returns it."""
        self.waiting.append(token)
        self._left -= 1
        return token

    def ended(self, token):
        """Whether the text ends behind a token (bool)."""
        return token in self._stops or not self._left
