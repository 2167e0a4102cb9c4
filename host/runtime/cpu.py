"""The kernels of this machine's processor as a runtime."""

from functools import partial
from itertools import compress

import numpy as np

from sterna.host.device.run import stop_tokens
from sterna.host.runtime.runtime import Runtime, untold
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

    @property
    def slots(self):
        return SLOTS

    def beside(self):
        return _Columns(self)

    def _values(self):
        return self._state[:, 0].copy()

    def _set_values(self, values):
        self._state = np.array(values, np.float64)[:, None]


class _Columns:
    """Texts side by side, see ``Runtime``: a column of the state each, and a call of the kernels for all."""

    def __init__(self, runtime):
        self._runtime, self._model = runtime, runtime._cpu
        self._state, self._texts = self._model.start(SLOTS), {}  # by column

    def enter(self, text, state):
        column = self._take(text)
        self._state[:, column] = 0 if state is None else state.values

    def adopt(self, text):
        self._state[:, self._take(text)] = self._runtime._values()

    def _take(self, text):
        column = next(k for k in range(SLOTS) if k not in self._texts)
        self._texts[column] = text
        figures = self._runtime.statistics
        figures.together += 1
        figures.prompt_tokens += len(text.tokens) - 1 - text.position
        return column

    def step(self):
        ended = [(column, text) for column, text in self._texts.items() if text.sequence.closed or text.ended]
        if self._texts and not ended:
            return self._step()
        for column, text in ended:
            self._end(column, text)
        return [(text, None) for _, text in ended]

    def _step(self):
        """Every text reads what it has next."""
        pieces = {column: self._next_piece(text) for column, text in self._texts.items()}
        ends = np.cumsum([len(piece) for piece in pieces.values()]) - 1
        made = [text.left > 0 and text.position == len(text.tokens) for text in self._texts.values()]
        making = list(compress(self._texts.values(), made))
        head = self._model.columns([token for piece in pieces.values() for token in piece],
                                   [column for column, piece in pieces.items() for _ in piece], self._state,
                                   ends[made])
        self._runtime.statistics.passes += -(-(int(ends[-1]) + 1) // BLOCK)
        tokens = self._runtime._sampled(head, [text.sampling for text in making],
                                        [text.position - 1 for text in making])
        out = [(text, text.made(int(token))) for text, token in zip(making, tokens, strict=True)]
        for column, text in list(self._texts.items()):
            text.reached(lambda column=column: self._state[:, column].copy())
            if text.ended:
                self._end(column, text)
                out.append((text, None))
        return out

    @staticmethod
    def _next_piece(text):
        """Tokens (list) to read next, up to the next mark; the last one of a prompt only to make others."""
        end = min(text.position + PIECE, len(text.tokens) - (not text.left))
        if text.marks:
            end = min(end, text.marks[0])
        piece = text.tokens[text.position:end]
        text.position = end
        return piece

    def _end(self, column, text):
        del self._texts[column]
        if text.final:
            text.sequence.keep(text.state(self._state[:, column].copy()))

    def leave(self, text):
        column = next(column for column, other in self._texts.items() if other is text)
        del self._texts[column]
        return [], self._state[:, column].copy()

    def close(self):
        self._texts.clear()
