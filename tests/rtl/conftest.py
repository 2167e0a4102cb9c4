"""Which simulator a test of a unit runs in.

A test that takes ``simulator`` runs every one of its cases in Icarus, and the first of each kind in Verilator: so
`make test`, which leaves Icarus out, sees every unit once, whoever adds it.
"""

import pytest

KINDS = ("case", "unit", "code")  # parameters that name what is tested, beside the function; the others vary it


def pytest_generate_tests(metafunc):
    marked = any("simulator" in str(mark.args[0]) for mark in metafunc.definition.iter_markers("parametrize"))
    if "simulator" in metafunc.fixturenames and not marked:
        icarus = pytest.param("icarus", marks=pytest.mark.icarus)
        metafunc.parametrize("simulator", ["verilator", icarus])
        metafunc.function.in_both = True


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    seen, kept = set(), []
    for item in items:
        if getattr(getattr(item, "function", None), "in_both", False):
            parameters = item.callspec.params
            kind = (item.path, item.originalname, *(str(parameters.get(name)) for name in KINDS))
            if parameters["simulator"] == "verilator" and kind in seen:
                continue
            seen.add(kind)
        kept.append(item)
    items[:] = kept
