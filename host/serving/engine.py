"""Prompts in, pieces of text out: one engine over a device or several, for any number of callers."""

import logging
import secrets
import threading
import time
from contextlib import suppress
from dataclasses import replace
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
        self._closing, self._turning = threading.Lock(), threading.Lock()
        self._turned_by = None  # the thread that is making texts, where callers do
        runtimes = [member.runtime for member in pool.members] if pool else [driven.runtime]
        self._lists = sorted({runtime.rows for runtime in runtimes})  # their lengths
        self._longest = min(runtime.longest for runtime in runtimes)
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
            Sample among the fewest best that have this share of the list's probability; 1.0: off. The list has
            ``top_k`` tokens; without it as many as the device has, which must then be the same on all devices.
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
            Told about the reading of the prompt while the text is alone on its device, in the thread that reads. It
            must not wait for texts; what it raises ends this text, and ``result`` raises it.

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
        if room < 0:
            raise UsageError(f"prompt of {len(text)} tokens: the devices count texts of up to {self._longest}: "
                             "shorten it")
        if max_tokens is not None and max_tokens > room:
            raise UsageError(f"max_tokens {max_tokens} behind {len(text)} others: the devices count texts of up to "
                             f"{self._longest} tokens")
        for check in self._checks:
            check(len(text), ends)
        job = Job(text, min(room, UNLIMITED) if max_tokens is None else max_tokens,
                  self._sampling(temperature, seed, top_k, top_p), stream, ends, state,
                  exact=keep_state and bool(stream.stops), kept=keep_state, progress=progress)
        return self._submit(job, seed)

    def drain(self, timeout_s=None):
        """Take no more texts, and wait until those that are there have ended; returns whether they have (bool)."""
        with self._queue.changed:
            self._refusing = True

        def ended():
            return not len(self._queue) and not self._queue.running

        if self._drives(ended, timeout_s):
            return ended()
        with self._queue.changed:
            return self._queue.changed.wait_for(ended, timeout_s)

    def close(self):
        """Cancel what runs, and give everything back; more than once, and from several threads, is fine.

        It returns when all is given back; but in a callback, whose text runs, at once.
        """
        with self._queue.changed:
            self._refusing = self._closed = True
        if self._pool:
            self._pool.stop()
        self._refuse_waiting()
        if self._inside:
            return
        with self._closing:
            if self._pool:
                self._pool.join()
            else:
                self._end_driven()
            self._refuse_waiting()
            self._states.close()

    def _end_driven(self):
        with self._turning:
            if not self._failed:  # asking a device that does not answer would only take as long again
                self._failed = True
                self._driven.close()
            self._queue.end(self._driven.give_up())

    def _refuse_waiting(self):
        self._queue.sweep(EngineClosed("the engine was closed before this text began"))

    @property
    def _inside(self):
        """Whether a callback asks, in the thread that makes texts (bool)."""
        return self._pool.inside if self._pool else self._turned_by == threading.get_ident()

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
            if not isinstance(state, State) or state.values.shape != shape or not state.tokens \
                    or not state.fits(self.model):
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
        rows, most = self._lists[0], self._lists[-1]
        if not sampling.limited:
            return sampling.within(rows)
        if not rows:
            who = "one of the devices has" if most else "the devices have"
            raise UsageError(f"{f'top_k {top_k}' if top_k else f'top_p {top_p:g}'}: {who} no list of the best "
                             "tokens: leave it out")
        if top_k > rows:
            raise UsageError(f"top_k {top_k}: the list of the devices has {rows} tokens: use 0 to {rows}")
        if not top_k and most > rows:
            raise UsageError(f"top_p {top_p:g} without top_k: the lists of the devices have {rows} to {most} tokens, "
                             f"and the text would depend on the device: give top_k too, 1 to {rows}")
        return sampling.within(rows)

    def _submit(self, job, seed):
        known = len(job.state.tokens) if job.state else 0
        generation = Generation(self, list(job.text), seed, known)
        generation._job = job
        job.belongs_to(generation, self._nudge)
        with self._queue.changed:
            if self._refusing:
                raise EngineClosed("the engine has been closed: load the model again")
            if not self._queue.put(job):
                raise QueueFull(f"{len(self._queue)} texts wait already: try again when some have ended")
        return generation

    def _state_of(self, generation):
        """The State behind the last token of a generation that has ended."""
        tokens = list(generation._job.text)
        found = generation._kept or self._states.find(tokens)
        if found is None:
            again = self._submit(Job(tokens, 0, Sampling(), TextStream(self.model.vocabulary), (), kept=True), 0)
            again.result()
            found = again._kept
        return replace(found, model=self.model)

    def _nudge(self):
        self._queue.nudge()

    def _drives(self, there, timeout_s=None):
        """Makes texts until ``there()`` or for ``timeout_s``, where callers do that; False where devices do (bool).
        """
        if there():
            return True
        if self._inside:
            raise HostError("a callback cannot wait for a text: it is called by the thread that makes them")
        if self._pool:
            return False
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while not there() and (until is None or time.monotonic() < until):
            with self._turning:
                if not there():
                    self._turn(there)
            if self._closed:  # by a callback
                self.close()
        return True

    def _turn(self, there):
        self._turned_by = threading.get_ident()
        try:
            busy = not self._failed and self._driven.turn()
        except HostError as error:
            self._refusing = self._failed = True
            self._queue.end(self._driven.give_up(), error)
            self._queue.sweep(error)
            return
        except BaseException:
            self._refusing = self._failed = True
            with suppress(HostError):
                self._driven.close()
            raise
        finally:
            self._turned_by = None
        if (self._failed or not busy and not len(self._queue)) and not there():
            raise EngineClosed("the engine was closed before this text ended")


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
