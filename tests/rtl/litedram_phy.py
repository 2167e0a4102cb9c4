"""LiteDRAM's PHY for the ECP5 as Verilog, with its registers as ports."""

import re

from migen import ClockDomain, Module, Record
from migen.fhdl.verilog import convert

ROW_BITS = 15


def verilog(clock_hz):
    """Verilog of the modules ``litedram_phy`` and of a bench around it with clocks, cells and chip (str).

    Parameters
    ----------
    clock_hz : float
        Of the controller, half of the chip's.
    """
    from litedram.phy.ecp5ddrphy import ECP5DDRPHY
    pads = Record([("clk_p", 1), ("a", ROW_BITS), ("ba", 3), ("ras_n", 1), ("cas_n", 1), ("we_n", 1), ("cke", 1),
                   ("odt", 1), ("reset_n", 1), ("dq", 16), ("dqs_p", 2), ("dm", 2)])
    top = Module()
    for name in ("sys", "sys2x", "init"):
        domain = ClockDomain(name)
        setattr(top.clock_domains, f"cd_{name}", domain)
    top.submodules.phy = phy = ECP5DDRPHY(pads, sys_clk_freq=clock_hz)
    inputs = {"sel": phy._dly_sel.storage, "delay_rst": phy._rdly_dq_rst.re, "delay_inc": phy._rdly_dq_inc.re,
              "slip_rst": phy._rdly_dq_bitslip_rst.re, "slip_inc": phy._rdly_dq_bitslip.re,
              "burstdet_clr": phy._burstdet_clr.re}
    outputs = {"stop": phy.init.stop, "reset": phy.init.reset, "burstdet_seen": phy._burstdet_seen.status}
    for number, phase in enumerate(phy.dfi.phases):
        for field, *_ in phase.layout:
            side = outputs if field.startswith("rddata") and field != "rddata_en" else inputs
            side[f"p{number}_{field}"] = getattr(phase, field)
    for name, signal in (inputs | outputs).items():
        signal.name_override = name
    for field, *_ in pads.layout:
        getattr(pads, field).name_override = f"pad_{field}"
    ios = {*inputs.values(), *outputs.values(), *pads.flatten()}
    for name in ("sys", "sys2x", "init"):
        domain = getattr(top, f"cd_{name}")
        ios |= {domain.clk, domain.rst}
    text = str(convert(top, ios, name="litedram_phy", create_clock_domains=False))
    # A signal of Migen that an output and a Tristate drive is a register; pads of both directions are nets
    text = re.sub(r"output (reg )?(\[\d+:0\] )?(pad_dqs?(_p)?)\b", r"inout \2\3", text)
    wires = "".join(f"    wire [{len(signal) - 1}:0] {name};\n" for name, signal in outputs.items())
    regs = "".join(f"    reg [{len(signal) - 1}:0] {name} = 0;\n" for name, signal in inputs.items())
    pins = "".join(f"    wire [{len(getattr(pads, field)) - 1}:0] pad_{field};\n" for field, *_ in pads.layout)
    names = [*inputs, *outputs, *(f"pad_{field}" for field, *_ in pads.layout)]
    connections = ",\n".join(f"        .{name}({name})" for name in names)
    half = 1e9 / clock_hz / 4
    return text + f"""
`timescale 1ns/1ps
module litedram_bench;
    reg pll = 0, init_clk = 0, init_rst = 1, sys_rst = 1;
    always #({half:.4f}) pll = ~pll;
    always #(20) init_clk = ~init_clk;
    wire sys2x_clk, sys_clk;
    wire sys2x_rst = sys_rst, clk = sys_clk;
{wires}{regs}{pins}
    ECLKSYNCB stopper(.ECLKI(pll), .STOP(stop), .ECLKO(sys2x_clk));
    CLKDIVF divider(.CLKI(sys2x_clk), .RST(reset), .ALIGNWD(1'b0), .CDIVX(sys_clk));
    litedram_phy phy(.sys_clk(sys_clk), .sys_rst(sys_rst), .sys2x_clk(sys2x_clk), .sys2x_rst(sys2x_rst),
        .init_clk(init_clk), .init_rst(init_rst),
{connections});
    ddr3_chip chip(.ck(pad_clk_p), .cke(pad_cke), .reset_n(pad_reset_n), .ras_n(pad_ras_n), .cas_n(pad_cas_n),
        .we_n(pad_we_n), .ba(pad_ba), .a(pad_a), .dq(pad_dq), .dqs(pad_dqs_p), .dm(pad_dm));
endmodule
"""
