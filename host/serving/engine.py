"""Prompts in, pieces of text out: one engine over a device or several, for any number of callers."""

import logging
import secrets
from contextlib import suppress
from functools import partial

from sterna.host.errors import HostError, UsageError
from sterna.host.model.model import Model
from sterna.host.model.text import TextStream
from sterna.host.runtime.open import open_runtime
from sterna.host.runtime.runtime import RunError
from sterna.host.runtime.sampling import SEEDS, UNLIMITED, Sampling
from sterna.host.runtime.state import State
from sterna.host.serving.generation import Generation
from sterna.host.serving.pool import DeviceStatus, Pool, Source
from sterna.host.serving.scheduler import Job, Queue, Scheduler
from sterna.host.serving.states import StateCache
from sterna.sim.golden.progress import quiet

HOTTEST, COLDEST = 1000, 1e-3  # temperatures
STATE_BYTES, QUEUE, STALL_S, LOST_S = 64 << 20, 256, 30.0, 30.0
ANSWER_S = 10.0  # without an answer a device is gone

log = logging.getLogger("sterna")
log.addHandler(logging.NullHandler())  # an engine prints nothing


class QueueFull(HostError):
    """As many texts wait as may; one may come again when some have ended."""


class EngineClosed(HostError):
    """The engine takes no more texts, or ended before this one did."""


def is_number(value, kinds):
    """Whether a value is a number of some ``kinds``, and no bool."""
    return isinstance(value, kinds) and not isinstance(value, bool)


def check_sampling(temperature, top_k, top_p, seed, max_tokens):
    """UsageError that names the first parameter with a value that no text can be made with."""
    if not is_number(temperature, (int, float)) or not (temperature == 0 or COLDEST <= temperature <= HOTTEST):
        raise UsageError(f"temperature {temperature!r}: use 0 (greedy), or {COLDEST:g} to {HOTTEST}")
    if not is_number(top_k, int) or top_k < 0:
        raise UsageError(f"top_k {top_k!r}: use 0 (off) or more")
    if not is_number(top_p, (int, float)) or not 0 < top_p <= 1:
        raise UsageError(f"top_p {top_p!r}: use more than 0, and at most 1.0 (off)")
    if seed is not None and not (is_number(seed, int) and 0 <= seed < SEEDS):
        raise UsageError(f"seed {seed!r}: use 0 to {SEEDS - 1}, or None for a random one")
    if max_tokens is not None and not (is_number(max_tokens, int) and max_tokens >= 0):
        raise UsageError(f"max_tokens {max_tokens!r}: use 0 or more, or None to go on until the text ends")


def checked_stops(stop):
    """Stop strings (tuple of str) of a ``stop``; UsageError for anything else."""
    stops = (stop,) if isinstance(stop, str) else stop
    if not isinstance(stops, (list, tuple)) or not all(isinstance(one, str) for one in stops):
        raise UsageError(f"stop {stop!r}: use a text, or a list of texts")
    return tuple(stops)


