"""Ctrl-C at once, but never in the middle of what has to be done as a whole."""

import signal
from contextlib import contextmanager


@contextmanager
def handled_by(handler):
    """A block whose Ctrl-C goes to `handler`, as ``signal.signal`` takes it, unless it is ignored: whoever started
    the process in the background wants that.
    """
    before = signal.getsignal(signal.SIGINT)
    if before == signal.SIG_IGN:
        yield
        return
    signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Interrupts:
    """Context manager in which Ctrl-C raises KeyboardInterrupt, at the end of a ``held`` block if there is one."""

    def __init__(self):
        self._holding, self._waiting, self._handled = 0, False, handled_by(self._arrived)

    def __enter__(self):
        self._handled.__enter__()
        return self

    def __exit__(self, *_):
        self._handled.__exit__(None, None, None)

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
    with handled_by(signal.SIG_DFL):
        yield
