"""The link of a simulated board at several rates: for each of them a serial line and a USB bridge,
modelled bit by bit.

The times are those of the simulated line, out of its log, and not of this machine's clock.
"""

import tempfile
from contextlib import ExitStack
from pathlib import Path

from sterna.host.console import working
from sterna.host.device.driver import Device
from sterna.host.device.frames import FrameDecoder
from sterna.host.device.transport import open_transport
from sterna.host.doctor.check import judged
from sterna.host.doctor.line import BITS_PER_BYTE, Load, loads_check, losses, lost_check, run_load
from sterna.host.errors import DeviceError
from sterna.hw import protocol
from sterna.hw.protocol import Register

SIZES, FENCE = (4, protocol.MAX_DATA_BYTES), protocol.REGISTERS + Register.BUILD
PATIENCE_S = 120.0  # a simulation takes its time, and loses nothing


def _frames(log, to_device):
    """[(cycle of the first byte's end, cycle of the last one's, Frame)] of one direction of a line's log."""
    part = log[log["to_device"] == to_device]
    decoder, found, begin = FrameDecoder(), [], None
    for cycle, byte in zip(part["cycle"].tolist(), part["byte"].tolist(), strict=True):
        begin = cycle if begin is None else begin
        found += [(begin, cycle, frame) for frame in decoder.feed(bytes([byte]))]
        if not byte:
            begin = None
    return found


def seconds_of_loads(log, clock_hz, baud):
    """What the loads between pairs of fences took on the line: list of seconds, from a request's first to the last
    answer's last bit.
    """
    requests, replies = _frames(log, 1), _frames(log, 0)
    fences = [k for k, (_, _, frame) in enumerate(requests) if frame.address == FENCE]
    ends = [cycle for _, cycle, _ in replies]
    found = []
    for first, last in zip(fences[::2], fences[1::2], strict=False):
        begin = requests[first + 1][0] - BITS_PER_BYTE * clock_hz / baud
        before = requests[last][0]
        found.append((max(end for end in ends if end < before) - begin) / clock_hz)
    return found


def line_checks(config, baud):
    """Generator of the Checks of a simulated board behind a line of ``baud`` bits per second."""
    from sterna.sim.board.board import Line, SimulatedBoard, read_line
    loads = []
    with tempfile.TemporaryDirectory() as folder:
        line = Line(baud=baud, log=Path(folder) / "line")
        with ExitStack() as stack:
            with working() as step:
                board = stack.enter_context(SimulatedBoard(config, line=line, on_compile=step))
            with Device(open_transport(board.url), timeout_s=PATIENCE_S, retry_s=PATIENCE_S / 4) as device:
                before, credits = losses(device), device.info.credits
                for kind in ("write", "read"):
                    for size in SIZES:
                        for window in (1, credits):
                            load = Load(kind, size, window)
                            loads.append(run_load(device, load, len(loads), 0, 8 + 2 * window * (window > 1)))
                after = losses(device)
        log = read_line(line.log)
    seconds = seconds_of_loads(log, config.clock_hz, baud)
    if len(seconds) != len(loads):
        raise DeviceError(f"the line's log has {len(seconds)} loads of {len(loads)}")
    for load, taken in zip(loads, seconds, strict=True):
        load.seconds = taken
    yield judged(f"{baud} baud", True, f"simulated line and USB bridge, {line.latency_us} us latency timer")
    for single, several in zip(loads[::2], loads[1::2], strict=True):
        yield loads_check(single, several, baud)
    yield lost_check(before, after)
