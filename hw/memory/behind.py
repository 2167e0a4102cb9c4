"""What may stand behind the memory port of a configuration: SDR SDRAM, DDR3, AXI ports."""

from sterna.hw.memory.chips import CHIPS, DATA_BYTES, DDR3_CHIPS

# Of the chips of SDR SDRAM: refreshes take most of the time below
SDRAM_HZ = (10_000_000, 143_000_000)
AXI_PORTS = (0, 1, 2, 4, 8)
AXI_PORT_BYTES = (4, 64)  # of the data bus of one AXI port
AXI_BEATS = 256  # of the longest INCR burst (ARM IHI 0022, "burst length")
BLOCK_BYTES = (64, 4096)  # INCR bursts stay within 4 KB


def delivered_bytes(config):
    """Bytes that the memory of a Config or DeviceInfo gives at most per cycle of the accelerator:
    the ports', or those of chips with a clock of their own.
    """
    if not config.memory_hz:
        return config.engines * config.port_bytes
    chip = DDR3_CHIPS.get(getattr(config, "ddr3", ""))
    # A device tells the clock alone: no SDR SDRAM has one as fast as DDR3's
    fast = config.memory_hz > SDRAM_HZ[1]
    data_bytes = chip.bytes_per_cycle if chip else DATA_BYTES * (4 if fast else 1)
    return config.engines * data_bytes * config.memory_hz / config.clock_hz


def check_memory(config, need):
    """Check what stands behind the memory port of a Config: at most one of a chip and AXI ports.

    Parameters
    ----------
    config : Config
        As far as its fields are within their ranges.
    need : callable
        Takes a condition and the text of the error that is raised without it.
    """
    chips = [field for field in ("sdram", "ddr3", "axi_ports") if getattr(config, field)]
    need(len(chips) < 2, f"{' and '.join(chips)}: use one of them")
    if config.sdram:
        need(config.sdram in CHIPS, f"sdram {config.sdram!r}: use one of {', '.join(CHIPS)}")
        _check_chip(config, need, CHIPS[config.sdram], DATA_BYTES, SDRAM_HZ)
    elif config.ddr3:
        need(
            config.ddr3 in DDR3_CHIPS,
            f"ddr3 {config.ddr3!r}: use one of {', '.join(DDR3_CHIPS)}",
        )
        chip = DDR3_CHIPS[config.ddr3]
        _check_chip(config, need, chip, chip.bytes_per_cycle, chip.controller_hz)
    else:
        need(
            not config.memory_hz,
            f"memory_hz {config.memory_hz}: needs sdram or ddr3, the chip that has this clock",
        )
    need(
        type(config.axi_ports) is int and config.axi_ports in AXI_PORTS,
        f"axi_ports {config.axi_ports}: use one of {', '.join(map(str, AXI_PORTS))}",
    )
    if config.axi_ports:
        need(
            config.memory == "external",
            f"axi_ports {config.axi_ports}: needs memory outside of the chip",
        )
        (least, most), wide = AXI_PORT_BYTES, config.port_bytes // config.axi_ports
        need(
            least <= wide <= most,
            f"axi_ports {config.axi_ports}: {wide} bytes each of {config.port_bytes}, where a port "
            f"has {least} to {most}",
        )
        need(
            wide <= config.block_bytes <= wide * AXI_BEATS,
            f"block_bytes {config.block_bytes}: use {max(wide, BLOCK_BYTES[0])} to "
            f"{min(wide * AXI_BEATS, BLOCK_BYTES[1])} with ports of {wide} bytes",
        )
        group = config.axi_ports * config.block_bytes
        need(
            config.memory_bytes % group == 0,
            f"memory_bytes {config.memory_bytes}: must be a multiple of {group}, a block of "
            "every AXI port",
        )


def _check_chip(config, need, chip, data_bytes, clocks):
    """A chip that gives ``data_bytes`` a cycle of its controller, whose clock is in bounds."""
    need(
        config.memory == "external" and config.port_bytes >= data_bytes,
        f"{chip.name}: needs external memory and words of {data_bytes} bytes or more",
    )
    need(
        config.memory_bytes == config.engines * chip.bytes,
        f"memory_bytes {config.memory_bytes}: {chip.name} has {chip.bytes}"
        + (f", and each of {config.engines} engines one" if config.engines > 1 else ""),
    )
    need(
        0 < data_bytes * config.memory_hz <= config.port_bytes * config.clock_hz,
        f"memory_hz {config.memory_hz}: use the clock of the chip, which gives {data_bytes} "
        f"bytes a cycle; the port takes {config.port_bytes} at {config.clock_hz} Hz",
    )
    need(
        clocks[0] <= config.memory_hz <= clocks[1],
        f"memory_hz {config.memory_hz}: use {clocks[0]} to {clocks[1]}",
    )
