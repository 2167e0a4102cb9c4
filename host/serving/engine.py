"""Prompts in, pieces of text out: one engine over a device or several, for any number of callers."""

import secrets
import threading
import time
from collections import deque
from dataclasses import dataclass

from sterna.host.errors import HostError, UsageError
from sterna.host.model.model import Model
from sterna.host.model.text import TextStream
from sterna.host.runtime.open import open_runtime
from sterna.host.runtime.runtime import RunError
from sterna.host.runtime.sampling import UNLIMITED, Sampling
from sterna.host.serving.generation import CANCELLED, LENGTH, STOP, Generation, wake_all

SEEDS = 1 << 32
HOTTEST, COLDEST = 1000, 1e-3  # temperatures


class QueueFull(HostError):
    """As many texts wait as may; one may come again when some have ended."""


class EngineClosed(HostError):
    """The engine takes no more texts, or ended before this one did."""


@dataclass(frozen=True)
class DeviceStatus:
    """A device of an engine.

    Attributes
    ----------
    name : str
        As it was named to the engine.
    label : str
        What computes, for people.
    alive : bool
    slots : int
        Texts that it makes side by side.
    running : int
        Texts that are in them.
    tokens : int
        Tokens that it has made.
    """

    name: str
    label: str
    alive: bool
    slots: int
    running: int
    tokens: int


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


@dataclass(eq=False)
class _Job:
    generation: Generation
    ids: list
    n: int
    sampling: Sampling
    stream: TextStream
    ends: tuple
    state: object


class Engine:
    """Makes texts for any number of callers, from threads and from asyncio; it prints nothing.

    ``sterna.load`` makes one.
    """

    def __init__(self, model, runtime, name, queue=256):
        self.model, self._runtime, self._name, self._queue = model, runtime, name, queue
        self._waiting, self._lock = deque(), threading.Condition()
        self._running, self._tokens, self._closing, self._refusing = None, 0, False, False
        self._states = {}
        self._thread = threading.Thread(target=self._work, name="sterna-engine", daemon=True)
        self._thread.start()

    @property
    def devices(self):
        """The devices (list of DeviceStatus)."""
        return [DeviceStatus(self._name, self._runtime.label, self._thread.is_alive(), 1, int(bool(self._running)),
                             self._tokens)]

    @property
    def waiting(self):
        """Texts that no device has begun with (int)."""
        return len(self._waiting)

    def generate(self, prompt, max_tokens=None, temperature=0.8, top_k=0, top_p=1.0, seed=None, stop=(),
                 ignore_end=False, state=None):
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
        stop : str or sequence of str
            The text ends before the first of these.
        ignore_end : bool
            Go on behind the end of a text.
        state : State, optional
            Go on with the text of which this is the state.

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
        seed = secrets.randbelow(SEEDS) if seed is None else seed
        sampling = Sampling(float(temperature), seed, top_k, float(top_p))
        if sampling.limited and top_k > self._runtime.rows:
            raise UsageError(f"top_k {top_k}: the list of the devices has {self._runtime.rows} tokens: use 0 to "
                             f"{self._runtime.rows}")
        stops = (stop,) if isinstance(stop, str) else tuple(stop)
        stream = TextStream(self.model.vocabulary, stops)
        if isinstance(prompt, str):
            ids = self.model.vocabulary.encode(prompt, start=state is None) if prompt or state is None else []
        else:
            ids = [int(token) for token in prompt]
        self._runtime.check(ids)
        if not ids and state is None:
            raise RunError("there is no text to go on with: give a prompt")
        n = UNLIMITED if max_tokens is None else max_tokens
        generation = Generation(self, ids, sampling, len(state.tokens) if state else 0)
        job = _Job(generation, ids, n, sampling, stream, () if ignore_end else self.model.ends, state)
        with self._lock:
            if self._refusing:
                raise EngineClosed("the engine has been closed: load the model again")
            if len(self._waiting) >= self._queue:
                raise QueueFull(f"{len(self._waiting)} texts wait already: try again when some have ended")
            self._waiting.append(job)
            self._lock.notify_all()
        return generation

    def drain(self, timeout_s=None):
        """Take no more texts, and wait until those that are there have ended; returns whether they have (bool)."""
        with self._lock:
            self._refusing = True
            return self._lock.wait_for(lambda: not self._waiting and not self._running, timeout_s)

    def close(self):
        """Cancel what runs, and give everything back; more than once is fine."""
        with self._lock:
            self._refusing = self._closing = True
            self._lock.notify_all()
        self._thread.join()
        self._runtime.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _nudge(self):
        """Something has been cancelled."""

    def _state_of(self, generation):
        return self._states[generation]

    def _work(self):
        wake = {}
        while True:
            with self._lock:
                self._running = None
                self._lock.notify_all()
                self._lock.wait_for(lambda: self._waiting or self._closing)
                if self._closing and not self._waiting:
                    return
                job = self._running = self._waiting.popleft()
            try:
                self._make(job, wake)
            except Exception as error:  # noqa: BLE001 (it is the caller's)
                job.generation._end("", None, wake, error)
            wake_all(wake)

    def _make(self, job, wake):
        generation, runtime, reason = job.generation, self._runtime, LENGTH
        generation._begun_at = time.monotonic()
        runtime.clear()
        if job.state:
            runtime.restore(job.state)

        def unwanted():
            return generation.cancelled or self._closing

        made = runtime.generate(job.ids, job.n, job.sampling, job.ends, unwanted)
        for token in made:
            self._tokens += 1
            generation._push(token, "" if token in job.ends else job.stream.push(token), wake)
            wake_all(wake)
            if token in job.ends or job.stream.stopped:
                reason = STOP
                break
        made.close()
        if reason == LENGTH and unwanted():
            reason = CANCELLED
        self._states[generation] = runtime.state() if runtime.tokens else None
        generation._end(job.stream.finish(), reason, wake)


def load(model, device="cpu", *, threads=None, baud=1_000_000, state_cache_bytes=64 << 20, state_cache_dir=None,
         queue=256):
    """An Engine; see ``sterna.load``."""
    model = model if isinstance(model, Model) else Model(model)
    name = device if isinstance(device, str) else device[0]
    return Engine(model, open_runtime(name, model, tell=lambda line: None, baud=baud, threads=threads), name, queue)
