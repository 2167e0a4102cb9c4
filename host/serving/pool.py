"""The devices of an engine: each with a thread of its own, all with one queue; what one loses goes on elsewhere."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from sterna.host.errors import DeviceError, HostError
from sterna.host.serving.scheduler import SHARE, Scheduler

FIRST_S, LONGEST_S = 0.25, 30.0  # until a device that failed is tried again; twice as long until it makes a token
LOOK_S = 0.1  # between looks at whether anything is there still, while a device is not
STRIKES = 3  # times that a text may be on a device that breaks in an unforeseen way


class Closing(Exception):
    """Ends what a device is doing while it is opened."""


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


@dataclass(frozen=True)
class Source:
    """A device that can be opened.

    Attributes
    ----------
    name : str
    open : callable(progress) -> Runtime
        ``progress(what, done, total)`` may raise to end the opening.
    """

    name: str
    open: Callable


class Member:
    """A device in a pool: opened, run, and opened again when it has failed.

    Parameters
    ----------
    pool : Pool
    source : Source
    """

    def __init__(self, pool, source):
        self.pool, self.source = pool, source
        self.runtime = self._opened()
        self.label, self.slots = self.runtime.label, self.runtime.slots
        self.rows, self.longest = self.runtime.rows, self.runtime.longest  # what texts were checked against
        self.alive, self.error, self._tokens = True, None, 0
        self.scheduler = None
        self._thread = threading.Thread(target=self._work, name=f"sterna {source.name}", daemon=True)

    @property
    def status(self):
        """DeviceStatus."""
        scheduler = self.scheduler
        running, tokens = (len(scheduler.jobs), scheduler.tokens) if scheduler else (0, 0)
        return DeviceStatus(self.source.name, self.label, self.alive, self.slots, running, self._tokens + tokens)

    def start(self):
        """Begins with the work, in a thread."""
        self._thread.start()

    def join(self):
        """Waits for the end of the thread."""
        if self._thread.is_alive():
            self._thread.join()

    @property
    def inside(self):
        """Whether it is this device's thread that asks (bool)."""
        return threading.current_thread() is self._thread

    def close(self):
        """Gives the device back."""
        if self.runtime is not None:
            self.runtime.close()
            self.runtime = None

    def _opened(self):
        runtime = self.source.open(self._progress)
        try:
            runtime.wake()
        except BaseException:
            runtime.close()
            raise
        return runtime

    def _progress(self, what, done, total):
        if self.pool.closing:
            raise Closing

    def _work(self):
        wait_s = FIRST_S
        try:
            while not self.pool.closing:
                if self.runtime is not None:
                    before = self._tokens
                    self._serve()
                    if self._tokens > before:
                        wait_s = FIRST_S
                elif self._rest(wait_s):
                    self._open()
                    wait_s = min(2 * wait_s, LONGEST_S)
        except Closing:
            pass
        finally:
            self.alive = False
            self.close()

    def _serve(self):
        """Makes texts until the pool closes or the device fails."""
        pool, queue = self.pool, self.pool.queue
        scheduler = self.scheduler = Scheduler(self.runtime, queue, pool.states, pool.share, lambda: pool.closing)
        try:
            while not pool.closing:
                if not scheduler.turn():
                    with queue.changed:
                        queue.changed.wait_for(lambda: queue.disturbed or pool.closing)
            scheduler.close()
            queue.end(scheduler.give_up())
        except BaseException as error:  # noqa: BLE001 (whatever it is, the texts go on elsewhere)
            self._failed(scheduler, error)

    def _failed(self, scheduler, error):
        self.alive, self.error = False, error
        self.scheduler, self._tokens = None, self._tokens + scheduler.tokens
        jobs = scheduler.give_up()
        foreseen = isinstance(error, (HostError, OSError))
        for job in jobs:
            job.strikes += not foreseen
        broken = [job for job in jobs if job.strikes >= STRIKES]
        self.pool.lost(self, [job for job in jobs if job not in broken])
        self.pool.queue.end(broken, error if isinstance(error, HostError) else
                            HostError(f"{self.source.name}: {type(error).__name__}: {error}"))
        runtime, self.runtime = self.runtime, None
        try:
            runtime.close()
        except Exception:  # noqa: BLE001, S110 (it is gone anyway)
            pass

    def _rest(self, wait_s):
        """Waits before the next try; whether it is time for it (bool)."""
        until = time.monotonic() + wait_s
        while (left := until - time.monotonic()) > 0 and not self.pool.closing:
            with self.pool.queue.changed:
                self.pool.queue.changed.wait(min(left, LOOK_S))
            self.pool.look()
        return not self.pool.closing

    def _open(self):
        try:
            runtime = self._opened()
            if runtime.rows != self.rows or runtime.longest < self.longest:
                runtime.close()
                raise DeviceError(f"{self.source.name}: another build than before, with a list of {runtime.rows} "
                                  f"tokens and texts of up to {runtime.longest}: load the model again")
        except Closing:
            raise
        except Exception as error:  # noqa: BLE001 (it is tried again)
            self.error = error
            self.pool.look()
            return
        self.runtime, self.label, self.slots = runtime, runtime.label, runtime.slots
        self.alive = True
        self.pool.found()


class Pool:
    """Devices with one queue.

    A device that fails (its connection ends, it does not answer, it has hung or was restarted) gives its texts back
    in front of the queue; they go on elsewhere from their last tokens, as they would have, since a token follows from
    seed, position and row alone. It is tried again after FIRST_S, then ever later. While there is no device at all,
    texts wait, for ``lost_s`` at most: then they fail with what the devices said.

    Parameters
    ----------
    sources : list of Source
        All are opened, or none.
    queue : Queue
    states : StateCache
    share : int or None
        See ``Scheduler``.
    lost_s : float

    Raises
    ------
    HostError
        A device is not there.
    """

    def __init__(self, sources, queue, states, share=SHARE, lost_s=30.0):
        self.queue, self.states, self.share, self.lost_s = queue, states, share, lost_s
        self.closing, self.members = False, []
        self._gone_at = None  # since when no device has been alive
        try:
            for source in sources:
                self.members.append(Member(self, source))
        except BaseException:
            for member in self.members:
                member.close()
            raise

    def start(self):
        """The devices begin to work."""
        for member in self.members:
            member.start()

    @property
    def inside(self):
        """Whether the thread of a device asks, as in a callback (bool)."""
        return any(member.inside for member in self.members)

    def stop(self):
        """The devices end their texts as cancelled, and are given back."""
        with self.queue.changed:
            self.closing = True
            self.queue.changed.notify_all()

    def join(self):
        """Waits until they are."""
        for member in self.members:
            member.join()

    def lost(self, member, jobs):
        """A device has failed, and gives its texts back."""
        with self.queue.changed:
            if not any(other.alive for other in self.members) and self._gone_at is None:
                self._gone_at = time.monotonic()
        self.queue.back(jobs, first=True)

    def found(self):
        """A device is there again."""
        with self.queue.changed:
            self._gone_at = None

    def look(self):
        """While no device is alive: ends texts that were cancelled, and all when it has been too long."""
        with self.queue.changed:
            gone_s = 0.0 if self._gone_at is None else time.monotonic() - self._gone_at
        if not self.closing and self._gone_at is not None:
            self.queue.sweep(self._error() if gone_s > self.lost_s else None)

    def _error(self):
        said = "; ".join(dict.fromkeys(str(member.error) for member in self.members if member.error))
        return HostError(f"no device has been there for {self.lost_s:g} s: {said}")
