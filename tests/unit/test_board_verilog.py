"""The Verilog that the simulated board is compiled from (sim/board/verilog.py)."""

import re
from functools import cache

import pytest
from sterna.hw.boards import preset
from sterna.sim.board.verilog import TOP, board_verilog, forget_values

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
    assert "simulated_board.soc.accelerator.sequencer" in modules(True)


@pytest.mark.parametrize("waves", [False, True])
def test_only_constants_have_values_before_the_reset(waves):
    text = "".join(modules(waves).values())
    assert not re.findall(r"^  reg (?!.*verilog_backend)[^;]* = ", text, re.M)
    contents = dict.fromkeys(re.findall(r"^    (\S+) ?\[\d+\] = ", text, re.M))
    assert {name.rpartition(".")[2] for name in contents} == {"rom", "complement", "scalars"}
    assert re.findall(r"scalars ?\[(\d+)\] = (\S+);", text) == [("0", "24'h000000"), ("1", "24'h3f8000")]


def test_contents_up_to_the_last_word_that_is_not_zero_are_kept():
    write = '  cell $memwr_v2 $2\n    parameter \\MEMID "\\m"\n  end\n'
    words = ('  attribute \\init 1\'0\n  wire \\w\n  cell $meminit_v2 $1\n    parameter \\MEMID "\\m"\n'
             "    parameter \\WIDTH 2\n    parameter \\WORDS 4\n    connect \\DATA 8'{}\n  end\n")
    assert forget_values("module \\a\n" + words.format("00000000") + write).count("meminit") == 0
    kept = forget_values("module \\a\n" + words.format("00001000") + write)
    assert "WORDS 2\n" in kept and "DATA 4'1000\n" in kept and "init 1" not in kept
    never_written = forget_values("module \\a\n" + words.format("00001000") + "module \\b\n" + write)
    assert "WORDS 4\n" in never_written and "DATA 8'00001000\n" in never_written
