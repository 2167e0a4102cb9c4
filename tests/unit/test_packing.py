"""Logic cells of made netlists."""

import pytest
from sterna.hw.flow.packing import logic_cells


def cell(kind, output, **inputs):
    pin = {"SB_LUT4": "O", "SB_DFF": "Q", "SB_CARRY": "CO"}[kind]
    nets = inputs | {pin: output}
    return {"type": kind, "connections": {name: [net] for name, net in nets.items()},
            "port_directions": {name: "output" if name == pin else "input" for name in nets}}


def module(*cells, outputs=()):
    return {"cells": dict(enumerate(cells)), "ports": {"o": {"direction": "output", "bits": list(outputs)}}}


LUT = cell("SB_LUT4", "y", I0="a", I1="b", I2="c", I3="d")


@pytest.mark.parametrize("others, outputs, count", [
    ((), (), 1),
    ((cell("SB_DFF", "q", D="y"),), (), 1),                           # shares the LUT's cell
    ((cell("SB_DFF", "q", D="y"),), ("y",), 2),                       # the LUT's output is needed elsewhere
    ((cell("SB_DFF", "q", D="y"), cell("SB_DFF", "r", D="y")), (), 3),
    ((cell("SB_DFF", "q", D="z"),), (), 2),                           # data from no LUT
    ((cell("SB_CARRY", "e", I0="b", I1="c", CI="d"),), (), 1),        # beside its LUT
    ((cell("SB_CARRY", "e", I0="b", I1="c", CI="f"),), (), 2),        # another carry in
    ((cell("SB_CARRY", "e", I0="b", I1="a", CI="d"),), (), 2),        # other operands
])
def test_logic_cells(others, outputs, count):
    assert logic_cells(module(LUT, *others, outputs=outputs)) == count
