"""Ctrl-C at once, but never in the middle of what has to be done as a whole."""

import signal
from contextlib import contextmanager


class Interrupts:
    """Context manager in which Ctrl-C raises KeyboardInterrupt, at the end of a ``held`` block if there is one."""

    def __init__(self):
        self._holding, self._waiting, self._before = 0, False, None

    def __enter__(self):
        self._before = signal.signal(signal.SIGINT, self._arrived)
        return self

    def __exit__(self, *_):
        signal.signal(signal.SIGINT, self._before)

    def _arrived(self, *_):
        if not self._holding:
            raise KeyboardInterrupt
        self._waiting = True

    @contextmanager
    def held(self):
        """A block that Ctrl-C does not interrupt; for what takes well under a second."""
        self._holding += 1
        try:
            yield
        finally:
            self._holding -= 1
        if self._waiting and not self._holding:
            self._waiting = False
            raise KeyboardInterrupt


@contextmanager
def ended_by_interrupt():
    """A block whose Ctrl-C ends the process at once, by the signal; for long calls into libraries that Python cannot
    interrupt, where nothing is written or to be saved.
    """
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
