"""Shared by all tests: the seed, which is printed and all random choices follow from, and what is of the rest."""

import os
import signal

import pytest


def seed():
    """Seed of this run: STERNA_SEED, 1 by default (int)."""
    return int(os.environ.get("STERNA_SEED", "1"))


def pytest_configure(config):
    """Tests send Ctrl-C, which a run in the background of a script has inherited as ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header(config):
    return f"random seed: STERNA_SEED={seed()}"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """A test is in `make test` unless it is marked; what runs in Icarus does so in Verilator too, in one case."""
    for item in items:
        if item.get_closest_marker("icarus"):
            item.add_marker("rest")
