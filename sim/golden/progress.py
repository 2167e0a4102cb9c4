"""Shows on standard error what takes long, and for how long already."""

import sys
import warnings
from contextlib import contextmanager
from contextvars import ContextVar

_quiet = ContextVar("quiet", default=False)


def printable(text):
    """A text with characters that would steer a terminal as escapes, so that it is one line: names come out of files
    that others wrote.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def abandon():
    """What was made of gateware is given up: Amaranth says nothing about parts that were made and never used."""
    if "amaranth.hdl" in sys.modules:
        from amaranth.hdl import UnusedElaboratable
        warnings.simplefilter("ignore", UnusedElaboratable)


@contextmanager
def quiet():
    """A block, of this thread, in which nothing is shown."""
    before = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(before)


@contextmanager
def working():
    """Shows what is under way, as ``_shown`` says; an error or Ctrl-C in the block abandons gateware."""
    try:
        with _shown() as step:
            yield step
    except BaseException:
        abandon()
        raise


@contextmanager
def _shown():
    """Gives a function of a text "WHAT" or "WHAT: DETAIL", called whenever something else begins.

    A terminal shows a turning wheel, the text and the time that WHAT has taken; they go when the block is left, or
    when something is to be printed there. Elsewhere each WHAT is one line, once.
    """
    if _quiet.get():
        yield lambda text: None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
    console = Console(stderr=True)
    if not console.is_terminal:
        told = set()

        def line(text):
            what = text.partition(": ")[0]
            if what not in told:
                told.add(what)
                print(printable(what), file=sys.stderr, flush=True)

        yield line
        return
    bars = Progress(SpinnerColumn("line"), TextColumn("{task.description}", markup=False), TimeElapsedColumn(),
                    console=console, transient=True)
    running = {}

    def show(text):
        what = text.partition(": ")[0]
        if what not in running:
            for task in running.values():
                bars.remove_task(task)
            running.clear()
            running[what] = bars.add_task(printable(text))
            bars.start()
        bars.update(running[what], description=printable(text))

    try:
        yield show
    finally:
        bars.stop()


@contextmanager
def moving(what, total_bytes):
    """Gives a function to be told how many more bytes have been read or written.

    A terminal shows a bar with the bytes and the time left, which goes when the block is left. Elsewhere ``what`` is
    one line.
    """
    if _quiet.get():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
    console = Console(stderr=True)
    if not console.is_terminal:
        print(printable(what), file=sys.stderr, flush=True)
        yield lambda count: None
        return
    with Progress(TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(),
                  TimeRemainingColumn(), console=console, transient=True) as bars:
        task = bars.add_task(printable(what), total=total_bytes)
        yield lambda count: bars.advance(task, count)
