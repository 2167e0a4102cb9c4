"""What a device says about itself, and whether this software knows such a build."""

from dataclasses import fields

from sterna.host.doctor.check import judged, skipped
from sterna.host.errors import HostError
from sterna.hw import protocol
from sterna.hw.boards import BOARDS
from sterna.hw.presets import PRESETS
from sterna.hw.protocol import VERSIONS, Register

NAMES = {name: config for name, config in
         [*((board.name, board.config) for board in BOARDS.values()), *PRESETS.items()]}


def build_of(config):
    """The register ``build`` of a Config (int)."""
    return int(config.digest[:8], 16)


def named(build):
    """Names of the boards and presets with this register ``build`` (list of str)."""
    return [name for name, config in NAMES.items() if build_of(config) == build]


def sizes(info):
    """The build parameters that matter to people (str)."""
    clock = f"{info.clock_hz / 1e6:g} MHz"
    if info.memory_hz:
        clock += f" (memory {info.memory_hz / 1e6:g})"
    place = "on the chip" if info.memory == "onchip" else f"behind a port of {info.port_bytes} bytes"
    slots = f", {info.batch} slots" if info.batch > 1 else ""
    return (f"{info.rows} x {info.columns} trits, {info.lanes} lane{'s' * (info.lanes > 1)}{slots}, "
            f"{info.memory_bytes >> 10:,} KiB {place}, {clock}")


def unlike(info, config):
    """Parameters that differ between a DeviceInfo and a Config: list of (name, the device's, the configuration's)."""
    found = {field.name: (getattr(info, field.name), getattr(config, field.name))
             for field in fields(info) if hasattr(config, field.name)}
    found["memory_hz"] = info.memory_hz, config.memory_hz // 1000 * 1000  # told in kHz
    return [(name, is_, must) for name, (is_, must) in found.items() if is_ != must]


def identify(device, wanted=None):
    """Checks of versions and build.

    Parameters
    ----------
    device : Device
    wanted : Config, optional
        What the device must be, where that is known.
    """
    yield judged("versions", True, ", ".join(f"{name} {number}" for name, number in VERSIONS.items())
                 + ": those of this software", **VERSIONS)
    info = device.info
    names = named(info.build)
    values = {"build": f"{info.build:08x}", "names": names, "clock_hz": info.clock_hz,
              "memory_bytes": info.memory_bytes}
    known = wanted or (NAMES[names[0]] if names else None)
    differing = unlike(info, known) if known else []
    if wanted and info.build != build_of(wanted):
        differing.append(("build", f"{info.build:08x}", wanted.digest[:8]))
    if differing:
        name, is_, must = differing[0]
        yield judged("build", False, f"{info.build:08x}: {name} is {is_}, and {known.name} has {must}: build the "
                     "bitstream again and program the board", **values)
        return
    label = " or ".join(names) if names else known.name if known else (
        "no board or preset of this software; its own parameters are used")
    yield judged("build", True, f"{info.build:08x}: {label}; {sizes(info)}", **values)


def at_rest(device, halt):
    """Generator of the Check whether the device runs nothing and reports no fault; ``halt`` ends what it runs."""
    found = [(slot, *device.status(slot)) for slot in device.slots]
    running = [(slot, position) for slot, runs, _, _, position in found if runs]
    faults = [fault for _, _, _, fault, _ in found if fault]
    note = ""
    if running and not halt:
        slot, position = running[0]
        yield judged("rest", False, f"slot {slot} is running, at position {position}: wait until that run has ended, "
                     "or add --halt to end it")
        return
    for slot, *_ in found:
        if not faults:
            device.halt(slot)
    if running:
        note = f"; ended a run at position {running[0][1]}"
    if faults:
        note += f"; fault {faults[0]} ({protocol.FAULTS.get(faults[0], 'unknown')}) was there, and is reset"
    device.reset()
    left = max(device.status(slot)[2] for slot in device.slots)
    yield judged("rest", not left, f"fault {left} stays after a reset: program the board again" if left else
                 f"nothing runs, no fault{note}")


def answers(device):
    """Whether the device still answers (bool)."""
    try:
        return device.read_register(Register.MAGIC) == protocol.MAGIC
    except HostError:
        return False


def skip_all(names, why):
    """Skipped Checks of these names."""
    return [skipped(name, why) for name in names]
