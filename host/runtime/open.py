"""What --device can name, and its runtime: models in this process, simulated boards, and devices behind a port."""

import difflib
import tempfile
from contextlib import ExitStack
from pathlib import Path

from serial.tools import list_ports

from sterna.firmware.program import build_program
from sterna.host.device.driver import SIMULATION_STALL_S, Device
from sterna.host.device.transport import open_transport
from sterna.host.errors import UsageError
from sterna.host.runtime.device import DeviceRuntime
from sterna.host.runtime.cpu import SLOTS as CPU_SLOTS
from sterna.host.runtime.cpu import CpuRuntime
from sterna.host.runtime.runtime import untold
from sterna.host.runtime.sampling import Demands
from sterna.hw.boards import BOARDS, preset
from sterna.hw.presets import PRESETS
from sterna.sim.golden.progress import working

DEFAULT_DEVICE, DEFAULT_SIMULATION = "cpu", "sim"
MODELS = ("cpu", "golden", "float", "torch")  # what computes in this process
EXACT = ("cpu", "golden")  # those of them that compute what the hardware does
ALIKE = 0.7  # as difflib measures it


def memory_file(path, regions):
    """Writes (byte address, uint8 array) pairs into a file; returns them as ``SimulatedBoard`` takes them, a list of
    (path, offset, bytes, address).
    """
    parts, at = [], 0
    with path.open("wb") as file:
        for address, data in regions:
            file.write(data)
            parts.append((path, at, len(data), address))
            at += len(data)
    return parts


def _preloaded(stack, image, config):
    """What ``memory_file`` returns for a model, of a file that lives as long as ``stack``."""
    if config.memory == "onchip":
        raise UsageError(f"--preload: the memory of {config.name} is on the chip: leave --preload out")
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    parts = memory_file(folder / "memory", image.regions(config))
    image.check_unchanged()
    return parts


def open_port(port, baud, model, tell, demands, progress, **limits):
    """The DeviceRuntime of a serial port or URL; TransportError, DeviceError or ProtocolError if there is none.

    ``limits`` are ``timeout_s`` and ``stall_s`` of its Device.
    """
    device = Device(open_transport(port, baud), tell=tell, **limits)
    try:
        demands.check(device.info)
        return DeviceRuntime(model, device, tell, progress=progress)
    except BaseException:
        device.close()
        raise


def open_simulation(config, model, tell, demands, *, waves=None, preload=False, timing=None, progress=untold):
    """The DeviceRuntime of a simulated board, its ``board``; ``waves``, ``preload`` and ``timing``
    as for ``open_runtime``.
    """
    from sterna.sim.board.board import SimulatedBoard
    demands.check(config)
    with ExitStack() as stack:
        image = model.image_for(config, tell)  # refused before anything is compiled
        build_program(config, model.geometry)
        if preload is None:  # waveforms of an upload are larger than those of many tokens
            preload = waves is not None and config.memory == "external"
        parts = _preloaded(stack, image, config) if preload else None
        recorded = {} if waves is None else {"waves": waves.path, "waves_limit": waves.limit_bytes,
                                             "record": waves.whole}
        with working() as step:
            board = stack.enter_context(SimulatedBoard(config, preload=parts, on_compile=step, **recorded,
                                                       **timing or {}))
        device = Device(open_transport(board.url), stall_s=SIMULATION_STALL_S)
        stack.callback(device.close)
        runtime = DeviceRuntime(model, device, tell, simulated=True, loaded=preload, fresh=True, progress=progress)
        runtime.resources, runtime.board, runtime.waves = stack.pop_all(), board, waves
        if waves is not None:
            runtime.piece_tokens = config.batch  # so that a limit of the file is looked at behind every run
        return runtime


def device_lines():
    """One line (str) per device, its name first."""
    lines = ["cpu                 this machine's processor, the default: bit exact, fast, no cycles",
             "golden              the golden model in NumPy: bit exact, no cycles"]
    # Of a name that is a board's and a preset's too there is one.
    for config in (PRESETS | {name: board.config for name, board in BOARDS.items()}).values():
        name = "sim" if config.name == DEFAULT_SIMULATION else f"sim:{config.name}"
        lines.append(f"{name:<19} simulated board: {config.rows} x {config.columns} trits a cycle, "
                     f"{config.lanes} lanes, {config.memory_bytes >> 10} KiB of memory, "
                     f"projected at {config.clock_hz / 1e6:g} MHz")
    lines.append("sim:P,NAME=N        a preset with other parameters, for instance sim:lanes40,batch=4,top_k=40")
    ports = sorted(list_ports.comports())
    lines += [f"{port.device:<19} serial port: {port.description}" for port in ports]
    return lines if ports else [*lines, "(no serial ports; socket://HOST:PORT works too)"]


