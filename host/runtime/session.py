"""Sequences that enter a runtime and leave it while others run: alone in the runtime's own text, or side by side."""

import time
from contextlib import closing
from dataclasses import dataclass, field

from sterna.host.device.run import stop_tokens
from sterna.host.runtime.state import State


@dataclass(eq=False)
class Sequence:
    """One text of several, from its start, or from a State, to its end.

    Attributes
    ----------
    ids : list of int
        Tokens to read first, behind those of ``state``.
    n : int
        Tokens to make at most; 0 only reads.
    sampling : Sampling
    stop : int, tuple of int, or None
        Tokens after any of which the text ends.
    tokens : list of int
        What has been made.
    closed : bool
        Set by whoever has seen enough of it.
    until : int or None
        Where it was closed: so many tokens of the text, with those of ``state``. Where a device has made more of
        them, the state of that end is none that anyone wants.
    wanted : callable() -> bool
        Asked between tokens and between pieces of a prompt that is read alone; False lets the step end, so that
        whoever steps can close it.
    state : State or None
        Where the text stands at its start.
    marks : tuple of int
        Positions of the prompt, ascending, whose states ``keep`` is to be given: those behind so many tokens.
    keep : callable(State), optional
        Takes the states of ``marks``, and with ``final`` the one where the text has ended.
    final : bool
    exact : bool
        A device never goes on before a token has been seen, so that the state is where the caller closed.
    progress : callable(done, total), optional
        Told about the reading of the prompt, where the text is alone.
    """

    ids: list
    n: int
    sampling: object
    stop: int | tuple | None = None
    tokens: list = field(default_factory=list)
    closed: bool = False
    until: int | None = None
    wanted: object = lambda: True
    state: State | None = None
    marks: tuple = ()
    keep: object = None
    final: bool = False
    exact: bool = False
    progress: object = None


class Text:
    """How far a sequence has come inside of a session.

    Attributes
    ----------
    sequence : Sequence
    sampling : Sampling
        As the runtime takes it.
    tokens : list of int
        All that are known, from the first one of the text on.
    position : int
        So many of them have been read.
    left : int
        Tokens to make still.
    stops : tuple of int
    marks : list of int
        Positions whose states are still to come.
    """

    def __init__(self, sequence, sampling):
        self.sequence, self.sampling, self.stops = sequence, sampling, stop_tokens(sequence.stop)
        before = list(sequence.state.tokens) if sequence.state else []
        self.tokens, self.left = before + list(sequence.ids), sequence.n
        self.position = max(0, len(before) - 1)
        self.marks = [mark for mark in sequence.marks if self.position < mark < len(self.tokens)]

    @property
    def final(self):
        """Whether the state at its end is wanted, all tokens being known (bool)."""
        until = self.sequence.until
        return self.sequence.final and (until is None or len(self.tokens) <= until)

    @property
    def ended(self):
        """Whether nothing is left to do (bool): all is made, or for ``n`` = 0 read but for the last token."""
        return not self.left and (self.sequence.n > 0 or self.position >= len(self.tokens) - 1)

    def made(self, token):
        """Takes the token that follows; returns it."""
        self.tokens.append(token)
        self.left = 0 if token in self.stops else self.left - 1
        return token

    def reached(self, values):
        """Hands on the state of a mark, if one is at ``position``; ``values()`` gives it."""
        if self.marks and self.marks[0] == self.position:
            self.marks.pop(0)
            self.sequence.keep(self.state(values()))

    def state(self, values):
        """The State of the text at ``position``."""
        return State(values, self.tokens[:self.position + 1])


