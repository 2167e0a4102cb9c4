"""Continuous batching on one runtime: texts of a queue enter its slots and leave them while others run."""

import threading
import weakref
from collections import deque
from dataclasses import dataclass

from sterna.host.errors import UsageError
from sterna.host.runtime.runtime import RunError
from sterna.host.runtime.session import Sequence
from sterna.host.runtime.state import State
from sterna.host.serving.generation import CANCELLED, LENGTH, STOP, wake_all
from sterna.host.serving.states import PIECE

SHARE = 512  # tokens of one text, read or made, after which it makes room for one that waits


@dataclass(eq=False)
class Job:
    """A text on its way through the engine, wherever it is.

    Attributes
    ----------
    text : list of int
        All its tokens: those that were given, then those that were made.
    n : int
        Tokens to make at most.
    sampling : Sampling
        As every device of the engine takes it.
    stream : TextStream
    ends : tuple of int
        Tokens that end it.
    state : State or None
        Where it can be gone on with.
    exact : bool
        Its state must be that of its last token; see ``Sequence``.
    kept : bool
        The state at its end is wanted whatever the cache does: ``end`` holds it then.
    progress : callable(done, total), optional
        Told about the reading of the prompt. What it raises ends the text, and is raised to whoever waits for it.
    made : int
        Tokens that were made.
    entered : int
        Its position when it entered the slot that it is in.
    fault : Exception or None
        What ``progress`` has raised.
    """

    text: list
    n: int
    sampling: object
    stream: object
    ends: tuple
    state: State | None = None
    exact: bool = False
    kept: bool = False
    progress: object = None
    made: int = 0
    entered: int = 0
    end: State | None = None
    begun: bool = False
    strikes: int = 0  # devices that broke under it in an unforeseen way
    fault: Exception | None = None
    _generation: object = None

    def belongs_to(self, generation, gone):
        """Makes it the text of a Generation, which is not kept by it; ``gone()`` is called when nobody has that."""
        self._generation = weakref.ref(generation, lambda _: gone())

    @property
    def generation(self):
        """The Generation, or None if nobody has it any more."""
        return self._generation()

    @property
    def wanted(self):
        """Whether somebody still waits for it (bool)."""
        generation = self._generation()
        return generation is not None and not generation.cancelled and self.fault is None

    @property
    def stopped(self):
        """Whether the text has come to a stop string or an end of the model (bool)."""
        return self.stream.stopped or self.made > 0 and self.text[-1] in self.ends

    def tell(self, done, total):
        """Tells ``progress``, if there is one."""
        if self.progress and self.fault is None:
            try:
                self.progress(done, total)
            except Exception as error:  # noqa: BLE001 (the caller's own; no fault of the device)
                self.fault = error

    def finish(self, wake, reason=None, error=None):
        """The text has ended, or failed."""
        error = error or self.fault
        if (generation := self.generation) is not None:
            if self.end is not None and len(self.end.tokens) >= len(self.text):  # not that of the prompt
                generation._kept = self.end
            generation._end("" if error else self.stream.finish(), None if error else reason, wake, error)


class Queue:
    """Texts that wait, first come, first served; shared by the devices of an engine.

    ``changed`` is a condition over all its members: it is notified when a text comes or ends.

    Attributes
    ----------
    running : int
        Texts that devices have taken and not given back.
    """

    def __init__(self, limit):
        self.limit, self.running = limit, 0
        self._jobs = deque()
        self._cancelled = False  # somebody has cancelled something
        self.changed = threading.Condition()

    def __len__(self):
        return len(self._jobs)

    def put(self, job):
        """Adds a job behind all others; returns whether there was room for it (bool)."""
        with self.changed:
            if len(self._jobs) >= self.limit:
                return False
            self._jobs.append(job)
            self.changed.notify_all()
        return True

    def take(self):
        """The next job, or None."""
        if self._cancelled:
            self.sweep()
        with self.changed:
            if not self._jobs:
                return None
            self.running += 1
            return self._jobs.popleft()

    def back(self, jobs, first):
        """Takes jobs back from a device, in front of all others or behind them."""
        with self.changed:
            self.running -= len(jobs)
            if first:
                self._jobs.extendleft(reversed(jobs))
            else:
                self._jobs.extend(jobs)
            self.changed.notify_all()

    def done(self):
        """A job that a device had taken has ended."""
        with self.changed:
            self.running -= 1
            self.changed.notify_all()

    def end(self, jobs, error=None):
        """Jobs that a device had taken end as cancelled, or with an error."""
        wake = {}
        for job in jobs:
            job.finish(wake, None if error else CANCELLED, error)
            self.done()
        wake_all(wake)

    def nudge(self):
        """Something has been cancelled, perhaps among those that wait."""
        self._cancelled = True
        with self.changed:
            self.changed.notify_all()

    def sweep(self, error=None):
        """Ends the waiting jobs that nobody wants any more; with an error, all of them."""
        wake = {}
        with self.changed:
            self._cancelled = False
            gone, left = [], deque()
            for job in self._jobs:
                (gone if error or not job.wanted else left).append(job)
            if gone:
                self._jobs = left
                self.changed.notify_all()
        # Outside of the lock: whoever looks at one of these texts may be about to cancel another one.
        for job in gone:
            job.finish(wake, None if error else CANCELLED, error)
        wake_all(wake)

    @property
    def disturbed(self):
        """Whether a device should come and look: somebody waits, or has cancelled."""
        return bool(self._jobs) or self._cancelled


