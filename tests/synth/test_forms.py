"""The forms of the row accumulator against the portable one, proven by yosys on its own models of the cells."""


import pytest
from amaranth.back import verilog
from amaranth.hdl import Mux, Signal, signed
from sterna.hw.array import fused, lut6, tree
from sterna.hw.array.tree import RowAccumulator
from sterna.hw.flow import synth
from sterna.hw.flow.place import CARRY_ENDS, OPEN_ENDS

pytestmark = pytest.mark.synth

CELLS = {"ecp5": "+/lattice/cells_sim_ecp5.v", "xc7": "+/xilinx/cells_sim.v", "xcup": "+/xilinx/cells_sim.v"}
TOP = """module top(input clk, rst, enable, last, input [{activations}:0] codes, input [{top}:0] nonzero, sign,
                    output same);
    wire [{bits}:0] one, other;
    wire [{trits}:0] trits;
    genvar k;  // only the three trits: a negative one is not zero
    generate for (k = 0; k <= {top}; k = k + 1) assign trits[2 * k +: 2] = {{nonzero[k] & sign[k], nonzero[k]}};
    endgenerate
    gold gold(.clk(clk), .rst(rst), .enable(enable), .last(last), .activations(codes), .trits(trits), .sum(one));
    gate gate(.clk(clk), .rst(rst), .enable(enable), .last(last), .activations(codes), .trits(trits), .sum(other));
    reg was;
    always @(posedge clk) was <= enable;
    assign same = one == other || {unregistered} && !was;
endmodule
"""


def added(m, name, a, b, nonzero, negative, width):
    """What `fused.add_trit` is to do, as arithmetic."""
    total = Signal(signed(width), name=name)
    m.d.comb += total.eq(a + Mux(nonzero, Mux(negative, -b, b), 0))
    return total


class Added:
    """What `lut6.Adders` is to do, as arithmetic."""

    def __init__(self, m):
        self._m = m

    def _total(self, name, value, width):
        total = Signal(signed(width), name=name)
        self._m.d.comb += total.eq(value)
        return total

    def pair(self, name, x, y, x_negative, y_negative, y_nonzero, width):
        first = (x ^ x_negative.replicate(8))[:8].as_signed()
        second = (y ^ y_negative.replicate(8))[:8].as_signed()
        return self._total(name, first + Mux(y_nonzero, second, 0) + y_negative, width)

    def three(self, name, a, b, c, carries, width):
        return self._total(name, a + b + c + carries[0] + carries[1], width)

    def two(self, name, a, b, carry, width):
        return self._total(name, a + b + carry, width)


tree.FORMS["ecp5 arithmetic"] = lambda *row: fused.following(*row, add=added)
tree.FORMS["lut6 arithmetic"] = lambda *row: lut6.following(*row, adders=Added)


def yosys(folder, script, cells, gold, gate, before="", **options):
    """Runs a script on the modules gold and gate, two forms of a row; returns the finished process.

    The commands `before` see the cells as black boxes.
    """
    for name, form in (("gold", gold), ("gate", gate)):
        unit = RowAccumulator(form=form, **options)
        (folder / f"{name}.v").write_text(verilog.convert(unit, name=name, strip_internal_attrs=True, emit_src=False))
    columns, bits = options["columns"], len(unit.sum)
    (folder / "top.v").write_text(TOP.format(activations=8 * columns - 1, top=columns - 1, bits=bits - 1,
                                             trits=2 * columns - 1, unregistered=int(not unit.pipelined)))
    script = (f"read_verilog {{root}}/gold.v {{root}}/gate.v {{root}}/top.v; {before} "
              f"read_verilog -overwrite {cells}; hierarchy -top top; proc; {script}")
    return synth.run_tool(synth.yosys(), folder, ("-q", "-p", script))


def proof(folder, form, **options):
    """Induction over cycles: equal sums and accumulators from reset on, whatever the inputs.

    A sum without register counts in the cycles of a chunk.
    """
    script = ("flatten; opt -full; async2sync; opt_clean; "
              "sat -tempinduct -verify -maxsteps 10 -prove same 1 -prove gold.total gate.total top")
    return yosys(folder, script, CELLS[form], "portable", form, **options)


@pytest.mark.parametrize("form, columns, pipelined", [
    ("ecp5", 1, True), ("ecp5", 2, True), ("ecp5", 3, True), ("ecp5", 2, False), ("xc7", 1, True), ("xc7", 2, True),
    ("xcup", 3, True)])
def test_equal_to_the_portable_form(form, columns, pipelined, tmp_path):
    done = proof(tmp_path, form, columns=columns, pipelined=pipelined)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


@pytest.mark.parametrize("form, columns, bits, arithmetic", [
    ("ecp5", 20, 24, "ecp5 arithmetic"), *(pytest.param(*row, marks=pytest.mark.rest) for row in (
        ("ecp5", 20, 22, "ecp5 arithmetic"), ("ecp5", 5, 21, "ecp5 arithmetic"), ("xc7", 15, 22, "lut6 arithmetic"),
        ("xcup", 20, 22, "lut6 arithmetic"), ("xcup", 20, 24, "lut6 arithmetic")))])
def test_adders_of_a_wide_row(form, columns, bits, arithmetic, tmp_path):
    """Every adder of a row, in its place, equals its arithmetic."""
    script = ("delete top; flatten; rename -hide w:$*; opt_clean; equiv_make gold gate both; hierarchy -top both; "
              "opt_clean; equiv_simple; equiv_induct; equiv_status -assert")
    done = yosys(tmp_path, script, CELLS[form], arithmetic, form, columns=columns, bits=bits)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


@pytest.mark.parametrize("form, module, name, value", [
    ("ecp5", fused, "ADD_TRIT", 0x956A ^ 0x8000), ("ecp5", fused, "CARRY", 0x000C),
    ("xc7", lut6, "PAIR", lut6.PAIR ^ 1), ("xc7", lut6, "THREE", lut6.THREE ^ 1 << 40)])
def test_a_wrong_table_is_found(form, module, name, value, tmp_path, monkeypatch):
    monkeypatch.setattr(module, name, value)
    done = proof(tmp_path, form, columns=3)
    assert done.returncode != 0 and "proof did fail" in done.stdout + done.stderr


def test_open_ends_of_carry_chains(tmp_path):
    """Every chain loses its carry in, which may then be 1, and its carry out, and the row is the same."""
    (tmp_path / "ends.v").write_text(CARRY_ENDS.replace("CIN(1'bx)", "CIN(1'b1)").replace(".COUT(1'bx)", ".COUT()"))
    # Two chains, the pair's adder of 5 cells and the accumulator of 12.
    before = (f"read_verilog -lib {CELLS['ecp5']}; hierarchy -top top; proc; opt_clean; {OPEN_ENDS}; "
              "select -assert-count 2 @unread; select -assert-count 15 @inside; select -assert-count 17 t:CCU2C; ")
    done = proof(tmp_path, "ecp5", columns=2, before=before)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


def test_form_of_a_platform():
    names = {"LFE5U-85F": "ecp5", "LFE5UM5G-45F": "ecp5", "xc7a100ti": "xc7", "xck26": "xcup", "xczu7ev": "xcup",
             "xcku040": "xcup", "iCE40UP5K": "portable"}
    assert {name: tree.form_of(synth.Target(name)) for name in names} == names
    assert tree.form_of(None) == "portable"
    assert {family: tree.form_of(target) for family, target in synth.TARGETS.items()} == {
        "ecp5": "ecp5", "ice40": "portable", "xc7": "xc7", "xcup": "xcup"}
