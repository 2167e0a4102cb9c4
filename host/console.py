"""What the commands share: text on standard output, everything else on standard error."""

import sys
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from sterna.sim.golden.progress import printable, working  # noqa: F401 (the gateware's own commands show it too)


def tell(line):
    """One line of information on standard error."""
    print(printable(line), file=sys.stderr, flush=True)


def show(text):
    """A piece of text on standard output, at once; characters that a terminal cannot write become '?'."""
    try:
        sys.stdout.write(text)
    except UnicodeEncodeError:
        sys.stdout.write(text.encode(sys.stdout.encoding, "replace").decode(sys.stdout.encoding))
    sys.stdout.flush()


def progress_bar(*columns):
    """A rich Progress on standard error, with more columns; shows nothing unless that is a terminal."""
    console = Console(stderr=True)
    return Progress(TextColumn("{task.description}", markup=False), BarColumn(),
                    TextColumn("{task.percentage:>3.0f} %"), *columns, TimeRemainingColumn(), console=console,
                    transient=True, disable=not console.is_terminal)


def moving():
    """As ``reporting``, of bytes, which the bar says."""
    return reporting(DownloadColumn())


@contextmanager
def reporting(*columns):
    """Gives a function (what, done, total) that draws a bar for each ``what``; nothing before it is first called."""
    bars, tasks = progress_bar(*columns), {}

    def progress(what, done, total):
        if what not in tasks:
            bars.start()
            tasks[what] = bars.add_task(printable(what))
        bars.update(tasks[what], completed=done, total=total)

    try:
        yield progress
    finally:
        bars.stop()


def table_console():
    """A rich Console on standard output, wide enough for the tables when it is no terminal."""
    return Console(width=None if sys.stdout.isatty() else 120, highlight=False, markup=False)
