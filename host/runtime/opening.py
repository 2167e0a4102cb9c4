"""Opens a device behind a port, or a simulated board that is started for the run, with a model in it."""

import tempfile
from contextlib import ExitStack
from pathlib import Path

from sterna.firmware.program import build_program
from sterna.host.device.driver import SIMULATION_STALL_S, Device
from sterna.host.errors import UsageError
from sterna.host.runtime.device import DeviceRuntime
from sterna.host.device.transport import open_transport
from sterna.sim.golden.progress import working


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
    return memory_file(folder / "memory", image.regions(config))


def open_port(port, baud, model, tell, demands):
    """The DeviceRuntime of a serial port or URL; TransportError, DeviceError or ProtocolError if there is none."""
    device = Device(open_transport(port, baud), tell=tell)
    try:
        demands.check(device.info)
        return DeviceRuntime(model, device, tell)
    except BaseException:
        device.close()
        raise


def open_simulation(config, model, tell, demands, *, waves=None, preload=False, timing=None):
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
        runtime = DeviceRuntime(model, device, tell, simulated=True, loaded=preload, fresh=True)
        runtime.resources, runtime.board, runtime.waves = stack.pop_all(), board, waves
        if waves is not None:
            runtime.piece_tokens = config.batch  # so that a limit of the file is looked at behind every run
        return runtime
