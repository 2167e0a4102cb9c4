"""python -m docs.figures.encoder DATA: runs what the encoder's study lacks, and refills docs/encoder.md."""

import argparse
import shutil
import sys
import time
from pathlib import Path

from docs.figures import command
from docs.figures.encoder import page
from docs.figures.encoder.study import study
from docs.figures.encoder.variants import RESULTS, read
from docs.figures.pages import fill
from sterna.sim.golden.files import build_folder, write_file

PAGE = Path(__file__).resolve().parents[2] / "encoder.md"


def main(arguments=None):
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m docs.figures.encoder", description=__doc__)
    parser.add_argument("data", type=Path, help="folder with glue/, glue/corpora/ and wikitext2/")
    parser.add_argument("--work", type=Path, default=None, help="folder for models (default: build/encoder)")
    parser.add_argument("--minutes", type=float, default=0.0, help="begin no run behind so many (default: all)")
    parser.add_argument("--force", action="store_true", help="run all again")
    options = parser.parse_args(arguments)

    def work():
        deadline = time.time() + 60 * options.minutes if options.minutes else None
        folder = options.work or build_folder() / "encoder"
        if options.force:
            RESULTS.unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
        study(options.data, folder, RESULTS, deadline, lambda line: print(line, flush=True))
        text, _ = fill(PAGE.read_text(), page.study_tables(read(RESULTS)))
        write_file(PAGE, text)
    return command.run(work)


if __name__ == "__main__":
    sys.exit(main())
