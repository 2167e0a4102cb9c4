"""Options that several commands take, with one wording."""

import os
from pathlib import Path
from typing import Annotated

import typer

from sterna.host.errors import HostError, UsageError
from sterna.host.runtime.open import is_simulated, simulated_config
from sterna.sim.board.dram import DEFAULT, SETTINGS
from sterna.sim.cpu.model import MOST_THREADS

ModelOption = Annotated[Path, typer.Option("-m", "--model", help="Image (.sterna) or checkpoint folder.",
                                           show_default=False)]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu, golden, sim, sim:PRESET, sim:BOARD, a preset with "
                                           "other parameters as sim:lanes40,batch=4, or a serial port or URL; see "
                                           "`sterna devices`.")]
Threads = Annotated[int, typer.Option("-t", "--threads", help="cpu: threads that compute. Default: "
                                      "$STERNA_THREADS, or as many as the processors that it may use, "
                                      "within its container's share of their time.", show_default=False)]
SelfTest = Annotated[bool, typer.Option("--self-test", help="First run the image's known answer on the device, and "
                                        "stop if a token differs.")]
Baud = Annotated[int, typer.Option("--baud", help="Bits per second of a serial port.")]
Preload = Annotated[bool, typer.Option("--preload/--no-preload", help="sim: start with the model in memory, without "
                                       "the upload. Default: only with --waves.", show_default=False)]
Waves = Annotated[Path, typer.Option("--waves", help="sim: write every signal to a VCD file, about 2 kB for every "
                                     "byte of the model and token; a tenth as an FST file, if the name ends in .fst.",
                                     show_default=False)]
WavesGb = Annotated[float, typer.Option("--waves-limit", help="sim: the file of --waves ends at so many GB, and the "
                                        "run behind that token; 0: no limit.")]
WavesFrom = Annotated[int, typer.Option("--waves-from", help="sim: the first token of the text that --waves records, "
                                        "the prompt's included; 0: all from the start of the board.")]
WavesTokens = Annotated[int, typer.Option("--waves-tokens", help="sim: how many tokens --waves records; 0: all.")]
Latency = Annotated[int, typer.Option("--latency", help="sim: cycles from a memory read to its first word.",
                                      show_default=False)]
RefreshEvery = Annotated[int, typer.Option("--refresh-interval", help="sim: cycles from one refresh of the memory to "
                                           "the next.", show_default=False)]
Refresh = Annotated[int, typer.Option("--refresh", help="sim: cycles that a refresh takes.", show_default=False)]
DramSetting = Annotated[str, typer.Option("--dram", metavar="NAME", help="sim:kv260 and others with AXI ports: the "
                                          f"DRAM behind these, {', '.join(SETTINGS)}, in place of the three options "
                                          f"before. Default: {DEFAULT}.", show_default=False)]
Build = Annotated[Path, typer.Option("--build", help="sim, cpu: folder of what is compiled. Default: "
                                     "$STERNA_BUILD, or build/ of the checkout, or "
                                     "~/.cache/sterna where Sterna was installed.", show_default=False)]
TIMING = {"latency_cycles": 20, "refresh_interval_cycles": 780, "refresh_cycles": 0}  # of SimulatedBoard by default


def check_temperature(temperature):
    """UsageError for a temperature that no device takes."""
    if not 0 <= temperature <= 1000:
        raise UsageError(f"--temp {temperature:g}: use 0 (greedy) to 1000")
    if 0 < temperature < 1e-3:
        raise UsageError(f"--temp {temperature:g}: use 0 (greedy) or at least 0.001")


def check_threads(threads, device):
    """UsageError for a number of threads that cannot be, or with a device that takes none; None is fine."""
    if threads is None:
        return
    if device != "cpu":
        raise UsageError(f"--threads {threads}: only --device cpu computes with threads: leave it out")
    if not 1 <= threads <= MOST_THREADS:
        raise UsageError(f"--threads {threads}: use 1 to {MOST_THREADS}")


def check_output(option, path):
    """HostError if no file can be written at ``path``: better known now than when the run is over. None is fine."""
    if path is None:
        return
    if path.is_dir():
        raise HostError(f"{option} {path}: this is a folder: give the name of a file")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise HostError(f"{option} {path}: cannot be written there: give a file in a folder that exists and is yours")


def use_build(folder):
    """Lets simulations be compiled in a folder; before anything of ``sterna.sim.board`` is imported. None is fine."""
    if folder is not None:
        os.environ["STERNA_BUILD"] = str(folder.absolute())


def default_timing(config):
    """Timing of the memory of a simulated board where nothing is given, as ``SimulatedBoard`` takes it (dict)."""
    return {"dram": SETTINGS[DEFAULT]} if config.axi_ports else dict(TIMING)


def check_timing(config, latency, refresh_interval, refresh, dram):
    """Timing of the memory of a simulated board as ``SimulatedBoard`` takes it (dict of what is not None); UsageError
    for what it does not take. ``config`` is that of the board, or None: then nothing may be given but None.
    """
    given = {"--latency": latency, "--refresh-interval": refresh_interval, "--refresh": refresh}
    for name, value in given.items():
        if value is not None and not 0 <= value < 1 << 20:
            raise UsageError(f"{name} {value}: use 0 to {(1 << 20) - 1} cycles")
        if value is not None and config.axi_ports:
            raise UsageError(f"{name} {value}: behind the AXI ports of {config.name} is a DRAM: use --dram with one "
                             f"of {', '.join(SETTINGS)}")
    if dram is not None:
        if dram not in SETTINGS:
            raise UsageError(f"--dram {dram}: use one of {', '.join(SETTINGS)}")
        if not config.axi_ports:
            raise UsageError(f"--dram {dram}: {config.name} has no AXI ports: leave --dram out, or use sim:kv260")
        return {"dram": SETTINGS[dram]}
    interval = TIMING["refresh_interval_cycles"] if refresh_interval is None else refresh_interval
    if refresh and interval and refresh >= interval:
        raise UsageError(f"--refresh {refresh}: every --refresh-interval {interval} cycles, the memory would never "
                         f"deliver: use at most {interval - 1}")
    timing = {"latency_cycles": latency, "refresh_interval_cycles": refresh_interval, "refresh_cycles": refresh}
    return {name: value for name, value in timing.items() if value is not None}


def simulation(device, waves, preload, latency, refresh_interval, refresh, dram):
    """Keyword arguments for ``open_runtime``; UsageError for options of the simulation with another device."""
    given = {"--waves": waves, "--preload": preload, "--latency": latency,
             "--refresh-interval": refresh_interval, "--refresh": refresh, "--dram": dram}
    used = [name for name, value in given.items() if value is not None]
    if used and not is_simulated(device):
        raise UsageError(f"{used[0]} needs the simulated board: use --device sim, not {device}")
    timing = check_timing(simulated_config(device), latency, refresh_interval, refresh, dram)
    check_output("--waves", waves)
    return {"waves": waves, "preload": preload, "timing": timing}
