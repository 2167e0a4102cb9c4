"""LiteDRAM as a Verilog module: its PHY for the ECP5, its controller and one native port.

The standalone core that its generator makes wants a processor for start and levelling. Here the
registers of the PHY and the commands before the controller's first are ports of the module, so
that gateware does both.
"""

from sterna.hw.config import ConfigError
from sterna.hw.memory.chips import DATA_BYTES, DDR3_BANK_BITS

NAME = "litedram"
RATE = "1:2"  # clocks of the controller and of the chip
# Short calibrations of the chip's drivers (JESD79-3F, tZQCS): clocks, ns
T_ZQ_SHORT = (64, 80)


class NoLitedram(ConfigError):
    """LiteDRAM, or what it needs, is not installed."""


def litedram_verilog(chip, clock_hz):
    """Verilog of the module ``litedram``, with the ports that ``LitedramCore`` names (str).

    The times are those of ``chip``: LiteDRAM's own entry for the MT41K256M16 has a tRFC of 208
    clocks where the data sheet says 260 ns.

    Parameters
    ----------
    chip : sterna.hw.memory.chips.Ddr3Chip
    clock_hz : int
        Of the controller, half of the chip's.

    Raises
    ------
    NoLitedram
    """
    try:
        from litedram.core.controller import LiteDRAMController
        from litedram.core.crossbar import LiteDRAMCrossbar
        from litedram.phy.ecp5ddrphy import ECP5DDRPHY
        from migen import If, Module
        from migen.fhdl.verilog import convert
    except ImportError as error:
        raise NoLitedram(f"LiteDRAM is not there: {error}") from None
    pads = _Pads(chip.row_bits)
    top = Module()
    top.submodules.phy = phy = ECP5DDRPHY(pads, sys_clk_freq=clock_hz)
    times = _module_of(chip)(clock_hz, RATE)
    top.submodules.controller = controller = LiteDRAMController(
        phy.settings, times.geom_settings, times.timing_settings, clock_hz
    )
    top.submodules.crossbar = crossbar = LiteDRAMCrossbar(controller.interface)
    port = crossbar.get_port()

    ports = _ports(chip, phy, controller, port, pads)
    phases = phy.dfi.phases
    top.comb += controller.dfi.connect(phy.dfi)
    # Until the chip has started, one command a cycle in the first phase, and none in the second
    before = [
        statement
        for phase in phases
        for statement in (
            phase.reset_n.eq(ports["reset_n"]),
            phase.cke.eq(ports["cke"]),
            phase.odt.eq(0),
            phase.address.eq(ports["address"]),
            phase.bank.eq(ports["bank"]),
            phase.rddata_en.eq(0),
            phase.wrdata_en.eq(0),
        )
    ]
    for name, bit in (("ras_n", 2), ("cas_n", 1), ("we_n", 0)):
        before += [
            getattr(phases[0], name).eq(ports["command"][bit]),
            getattr(phases[1], name).eq(1),
        ]
    top.comb += If(~ports["started"], *before)
    ios = set(ports.values())
    for name in ("sys", "sys2x", "init"):
        ios |= _domain(top, name)
    for name, signal in ports.items():
        signal.name_override = name
    return str(convert(top, ios, name=NAME, create_clock_domains=False))


def latencies(clock_hz):
    """Clocks of the chip from READ and from WRITE to their data, as LiteDRAM's PHY has them for a
    clock of the controller (two of int). NoLitedram if it is not installed.
    """
    try:
        from litedram.common import get_default_cl_cwl
    except ImportError as error:
        raise NoLitedram(f"LiteDRAM is not there: {error}") from None
    return get_default_cl_cwl("DDR3", 1 / (2 * clock_hz))


def _domain(top, name):
    """Clock and reset of a domain of the module, which come from outside (set of signals)."""
    from migen import ClockDomain

    domain = ClockDomain(name)
    setattr(top.clock_domains, f"cd_{name}", domain)
    return {domain.clk, domain.rst}


