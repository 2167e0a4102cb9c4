"""What the times depend on: the machine, what else it does, and the versions of what computes."""

import importlib.metadata
import os
import platform
import re
import time
from pathlib import Path

from sterna.sim.cmm.weights import caches
from sterna.sim.golden.compiler import ToolError, compiler_version

SETS = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16")  # that products of float32 and bfloat16 can use
_LOOK_S = 0.5


def _read(path):
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def processor(text=None):
    """Name, family and model of the processor, its clock in MHz as the system tells it, and which of SETS it has.

    Parameters
    ----------
    text : str, optional
        /proc/cpuinfo, read if not given.

    Returns
    -------
    dict
        "processor" (str), "clock_mhz" (float or None), "sets" (list of str).
    """
    text = _read("/proc/cpuinfo") if text is None else text
    lines = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    found = {name.strip(): value.strip() for name, _, value in lines}
    name = found.get("model name") or platform.processor() or platform.machine()
    if "cpu family" in found:
        name += f" (family {found['cpu family']}, model {found.get('model')})"
    clock = found.get("cpu MHz")
    return {"processor": name, "clock_mhz": float(clock) if clock else None,
            "sets": [one for one in SETS if one in found.get("flags", "").split()]}


def others(seconds=_LOOK_S):
    """The part of the processors' time that others take while this process sleeps (float), None if nobody says."""
    def ticks():
        numbers = re.match(r"cpu +([\d ]+)", _read("/proc/stat"))
        return [int(n) for n in numbers[1].split()[:8]] if numbers else None

    before = ticks()
    time.sleep(seconds)
    after = ticks()
    if not before or not after or sum(after) == sum(before):
        return None
    idle = after[3] + after[4] - before[3] - before[4]
    return 1 - idle / (sum(after) - sum(before))


def available_bytes():
    """Memory that is free for programs (int), None if nobody says."""
    found = re.search(r"^MemAvailable: +(\d+) kB", _read("/proc/meminfo"), re.MULTILINE)
    return int(found[1]) << 10 if found else None


def versions():
    """Versions by name (dict of str): of Python, of the packages that are there, and of the compiler."""
    found = {"Python": platform.python_version(), "system": f"{platform.system()} {platform.release()}"}
    for name in ("numpy", "torch", "numba"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    try:
        found["compiler"] = compiler_version()
    except ToolError:
        pass
    return found


def describe():
    """What was found here (dict)."""
    return processor() | {"cores": os.cpu_count(), "caches": {str(k): v for k, v in caches().items()},
                          "others": others(), "versions": versions()}
