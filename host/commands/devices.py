"""sterna devices and version."""

import importlib.metadata

from sterna.host.console import show
from sterna.host.runtime.open import device_lines
from sterna.hw.protocol import VERSIONS


def devices():
    """List what --device takes on this machine.

    This machine's processor, the golden model, the simulated board with each preset and board, and the serial ports
    that are plugged in.
    """
    show("".join(line + "\n" for line in device_lines()))


def version():
    """Print the versions of the program and of its formats."""
    show(version_line())


def version_line():
    """What sterna version prints (str)."""
    formats = ", ".join(f"{name} {number}" for name, number in VERSIONS.items())
    return f"sterna {importlib.metadata.version('sterna')} ({formats})\n"