class Engine:
    """Makes texts for any number of callers, from threads and from asyncio; it prints nothing.

    ``sterna.load`` makes one with devices of its own, each with a thread. ``Engine.over`` works on a runtime that is
    open, in the thread of whoever waits for a text.

    Parameters
    ----------
    model : Model
    pool : Pool or None
    driven : Scheduler or None
        The one that callers drive, where there is no pool.
    queue : Queue
    states : StateCache

    Attributes
    ----------
    model : Model
    """

    def __init__(self, model, pool, driven, queue, states):
        self.model, self._pool, self._driven, self._queue, self._states = model, pool, driven, queue, states
        self._refusing = self._closed = self._failed = False
        runtimes = [member.runtime for member in pool.members] if pool else [driven.runtime]
        self._rows, self._longest = (min(getattr(runtime, name) for runtime in runtimes)
                                     for name in ("rows", "longest"))
        self._checks = [runtime.check_text for runtime in runtimes]
        if pool:
            pool.start()

    @classmethod
    def over(cls, runtime):
        """An Engine on a runtime, which stays the caller's: whoever waits for a text makes it, in his own thread.

        It keeps no states, and a failure of the device is the caller's.
        """
        queue, states = Queue(UNLIMITED), StateCache(None, 0)
        return cls(runtime.model, None, Scheduler(runtime, queue, states, share=None), queue, states)

    @property
    def devices(self):
        """The devices (list of DeviceStatus)."""
        if self._pool:
            return [member.status for member in self._pool.members]
        runtime, scheduler = self._driven.runtime, self._driven
        return [DeviceStatus(runtime.label, runtime.label, not self._closed, runtime.slots, len(scheduler.jobs),
                             scheduler.tokens)]

    @property
    def waiting(self):
        """Texts that have no slot (int)."""
        return len(self._queue)

    def generate(self, prompt, max_tokens=None, temperature=0.8, top_k=0, top_p=1.0, seed=None, stop=(),
                 ignore_end=False, state=None, *, keep_state=False, progress=None):
        """Begin a text.

        Parameters
        ----------
        prompt : str or list of int
            Text, or tokens, which are read as they are.
        max_tokens : int, optional
            Tokens to make at most; None: until the text ends.
        temperature : float
            0 takes the best token.
        top_k : int
            Sample among the best so many; 0: among all.
        top_p : float
            Sample among the fewest best that have this share of the list's probability; 1.0: off.
        seed : int, optional
            32 bits; the same seed gives the same text. None: a random one, ``Generation.seed`` says which.
        stop : str or list of str
            The text ends before the first of these.
        ignore_end : bool
            Go on behind the end of a text.
        state : State, optional
            Go on with the text of which this is the state.
        keep_state : bool
            ``Generation.state`` is sure to need no reading: a device then makes one token at a time where there are
            stop strings.
        progress : callable(done, total), optional
            Told about the reading of the prompt while the text is alone on its device, in the thread that reads.

        Returns
        -------
        Generation

        Raises
        ------
        UsageError
            A parameter has a value that it does not take; the message names it.
        TextError
            The prompt cannot be written in the model's tokens, or a stop string is empty.
        RunError
            A token is not among the model's, or there is nothing to read.
        QueueFull
            As many texts wait as may.
        EngineClosed
        """
        check_sampling(temperature, top_k, top_p, seed, max_tokens)
        stream = TextStream(self.model.vocabulary, checked_stops(stop))
        seed = secrets.randbelow(SEEDS) if seed is None else seed
        text = self._text(prompt, state)
        ends = () if ignore_end else self.model.ends
        room = self._longest - len(text)
        if room < 0 or max_tokens is not None and max_tokens > room:
            raise UsageError(f"max_tokens {max_tokens} behind {len(text)} others: the devices count texts of up to "
                             f"{self._longest} tokens")
        for check in self._checks:
            check(len(text), ends)
        job = Job(None, text, min(room, UNLIMITED) if max_tokens is None else max_tokens,
                  self._sampling(temperature, seed, top_k, top_p), stream, ends, state,
                  exact=keep_state and bool(stream.stops), kept=keep_state, progress=progress)
        return self._submit(job, seed)

    def drain(self, timeout_s=None):
        """Take no more texts, and wait until those that are there have ended; returns whether they have (bool)."""
        self._refusing = True

        def ended():
            return not len(self._queue) and not self._queue.running

        if self._drives(ended):
            return True
        with self._queue.changed:
            return self._queue.changed.wait_for(ended, timeout_s)

    def close(self):
        """Cancel what runs, and give everything back; more than once is fine."""
        self._refusing, closed, self._closed = True, self._closed, True
        if closed:
            return
        if self._pool:
            self._pool.close()
        else:
            if not self._failed:  # asking a device that does not answer would only take as long again
                self._driven.close()
            self._queue.end(self._driven.give_up())
        self._queue.sweep(EngineClosed("the engine was closed before this text began"))
        self._states.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _text(self, prompt, state):
        """All tokens (list of int) that are known of a text."""
        geometry, vocabulary = self.model.geometry, self.model.vocabulary
        before = []
        if state is not None:
            shape = (geometry.num_hidden_layers, geometry.hidden_size)
            if not isinstance(state, State) or state.values.shape != shape or not state.tokens:
                raise UsageError(f"state: use one of {self.model.name}, as Generation.state gives")
            before = list(state.tokens)
        if isinstance(prompt, str):
            ids = vocabulary.encode(prompt, start=state is None) if prompt or state is None else []
        elif isinstance(prompt, (list, tuple)) and all(is_number(token, int) for token in prompt):
            ids = list(prompt)
        else:
            raise UsageError(f"prompt of {type(prompt).__name__}: use a text, or a list of tokens")
        text = before + ids
        bad = next((token for token in text if not 0 <= token < geometry.vocab_size), None)
        if bad is not None:
            raise RunError(f"token {bad} is not among the model's {geometry.vocab_size}")
        if not text:
            raise RunError("there is no text to go on with: give a prompt")
        return text

    def _sampling(self, temperature, seed, top_k, top_p):
        """The Sampling that gives the same text on every device."""
        sampling = Sampling(float(temperature), seed, top_k, float(top_p))
        if sampling.limited and not self._rows:
            raise UsageError(f"{f'top_k {top_k}' if top_k else f'top_p {top_p:g}'}: the devices have no list of the "
                             "best tokens: leave it out")
        if sampling.limited and top_k > self._rows:
            raise UsageError(f"top_k {top_k}: the list of the devices has {self._rows} tokens: use 0 to {self._rows}")
        return sampling.within(self._rows)

    def _submit(self, job, seed):
        known = len(job.state.tokens) if job.state else 0
        job.generation = Generation(self, list(job.text), seed, known)
        job.generation._job = job
        if self._refusing:
            raise EngineClosed("the engine has been closed: load the model again")
        if not self._queue.put([job]):
            raise QueueFull(f"{len(self._queue)} texts wait already: try again when some have ended")
        if self._closed:  # meanwhile
            self._queue.sweep(EngineClosed("the engine was closed before this text began"))
        return job.generation

    def _state_of(self, generation):
        """The State behind the last token of a generation that has ended."""
        if generation._kept is not None:
            return generation._kept
        tokens = list(generation._job.text)
        found = self._states.find(tokens) if len(tokens) > 1 else None
        if found is not None:
            return found
        again = self._submit(Job(None, tokens, 0, Sampling(), TextStream(self.model.vocabulary), (), kept=True), 0)
        again.result()
        return again._kept

    def _nudge(self):
        self._queue.nudge()

    def _drives(self, there):
        """Makes texts until ``there()``, if that is the callers' business; whether it is (bool)."""
        if self._pool:
            return False
        while not there():
            try:
                busy = self._driven.turn()
            except HostError as error:
                self._refusing = self._failed = True
                self._queue.end(self._driven.give_up(), error)
                self._queue.sweep(error)
                continue
            except BaseException:
                self._refusing = self._failed = True
                with suppress(HostError):
                    self._driven.close()
                raise
            if not busy and not len(self._queue) and not there():
                raise EngineClosed("the engine was closed before this text ended")
        return True


