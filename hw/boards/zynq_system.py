"""The block design of a Zynq UltraScale+ as Tcl for Vivado, and the overlay of the device tree with
which Linux loads it: plain text, no Amaranth.

Sources: Zynq UltraScale+ MPSoC Processing System (PG201) for the block's parameters and pins, Zynq
UltraScale+ Technical Reference Manual (UG1085) for the memory map and the widths of the ports,
Vivado Tcl Command Reference (UG835), Xilinx/kria-base-hardware for the board's parts.
"""

DESIGN, CELL, WRAPPER = "system", "ps", "system_wrapper"
# Ports of the wrapper beside the AXI ports.
CLOCK, RESET, TXD, RXD, FAN = "pl_clk0", "pl_resetn0", "uart_txd", "uart_rxd", "fan_wave"
# Of the high-performance ports, where they are not the gateware's.
PORT_WIDTHS = {"arid": 6, "awid": 6, "rid": 6, "bid": 6, "araddr": 49, "awaddr": 49}
MOST_PORTS = 4
HIGH_BASE = 0x8_0000_0000  # DDR High of the memory map, where a module of 4 GiB has its upper half
HIGH_BYTES = 2 << 30
FABRIC_CLOCK = 71  # number of PL0_REF in include/dt-bindings/clock/xlnx-zynqmp-clk.h of Linux
# Registers of the AXI FIFO interfaces, for each of which 0 is a width of 128 bits.
AFI_REGISTERS = 14


def memory_base(config):
    """Byte address of the model memory (int): the upper half, which Linux leaves alone when it is
    started with mem=2G.

    Raises
    ------
    ValueError
        The memory does not fit there.
    """
    if config.memory_bytes > HIGH_BYTES:
        raise ValueError(f"memory_bytes {config.memory_bytes}: at most {HIGH_BYTES}")
    return HIGH_BASE


def interface(number):
    """Name of the wrapper's AXI port (str)."""
    return f"S_AXI_HP{number}"


def port_name(number, signal):
    """Name of a signal of the wrapper's AXI port (str)."""
    return f"{interface(number)}_{signal}"


