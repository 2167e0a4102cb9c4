"""Synthesised units, simulated with the models of their primitives, do what the units do; with a fault in a model
they do not.
"""

import os
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest
from harness import compiled
from primitive_shapes import SHAPES
from sterna.sim.board import netlist
from sterna.sim.board.toolchain import ToolError

pytestmark = [pytest.mark.rtl, pytest.mark.synth, pytest.mark.rest]

CYCLES = 20000
SEED = int(os.environ.get("STERNA_SEED", "1"))
# Faults: (text of a model, what takes its place, the unit that must show it).
FAULTS = {
    "ecp5": [
        ("INITIAL[40 * k + 20 +: 18]", "INITIAL[40 * k + 18 +: 18]", "wide"),
        ("INITIAL[40 * k +: 18]}", "18'b0}", "single_old_18"),
        ("18 * address[4]", "18 * address[0]", "single_old_18"),
        ("9 * address[4:3]", "8 * address[4:3]", "single_old_9"),
        ("& ~(width - 1)", "& ~width", "single_old_4"),
        ("{9{address[3]}}, {9{address[2]}}", "{9{address[2]}}, {9{address[3]}}", "wide_masked"),
        ("{{9{address[1]}}, {9{address[0]}}}", "{18{address[0]}}", "single_masked"),
        ("width == 18 ? {2{data[17:0]}}", "width == 18 ? {18'b0, data[17:0]}", "single_old_18"),
        ("{8{data[0]}}", "{8{data[1]}}", "single_old_1"),
        ("row >> first(width, address)", "row", "single_old_9"),
        ('CLKAMUX == "INV" ? ~CLKA', 'CLKAMUX == "INV" ? CLKA', "single_falling"),
        ("CEA & ~(CSA2", "~(CSA2", "single_old_18"),
        ("enable_a & WEA &", "enable_a &", "single_old_9"),
        ("enable_b & WEB &", "enable_b &", "two_writers_18"),
        ("address_b[13:5]][b /", "address_a[13:5]][b /", "two_writers_4"),
        ('(WRITEMODE_A == "NORMAL" & write_a)', "1'b0", "single_unchanged_18"),
        ('(WRITEMODE_B == "NORMAL" & write_b)', "1'b0", "two_writers_18"),
        ('WRITEMODE_A == "WRITETHROUGH" &&', "1'b0 &&", "single_new_4"),
        ("row_a & ~places_a | spread_a", "spread_a", "single_masked"),
        ('RESETMODE == "ASYNC" & RSTB', "1'b0", "reset_async"),
        ("        if (RSTB)\n            read_b <= 0;\n        else if", "        if", "reset_sync"),
        ("read_b[17:0] : PSEUDO", "read_b[35:18] : PSEUDO", "wide"),
        ("SIGNEDA & a[17]", "1'b0", "product_18x18_ss"),
        ("SIGNEDB & b[17]", "1'b0", "product_18x18_ss"),
    ],
    "ice40": [
        ("INITIAL[16 * k +: 16]", "INITIAL[15 * k +: 16]", "ram_16"),
        ("R_GROUP == 8 ? 3", "R_GROUP == 8 ? 0", "ram_2"),
        ("W_GROUP == 4 ? 1", "W_GROUP == 4 ? 3", "ram_4"),
        ("RADDR[10:8] &", "RADDR[9:7] &", "ram_8"),
        ("WRITE_MODE == 0 ? MASK[g]", "WRITE_MODE == 0 ? ~MASK[g]", "ram_masked"),
        ("write_offset != g - W_FIRST", "1'b0", "ram_reads_wide"),
        ("if (WE & WCLKE)", "if (WE)", "ram_8"),
        ("if (RE & RCLKE)", "if (RE)", "ram_16"),
        ("if (MASKWREN[k])", "if (MASKWREN[3 - k])", "spram"),
        ("WREN ? 16'bx : words[ADDRESS]", "WREN ? 16'bx : ~words[ADDRESS]", "spram"),
        ("if (WREN)", "if (WREN & ~ADDRESS[0])", "spram"),
        ("else if (CHIPSELECT)", "else", "spram"),
    ],
}

@cache
def _netlists(family):
    """{shape: its netlist}"""
    return {name: netlist.synthesised(shape.text, family, rw_check=shape.collides)
            for name, shape in SHAPES[family].items()}


def _module(text, name):
    return re.sub(r"\bmodule unit\b", f"module {name}", text)


def _faulty(family, number):
    """The models with fault ``number``, every module renamed, and the netlist of the unit that must show it."""
    old, new, shape = FAULTS[family][number]
    models, text = netlist.primitives(family), _netlists(family)[shape]
    assert models.count(old) == 1, f"{old!r} stands {models.count(old)} times in the models of {family}"
    for name in re.findall(r"(?m)^module (\w+)", models):
        models, text = (re.sub(rf"\b{name}\b(?! *\.)", f"{name}_{number}", t) for t in (models, text))
    return models.replace(old, new) if old in models else models, _module(text, f"fault_{number}")


