"""How to install what a part of Sterna needs besides its own dependencies."""

import os
import shlex
import sys
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def install_hint(extra=""):
    """The command, for this Python, that installs an extra of pyproject.toml, or Sterna itself (str).

    In a checkout the extra goes into what is installed from there; elsewhere, as no index has Sterna, the packages of
    the extra are named.
    """
    pip = f"{shlex.quote(_near(sys.executable))} -m pip install"
    if (ROOT / "pyproject.toml").is_file():
        place = _near(ROOT) + (f"[{extra}]" if extra else "")
        return f"{pip} -e {shlex.quote(place) if place != '.' else place}"
    try:
        named = [need.partition(";") for need in requires("sterna") or ()]
    except PackageNotFoundError:
        named = []
    wanted = f'extra == "{extra}"'
    packages = [name.strip() for name, _, when in named if (wanted in when if extra else "extra" not in when)]
    return f"{pip} {shlex.join(packages)}"


def _near(path):
    """A path as a command in this folder would name it: relative where that leads downwards."""
    try:
        near = os.path.relpath(path)
    except ValueError:  # another drive
        return str(path)
    return str(path) if near.startswith(os.pardir) else near
