"""The Verilog that the simulated board is compiled from (sim/board/verilog.py)."""

import re
from functools import cache

import pytest

from sterna.hw.config import preset
from sterna.sim.board.verilog import TOP, board_verilog

INPUTS = {"rst", "rx_payload", "rx_valid", "tx_ready"}  # of a board without a memory port


@cache
def modules(waves):
    """Text of each module of the smallest preset's board, by name."""
    text = board_verilog(preset("up5k"), waves=waves)
    found = re.findall(r"^module (\S+)\s*\((.*?)^endmodule", text, re.M | re.S)
    return {name.lstrip("\\"): body for name, body in found}


@pytest.mark.parametrize("waves", [False, True])
def test_nothing_depends_on_an_input_without_a_register(waves):
    body = modules(waves)[TOP]
    assert set(re.findall(r"input \[\d+:0\] (\w+)", body)) == INPUTS
    for name in INPUTS:
        used = [line.strip() for line in body.splitlines()[1:] if re.search(rf"(?<!\.)\b{name}\b", line)]
        assert used == [f"{name}_held <= {name};"]


def test_only_waveforms_keep_the_hierarchy():
    assert set(modules(False)) == {"simulated_board", TOP}
    assert "simulated_board.device.sequencer" in modules(True)
