"""One text that an engine makes: its pieces as they come, for threads and for asyncio, and its figures."""

import asyncio
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

STOP, LENGTH, CANCELLED = "stop", "length", "cancelled"


@dataclass(frozen=True)
class Usage:
    """What a text has taken so far.

    Attributes
    ----------
    prompt_tokens : int
        Tokens of the prompt, with those of a state that it goes on from.
    cached_tokens : int
        Of these, tokens that were not read again, as a state behind them was there.
    completion_tokens : int
        Tokens made; one that ended the text counts too.
    queued_s : float
        Seconds until a device began with it.
    first_token_s : float or None
        Seconds until its first token was made.
    total_s : float
        Seconds from its arrival to its end, or until now.
    """

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    queued_s: float
    first_token_s: float | None
    total_s: float


class Generation:
    """A text under way; iterating gives its pieces (str), ``for`` and ``async for`` alike.

    A reader who is slow gets what has come meanwhile in one piece, and holds nothing up. One reader takes the pieces;
    ``text`` and ``result`` are for any number. Leaving ``with`` or ``async with`` cancels what still runs, and so
    does forgetting it: a text that nobody can read any more is not made. Made by ``Engine.generate``; every member
    may be used from any thread.

    Attributes
    ----------
    ids : list of int
        The prompt's tokens, with those of a state that it goes on from.
    tokens : list of int
        Tokens made so far. A stop string ends with the last of them.
    seed : int
    finish_reason : str or None
        "stop" (an end of the model or a stop string), "length", "cancelled"; None while it runs, and if it failed.
    """

    def __init__(self, engine, ids, seed, known=0):
        self._engine, self.ids, self.seed = engine, ids, seed
        self.tokens, self.finish_reason = [], None
        self._changed = threading.Condition()
        self._parts, self._taken = [], 0  # pieces, and how many of them the reader has
        self._kept = None  # State behind the end, where it was asked for
        self._over, self._error, self._wanted = False, None, True
        self._waiters = []  # (event loop, future) of asyncio readers
        self._cached, self._arrived_at = known, time.monotonic()
        self._begun_at = self._first_at = self._ended_at = None

    # Readers

    @property
    def text(self):
        """The text so far (str), without the prompt."""
        with self._changed:
            return "".join(self._parts)

    @property
    def cancelled(self):
        """Whether ``cancel`` was called (bool)."""
        return not self._wanted

    @property
    def usage(self):
        """Usage so far."""
        now = self._ended_at or time.monotonic()
        begun = self._begun_at or now
        return Usage(len(self.ids), self._cached, len(self.tokens), begun - self._arrived_at,
                     self._first_at and self._first_at - self._arrived_at, now - self._arrived_at)

    def cancel(self):
        """End the text within a token; it may have ended already. Signal handlers may call it too."""
        self._wanted = False
        self._engine._nudge()

    def __iter__(self):
        return self

    def __next__(self):
        self._wait(self._something)
        with self._changed:
            return self._take(StopIteration)

    def __aiter__(self):
        return self

    async def __anext__(self):
        await self._until(self._something)
        with self._changed:
            return self._take(StopAsyncIteration)

    def result(self, timeout_s=None):
        """The whole text (str), once it has ended.

        Raises
        ------
        TimeoutError
            It has not within ``timeout_s``.
        HostError
            It failed; whatever ``progress`` raised too.
        """
        if not self._wait(lambda: self._over, timeout_s):
            raise TimeoutError(f"the text has not ended within {timeout_s:g} s")
        return self._result()

    def __await__(self):
        return self._awaited().__await__()

    async def _awaited(self):
        await self._until(lambda: self._over)
        return self._result()

    def state(self):
        """The State behind the last token that was read or made, to go on from; waits for the end.

        Where no device has kept it, the tokens are read once more.
        """
        self.result()
        return self._engine._state_of(self)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.cancel()

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self.cancel()

    async def aclose(self):
        """As ``cancel``."""
        self.cancel()

    def _wait(self, there, timeout_s=None):
        """Waits until ``there()``; whether it is (bool)."""
        if self._engine._drives(there, timeout_s):
            return there()
        with self._changed:
            return self._changed.wait_for(there, timeout_s)

    def _something(self):
        return self._over or self._taken < len(self._parts)

    def _take(self, end):
        """What has come and was not taken; raises ``end`` behind the end of the text."""
        piece = "".join(self._parts[self._taken:])
        self._taken = len(self._parts)
        if piece:
            return piece
        if self._error:
            raise self._error.with_traceback(None)  # several may wait, and each would add to it
        raise end

    def _result(self):
        if self._error:
            raise self._error.with_traceback(None)
        return self.text

    async def _until(self, there):
        """Returns once ``there()``, which is asked whenever something has changed."""
        if self._engine._drives(there):
            return
        while True:
            with self._changed:
                if there():
                    return
                loop = asyncio.get_running_loop()
                waiter = loop, loop.create_future()
                self._waiters.append(waiter)
            try:
                await waiter[1]
            finally:
                with self._changed, suppress(ValueError):
                    self._waiters.remove(waiter)

    # The engine

    def _begin(self, cached):
        """A device begins with it; so many tokens need not be read."""
        self._begun_at, self._cached = time.monotonic(), cached

    def _push(self, token, piece, wake):
        """A token and the text that is certain with it; what waits in asyncio is added to ``wake``."""
        with self._changed:
            if self._first_at is None:
                self._first_at = time.monotonic()
            self.tokens.append(token)
            if piece:
                self._parts.append(piece)
                self._tell(wake)

    def _end(self, piece, reason, wake, error=None):
        """The last piece, and why there is no more."""
        with self._changed:
            if self._over:
                return
            if piece:
                self._parts.append(piece)
            self._ended_at, self.finish_reason, self._error, self._over = time.monotonic(), reason, error, True
            self._tell(wake)

    def _tell(self, wake):
        self._changed.notify_all()
        for loop, future in self._waiters:
            wake.setdefault(loop, []).append(future)
        self._waiters.clear()


def wake_all(wake):
    """Wakes the futures of each event loop ({loop: list of futures}) with one call, and empties the dictionary."""
    for loop, futures in wake.items():
        with suppress(RuntimeError):  # the loop has been closed
            loop.call_soon_threadsafe(_resolve, futures)
    wake.clear()


def _resolve(futures):
    for future in futures:
        if not future.done():
            future.set_result(None)
