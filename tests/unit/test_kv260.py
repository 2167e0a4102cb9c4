"""The project for Vivado of the board kv260: what its Tcl makes, the ports between gateware and processing system,
and what the command says where there is no Vivado.
"""

import json
import re
from dataclasses import replace
from itertools import product

import pytest
import vivado_stub
from amaranth.hdl import Module, Signal
from amaranth.sim import Simulator
from sterna.hw import __main__ as command
from sterna.hw.boards import BOARDS, zynq, zynq_system
from sterna.hw.flow import vivado
from sterna.hw.flow.synth import run_tool, yosys
from sterna.hw.memory.axi.bus import Axi4

KV260 = BOARDS["kv260"]
SMALL = replace(KV260, config=replace(
    KV260.config, rows=2, columns=20, lanes=4, strip=32, vector_words=1024, activation_words=64, row_words=32,
    fifo_words=64, tree_rows=0, top_k=0, ring=16, credits=2, program_words=64))
# Widths of a high-performance port (PG201, "Port Descriptions", S_AXI_HP).
WIDTHS = {
    **{f"a{c}{name}": width for c, (name, width) in product("rw", {
        "id": 6, "addr": 49, "len": 8, "size": 3, "burst": 2, "lock": 1, "cache": 4, "prot": 3, "qos": 4,
        "valid": 1}.items())},
    "wdata": 128, "wstrb": 16, "wlast": 1, "wvalid": 1, "bready": 1, "rready": 1}
