"""The program ``sterna``, also as ``python -m sterna``: Ctrl-C ends it in one line from the first moment on."""

import os
import signal
import sys

INTERRUPTED = 130  # what a shell calls a program ended by SIGINT


def _leave(number, frame):
    # Imports of compiled modules turn a KeyboardInterrupt into errors of their own.
    os.write(2, b"error: interrupted\n")
    os._exit(INTERRUPTED)


def main():
    """Runs the command line of this process; returns the exit code."""
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN  # by whoever started the program in the background
    if not ignored:
        signal.signal(signal.SIGINT, _leave)
    from sterna.host import cli
    if not ignored:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
