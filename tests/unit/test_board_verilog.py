"""The Verilog that the simulated board is compiled from (sim/board/verilog.py)."""

import re
from dataclasses import replace
from functools import cache

import pytest
from sterna.hw.boards import preset
from sterna.sim.board.verilog import TOP, board_verilog, forget_values, random_collisions

INPUTS = {"rst", "rx_payload", "rx_valid", "tx_ready"}  # of a board without a memory port


@cache
def modules(waves):
    """Text of each module of the smallest preset's board, by name; with less memory, which takes its time."""
    config = replace(preset("up5k"), memory_bytes=1 << 12, vector_words=512, program_words=256)
    text = board_verilog(config, waves=waves)
    found = re.findall(r"^module (\S+)\s*\((.*?)^endmodule", text, re.M | re.S)
    return {name.lstrip("\\"): body for name, body in found}


@pytest.mark.parametrize("waves", [False, pytest.param(True, marks=pytest.mark.rest)])
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


@pytest.mark.parametrize("waves", [False, True])
def test_every_read_beside_a_write_gives_random_bits(waves):
    text = "".join(modules(waves).values())
    memories = re.findall(r"^  reg \[\d+:0\] (\S+) +\[\d+:0\];", text, re.M)
    written = [name for name in memories if not re.search(r"(rom|complement)$", name)]
    ports = re.findall(r" reg \[63:0\] (_\d+_)_noise; ", text)
    assert len(ports) == len(written) > 10, written
    assert not re.search(r"^ +_\d+_\S* <= \d+'hx", text, re.M)


def test_random_bits_of_a_read_port():
    """As many as are undefined, in words and parts of them, and others the next time."""
    text = ("module a(clk);\n  reg [69:0] _3_;\n  always @(posedge clk) begin\n    _3_ <= m[r];\n"
            "    if (we[0] && r == w)\n      _3_[69:64] <= 6'hxx;\n"
            "    if (we[1] && r == w)\n      _3_[63:0] <= 64'hxxxxxxxxxxxxxxxx;\n  end\nendmodule\n")
    made = random_collisions(text, lambda: 0xABC)
    assert "reg [63:0] _3__noise = 64'habc;" in made and "'hx" not in made
    assert re.search(r"_3_\[69:64\] <= \{_3__noise\[63:58\] \^ 6'h\w+\};", made)
    assert re.search(r"_3_\[63:0\] <= \{(_3__noise\[63:32\] \^ 32'h\w+(, )?){2}\};", made)
    assert made.count("_3__noise <= _3__noise * ") == 2
    assert random_collisions(text) == made.replace(" = 64'habc", "")


def test_contents_up_to_the_last_word_that_is_not_zero_are_kept():
    write = '  cell $memwr_v2 $2\n    parameter \\MEMID "\\m"\n  end\n'
    words = ('  attribute \\init 1\'0\n  wire \\w\n  cell $meminit_v2 $1\n    parameter \\MEMID "\\m"\n'
             "    parameter \\WIDTH 2\n    parameter \\WORDS 4\n    connect \\DATA 8'{}\n  end\n")
    assert forget_values("module \\a\n" + words.format("00000000") + write).count("meminit") == 0
    kept = forget_values("module \\a\n" + words.format("00001000") + write)
    assert "WORDS 2\n" in kept and "DATA 4'1000\n" in kept and "init 1" not in kept
    never_written = forget_values("module \\a\n" + words.format("00001000") + "module \\b\n" + write)
    assert "WORDS 4\n" in never_written and "DATA 8'00001000\n" in never_written