def _module_of(chip):
    """LiteDRAM's class of a chip, with the times that ``sterna.hw.memory.chips`` has."""
    from litedram.modules import DDR3Module, _SpeedgradeTimings, _TechnologyTimings

    def ns(name):
        return getattr(chip, name)[1]

    class Chip(DDR3Module):
        nbanks = 1 << DDR3_BANK_BITS
        nrows = 1 << chip.row_bits
        ncols = 1 << chip.column_bits
        technology_timings = _TechnologyTimings(
            tREFI=chip.t_refresh,
            tWTR=chip.t_wtr,
            tCCD=chip.t_ccd,
            tRRD=chip.t_rrd,
            tZQCS=T_ZQ_SHORT,
        )
        speedgrade_timings = {
            "default": _SpeedgradeTimings(
                tRP=ns("t_rp"),
                tRCD=ns("t_rcd"),
                tWR=ns("t_wr"),
                tRFC=chip.t_rfc,
                tFAW=chip.t_faw,
                tRAS=ns("t_ras"),
            )
        }

    return Chip


class _Pads:
    """The chip's pins as LiteDRAM's PHY wants them: of both directions each a record of what a pad
    needs, so that no pad is in the module.
    """

    def __init__(self, row_bits):
        from migen import Record, Signal

        def pin():
            return Record([("o", 1), ("oe", 1), ("i", 1)])

        self.clk_p = Signal(1)
        self.a, self.ba = Signal(row_bits), Signal(DDR3_BANK_BITS)
        self.ras_n, self.cas_n, self.we_n = Signal(1), Signal(1), Signal(1)
        self.cke, self.odt, self.reset_n = Signal(1), Signal(1), Signal(1)
        self.dm = Signal(DATA_BYTES)
        self.dq = [pin() for _ in range(8 * DATA_BYTES)]
        self.dqs_p = [pin() for _ in range(DATA_BYTES)]


def _ports(chip, phy, controller, port, pads):
    """The ports of the module by name (dict of Signal)."""
    from migen import Signal

    return {
        # Before the controller's commands
        "started": Signal(),
        "command": Signal(3),
        "bank": Signal(DDR3_BANK_BITS),
        "address": Signal(chip.row_bits),
        "reset_n": Signal(),
        "cke": Signal(),
        # Levelling
        "sel": phy._dly_sel.storage,
        "delay_inc": phy._rdly_dq_inc.re,
        "slip_inc": phy._rdly_dq_bitslip.re,
        "clear": phy._burstdet_clr.re,
        "seen": phy._burstdet_seen.status,
        # Start of the cells
        "stop": phy.init.stop,
        "reset": phy.init.reset,
        "pause": phy.init.pause,
        # The native port
        "cmd_valid": port.cmd.valid,
        "cmd_ready": port.cmd.ready,
        "cmd_we": port.cmd.we,
        "cmd_addr": port.cmd.addr,
        "wdata_valid": port.wdata.valid,
        "wdata_ready": port.wdata.ready,
        "wdata_we": port.wdata.we,
        "wdata_data": port.wdata.data,
        "rdata_valid": port.rdata.valid,
        "rdata_data": port.rdata.data,
        "refreshing": controller.refresher.cmd.valid,
        **_pins(pads),
    }


def _pins(pads):
    """The ports of the module at the pins, of both directions one a bit."""
    single = ("a", "ba", "ras_n", "cas_n", "we_n", "cke", "odt", "dm")
    out = {f"pad_{name}": getattr(pads, name) for name in single}
    out |= {"pad_clk": pads.clk_p, "pad_reset_n": pads.reset_n}
    for name, pins in (("dq", pads.dq), ("dqs", pads.dqs_p)):
        for number, pin in enumerate(pins):
            out |= {f"pad_{name}{number}_{part}": getattr(pin, part) for part in ("o", "oe", "i")}
    return out
