"""Writes the Verilog of the simulated board in the form that Verilator turns into the fastest program."""

import random
import re

from amaranth._toolchain.yosys import find_yosys  # what amaranth.back.verilog uses; it offers no choice of passes
from amaranth.hdl import Shape
from amaranth.lib.wiring import In

from sterna.hw.flow import rtlil
from sterna.hw.flow.bitstream import without_collisions
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
    Registers and memories have no initial values but what `forget_values` leaves, and memories read as
    `random_collisions` has it.

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
    text = without_collisions(forget_values(rtlil.convert(board, name=harness.TOP)))
    text = yosys_verilog(text, WAVES_PASSES if waves else FAST_PASSES)
    return random_collisions(text) + _clocked(board.signature.members, config.own_memory_clock)


def yosys_verilog(text, passes):
    """Verilog of RTLIL text after passes of yosys (str)."""
    script = [f"read_rtlil <<rtlil\n{text}\nrtlil", *passes, "write_verilog -norename -noattr"]
    # Yosys warns about processes that Verilog cannot express; Amaranth writes none.
    return find_yosys(lambda version: version >= (0, 40)).run(["-q", "-"], "\n".join(script), ignore_warnings=True)


_COLLISION = re.compile(r"(?m)^( +)(if \(.*\))\n +(_\d+_)((?:\[\d+(?::\d+)?\])?) <= (\d+)'hx+;$")
NOISE_BITS = 64
_NOISE = "_noise"  # behind the name of the register of a read port


def random_collisions(text, start=None):
    """Verilog text of yosys in which a word that is written in the cycle of its read is read as random bits.

    Where the gateware tells that it does not care (`sterna.hw.flow.bitstream.without_collisions`),
    yosys writes bits that are undefined, and a block RAM gives some. A simulator would make them
    zeros, or the same ones always.

    Parameters
    ----------
    text : str
    start : callable or None
        Gives the `NOISE_BITS` bits (int) that a read port's random numbers start with; None: no value, so that the
        simulator draws it.

    The numbers are those of a linear congruential generator, which moves on at a collision only. So the simulation
    of a board costs no more than a comparison per read, and is the same again with the same seed.
    """
    def module(body):
        ports = {}  # bits of each read port, by its register

        def collision(match):
            space, condition, register, part, width = match.groups()
            ports.setdefault(register, 0)
            noise = f"{register}{_NOISE}"
            words, rest = divmod(int(width), NOISE_BITS // 2)
            upper = [f"{noise}[{NOISE_BITS - 1}:{NOISE_BITS // 2}]"] * words
            upper += [f"{noise}[{NOISE_BITS - 1}:{NOISE_BITS - rest}]"] * bool(rest)
            # Parts of a wide word differ by constants.
            bits = ", ".join(f"{word} ^ {size}'h{constants.getrandbits(size):x}" for word, size in zip(
                upper, [NOISE_BITS // 2] * words + [rest] * bool(rest), strict=True))
            return (f"{space}{condition} begin\n{space}  {register}{part} <= {{{bits}}};\n"
                    f"{space}  {noise} <= {noise} * 64'd6364136223846793005 + 64'd1442695040888963407;\n{space}end")

        constants = random.Random(0)
        body = _COLLISION.sub(collision, body)
        for register in ports:
            value = f" = {NOISE_BITS}'h{start():x}" if start else ""
            body = re.sub(rf"(?m)^(  reg (?:\[\d+:0\] )?{register};)$",
                          rf"  /*verilator tracing_off*/ reg [{NOISE_BITS - 1}:0] {register}{_NOISE}{value}; "
                          rf"/*verilator tracing_on*/\n\1", body)
        return body
    return "".join(map(module, re.split(r"(?m)^(?=module )", text)))


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
    # What has a register at its pin already, perhaps of another clock, or comes with the memory's clock
    direct = {name for name in inputs if name.startswith("dq_i")}
    direct |= {"read_data", "read_valid", "seen"} & inputs.keys()
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
