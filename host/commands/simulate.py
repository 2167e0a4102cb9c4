"""sterna simulate: a simulated board that stays, behind a port of this machine."""

from pathlib import Path
from typing import Annotated

import typer

from sterna.host.commands.options import Build, DramSetting, Latency, Refresh, RefreshEvery, check_timing, use_build
from sterna.host.console import show, tell, working
from sterna.host.device.frames import Frame
from sterna.host.errors import UsageError
from sterna.hw.boards import preset
from sterna.hw.protocol import DELIMITER


def simulate(
    name: Annotated[str, typer.Argument(metavar="[BOARD|PRESET]", help="A board or preset, perhaps with other "
                                        "parameters as lanes40,batch=4.", show_default=False)] = "sim",
    port: Annotated[int, typer.Option("--port", help="TCP port on this machine; 0: a free one, which is "
                                      "printed.")] = 0,
    flash: Annotated[Path, typer.Option("--flash", help="File of sterna flash that lies in the board's flash; the "
                                        "board starts from it.", show_default=False)] = None,
    latency: Latency = None,
    refresh_every: RefreshEvery = None,
    refresh: Refresh = None,
    dram: DramSetting = None,
    build: Build = None,
):
    """Run a simulated board that stays, behind a port.

    It runs until Ctrl-C, for --device socket://localhost:PORT of other commands.
    Its memory lives as long as the board: what one command uploads, the next one finds. One program has the board
    at a time; another one waits until it ends. Programs are told that it is simulated, and report its cycles as such.

    Examples:

    sterna simulate icebreaker --port 7000

    sterna upload -m models/tiny/tiny.sterna --device socket://localhost:7000

    sterna doctor --device socket://localhost:7000
    """
    config = preset(name.removeprefix("sim:"))
    if not 0 <= port < 1 << 16:
        raise UsageError(f"--port {port}: use 1 to 65535, or 0 for a free one")
    if flash and config.memory != "onchip":
        raise UsageError(f"--flash {flash}: {config.name} loads no model from a flash: use icebreaker or up5k, or "
                         "send the model with sterna upload")
    if flash and not flash.is_file():
        raise UsageError(f"--flash {flash}: no such file: make it with sterna flash -m MODEL -o FILE")
    timing = check_timing(config, latency, refresh_every, refresh, dram)
    use_build(build)
    from sterna.sim.board.board import SimulatedBoard
    # A delimiter first: the device may have been answering the host before this one.
    greetings = [DELIMITER + Frame.simulated(before).encode() for before in (0, 1)]
    with working() as step:
        board = SimulatedBoard(config, port=port, flash=flash, greetings=greetings, on_compile=step, **timing)
        board.start()
    try:
        show(f"{board.url.replace('127.0.0.1', 'localhost')}\n")
        tell(f"simulated {config.name}: nothing is measured on a board; Ctrl-C ends it")
        board.wait()
    except KeyboardInterrupt:
        pass
    finally:
        board.stop()
    tell(f"the simulated board has ended after {board.cycles:,} cycles")
