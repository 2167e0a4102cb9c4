"""What the figures of a CPU depend on: its name, its instruction sets, and what else it does."""

import os
import platform
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


def load():
    """Mean number of processes that ran or waited in the last minute (float)."""
    return os.getloadavg()[0]
