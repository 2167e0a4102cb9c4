"""``python -m docs.figures.versus --size 370m``: the comparison by itself; its figures as JSON on standard output."""

import argparse
import json
import sys

from docs.figures import command
from docs.figures.versus import page, rounds
from docs.figures.versus.randoms import SIZES
from sterna.host.errors import UsageError
from sterna.host.model.model import Model
from sterna.sim.cpu.model import MOST_THREADS, usable_threads
from sterna.sim.golden.files import build_folder


def tell(line):
    """A line on standard error."""
    print(line, file=sys.stderr, flush=True)


def whole(option, value, most):
    """``value``, from 1 to ``most``; UsageError otherwise."""
    if not 1 <= value <= most:
        raise UsageError(f"{option} {value}: use 1 to {most}")
    return value


def main(arguments=None):
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m docs.figures.versus", description=__doc__.partition(": ")[2])
    parser.add_argument("--size", choices=SIZES, default="370m", help="random weights of this model's geometry")
    parser.add_argument("--model", help="an image or a checkpoint for Sterna instead; llama.cpp gets as many weights")
    parser.add_argument("--threads", type=int, help="of each program (default: all that it may use)")
    parser.add_argument("--rounds", type=int, default=rounds.ROUNDS)
    options = parser.parse_args(arguments)

    def work():
        threads = usable_threads() if options.threads is None else whole("--threads", options.threads, MOST_THREADS)
        count = whole("--rounds", options.rounds, 1000)
        geometry = Model(options.model).geometry if options.model else SIZES[options.size]
        found = rounds.measure(geometry, options.model or geometry, threads, build_folder() / "versus", count, tell)
        tell("\n".join(page.tables({"versus.here": found}).values()))
        print(json.dumps(found, indent=1))
    return command.run(work)


if __name__ == "__main__":
    sys.exit(main())
