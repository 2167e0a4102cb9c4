"""``python -m docs.figures.learning``: makes the runs of the study that are not made yet, and refills its page."""

import argparse
import sys

from docs.figures import command
from docs.figures.learning import forms, page, runs
from sterna.host.errors import UsageError
from sterna.sim.golden.files import build_folder


def tell(line):
    """A line on standard error."""
    print(line, file=sys.stderr, flush=True)


def main(arguments=None):
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m docs.figures.learning", description=__doc__.partition(": ")[2])
    parser.add_argument("--only", action="append", metavar="NAME", help="only these mixers")
    parser.add_argument("--fill", action="store_true", help="train nothing, only refill the page")
    parser.add_argument("--forms", action="store_true", help="measure the two forms of a training step instead")
    parser.add_argument("--seeds", type=int, default=len(runs.SEEDS), help="the first of them")
    options = parser.parse_args(arguments)

    def work():
        names = options.only or list(runs.MIXERS)
        if unknown := [name for name in names if name not in runs.MIXERS]:
            raise UsageError(f"--only {unknown[0]}: use one of {', '.join(runs.MIXERS)}")
        folder = build_folder() / "learning"
        folder.mkdir(parents=True, exist_ok=True)
        if options.forms:
            forms.run(tell)
        elif not options.fill:
            runs.run(names, runs.SEEDS[:options.seeds], folder, tell)
        runs.write_text(folder)
        page.fill(tell)
    return command.run(work)


if __name__ == "__main__":
    sys.exit(main())
