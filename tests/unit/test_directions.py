"""Imports point down: a room of the code imports only what lies below it (CONTRIBUTING.md, "Rooms")."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("sim", "hw", "firmware", "models", "host", "docs")
ARITHMETIC = tuple(f"sim.golden.{name}" for name in ("errors", "fp24", "tables", "rng", "toplist"))
GATEWARE = ("hw", "hw.protocol", "hw.config", "hw.presets")
DEVICE = ("host.device", "host.errors", *GATEWARE[1:], "firmware", "sim.golden")
# Of each room: what it may import besides itself. A module belongs to the longest name that it begins with.
ROOMS = {
    "sim.golden": (),
    "hw.protocol": (),
    "hw.memory.chips": (),
    "hw.memory.behind": ("hw.memory.chips",),
    "hw.config": ("hw.protocol", "hw.memory.chips", "hw.memory.behind", "sim.golden.errors"),
    "hw.presets": ("hw.config",),
    "firmware": ("hw.protocol", "hw.config", "hw.presets", "sim.golden"),
    "sim.machine": ("firmware", "hw.protocol", "hw.config", "sim.golden"),
    "sim.perf": ("firmware", "hw.protocol", "hw.config", "hw.memory.chips", "hw.vector.stages", "sim.golden"),
    "hw": ("hw.protocol", "hw.config", "hw.memory.chips", "firmware.isa", *ARITHMETIC),
    "hw.boards": ("hw.memory.chips", "sim.golden.errors", *GATEWARE),
    "hw.flow": ("hw.boards", "sim.golden.errors", "sim.golden.extras", "sim.golden.files", *GATEWARE),
    "hw.__main__": ("hw.flow", "hw.boards", "sim.golden.errors", "sim.golden.progress", "sim.golden.files",
                    *GATEWARE),
    "sim.board": ("hw.flow", "hw.boards", "hw.memory.chips", "sim.golden", *GATEWARE),
    "sim.cpu": ("sim.golden",),
    "sim.cmm": ("sim.cpu", "sim.golden"),
    "models": ("sim.golden",),
    "host.errors": ("sim.golden.errors",),
    "host.device": DEVICE[1:],
    "host.model": ("host.errors", "firmware", "hw.config", "hw.presets", "hw.protocol", "sim.golden"),
    "host.runtime": ("host.model", "hw.boards", "sim.board", "sim.cpu", *DEVICE),
    "host.serving": ("host.runtime", "host.model", *DEVICE),
    "host.server": ("host.serving", "host.runtime", "host.model", *DEVICE),
    "host": ("host.server", "host.serving", "host.runtime", "host.model", "hw.boards", "hw.memory.chips", "models",
             "sim.board",
             "sim.cpu", "sim.cmm", "sim.perf", "hw", *DEVICE),
    "docs.figures": ("host", "host.server", "host.serving", "host.runtime", "host.model", "models", "sim.board",
                     "sim.cmm",
                     "sim.cpu", "sim.machine", "sim.perf", "hw.flow", "hw.boards", "hw.memory.chips", "hw", *DEVICE),
}


def room_of(module):
    """The room of a module called "hw.config", or None."""
    found = [room for room in ROOMS if module == room or module.startswith(f"{room}.")]
    return max(found, key=len, default=None)


def imported(tree):
    """Modules of this project that a syntax tree imports, and names in them: "hw.config.Config" too."""
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            name = name.removeprefix("sterna.") if name.startswith("sterna.") else name
            if name.partition(".")[0] in FOLDERS and room_of(name):
                yield node.lineno, name


def allowed(room, name):
    """Whether a module of ``room`` may import ``name``."""
    target = room_of(name)
    return target == room or target in ROOMS[room] or any(
        name == one or name.startswith(f"{one}.") for one in ROOMS[room] if room_of(one) == target)


def wrong(files, root):
    """Lines that import what lies above them (list of str)."""
    out = []
    for path in files:
        module = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        for line, name in imported(ast.parse(path.read_text())):
            if not allowed(room_of(module), name):
                out.append(f"{path.relative_to(root)}:{line} imports {name}")
    return out


def test_imports_point_down():
    files = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    files = [path for path in files if "__pycache__" not in path.parts]
    assert len(files) > 100
    assert not (found := wrong(files, ROOT)), "\n".join(found)


@pytest.mark.parametrize("module, line", [
    ("sim/golden/fp24.py", "from sterna.firmware import isa"),
    ("hw/config.py", "from sterna.hw.boards import BOARDS"),
    ("hw/vector/lane.py", "from sterna.sim.golden import model"),
    ("firmware/isa.py", "import sterna.host.errors"),
    ("host/device/link.py", "def f():\n    from sterna.host.runtime.open import open_runtime"),
    ("models/layers.py", "from sterna.sim.machine.machine import Machine"),
])
def test_an_import_upwards_is_found(tmp_path, module, line):
    path = tmp_path / module
    path.parent.mkdir(parents=True)
    path.write_text(line + "\n")
    assert len(wrong([path], tmp_path)) == 1
