"""sterna doctor: is this board well? One screen of checks, from the port to the tokens."""

import json
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Annotated

import typer

from sterna.host.console import printable, show, tell, working
from sterna.host.device.transport import open_transport
from sterna.host.doctor.check import verdict
from sterna.host.doctor.examine import examine, guarded
from sterna.host.doctor.memory import extent
from sterna.host.errors import UsageError
from sterna.host.model.model import Model
from sterna.host.runtime.known import check_answer
from sterna.host.runtime.open import is_hardware, simulated_config

DEFAULT_BAUD = 1_000_000


def bauds(text):
    """The rates of ``--baud`` (list of int); UsageError for anything else."""
    try:
        rates = [int(part) for part in text.split(",")] if text else []
    except ValueError:
        rates = [0]
    if any(rate <= 0 for rate in rates):
        raise UsageError(f"--baud {text}: use the bits per second of the board, for instance {DEFAULT_BAUD}")
    return rates


def check_arguments(device, rates, memory):
    """UsageError for what cannot be; returns the Config of a simulated board or None."""
    if not device or not is_hardware(device):
        raise UsageError(f"--device {device}: give a serial port, socket://HOST:PORT or sim:BOARD: "
                         "nothing else has a link")
    config = simulated_config(device)
    if config is None and len(rates) > 1:
        raise UsageError(f"--baud {','.join(map(str, rates))}: the rate of a board is fixed in its bitstream: give "
                         "that one (several are for sim:BOARD, which then gets a line of each)")
    if config:
        from sterna.hw.link.uart import BitClock
        for rate in rates:
            try:
                BitClock(config.clock_hz, rate)
            except ValueError as error:
                raise UsageError(f"--baud: {error}") from None
    if memory != "none":
        extent(memory, config.memory_bytes if config else 1 << 31)
    return config


def all_checks(device, config, rates, memory, halt, model=None):
    """Generator of the Checks."""
    with ExitStack() as stack:
        url = device
        if config:
            from sterna.sim.board.board import SimulatedBoard
            with working() as step:
                url = stack.enter_context(SimulatedBoard(config, on_compile=step)).url
        rate = rates[0] if rates else DEFAULT_BAUD
        checks = examine(lambda: open_transport(url, rate), simulated=bool(config), wanted=config, where=memory,
                         halt=halt, model=model, tell=tell)
        yield from stack.enter_context(closing(checks))
    if config:
        from sterna.host.doctor.simline import line_checks
        for rate in rates:
            yield from guarded(f"{rate} baud", line_checks(config, rate))


def doctor(
    device: Annotated[str, typer.Option("--device", help="Serial port or URL; or sim:BOARD, sim:PRESET, sim.",
                                        show_default=False)],
    baud: Annotated[str, typer.Option("--baud", help="Bits per second of a serial port, 1000000 if it is not given. "
                                      "For sim:BOARD: rates with commas; the link is checked again behind a "
                                      "simulated line of each.", show_default=False)] = "",
    memory: Annotated[str, typer.Option("--memory", help="What of the model memory is tested: quick (128 KB over the "
                                        "line), full (all of it, twice), BEGIN:END in bytes, or none.")] = "quick",
    halt: Annotated[bool, typer.Option("--halt", help="End what the device runs; without it a busy one is left "
                                       "alone.")] = False,
    model: Annotated[Path, typer.Option("-m", "--model", help="An image whose known answer is run too.",
                                        show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
):
    """Check a board: link, build, memory, tokens, clock.

    A line per check with its figure, ok, failed or skipped and why; at the end the verdict. Exit status 0, or 1 if
    something failed. What is in the model memory is lost, unless --memory none: then what the checks need of it is
    put back. Load models anew afterwards in any case (generate and upload do this by themselves).

    Examples:

    sterna doctor --device /dev/ttyUSB0

    sterna doctor --device /dev/ttyUSB0 --memory full

    sterna doctor --device sim:up5k --baud 1000000,3000000
    """
    rates = bauds(baud)
    config = check_arguments(device, rates, memory)
    loaded = model and Model(model)
    if loaded:
        check_answer(loaded, "--model")
    if memory != "none" and not config:
        tell(f"what is in the model memory of {device} will be lost (--memory none keeps it)")
    checks = []
    for check in all_checks(device, config, rates, memory, halt, loaded):
        checks.append(check)
        if not as_json:
            show(printable(check.line()) + "\n")
    good, last = verdict(checks)
    simulated = bool(config) or any(check.values.get("simulated") for check in checks)
    if as_json:
        show(json.dumps({"device": device, "simulated": simulated, "verdict": "ok" if good else "failed",
                         "checks": [check.to_json() for check in checks]}, indent=1) + "\n")
    else:
        show(last + ("; simulated, nothing is measured on a board" if simulated else "") + "\n")
    if not good:
        raise typer.Exit(1)
