"""What becomes of the gateware's text before a simulator gets it."""

import subprocess

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from builds import awake, verilog

pytestmark = pytest.mark.rtl
COUNT = 16


class Still(wiring.Component):
    """Outputs that follow from states which stay behind a reset; half of them are the same from the beginning."""

    def __init__(self):
        super().__init__({"away": In(1)} | {f"out{k}": Out(1) for k in range(COUNT)})

    def elaborate(self, platform):
        m = Module()
        for k in range(COUNT):
            with m.FSM(name=f"state{k}"):
                with m.State("HERE"):
                    m.d.comb += getattr(self, f"out{k}").eq(1)
                    with m.If(self.away):
                        m.next = "AWAY"
                with m.State("AWAY"):
                    m.next = "HERE"
        return m


@pytest.mark.rest
@pytest.mark.icarus
def test_a_block_whose_operands_never_change_is_computed(tmp_path):
    ports = ", ".join(f".out{k}(out[{k}])" for k in range(COUNT))
    text = f"""module bench;
  reg clk = 0, rst = 1;
  wire [{COUNT - 1}:0] out;
  still dut(.clk(clk), .rst(rst), .away(1'b0), {ports});
  initial begin #10 clk = 1; #10 clk = 0; rst = 0; #10 clk = 1; #10 $display("%b", out); end
endmodule
"""
    (tmp_path / "still.v").write_text(awake(verilog(Still(), "still")) + text)
    subprocess.run(["iverilog", "-g2012", "-s", "bench", "-o", "still", "still.v"], cwd=tmp_path, check=True)
    shown = subprocess.run(["vvp", "-n", "still"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert shown.split() == ["1" * COUNT]
