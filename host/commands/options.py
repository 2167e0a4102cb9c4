"""Options that several commands take, with one wording."""

import os
from pathlib import Path
from typing import Annotated

import typer

from sterna.host.errors import HostError, UsageError

ModelOption = Annotated[Path, typer.Option("-m", "--model", help="Image (.sterna) or checkpoint folder.",
                                           show_default=False)]
DeviceOption = Annotated[str, typer.Option("--device", help="golden, sim, sim:PRESET, a preset with other "
                                           "parameters as sim:lanes40,batch=4,top_k=40, or a serial port or URL; see "
                                           "`sterna devices`.")]
Baud = Annotated[int, typer.Option("--baud", help="Bits per second of a serial port.")]
Preload = Annotated[bool, typer.Option("--preload/--no-preload", help="sim: start with the model in memory, without "
                                       "the upload. Default: only with --waves.", show_default=False)]
Waves = Annotated[Path, typer.Option("--waves", help="sim: write a VCD file of every signal, about 2 kB for every "
                                     "byte of the model and token.", show_default=False)]
WavesGb = Annotated[float, typer.Option("--waves-limit", help="sim: end the run between two tokens when --waves has "
                                        "written so many GB; 0: no limit.")]
Latency = Annotated[int, typer.Option("--latency", help="sim: cycles from a memory read to its first word.",
                                      show_default=False)]
RefreshEvery = Annotated[int, typer.Option("--refresh-interval", help="sim: cycles from one refresh of the memory to "
                                           "the next.", show_default=False)]
Refresh = Annotated[int, typer.Option("--refresh", help="sim: cycles that a refresh takes.", show_default=False)]
TIMING = {"latency_cycles": 20, "refresh_interval_cycles": 780, "refresh_cycles": 0}  # of SimulatedBoard by default


def check_temperature(temperature):
    """UsageError for a temperature that no device takes."""
    if not 0 <= temperature <= 1000:
        raise UsageError(f"--temp {temperature:g}: use 0 (greedy) to 1000")
    if 0 < temperature < 1e-3:
        raise UsageError(f"--temp {temperature:g}: use 0 (greedy) or at least 0.001")


def check_output(option, path):
    """HostError if no file can be written at ``path``: better known now than when the run is over. None is fine."""
    if path is None:
        return
    if path.is_dir():
        raise HostError(f"{option} {path}: this is a folder: give the name of a file")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise HostError(f"{option} {path}: cannot be written there: give a file in a folder that exists and is yours")


def simulation(device, waves, preload, latency, refresh_interval, refresh):
    """Keyword arguments for ``open_runtime``; UsageError for options of the simulation with another device."""
    given = {"--waves": waves, "--preload": preload, "--latency": latency,
             "--refresh-interval": refresh_interval, "--refresh": refresh}
    used = [name for name, value in given.items() if value is not None]
    if used and device.partition(":")[0] != "sim":
        raise UsageError(f"{used[0]} needs the simulated board: use --device sim, not {device}")
    for name in ("--latency", "--refresh-interval", "--refresh"):
        if given[name] is not None and not 0 <= given[name] < 1 << 20:
            raise UsageError(f"{name} {given[name]}: use 0 to {(1 << 20) - 1} cycles")
    interval = TIMING["refresh_interval_cycles"] if refresh_interval is None else refresh_interval
    if refresh and interval and refresh >= interval:
        raise UsageError(f"--refresh {refresh}: every --refresh-interval {interval} cycles, the memory would never "
                         f"deliver: use at most {interval - 1}")
    check_output("--waves", waves)
    timing = {"latency_cycles": latency, "refresh_interval_cycles": refresh_interval, "refresh_cycles": refresh}
    return {"waves": waves, "preload": preload, "timing": {k: v for k, v in timing.items() if v is not None}}
