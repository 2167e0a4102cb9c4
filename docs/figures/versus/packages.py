"""The packages of the extra ``versus``, which nothing else needs."""

import importlib

from sterna.host.errors import UsageError
from sterna.sim.golden.extras import install_hint


def load(name):
    """The module ``name``; UsageError with the command that installs the extra if its package is missing."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(f"cannot import {name} ({error}): run {install_hint('versus')}") from None
