"""Shared by all tests: the random seed is printed and every random choice follows from it."""

import os


def seed():
    """Seed of this run: STERNA_SEED, 1 by default (int)."""
    return int(os.environ.get("STERNA_SEED", "1"))


def pytest_report_header(config):
    return f"random seed: STERNA_SEED={seed()}"
