"""Where a model comes from: the hash of a checkpoint's files, taken while they are read (docs/image-format.md)."""

import hashlib
from importlib.metadata import PackageNotFoundError, version

from sterna.hw.protocol import VERSIONS


def program_version():
    """Version of the installed program (str), "unknown" without one."""
    try:
        return version("sterna")
    except PackageNotFoundError:
        return "unknown"


class Source:
    """Takes in the tensors and files of a checkpoint, each once or more often, and tells what they were.

    Parameters
    ----------
    files : dict of str to bytes
        The files that are no tensors, by name.
    progress : callable(bytes)
        Told how many bytes each tensor had.
    """

    def __init__(self, files, progress=lambda size: None):
        self._progress, self._kinds = progress, set()
        self._lines = {name: f"{hashlib.sha256(data).hexdigest()} {name}" for name, data in files.items()}

    def watch(self, name, entry, data):
        """Takes a tensor: its name, `Entry` and numbers as they are stored."""
        shape = "x".join(map(str, entry.shape))
        self._lines[name] = f"{hashlib.sha256(data).hexdigest()} {name} {entry.kind} {shape}"
        self._kinds.add(entry.kind)
        self._progress(data.nbytes)

    def to_json(self):
        """The value of the header's key ``source``."""
        text = "".join(line + "\n" for line in sorted(self._lines.values()))
        return {"sha256": hashlib.sha256(text.encode()).hexdigest(), "sterna": program_version()[:32],
                "numerics": VERSIONS["numerics"], "weights": ",".join(sorted(self._kinds))}
