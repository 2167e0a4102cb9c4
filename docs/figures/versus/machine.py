"""What the figures of a CPU depend on: its name, its instruction sets, and what else it does."""

import os
import platform
import time
from pathlib import Path

SETS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8")  # those that products of bytes can use


def cpu_name(text=None):
    """Name of the CPU, with family and model, and which of SETS it has (str).

    Parameters
    ----------
    text : str, optional
        /proc/cpuinfo, read if not given.
    """
    if text is None:
        path = Path("/proc/cpuinfo")
        text = path.read_text() if path.exists() else ""
    first = text.partition("\n\n")[0]
    lines = (line.partition(":") for line in first.splitlines())
    found = {name.strip(): value.strip() for name, _, value in lines}
    if "model name" not in found:
        return platform.processor() or platform.machine()
    sets = [name for name in SETS if name in found.get("flags", "").split()]
    model = f"family {found.get('cpu family')}, model {found.get('model')}"
    return f"{found['model name']} ({model}: {', '.join(sets) or 'no AVX2'})"


def ticks(text=None):
    """Time of all processors since the machine's start, in its own unit: (all, idle), or None if it is not known.

    Parameters
    ----------
    text : str, optional
        /proc/stat, read if not given.
    """
    if text is None:
        path = Path("/proc/stat")
        text = path.read_text() if path.exists() else ""
    name, *numbers = text.partition("\n")[0].split()[:9] or [""]
    if name != "cpu":
        return None
    user, nice, system, idle, waiting, *others = map(int, numbers)
    return user + nice + system + idle + waiting + sum(others), idle + waiting


def resident_bytes():
    """Bytes of this process in memory (int), those of files among them; 0 where nobody says."""
    path = Path("/proc/self/statm")
    return int(path.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if path.exists() else 0


def busy(seconds=0.5):
    """The part of the processors' time that others take while this program sleeps (float), 0 where nobody says."""
    before = ticks()
    time.sleep(seconds)
    after = ticks()
    if not before or not after or after[0] == before[0]:
        return 0.0
    return 1 - (after[1] - before[1]) / (after[0] - before[0])
