"""python -m sterna.models.synthetic SIZE OUT: makes up a checkpoint of the published layout."""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from sterna.models.synthetic.checkpoint import SIZES, geometry_of, make_checkpoint
from sterna.sim.golden.errors import SternaError
from sterna.sim.golden.progress import moving

INTERRUPTED = 130  # what a shell calls a program ended by SIGINT
# The base of all wrong uses; typer exports only this one of them
ClickUsageError = typer.BadParameter.__mro__[1]
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
                  context_settings={"help_option_names": ["-h", "--help"]})


@app.command()
def make(
    size: Annotated[str, typer.Argument(
        metavar="SIZE", help=f"One of {', '.join(SIZES)}, or hidden,inner,layers,vocabulary.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to make.")],
    shards: Annotated[int, typer.Option("--shards", help="Files that the weights are spread over.")] = 1,
    seed: Annotated[int, typer.Option("--seed", help="Other numbers of the same kind.")] = 0,
    tree: Annotated[str, typer.Option("--tree", metavar="KxD[+A]", help="K trees of depth D, and A neurons always "
                                      "on, in place of gated linear units: the inner size does not count.")] = "",
):
    """Make up a checkpoint that looks trained, in the published layout, with a tokenizer.

    Its text means nothing. Weights are bfloat16; the folder's path is printed on standard output.
    """
    began = time.monotonic()
    total = make_checkpoint(geometry_of(size, tree), out, shards, seed, moving)
    print(f"{total // 2:,} weights, {total / 1e9:.2f} GB, {time.monotonic() - began:.0f} s", file=sys.stderr)
    print(out)


def main(arguments=None):
    """Runs the command line and raises SystemExit; a known error becomes one line and exit status 1, or 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        code = app(args=arguments or ["--help"], prog_name="python -m sterna.models.synthetic",
                   standalone_mode=False)
        if code == INTERRUPTED:  # what Typer makes of Ctrl-C
            print("error: interrupted", file=sys.stderr)
    except (SternaError, ClickUsageError) as error:
        usage = isinstance(error, ClickUsageError)
        code, message = (2, error.format_message()) if usage else (error.exit_code, str(error))
        print("error: " + " ".join(message.split()), file=sys.stderr)
    raise SystemExit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
