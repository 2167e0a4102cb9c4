"""Writes the Verilog of the simulated board in the form that Verilator turns into the fastest program."""

import re

from amaranth._toolchain.yosys import find_yosys  # what amaranth.back.verilog uses; it offers no choice of passes
from amaranth.back import rtlil
from amaranth.hdl import Shape
from amaranth.lib.wiring import In

from sterna.sim.board import harness
from sterna.sim.board.netlist import board_netlist

TOP = "clocked_board"
# Amaranth writes every register as a combinational block for its next value and a copy at the edge, and Verilator
# evaluates both in every cycle. As registers with enables an idle unit costs a branch, and what nobody reads is gone.
FAST_PASSES = ("proc -norom", "flatten", "opt -fast -full -purge", "memory_collect")
WAVES_PASSES = ("proc -nomux -norom", "memory_collect")  # keeps hierarchy and signals for the viewer


def board_verilog(config, device=harness.ACCELERATOR, waves=False, baud=None, flash=False, netlist=None):
    """Verilog text whose top module ``TOP`` has the ports of the simulated board, `clk` and `rst` (str).

    Each input goes through a register, so inputs set before a rising edge hold in the cycle after it. Without the
    registers Verilator would evaluate what depends on inputs, nearly everything, once for them and once for the edge.
    Registers and memories have no initial values but what `forget_values` leaves.

    Parameters
    ----------
    config : sterna.hw.config.Config
        Configuration of the accelerator.
    device : str
        "module:Class" of the accelerator.
    waves : bool
        Whether the hierarchy and all signals are kept (slower).
    baud : int or None
        Rate of a serial line in front of the device.
    flash : bool
        The board has a flash and starts from it.
    netlist : str or None
        Family of FPGAs whose netlist takes the place of the gateware: registers and memories then start as they are
        configured, and there is no trace.
    """
    board = harness.SimulatedBoard(config, device, baud, flash)
    if netlist:
        members = {name: member for name, member in board.signature.members.items() if not name.startswith("trace_")}
        return board_netlist(board, netlist, harness.TOP) + _clocked(members, config.own_memory_clock)
    text = forget_values(rtlil.convert(board, name=harness.TOP, emit_src=False))
    passes = WAVES_PASSES if waves else FAST_PASSES
    script = [f"read_rtlil <<rtlil\n{text}\nrtlil", *passes, "write_verilog -norename -noattr"]
    # Yosys warns about processes that Verilog cannot express; Amaranth writes none.
    text = find_yosys(lambda version: version >= (0, 40)).run(["-q", "-"], "\n".join(script), ignore_warnings=True)
    return text + _clocked(board.signature.members, config.own_memory_clock)


def forget_values(text):
    """RTLIL text without the values that registers have before the reset, and without the zeros that Amaranth writes
    into every memory: both then start with whatever the simulator draws, so that a missing reset shows.

    A memory that is never written keeps all its words, another one those up to its last one that is not zero, as the
    constants among the scalar registers.
    """
    text = re.sub(r"(?m)^ *attribute \\init .*\n", "", text)
    modules = re.split(r"(?m)^(?=module )", text)
    return "".join(_forget_contents(module) for module in modules)


def _forget_contents(module):
    written = set(re.findall(r'cell \$memwr_v2 .*?parameter \\MEMID "(.*?)"', module, re.S))

    def forget(match):
        cell = match[0]
        memory = re.search(r'parameter \\MEMID "(.*?)"', cell)[1]
        width = int(re.search(r"parameter \\WIDTH (\d+)", cell)[1])
        if memory not in written:
            return cell
        bits = re.search(r"connect \\DATA \d+'([01]+)\n", cell)[1]
        kept = -(-len(bits.lstrip("0")) // width)  # words, the last one stands first
        if not kept:
            return ""
        cell = re.sub(r"parameter \\WORDS \d+", lambda _: f"parameter \\WORDS {kept}", cell)
        return re.sub(r"connect \\DATA .*", lambda _: f"connect \\DATA {kept * width}'{bits[-kept * width:]}", cell)

    return re.sub(r"(?ms)^  cell \$meminit_v2 .*?^  end\n", forget, module)


def _clocked(members, memory_clock):
    """Text of the module TOP: the board with a register before every input of its main clock."""
    inputs, outputs = {"rst": 1}, {}
    for name, member in members.items():
        (inputs if member.flow == In else outputs)[name] = Shape.cast(member.shape).width
    direct = {"dq_i"} & inputs.keys()  # it has a register at its pin already, perhaps of another clock
    clocks = ["clk", *["memory_clk", "memory_rst"][:2 * memory_clock]]
    ports = [*(f"input {name}" for name in clocks),
             *(f"input [{width - 1}:0] {name}" for name, width in inputs.items()),
             *(f"output [{width - 1}:0] {name}" for name, width in outputs.items())]
    held = [name for name in inputs if name not in direct]
    registers = "".join(f"  reg [{inputs[name] - 1}:0] {name}_held;\n" for name in held)
    loads = "".join(f"    {name}_held <= {name};\n" for name in held)
    wires = [*(f".{name}({name})" for name in (*clocks, *direct, *outputs)),
             *(f".{name}({name}_held)" for name in held)]
    return (f"\nmodule {TOP}({', '.join(ports)});\n{registers}  always @(posedge clk) begin\n{loads}  end\n"
            f"  {harness.TOP} board({', '.join(wires)});\nendmodule\n")