def open_quietly(name, model, options, progress):
    """A Runtime that is opened without a word on the terminal."""
    with quiet():
        return open_runtime(name, model, tell=log.info, progress=progress, **options)


def load(model, device="cpu", *, threads=None, baud=1_000_000, state_cache_bytes=STATE_BYTES, state_cache_dir=None,
         queue=QUEUE, stall_s=STALL_S, lost_s=LOST_S):
    """An Engine with devices of its own; see ``sterna.load``."""
    if not is_number(state_cache_bytes, int) or state_cache_bytes < 0:
        raise UsageError(f"state_cache_bytes {state_cache_bytes!r}: use 0 (off) or more")
    if not is_number(queue, int) or queue < 1:
        raise UsageError(f"queue {queue!r}: use 1 or more")
    names = [device] if isinstance(device, str) else list(device)
    if not names:
        raise UsageError("device: name one, or several")
    model = model if isinstance(model, Model) else Model(model)
    sources = []
    for name in names:
        limits = {"stall_s": stall_s, "timeout_s": min(ANSWER_S, stall_s)}
        options = {"threads": threads} if name == "cpu" else {"baud": baud, "limits": limits}
        sources.append(Source(name, partial(open_quietly, name, model, options)))
    waiting = Queue(queue)
    states = StateCache(model.packed if state_cache_bytes and state_cache_dir is not None else None,
                        state_cache_bytes, state_cache_dir, log.warning)
    return Engine(model, Pool(sources, waiting, states, lost_s=lost_s), None, waiting, states)
