"""Names and versions of the tools that results follow from."""

import importlib.metadata


def versions(*packages):
    """Names and versions of packages (str)."""
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