@cache
def _differences(family):
    """{shape or number of a fault: cycle of the first difference} over all pairs, in one program."""
    shapes, faults = list(SHAPES[family]), range(len(FAULTS[family]))
    rtl = [_module(SHAPES[family][name].text, f"unit_{name}") for name in shapes]
    parts = [_module(_netlists(family)[name], f"netlist_{name}") for name in shapes]
    models = [netlist.primitives(family)]
    for number in faults:
        faulty, text = _faulty(family, number)
        models.append(faulty)
        parts.append(text)
    pairs = [(name, f"netlist_{name}") for name in shapes] + [
        (FAULTS[family][number][2], f"fault_{number}") for number in faults]
    ports = "".join(f", output [71:0] q{k}" for k in range(len(pairs)))
    cells = "".join(f"  {module} {module}_{k}(.clk(clk), .r(r), .q(q{k}));\n" for k, (_, module) in enumerate(pairs))
    parts.append(f"module netlists(input clk, input [95:0] r{ports});\n{cells}endmodule\n")
    text = netlist.behaviour("".join(parts), family, "netlists", models="".join(models))
    wires = "".join(f"  wire [71:0] q{k}, u{k};\n  unit_{name} unit{k}(.clk(clk), .r(r), .q(u{k}));\n"
                    f"  assign wrong[{k}] = q{k} != u{k};\n" for k, (name, _) in enumerate(pairs))
    connections = "".join(f", .q{k}(q{k})" for k in range(len(pairs)))
    width = max(65, len(pairs))  # an array of words for the harness
    top = (f"module pairs(input clk, input [95:0] r, output [{width - 1}:0] wrong);\n{wires}"
           f"  netlists all(.clk(clk), .r(r){connections});\n"
           f"  assign wrong[{width - 1}:{len(pairs)}] = 0;\nendmodule\n")
    program = compiled(f"primitives-{family}", "pairs", "".join(rtl) + text + top,
                       Path(__file__).with_name("primitives_harness.cpp"))
    done = subprocess.run([program, str(SEED), str(CYCLES)], capture_output=True, text=True, check=True)
    keys = [*shapes, *faults]
    return {keys[int(k)]: int(cycle) for k, cycle in (line.split() for line in done.stdout.splitlines())}


@pytest.mark.parametrize("family", SHAPES)
def test_units_use_what_they_are_to_use(family):
    for name, shape in SHAPES[family].items():
        missing = [use for use in shape.uses if use not in _netlists(family)[name]]
        assert not missing, f"{name}: its netlist has no {missing}"


@pytest.mark.parametrize("family", SHAPES)
def test_netlists_do_what_their_units_do(family):
    wrong = {name: cycle for name, cycle in _differences(family).items() if isinstance(name, str)}
    assert not wrong, f"first cycle of a difference, by unit: {wrong}"


@pytest.mark.parametrize("family", SHAPES)
def test_every_fault_in_a_model_is_found(family):
    missed = [fault for number, fault in enumerate(FAULTS[family]) if number not in _differences(family)]
    assert not missed


@pytest.mark.parametrize("family, cell, message", [
    ("ecp5", 'DP16KD #(.REGMODE_A("OUTREG")) cell(.CLKA(clk), .DOA0(q[0]))', "REGMODE is not modelled"),
    ("ecp5", "DP16KD #(.DATA_WIDTH_A(8)) cell(.CLKA(clk), .DOA0(q[0]))", "DATA_WIDTH: use 1, 2"),
    ("ecp5", 'DP16KD #(.OUTPUT("FAST")) cell(.CLKA(clk), .DOA0(q[0]))', "OUTPUT"),
    ("ecp5", 'MULT18X18D #(.REG_OUTPUT_CLK("CLK0")) cell(.CLK0(clk), .P0(q[0]))', "registers are not modelled"),
    ("ecp5", "EHXPLLL cell(.CLKI(clk), .CLKOP(q[0]))", "EHXPLLL"),
    ("ice40", "SB_RAM40_4K #(.READ_MODE(4)) cell(.RCLK(clk), .RDATA(q[15:0]))", "READ_MODE, WRITE_MODE"),
])
def test_what_has_no_model_ends_the_build(family, cell, message):
    with pytest.raises(ToolError, match=re.escape(message)):
        text = f"module unit(input clk, input [95:0] r, output [71:0] q);\n  {cell};\nendmodule\n"
        text = netlist.behaviour(text, family, name="pairs")
        compiled("refused", "pairs", text, Path(__file__).with_name("primitives_harness.cpp"))
