"""How the commands of this folder end."""

import sys

from sterna.host.cli import describe
from sterna.host.errors import INTERRUPTED


def run(work):
    """Calls ``work()``; the exit code (int). An error is one line on standard error."""
    try:
        work()
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        message, code = describe(error)
        print(f"error: {message}", file=sys.stderr, flush=True)
        return code
    return 0