class Session:
    """A runtime whose sequences come and go.

    A sequence that is in it alone is the runtime's own text: a device then reads a prompt with all its slots, and
    takes drafts. When another one enters, all go on side by side, from where they are; so until it is empty.

    Parameters
    ----------
    runtime : Runtime
        Its text is forgotten.
    arriving : callable() -> bool
        Whether somebody waits to enter; asked between the tokens of a sequence that is alone, which then gives way.

    Attributes
    ----------
    sequences : list of Sequence
        Those inside, in the order of their coming.
    """

    def __init__(self, runtime, arriving=lambda: False):
        self.runtime, self._arriving = runtime, arriving
        self.sequences, self._texts = [], {}
        self._alone = None  # generator of the one that is alone
        self._beside = None  # what makes several
        self._untold = []  # tokens that a device made before a sequence that was alone gave way

    @property
    def free(self):
        """Sequences that may enter (int)."""
        return self.runtime.slots - len(self.sequences)

    def position(self, sequence):
        """Tokens of a sequence that have been read (int), as far as is known; those of its state count too."""
        if self._alone is not None:
            return max(0, self.runtime.position)
        return self._texts[sequence].position

    def enter(self, sequence):
        """A sequence takes a place; it begins with the next step.

        Raises
        ------
        RunError, UsageError
            As ``Runtime.generate``; nothing has changed then.
        """
        runtime = self.runtime
        text = Text(sequence, sequence.sampling.within(runtime.rows))
        runtime.check(sequence.ids)
        if not text.tokens:
            runtime.refuse_nothing()
        runtime.check_text(len(text.tokens) + sequence.n, sequence.stop)
        if self._beside is not None:
            self._beside.enter(text, text.sequence.state)
        self.sequences.append(sequence)
        self._texts[sequence] = text

    def step(self):
        """Goes on for about a token of each sequence.

        Returns
        -------
        list of (sequence, token) : list of (Sequence, int or None)
            Tokens that have been made, as they came; None behind the last one of a sequence, which has left.

        Raises
        ------
        HostError
            The device fails; the session is of no use any more.
        """
        if self._beside is None and len(self.sequences) > 1:
            self._spread()
        if self._beside is not None:
            told, self._untold = self._untold, []
            return told + [self._told(text, token) for text, token in self._timed()]
        return [self._told(text, token) for text, token in self._step_alone()] if self.sequences else []

    def leave(self, sequence):
        """A sequence leaves before its end; returns the tokens (list of int) that no step has told, and its State."""
        text = self._texts[sequence]
        if self._beside is not None:
            told = [token for other, token in self._untold if other is sequence]
            self._untold = [item for item in self._untold if item[0] is not sequence]
            tokens, values = self._beside.leave(text)
        else:
            told, tokens = [], self._rest(text)
            values = self.runtime.state().values if self.runtime.tokens else None
        self._gone(sequence)
        state = text.state(values) if values is not None else None
        return told + tokens, state

    def rest(self):
        """Called when it is empty and nobody comes soon: figures are whole then."""
        if self._beside is not None and not self.sequences:
            self._beside.close()
            self._beside = None
            self.runtime.clear()

    def close(self):
        """All leave, and the runtime is at rest, its text forgotten."""
        for sequence in list(self.sequences):
            if self._beside is None:
                self._rest(self._texts[sequence])
            self._gone(sequence)
        if self._beside is not None:
            self._beside.close()
            self._beside = None
        self.runtime.clear()

    def _told(self, text, token):
        if token is None:
            self._gone(text.sequence)
        return text.sequence, token

    def _gone(self, sequence):
        self.sequences.remove(sequence)
        del self._texts[sequence]

    # Side by side

    def _timed(self):
        figures, started = self.runtime.statistics, time.monotonic()
        out = self._beside.step() if self.sequences else []
        figures.tokens += sum(token is not None for _, token in out)
        figures.seconds += time.monotonic() - started
        return out

    def _spread(self):
        """From the text of the runtime to texts side by side."""
        begun = self._alone is not None
        first, *others = self.sequences
        if begun:
            self._untold = [(first, token) for token in self._rest(self._texts[first])]
            self.runtime.statistics.tokens += len(self._untold)
        self._beside = self.runtime.beside()
        if begun and self.runtime.tokens:
            self._beside.adopt(self._texts[first])
        else:
            self._beside.enter(self._texts[first], first.state)
        for sequence in others:
            self._beside.enter(self._texts[sequence], sequence.state)

    # Alone

    def _step_alone(self):
        text = self._texts[self.sequences[0]]
        if self._alone is None:
            self._alone = self._run(text)
        ended = text.sequence.closed
        if not ended:
            try:
                token = next(self._alone)
                return [(text, token)] if token is not None else []
            except StopIteration:
                pass
        untold = [(text, token) for token in self._rest(text)]
        if text.final and self.runtime.tokens:
            text.sequence.keep(self.runtime.state())
        return [*untold, (text, None)]

    def _rest(self, text):
        """The runtime comes to rest; returns tokens (list) of its text that nobody has been told."""
        if self._alone is not None:
            self._alone.close()
        self._alone = None
        text.position = max(0, self.runtime.position)
        untold = self.runtime.tokens[len(text.tokens):]
        for token in untold:
            text.made(token)
        return untold

    def _run(self, text):
        """Makes the tokens of a text that is alone; yields None where it has given way to somebody who comes."""
        runtime, sequence = self.runtime, text.sequence
        runtime.clear()
        if sequence.state:
            runtime.restore(sequence.state)

        def unwanted():
            return sequence.closed or not sequence.wanted() or runtime.slots > 1 and self._arriving()

        progress = sequence.progress or (lambda done, total: None)
        while not sequence.closed:
            known = text.marks[0] + 1 if text.marks else len(text.tokens)
            ids = text.tokens[len(runtime.tokens):known]
            n = 0 if text.marks else min(text.left, 1) if sequence.exact else text.left
            with closing(runtime.generate(ids, n, text.sampling, sequence.stop, unwanted, progress)) as made:
                for token in made:
                    yield text.made(token)
            text.position = runtime.position
            text.reached(lambda: runtime.state().values)
            if text.ended:
                return
            if unwanted():
                yield None
