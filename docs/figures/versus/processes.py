"""A program in a process of its own, which keeps its model and sleeps until it is asked something."""

import multiprocessing
from contextlib import contextmanager

from docs.figures.versus import players
from sterna.sim.golden.errors import SternaError

CLOSING_S = 10


class PlayerError(SternaError):
    """A program failed or ended; the message is its own."""


class Player:
    """The parent's end of a process of ``started``."""

    def __init__(self, name, connection, process):
        self._name, self._connection, self._process = name, connection, process

    def ask(self, method, *arguments):
        """What a method gives there; PlayerError if it raises or the process ends."""
        try:
            self._connection.send((method, arguments))
            done, result = self._connection.recv()
        except (EOFError, OSError):
            self._process.join(CLOSING_S)
            raise PlayerError(f"{self._name} ended with exit code {self._process.exitcode}: try a smaller size, or "
                              "free some memory") from None
        if not done:
            raise PlayerError(f"{self._name}: {result}")
        return result


def serve(connection, kind, arguments):
    """A player's process: answers until the connection closes.

    Parameters
    ----------
    connection : multiprocessing.connection.Connection
        Takes (method, arguments), gives (True, result) or (False, message).
    kind : str
        A class of ``players``.
    arguments : tuple
        Of its constructor, which is called with the first question.
    """
    player = None
    while True:
        try:
            method, given = connection.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            if player is None:
                player = getattr(players, kind)(*arguments)
            connection.send((True, getattr(player, method)(*given)))
        except KeyboardInterrupt:
            return
        except Exception as error:  # the parent ends with this message
            connection.send((False, str(error) or type(error).__name__))


@contextmanager
def started(kind, *arguments):
    """A Player of a class of ``players``; its process ends with the block."""
    context = multiprocessing.get_context("spawn")  # nothing of the parent's threads
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, kind, arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        yield Player(kind, ours, process)
    finally:
        ours.close()
        process.join(CLOSING_S)
        if process.is_alive():
            process.kill()
