"""One way to run a model, whatever computes it: the base class."""

import time
from collections import deque
from contextlib import closing

import numpy as np

from sterna.host.errors import HostError
from sterna.host.runtime.session import Session
from sterna.host.runtime.state import State
from sterna.host.runtime.statistics import Statistics
from sterna.hw.protocol import MOST_ROWS


def untold(what, done, total):
    """Where nobody wants to know how far something has come."""


class RunError(HostError):
    """A run that cannot be done."""


class Runtime:
    """A loaded model and the text that it is in the middle of; a context manager.

    Attributes
    ----------
    tokens : list of int
        The text so far: what was read and what was made.
    statistics : Statistics
        Of everything since the runtime was opened or restarted.
    label : str
        What computes, for people.
    model_bytes : int
        Size of the image that runs; without one, of the files of the model.
    rows : int
        Most tokens of the list behind top-k and top-p.
    draft : int
        Tokens to propose behind each one; only devices with slots take any.
    threads : int or None
        Threads of this machine that compute, where it is known.
    slots : int
        Sequences that it makes side by side.
    longest : int
        Most tokens of a text.
    near : bool
        States lie in this process, so that taking one costs nothing.

    Subclasses give four methods: ``_read(tokens, cancelled)`` reads tokens and yields how many it has read so far,
    ``_make(token, n, sampling, stop, cancelled)`` reads one token and yields up to n new ones, ``_values()`` and
    ``_set_values(values)`` get and set the recurrent state, fp24 values [L, H]. With ``slots`` there is ``beside()``
    too, which gives what makes texts side by side:

    ``enter(text, state)``
        Takes a Text up, from a State or None.
    ``adopt(text)``
        Takes up the runtime's own text.
    ``step()``
        Goes on; returns a list of (Text, token), with None behind the last token of a text.
    ``leave(text)``
        Ends a text; returns the tokens that no step has told, and its state's values or None.
    ``close()``
        Ends all.
    """

    label, rows, draft, threads, slots, longest, near = "", MOST_ROWS, 0, None, 1, 1 << 32, True

    def __init__(self, model):
        self.model, self.tokens = model, []
        self.statistics = Statistics(geometry=model.geometry)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Give everything back; more than once is fine."""

    def wake(self):
        """Once before texts that nobody watches: from then on a device that is restarted is seen to be.

        A build without counters is seen only where ``Device.halt`` does.
        """

    def over(self):
        """Whether runs should end, as nothing more is to be seen of them (bool)."""
        return False

    def generate(self, ids, n, sampling, stop=None, cancelled=lambda: False, progress=lambda done, total: None):
        """Go on with the text; yields the new tokens (int) as they are made.

        Parameters
        ----------
        ids : list of int
            Tokens to read first; may be empty where a text is under way.
        n : int
            Tokens to make; 0 only reads.
        sampling : Sampling
        stop : int or tuple of int, optional
            Tokens after any of which to stop; it is yielded too.
        cancelled : callable() -> bool
            Asked between tokens; True ends the run, and ``tokens`` says how far it went.
        progress : callable(done, total)
            Told about the reading.

        Raises
        ------
        RunError
            Nothing to read, or an id that the model does not have.
        UsageError
            The device's list is shorter than the sampling wants it, or the text longer than it can count.
        """
        sampling = sampling.within(self.rows)
        if not self.tokens and not ids:
            self.refuse_nothing()
        self.check(ids)
        self.check_text(len(self.tokens) + len(ids) + n, stop)
        # The last token of a text is read only when its successor is made, so that a run can go on at any point.
        waiting = [*self.tokens[-1:], *ids]
        if not self.tokens:
            self.tokens = [waiting[0]]
        started, read = time.monotonic(), 0
        try:
            for done in self._read(waiting[:-1], cancelled):
                self.tokens += waiting[read + 1:done + 1]
                self.statistics.prompt_tokens += done - read
                read = done
                progress(done, len(waiting) - 1)
        finally:
            self.statistics.prompt_seconds += time.monotonic() - started
        if cancelled() or n == 0:
            return
        started = time.monotonic()
        try:
            # Closed at once when the caller stops early: the device behind it must come to rest first.
            with closing(self._make(waiting[-1], n, sampling, stop, cancelled)) as made:
                for token in made:
                    self.tokens.append(token)
                    self.statistics.tokens += 1
                    yield token
        finally:
            self.statistics.seconds += time.monotonic() - started

    @staticmethod
    def refuse_nothing():
        """RunError, as there is nothing to read."""
        raise RunError("there is no text to go on with: give a prompt")

    def check(self, ids):
        """RunError for an id that the model does not have."""
        bad = [k for k in ids if not 0 <= k < self.model.geometry.vocab_size]
        if bad:
            raise RunError(f"token {bad[0]} is not among the model's {self.model.geometry.vocab_size}")

    def check_text(self, tokens, stop):
        """UsageError for a text of more ``tokens`` than the device counts, or a ``stop`` that it misses."""

    def session(self, arriving=lambda: False):
        """A Session, in which sequences come and go; see there. The text under way is forgotten."""
        return Session(self, arriving)

    def beside(self):
        """What makes texts side by side, of a runtime with ``slots``."""
        raise NotImplementedError

    def generate_all(self, sequences, cancelled=lambda: False):
        """Texts of their own, side by side where there are slots. A text under way is forgotten.

        All are checked before the first one begins.

        Parameters
        ----------
        sequences : list of Sequence
        cancelled : callable() -> bool
            Asked between tokens; True ends all.

        Yields
        ------
        (sequence, token) : (Sequence, int or None)
            None when a sequence has ended.
        """
        for sequence in sequences:
            sequence.sampling.within(self.rows)
            self.check(sequence.ids)
            self.check_text(len(sequence.ids) + sequence.n, sequence.stop)
            if sequence.n and not sequence.ids:
                self.refuse_nothing()
        waiting, session = deque(sequences), self.session()
        try:
            while waiting or session.sequences:
                while waiting and session.free:
                    sequence = waiting.popleft()
                    if sequence.closed or not sequence.n or cancelled():
                        yield sequence, None
                    else:
                        session.enter(sequence)
                for sequence, token in session.step():
                    if token is not None:
                        if sequence.closed:
                            continue
                        sequence.tokens.append(token)
                    yield sequence, token
                    sequence.closed |= cancelled()
        except HostError:
            raise  # asking the device again would only take as long again
        except BaseException:
            session.close()
            raise
        session.close()

    @property
    def position(self):
        """Position of the next token to read, the last of the text."""
        return len(self.tokens) - 1

    def state(self):
        """The State of the text, to go on later; RunError before anything was read."""
        if not self.tokens:
            raise RunError("there is no text yet whose state could be saved")
        if not self.position:  # nothing was read: what a device keeps is of another text
            geometry = self.model.geometry
            return State(np.zeros((geometry.num_hidden_layers, geometry.hidden_size)), list(self.tokens))
        return State(self._values(), list(self.tokens))

    @property
    def model_bytes(self):
        return self.model.size_bytes

    def clear(self):
        """Forget the text: the next run begins a new one, from an empty state."""
        self.tokens = []

    def restart(self):
        """Forget the text and its figures."""
        self.clear()
        old = self.statistics
        self.statistics = Statistics(config=old.config, geometry=old.geometry, simulated=old.simulated,
                                     weight_bytes=old.weight_bytes, slots=old.slots)

    def restore(self, state):
        """Take up a text where a State left it."""
        self._set_values(state.values)
        self.tokens = list(state.tokens)
