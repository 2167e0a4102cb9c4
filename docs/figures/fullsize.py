"""A model of full size from nothing to text, by the commands that users run: time and memory of each step.

``make full-size SIZE=370m``, or ``python -m docs.figures.fullsize 370m``: ``sterna.models.synthetic`` makes a
checkpoint, ``sterna convert`` an image, ``sterna generate`` text on the CPU; the first tokens and the state behind
them must be those of the golden model.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass

import numpy as np

from docs.figures import command
from docs.figures.pages import table
from docs.figures.versus.machine import cpu_name
from sterna.host.errors import HostError, UsageError
from sterna.sim.golden import tensorfile
from sterna.sim.golden.files import build_folder

SIZES = ("370m", "1.3b", "2.7b")
TOKENS, CHECKED = 64, 3  # made on the CPU; compared with golden
PROMPT = "Once upon a time"
STEPS = {"make": "make the checkpoint", "convert": "convert it to an image", "generate": f"generate {TOKENS} tokens",
         "golden": "the golden model"}


class FullSizeError(HostError):
    """A step that failed, or a text that is not golden's."""


@dataclass(frozen=True)
class Cost:
    """What a command took: wall clock, processor time, and the largest resident memory, mapped files included."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def timed(what, command):
    """Run a command; its Cost and what it wrote to standard error (str).

    Parameters
    ----------
    what : str
        The step, for people.
    command : list of str
        Arguments behind ``python``.

    Raises
    ------
    FullSizeError
        It failed; says how.
    """
    started = time.monotonic()
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                          text=True) as process:
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        last = said.strip().splitlines()[-1:] or ["it said nothing"]
        raise FullSizeError(f"{what} ended with {process.returncode}: {last[0]}")
    kilobyte = 1 if sys.platform == "darwin" else 1024
    cost = Cost(time.monotonic() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * kilobyte)
    print(f"  {what}: {cost.seconds:.1f} s, {cost.peak_bytes / 1e6:,.0f} MB", flush=True)
    return cost, said


def text_state(path):
    """What a state file holds: tokens (int32 array) and state (uint32 array [L, H], fp24 bits)."""
    entries, _, _ = tensorfile.scan(path, {"U32": 4, "I32": 4})
    return entries["tokens"].read("<i4"), entries["state"].read("<u4")


def compare(found, wanted):
    """FullSizeError unless two state files hold the same tokens and the same state.

    Parameters
    ----------
    found, wanted : Path
        Of the CPU, and of the golden model.
    """
    (tokens, state), (right, truth) = text_state(found), text_state(wanted)
    if not np.array_equal(tokens, right):
        raise FullSizeError(f"the CPU made the tokens {tokens.tolist()}, the golden model {right.tolist()}")
    if not np.array_equal(state, truth):
        first = int(np.flatnonzero(state != truth)[0])
        raise FullSizeError(f"the CPU's state differs from the golden model's, first at number {first}")


def full_size(size, folder):
    """Make, convert, generate and compare a model of full size.

    Parameters
    ----------
    size : str
        A name in SIZES, or any size that ``sterna.models.synthetic`` takes.
    folder : Path
        Where checkpoint and image are left; what was there is removed.

    Returns
    -------
    dict
        Figures: seconds, processor seconds and bytes of each step, sizes, tokens per second.

    Raises
    ------
    FullSizeError
        A step failed, or text or state on the CPU are not those of the golden model.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    checkpoint, image = folder / "checkpoint", folder / f"{size.replace(',', '-')}.sterna"
    cli = ["-m", "sterna"]
    costs = {}
    costs["make"], _ = timed(STEPS["make"], ["-m", "sterna.models.synthetic", size, str(checkpoint)])
    costs["convert"], _ = timed(STEPS["convert"], [*cli, "convert", str(checkpoint), "-o", str(image)])

    def generate(device, tokens, *more):
        return timed(f"{tokens} tokens on {device}",
                     [*cli, "generate", "-m", str(image), "--device", device, "-p", PROMPT, "-n", str(tokens),
                      "--temp", "0", "--ignore-eos", "--json", *more])

    costs["generate"], said = generate("cpu", TOKENS)
    statistics = json.loads(said.strip().splitlines()[-1])
    states = {device: folder / f"{device}.state" for device in ("cpu", "golden")}
    generate("cpu", CHECKED, "--save-state", str(states["cpu"]))
    costs["golden"], _ = generate("golden", CHECKED, "--save-state", str(states["golden"]))
    compare(states["cpu"], states["golden"])
    size_bytes = sum(path.stat().st_size for path in checkpoint.iterdir())
    out = {"checkpoint_bytes": size_bytes, "image_bytes": image.stat().st_size,
           "tokens_per_second": statistics["tokens"] / statistics["seconds"], "equal.tokens": CHECKED,
           "how": f"measured on {os.cpu_count()} cores of {cpu_name()}; a synthetic checkpoint in bf16, seed of its "
                  f"maker; greedy text behind {PROMPT!r}; memory is the largest resident set, mapped files "
                  f"included; the first {CHECKED} tokens and the state behind them are golden's bit for bit"}
    for name, cost in costs.items():
        out |= {f"{name}.seconds": cost.seconds, f"{name}.cpu_seconds": cost.cpu_seconds,
                f"{name}.peak_bytes": cost.peak_bytes}
    return out


def made(size, folder):
    """The image (Path) of a size, which is made if the folder has none."""
    image = folder / f"{size}.sterna"
    if not image.exists():
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint = folder / "checkpoint"
        timed(STEPS["make"], ["-m", "sterna.models.synthetic", size, str(checkpoint)])
        timed(STEPS["convert"], ["-m", "sterna", "convert", str(checkpoint), "-o", str(image)])
    return image


def tables(values):
    """Markdown of the table of all sizes, by its name.

    Parameters
    ----------
    values : dict of str to dict
        What ``full_size`` returned, by step.
    """
    found = {size: values[f"fullsize.{size}"] for size in SIZES if f"fullsize.{size}" in values}
    if not found:
        return {}
    rows = [["checkpoint, image", *(f"{f['checkpoint_bytes'] / 1e6:,.0f} MB, {f['image_bytes'] / 1e6:,.0f} MB"
                                    for f in found.values())]]
    for step, words in STEPS.items():
        label = f"{words}, {CHECKED} tokens" if step == "golden" else words
        rows.append([label, *(f"{f[f'{step}.seconds']:,.0f} s, {f[f'{step}.peak_bytes'] / 1e6:,.0f} MB"
                              for f in found.values())])
    rows.append(["tokens/s on the CPU", *(f"{f['tokens_per_second']:.1f}" for f in found.values())])
    ways = {size: f["how"] for size, f in found.items()}
    how = "\n".join(f"- {size}: {way}." for size, way in ways.items())
    if len({*ways.values()}) == 1:
        how = f"Of each: {next(iter(ways.values()))}."
    return {"table.fullsize": table(["step: seconds, peak memory", *found], rows) + f"\n\n{how}"}


def main(arguments):
    """Runs the command line, a size; returns the exit code."""
    def work():
        if len(arguments) != 1 or arguments[0] not in SIZES:
            raise UsageError(f"{' '.join(arguments) or 'no size'}: give one of {', '.join(SIZES)}")
        size = arguments[0]
        folder = build_folder() / "full-size" / size
        found = full_size(size, folder)
        print(f"{folder}: {found['tokens_per_second']:.1f} tokens/s on the CPU; the first {CHECKED} tokens and the "
              "state behind them are those of the golden model")
    return command.run(work)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