def simulated_config(device):
    """The Config of a --device value that is a simulated board, None for any other.

    Raises
    ------
    ConfigError
        Unknown preset.
    UsageError
        Nearly the name of another device.
    """
    kind, colon, name = device.partition(":")
    if kind == "sim":
        return preset(name if colon else DEFAULT_SIMULATION)
    _refuse_misspelt(device)
    return None


def _refuse_misspelt(device):
    """UsageError for what is nearly the name of another device, and no port of this machine."""
    if device in MODELS or "/" in device or "\\" in device or Path(device).exists():
        return
    if device in {port.device for port in list_ports.comports()}:
        return
    wanted = device.lower()
    base, comma, changes = wanted.partition(",")
    known = {name.partition(":")[2]: name for name in (f"sim:{name}" for name in [*PRESETS, *BOARDS])}
    known |= {name: name for name in [*MODELS, DEFAULT_SIMULATION, *known.values()]}
    found = base if base in known else next(iter(difflib.get_close_matches(base, known, 1, ALIKE)), None)
    if found:
        name = known[found]
        if comma and name == DEFAULT_SIMULATION:  # parameters follow the name of a preset
            name = f"{DEFAULT_SIMULATION}:{DEFAULT_SIMULATION}"
        raise UsageError(f"--device {device}: there is no such device: did you mean {name}{comma}{changes}?")


def is_simulated(device):
    """Whether a --device value is a board that is simulated for the run."""
    return device.partition(":")[0] == "sim"


def is_hardware(device):
    """Whether a --device value runs the accelerator, simulated or real, rather than a model in this process."""
    return device not in MODELS


def check_model(device, demands):
    """UsageError if a model in this process, ``device`` of ``EXACT``, lacks something that is demanded."""
    if device == "cpu":
        demands.check_cpu(CPU_SLOTS)
    else:
        demands.check(None)


def open_runtime(device, model, *, tell, baud=1_000_000, waves=None, preload=False, timing=None,
                 demands=Demands(), threads=None, progress=untold, limits=None):  # noqa: B008 (frozen)
    """The Runtime of a --device value, with the model loaded.

    Parameters
    ----------
    device : str
        cpu, golden, sim, sim:PRESET, sim:PRESET,PARAMETER=NUMBER, or a serial port or URL.
    model : Model
    tell : callable(str)
        Takes lines of information.
    baud : int
        Of a serial port.
    waves : sterna.host.waves.Recording or None
        What a simulation records.
    preload : bool or None
        A simulation starts with the model in memory; None: if it writes waveforms and its memory can be filled.
    timing : dict or None
        Memory timing of a simulation, as ``SimulatedBoard`` takes it.
    demands : Demands
        What the build must have; looked at before anything is compiled or sent.
    threads : int or None
        Of cpu; None: all that this process may use, or $STERNA_THREADS.
    progress : callable(what, done, total)
        Told about an upload, in bytes, or about what is loaded.
    limits : dict or None
        ``timeout_s`` and ``stall_s`` of the Device behind a port, where they are not the usual ones.

    Raises
    ------
    HostError
        Nothing there, another version, a demand is not met, or the model does not fit.
    ToolError
        There is no compiler, of cpu or of a simulation.
    """
    if device in EXACT:
        check_model(device, demands)
        if device == "cpu":
            return CpuRuntime(model, threads, progress)
        from sterna.host.runtime.golden import GoldenRuntime
        return GoldenRuntime(model)
    if device in MODELS:
        raise UsageError(f"--device {device}: only sterna eval has it: use cpu, or a device of `sterna devices`")
    if not device:
        raise UsageError("--device is empty: see `sterna devices` for what it takes")
    if baud <= 0:
        raise UsageError(f"--baud {baud}: use the bits per second of the board, for instance 1000000")
    config = simulated_config(device)
    if config:
        return open_simulation(config, model, tell, demands, waves=waves, preload=preload, timing=timing,
                               progress=progress)
    return open_port(device, baud, model, tell, demands, progress, **limits or {})