class Scheduler:
    """Makes the texts of a queue on a runtime.

    First come, first served; a text that has had its ``share`` of tokens, read or made, makes room for one that waits
    and goes to the end of the queue with its state, so no text waits for more than the shares of those before it.

    Parameters
    ----------
    runtime : Runtime
    queue : Queue
    states : StateCache
    share : int or None
        None: a text that has begun stays to its end.
    ending : callable() -> bool
        Whether all is to end; a prompt that is being read then ends at its next piece.

    Attributes
    ----------
    tokens : int
        Tokens that were made.
    """

    def __init__(self, runtime, queue, states, share=SHARE, ending=lambda: False):
        self.runtime, self.queue, self.states, self._share, self._ending = runtime, queue, states, share, ending
        self.session = runtime.session(lambda: queue.disturbed)
        self.jobs, self.tokens = {}, 0  # by sequence
        self._entering = []  # a job on its way from the queue into a slot
        self._wake = {}

    def turn(self):
        """Lets texts in, and goes on for about a token of each; whether there was anything to do (bool).

        Raises
        ------
        HostError
            The device fails; ``give_up`` then gives back what it had.
        """
        try:
            self._enter()
            if not self.session.sequences:
                self.session.rest()
                return False
            for sequence, token in self.session.step():
                if token is None:
                    self._left(sequence)
                elif not sequence.closed:
                    self._made(sequence, token)
            over = self.runtime.over()
            for sequence, job in self.jobs.items():
                if over or not job.wanted:
                    self._close(sequence, job)
            return True
        finally:
            wake_all(self._wake)

    def give_up(self):
        """The device is of no use any more; returns its jobs (list), to go on elsewhere from their last tokens."""
        jobs, self.jobs, self._entering = [*self.jobs.values(), *self._entering], {}, []
        return jobs

    def close(self):
        """Brings the runtime to rest; what it was making is not ended."""
        self.session.close()

    def _enter(self):
        if self.queue.disturbed and not self.session.free:
            self.queue.sweep()
            self._make_room()
        while self.session.free and (job := self.queue.take()) is not None:
            self._entering = [job]  # whatever happens until it is in, it is not lost
            try:
                self._begin(job)
            except (RunError, UsageError) as error:  # of the text; nothing has changed
                self.queue.end([job], error)
            self._entering = []

    def _make_room(self):
        """The text that has been in longest leaves, if it has had its share and somebody waits."""
        longest = max(self.jobs, key=lambda sequence: self.session.position(sequence) - self.jobs[sequence].entered)
        job = self.jobs[longest]
        if not self._overdue(longest, job) or longest.closed:
            return
        tokens, state = self.session.leave(longest)
        for token in tokens:
            if not longest.closed:
                self._made(longest, token)
        del self.jobs[longest]
        if self._ended(longest, job):
            self._finish(job)
            return
        job.state = state or job.state
        self.queue.back([job], first=False)

    def _overdue(self, sequence, job):
        return self._share and len(self.queue) and self.session.position(sequence) - job.entered >= self._share

    def _begin(self, job):
        """A job enters with the longest state that there is of it."""
        state, parting = self.states.begin(job.text)
        if state is None or job.state is not None and job.state.position > state.position:
            state = job.state
        position = state.position if state else 0
        if state is not None:
            state = State(state.values, job.text[:position + 1])
        if not job.begun and (generation := job.generation) is not None:
            generation._begin(position)
        job.begun = True
        job.entered = position
        whole = len(job.text) - 1
        marks = {parting} if parting >= position + 1 and whole > parting else set()
        # The same prompt may come again; and a device that goes on behind a stop string has no state of that end, so
        # that the next turn begins here.
        ahead = 0 == job.made < job.n and job.stream.stops and not job.exact and whole - position >= PIECE
        if self.states.limit_bytes and whole > position and (self.runtime.near or ahead):
            marks.add(whole)
        sequence = Sequence(job.text[position + 1:] if state else list(job.text), job.n - job.made,
                            job.sampling, job.ends, state=state, marks=tuple(sorted(marks)), exact=job.exact,
                            progress=job.tell if job.progress else None)
        # Alone on a device with one slot it is asked in the middle of a prompt too.
        sequence.wanted = lambda: job.wanted and not self._ending() and (
            self.session.free or not self._overdue(sequence, job))
        sequence.keep = lambda found: self._keep(job, found)
        worth = self.runtime.near or whole + sequence.n - position >= PIECE  # the way over the link
        sequence.final = job.kept or worth and bool(self.states.limit_bytes)
        self.session.enter(sequence)
        self.jobs[sequence] = job

    def _keep(self, job, state):
        self.states.add(state)
        if job.kept:
            job.end = state

    def _made(self, sequence, token):
        job = self.jobs[sequence]
        job.text.append(token)
        job.made += 1
        self.tokens += 1
        piece = "" if token in job.ends else job.stream.push(token)
        if (generation := job.generation) is not None:
            generation._push(token, piece, self._wake)
        if job.stream.stopped or not job.wanted:
            self._close(sequence, job)

    @staticmethod
    def _close(sequence, job):
        """Nothing more is wanted of a sequence, and no state of what a device has made beyond."""
        if not sequence.closed and not job.kept:
            sequence.until = len(job.text)
        sequence.closed = True

    def _left(self, sequence):
        self._finish(self.jobs.pop(sequence))

    @staticmethod
    def _ended(sequence, job):
        return job.stopped or job.made >= job.n or sequence.closed

    def _finish(self, job):
        reason = STOP if job.stopped else LENGTH if job.made >= job.n else CANCELLED
        job.finish(self._wake, reason)
        job.state = job.end = None
        self.queue.done()
