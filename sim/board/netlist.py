"""The simulated board as a netlist: its gateware after synthesis, as Verilog that behaves as its primitives do."""

import hashlib
import re
import tempfile
from pathlib import Path

from sterna.hw.flow.place import CARRY_ENDS, OPEN_ENDS
from sterna.hw.flow.synth import FAMILIES, TARGETS, failure, run_tool, yosys
from sterna.sim.board.toolchain import ToolError, yosys_version
from sterna.sim.golden.files import build_folder, write_file

PRIMITIVES = Path(__file__).resolve().parent / "primitives"  # the models that yosys lacks, a file per family
# Primitives with a model of yosys become plain logic; those of `primitives` stay instances, for Verilator. Undefined
# constants of the netlist stay too: Verilator draws their bits, so that a netlist which depends on one gives wrong
# results and no lucky ones.
BEHAVIOUR = "hierarchy -check -top {top}; proc -norom; flatten; opt_expr -keepdc; opt_clean -purge; memory_collect"

# The functions of yosys' models, in the form that makes the fastest program.
LUTS = """
module LUT4(input A, B, C, D, output Z);
    parameter [15:0] INIT = 0;
    assign Z = INIT >> {D, C, B, A};
endmodule
module SB_LUT4(input I0, I1, I2, I3, output O);
    parameter [15:0] LUT_INIT = 0;
    assign O = LUT_INIT >> {I3, I2, I1, I0};
endmodule
"""


def families():
    """Names of the families whose netlists can be simulated (list of str)."""
    return sorted(path.stem for path in PRIMITIVES.glob("*.v"))


def primitives(family):
    """Verilog of the primitives of a family that are modelled here (str)."""
    return (PRIMITIVES / f"{family}.v").read_text()


def synthesised(text, family, language="verilog", unseen="", rw_check=False):
    """Verilog of the netlist that the flow of a family makes.

    Parameters
    ----------
    text : str
        Source whose top module is ``unit``.
    family : str
        One of ``families()``.
    language : str
        Of the source: "verilog" or "rtlil".
    unseen : str
        Pattern of outputs that boards do not have: no ports of the netlist; what they alone need is gone.
    rw_check : bool
        Whether memories that are read where they are written get what that takes; the flow assumes that none is.

    Raises
    ------
    sterna.hw.flow.units.SynthesisError
        If there is no yosys.
    ToolError
        If yosys fails.
    """
    script = [f"read_{language} {{root}}/unit"]
    if unseen:
        script.append(f"delete -output unit/{unseen}")
    flow = FAMILIES[family][0]
    script.append(flow.replace(" -no-rw-check", "") if rw_check else flow)
    if family == "ecp5":
        script.append(OPEN_ENDS)
    script.append("write_verilog -noattr -norename {root}/netlist.v")
    netlist = _yosys(script, "netlist.v", {"unit": text, "ends.v": CARRY_ENDS})
    # Yosys reads no output that a constant is connected to: an open end of a carry chain.
    return netlist.replace(".COUT(1'hx)", ".COUT()")


def behaviour(netlist, family, top="unit", name=None, models=None):
    """Verilog without instances that behaves as a netlist.

    Parameters
    ----------
    netlist : str
        Verilog of primitives with the top module ``top``.
    family : str
        One of ``families()``.
    top, name : str
        The top module, and what it is called in the result (``top`` by default).
    models : str, optional
        Verilog of primitives in place of ``primitives(family)``; yosys' own models serve for what is not in it.

    Raises
    ------
    ToolError
        If yosys fails, be it because a primitive or its configuration has no model.
    """
    script = ["read_verilog {root}/netlist.v", "read_verilog -lib {root}/models.v",
              "read_verilog {root}/luts.v", f"read_verilog -nooverwrite +/{family}/cells_sim.v",
              BEHAVIOUR.format(top=top), f"rename {top} {name or top}",
              "write_verilog -noattr -norename {root}/behaviour.v"]
    models = models or primitives(family)
    return _yosys(script, "behaviour.v", {"netlist.v": netlist, "models.v": models, "luts.v": LUTS}) + models


def board_netlist(board, family, name):
    """Verilog of a simulated board as a netlist, a module called ``name`` without the ports of the trace.

    Parameters
    ----------
    board : amaranth.lib.wiring.Component
        The simulated board.
    family : str
        One of ``families()``.
    name : str

    Raises
    ------
    ToolError
        For an unknown family, and as `synthesised` and `behaviour`.
    """
    from sterna.hw.flow import rtlil
    if family not in families():
        raise ToolError(f"netlist {family!r}: use one of {', '.join(families())}")
    text = rtlil.convert(board, name="unit", platform=TARGETS[family])
    # The netlist is kept: it takes a minute, and does not change with the models or the harness.
    parts = text, family, FAMILIES[family][0], CARRY_ENDS, OPEN_ENDS, yosys_version()
    kept = build_folder() / "sim" / f"netlist-{hashlib.sha256(repr(parts).encode()).hexdigest()[:20]}.v"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_file(kept, synthesised(text, family, "rtlil", unseen="trace_*"))
    return behaviour(kept.read_text(), family, name=name)


def _yosys(script, result, files):
    """Text of the file ``result`` after a script in a folder with ``files``."""
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            (Path(folder) / name).write_text(text)
        done = run_tool(yosys(), folder, ("-q", "-p", "; ".join(script)))
        if done.returncode:
            errors = re.findall(r"(?m)^(?:.*: )?ERROR: .*", done.stderr) or [failure(done)]
            raise ToolError(f"yosys: {errors[0]}")
        return (Path(folder) / result).read_text()
