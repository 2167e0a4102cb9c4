"""Places and routes one unit for an ECP5 with nextpnr: the clock that it meets and the LUTs that it
takes.
"""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from sterna.hw.flow.synth import FAMILIES, TARGETS, failure, find_tool, run_tool, yosys
from sterna.hw.flow.units import SynthesisError

DEVICE = ("--85k", "--speed", "6", "--package", "CABGA756")  # LFE5U-85F-6
TARGET_HZ = 250_000_000  # above what a row meets, so that every run does its best
# nextpnr puts a carry cell of its own before a chain whose carry in is connected, be it to a
# constant, and one behind a chain whose carry out is, be it unread: four LUTs per adder. This
# disconnects them after synthesis: the carry in of cells whose first LUT is 0 (at C = D = 1), so
# that its carry depends on A and B alone, and every unread carry out.
CARRY_ENDS = """
module begins(input CIN, A0, B0, C0, D0, A1, B1, C1, D1, output S0, S1, COUT);
    parameter [15:0] INIT0 = 0, INIT1 = 0;
    parameter INJECT1_0 = "YES", INJECT1_1 = "YES";
    parameter _TECHMAP_CONSTMSK_CIN_ = 0, _TECHMAP_CONSTVAL_C0_ = 0, _TECHMAP_CONSTVAL_D0_ = 0;
    wire _TECHMAP_FAIL_ = !(_TECHMAP_CONSTMSK_CIN_ && _TECHMAP_CONSTVAL_C0_ === 1
                            && _TECHMAP_CONSTVAL_D0_ === 1 && INIT0[15:12] == 0
                            && INJECT1_0 == "NO");
    CCU2C #(.INIT0(INIT0), .INIT1(INIT1), .INJECT1_0(INJECT1_0),
            .INJECT1_1(INJECT1_1)) _TECHMAP_REPLACE_ (
        .CIN(1'bx), .A0(A0), .B0(B0), .C0(C0), .D0(D0), .A1(A1), .B1(B1), .C1(C1), .D1(D1),
        .S0(S0), .S1(S1), .COUT(COUT));
endmodule

module ends(input CIN, A0, B0, C0, D0, A1, B1, C1, D1, output S0, S1, COUT);
    parameter [15:0] INIT0 = 0, INIT1 = 0;
    parameter INJECT1_0 = "YES", INJECT1_1 = "YES";
    CCU2C #(.INIT0(INIT0), .INIT1(INIT1), .INJECT1_0(INJECT1_0),
            .INJECT1_1(INJECT1_1)) _TECHMAP_REPLACE_ (
        .CIN(CIN), .A0(A0), .B0(B0), .C0(C0), .D0(D0), .A1(A1), .B1(B1), .C1(C1), .D1(D1),
        .S0(S0), .S1(S1), .COUT(1'bx));
endmodule
"""
OPEN_ENDS = """chtype -set begins t:CCU2C; techmap -map {root}/ends.v; select -set inside t:begins;
chtype -set CCU2C @inside;
select -set read t:* %ci1 w:* %i o:* %u; select -set carries t:CCU2C %co1:+[COUT] w:* %i;
select -set unread @carries @read %d %ci1:+[COUT] t:CCU2C %i; chtype -set ends @unread;
techmap -map {root}/ends.v"""


@dataclass(frozen=True)
class Placement:
    """One run: LUTs and flip-flops taken, and the clock that paths between flip-flops meet in
    nextpnr's model.
    """

    seed: int
    luts: int
    flip_flops: int
    fmax_hz: float


def place(component, seeds=range(1, 6), open_ends=True):
    """Places and routes an Amaranth component on an ECP5-85F of speed 6, its members at pins
    anywhere.

    Parameters
    ----------
    component : amaranth.lib.wiring.Component
    seeds : iterable of int
        One run each.
    open_ends : bool
        Whether OPEN_ENDS is applied.

    Returns
    -------
    list of Placement

    Raises
    ------
    SynthesisError
        If yosys or nextpnr is missing or fails.
    """
    from amaranth.back import verilog

    tools = yosys(), find_tool("nextpnr-ecp5", "place")
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        (here / "unit.v").write_text(
            verilog.convert(
                component,
                name="unit",
                platform=TARGETS["ecp5"],
                strip_internal_attrs=True,
                emit_src=False,
            )
        )
        (here / "ends.v").write_text(CARRY_ENDS)

        def run(tool, *arguments):
            done = run_tool(tool, folder, arguments)
            if done.returncode:
                raise SynthesisError(f"{Path(tool).name} failed: {failure(done)}")

        script = [
            "read_verilog {root}/unit.v",
            FAMILIES["ecp5"][0],
            *[OPEN_ENDS] * open_ends,
            "write_json -selected {root}/unit.json",
        ]
        run(tools[0], "-q", "-p", "; ".join(script))
        out = []
        for seed in seeds:
            run(
                tools[1],
                *DEVICE,
                "--json",
                "{root}/unit.json",
                "--seed",
                str(seed),
                "--freq",
                str(TARGET_HZ / 1e6),
                "--lpf-allow-unconstrained",
                "--timing-allow-fail",
                "--report",
                "{root}/report.json",
            )
            report = json.loads((here / "report.json").read_text())
            used = {name: kind["used"] for name, kind in report["utilization"].items()}
            [clock] = report["fmax"].values()
            out.append(
                Placement(seed, used["TRELLIS_COMB"], used["TRELLIS_FF"], clock["achieved"] * 1e6)
            )
    return out