OUTPUTS = {"arready": 1, "awready": 1, "wready": 1, "bid": 6, "bresp": 2, "bvalid": 1, "rid": 6, "rdata": 128,
           "rresp": 2, "rlast": 1, "rvalid": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The project of the small board."""
    return vivado.project(SMALL, tmp_path_factory.mktemp("kv260") / "made").parent


def wrapper(external, ports, widths):
    """Verilog of the block design's wrapper without contents, by the widths of the processing system."""
    lines = [f"{'output' if way == 'O' else 'input'} [{widths[name] - 1}:0] {name}" for name, way in ports.items()]
    for name in external:
        lines += [f"input [{width - 1}:0] {name}_{signal}" for signal, width in WIDTHS.items()]
        lines += [f"output [{width - 1}:0] {name}_{signal}" for signal, width in OUTPUTS.items()]
    return f"(* blackbox *) module system_wrapper({', '.join(lines)});\nendmodule\n"


@pytest.mark.rest
def test_the_scripts_do_what_vivado_takes(folder):
    project = vivado_stub.run("kv260.tcl", folder)
    assert project.sources == ["kv260.v", "system_wrapper.v"]
    assert project.external == {f"S_AXI_HP{k}": f"ps/S_AXI_HP{k}_FPD" for k in range(4)}
    assert project.ports == {"pl_clk0": "O", "pl_resetn0": "O", "uart_txd": "O", "uart_rxd": "I", "fan_wave": "O"}
    assert {f"ps/saxihp{k}_fpd_aclk" for k in range(4)} <= project.drivers.keys()
    assert project.settings["PSU__CRL_APB__PL0_REF_CTRL__FREQMHZ"] == "250"
    order = [project.done.index(name) for name in (
        "create_project", "create_bd_design", "validate_bd_design", "make_wrapper", "synth_design", "route_design",
        "write_bitstream")]
    assert order == sorted(order)


@pytest.mark.rest
@pytest.mark.parametrize("old, new, message", [
    ("ps/saxihp3_fpd_aclk", "ps/saxihp3_aclk", "pin ps/saxihp3_aclk: there is none"),
    ("get_bd_pins ps/emio_uart0_txd] [get_bd_ports uart_txd", "get_bd_ports uart_txd] [get_bd_ports uart_txd",
     "connect_bd_net: driven by"),
    ("CONFIG.PSU__SAXIGP3__DATA_WIDTH {128}", "CONFIG.PSU__SAXIGP3__DATA_WIDTH {256}", "DATA_WIDTH 256"),
    ("CONFIG.PSU__USE__S_AXI_GP5 {1}", "CONFIG.PSU__USE__S_AXI_GP5 {0}", "S_AXI_HP3_FPD: not enabled"),
    ("create_bd_port -dir I uart_rxd\n", "", "port uart_rxd: there is none"),
    ("-vlnv xilinx.com", "-vnlv xilinx.com", "unknown option -vnlv"),
    ("validate_bd_design", "validate_bd_design {", "close-brace|missing|invalid")])
def test_a_fault_in_the_script_is_found(folder, tmp_path, old, new, message):
    text = (folder / "system.tcl").read_text()
    assert old in text
    (tmp_path / "system.tcl").write_text("create_project -part xck26-sfvc784-2LV-c\n" + text.replace(old, new))
    with pytest.raises(Exception, match=message):
        vivado_stub.run("system.tcl", tmp_path)


@pytest.mark.synth
@pytest.mark.rest
def test_the_gateware_fits_the_ports_of_the_processing_system(folder, tmp_path):
    """Every port by name and width; every other cell is one that yosys knows of this family."""
    project = vivado_stub.run("kv260.tcl", folder)
    text = wrapper(project.external, project.ports, project.widths)
    script = ("read_verilog -lib {root}/wrapper.v +/xilinx/cells_sim.v +/xilinx/cells_xtra.v; "
              "read_verilog {root}/kv260.v; hierarchy -check -top kv260")

    def problems(text):
        (tmp_path / "wrapper.v").write_text(text)
        (tmp_path / "kv260.v").write_text((folder / "kv260.v").read_text())
        done = run_tool(yosys(), tmp_path, ("-p", script))
        return re.findall(r"(?m)^.*(?:ERROR|Resizing cell port).*", done.stdout + done.stderr)

    assert not problems(text)
    assert problems(text.replace("S_AXI_HP2_araddr", "S_AXI_HP2_address"))
    assert problems(text.replace("[48:0] S_AXI_HP1_awaddr", "[39:0] S_AXI_HP1_awaddr"))


def test_addresses_lie_in_the_upper_half_of_the_memory():
    m, bus = Module(), Axi4(data_bytes=16, id_bits=4).create()
    ports = zynq.ZynqTop._port(m, 1, bus, zynq_system.memory_base(KV260.config))
    addresses = [Signal(49, name=channel) for channel in ("ar", "aw")]
    m.d.comb += [a.eq(ports[f"i_S_AXI_HP1_{a.name}addr"]) for a in addresses]
    simulator = Simulator(m)

    async def bench(context):
        for value in (0, 0x12345670, KV260.config.memory_bytes - 16):
            context.set(bus.araddr, value)
            context.set(bus.awaddr, value)
            for address in addresses:
                assert context.get(address) == 0x8_0000_0000 + value

    simulator.add_testbench(bench)
    simulator.run()
    assert set(ports) == {f"i_S_AXI_HP1_{name}" for name in WIDTHS} | {f"o_S_AXI_HP1_{name}" for name in OUTPUTS}
    with pytest.raises(ValueError, match="memory_bytes 4294967296: at most 2147483648"):
        zynq_system.memory_base(replace(KV260.config, memory_bytes=1 << 32))


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        command.main(list(arguments))
    return ended.value.code


@pytest.mark.rest
def test_without_vivado_the_project_stays(monkeypatch, tmp_path, capsys, folder):
    monkeypatch.setattr(vivado, "project", lambda board, tell: folder / "kv260.tcl")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run("bitstream", "kv260") == 1
    assert capsys.readouterr().err == (
        f"error: kv260: the project is in {folder}, and only AMD's Vivado makes a bitstream of it: run vivado -mode "
        "batch -source kv260.tcl there, or put it on PATH and run make bitstream BOARD=kv260\n")
    assert sorted(path.name for path in folder.iterdir()) == [
        "build.json", "kv260.bif", "kv260.dtso", "kv260.tcl", "kv260.v", "kv260.xdc", "system.tcl"]
    assert json.loads((folder / "build.json").read_text())["build"] == SMALL.config.digest[:8]
    assert "assigned-clock-rates = <250000000>;" in (folder / "kv260.dtso").read_text()
    # A tool that stands for it, once it does its work and once it fails.
    tool = tmp_path / "vivado"
    tool.write_text("#!/bin/sh\n[ -f system.tcl ] && echo bits > kv260.bit\n")
    tool.chmod(0o755)
    assert run("bitstream", "kv260") == 0 and capsys.readouterr().out == f"{folder / 'kv260.bit'}\n"
    tool.write_text("#!/bin/sh\necho 'ERROR: [Common 17-69] no licence'\nexit 1\n")
    assert run("bitstream", "kv260") == 1
    assert capsys.readouterr().err.splitlines()[-1] == "error: kv260: vivado failed: ERROR: [Common 17-69] no licence"


def test_the_board_loads_it_itself(capsys):
    assert run("program", "kv260") == 1
    assert "its own Linux loads it: copy kv260.bit.bin and kv260.dtbo there" in capsys.readouterr().err


def test_ports_that_the_processing_system_has_not():
    with pytest.raises(ValueError, match="axi_ports 8 of 64 bytes in all: use 1, 2 or 4"):
        zynq_system.block_design(replace(KV260.config, axi_ports=8))