def block_design(config):
    """Tcl commands, one a line, that make the block design and its wrapper within a project (str):
    the processing system with the board's preset, ``config.axi_ports`` high-performance ports of
    128 bits, a clock of ``config.clock_hz``, its UART 0, and the timer that drives the fan.
    """
    numbers = range(config.axi_ports)
    if not 0 < config.axi_ports <= MOST_PORTS or config.port_bytes != 16 * config.axi_ports:
        raise ValueError(
            f"axi_ports {config.axi_ports} of {config.port_bytes} bytes in all: use 1, 2 or 4 of "
            "16 each"
        )
    values = {
        "PSU__FPGA_PL0_ENABLE": 1,
        "PSU__CRL_APB__PL0_REF_CTRL__FREQMHZ": f"{config.clock_hz / 1e6:g}",
        "PSU__NUM_FABRIC_RESETS": 1,
        "PSU__UART0__PERIPHERAL__ENABLE": 1,
        "PSU__UART0__PERIPHERAL__IO": "EMIO",
        "PSU__TTC0__WAVEOUT__ENABLE": 1,
        "PSU__TTC0__WAVEOUT__IO": "EMIO",
        **{f"PSU__USE__M_AXI_GP{k}": 0 for k in range(3)},
        # The high-performance ports are the slaves 2 to 5.
        **{f"PSU__USE__S_AXI_GP{k + 2}": 1 for k in numbers},
        **{f"PSU__SAXIGP{k + 2}__DATA_WIDTH": 128 for k in numbers},
    }
    settings = " ".join(f"CONFIG.{name} {{{value}}}" for name, value in values.items())
    clocked = " ".join(f"[get_bd_pins {CELL}/saxihp{k}_fpd_aclk]" for k in numbers)
    board = "xilinx.com:kv260_carrier:som240_1_connector:1.3"
    lines = [
        'set_property board_part [lindex [get_board_parts "*:kv260_som:*" -latest_file_version] 0]'
        " [current_project]",
        f"set_property board_connections {{som240_1_connector {board}}} [current_project]",
        f"create_bd_design {DESIGN}",
        f"create_bd_cell -type ip -vlnv xilinx.com:ip:zynq_ultra_ps_e {CELL}",
        "apply_bd_automation -rule xilinx.com:bd_rule:zynq_ultra_ps_e "
        f'-config {{apply_board_preset "1"}} [get_bd_cells {CELL}]',
        # At once: what a value may be depends on others.
        f"set_property -dict [list {settings}] [get_bd_cells {CELL}]",
        f"create_bd_port -dir O -type clk {CLOCK}",
        f"connect_bd_net [get_bd_pins {CELL}/pl_clk0] [get_bd_ports {CLOCK}] {clocked}",
        f"create_bd_port -dir O -type rst {RESET}",
        f"connect_bd_net [get_bd_pins {CELL}/pl_resetn0] [get_bd_ports {RESET}]",
        f"create_bd_port -dir O {TXD}",
        f"connect_bd_net [get_bd_pins {CELL}/emio_uart0_txd] [get_bd_ports {TXD}]",
        f"create_bd_port -dir I {RXD}",
        f"connect_bd_net [get_bd_ports {RXD}] [get_bd_pins {CELL}/emio_uart0_rxd]",
        f"create_bd_port -dir O -from 2 -to 0 {FAN}",
        f"connect_bd_net [get_bd_pins {CELL}/emio_ttc0_wave_o] [get_bd_ports {FAN}]",
    ]
    for k in numbers:
        lines += [
            f"make_bd_intf_pins_external -name {interface(k)} "
            f"[get_bd_intf_pins {CELL}/S_AXI_HP{k}_FPD]",
            "set_property CONFIG.FREQ_HZ "
            f"[get_property CONFIG.FREQ_HZ [get_bd_pins {CELL}/pl_clk0]] "
            f"[get_bd_intf_ports {interface(k)}]",
        ]
    ports = ":".join(map(interface, numbers))
    return (
        "\n".join(
            [
                *lines,
                f"set_property CONFIG.ASSOCIATED_BUSIF {{{ports}}} [get_bd_ports {CLOCK}]",
                "assign_bd_address",
                "validate_bd_design",
                "save_bd_design",
                # Together with the gateware, so that no run of its own has to be waited for
                f"set_property synth_checkpoint_mode None [get_files {DESIGN}.bd]",
                f"generate_target all [get_files {DESIGN}.bd]",
                f"add_files -norecurse [make_wrapper -files [get_files {DESIGN}.bd] -top]",
            ]
        )
        + "\n"
    )


def boot_image(name):
    """Text for bootgen, which makes the file NAME.bit.bin that Linux loads."""
    return f"all:\n{{\n    [destination_device = pl] {name}.bit\n}}\n"


def overlay(config, name):
    """Overlay of the device tree (str): the file to load, the clock's rate, the width of the AXI
    ports, and the UART that the gateware is connected to.
    """
    widths = ", ".join(f"<{k} 0>" for k in range(AFI_REGISTERS))
    return f"""/dts-v1/;
/plugin/;

&fpga_full {{
    #address-cells = <2>;
    #size-cells = <2>;
    firmware-name = "{name}.bit.bin";
    resets = <&zynqmp_reset 116>;
}};

&amba {{
    #address-cells = <2>;
    #size-cells = <2>;
    afi0: afi0 {{
        compatible = "xlnx,afi-fpga";
        config-afi = {widths};
    }};
    clocking0: clocking0 {{
        #clock-cells = <0>;
        assigned-clock-rates = <{config.clock_hz}>;
        assigned-clocks = <&zynqmp_clk {FABRIC_CLOCK}>;
        clock-output-names = "fabric_clk";
        clocks = <&zynqmp_clk {FABRIC_CLOCK}>;
        compatible = "xlnx,fclk";
    }};
}};

&uart0 {{
    status = "okay";
}};
"""
