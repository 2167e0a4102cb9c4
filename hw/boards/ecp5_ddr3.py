"""Boards with an ECP5 and a DDR3 SDRAM: clocks from the PLL, the cells at the chip's pins."""

from amaranth import (
    ClockDomain,
    ClockSignal,
    Const,
    DomainRenamer,
    Elaboratable,
    Instance,
    Module,
    Mux,
    Signal,
)
from amaranth.lib.cdc import FFSynchronizer, ResetSynchronizer
from amaranth.lib.wiring import connect

from sterna.hw.boards.board import connect_console
from sterna.hw.boards.ecp5 import pll, pll_settings, raw_port
from sterna.hw.memory.chips import DDR3_CHIPS
from sterna.hw.memory.ddr3.phy import FAST, Ddr3Phy, PhyStart
from sterna.hw.memory.ddr3.report import Report
from sterna.hw.soc import Soc


class Ddr3Clocks(Elaboratable):
    """Domains ``sync`` of the PLL; ``memory2x``, the chip's clock, of the PLL through a gate, and
    ``memory`` of it through a divider, both as the start of the cells wants them; ``init``, the
    oscillator. All but that are held in reset until the cells have started.

    Parameters
    ----------
    oscillator_hz, clock_hz, memory_hz : int
        Of ``init``, ``sync`` and ``memory``.
    start : CellsStart, optional
        Of cells that bring a start of their own.

    Attributes
    ----------
    start : CellsStart
        By default a PhyStart, which is part of this.
    """

    def __init__(self, oscillator_hz, clock_hz, memory_hz, start=None):
        self._hz = oscillator_hz, clock_hz, memory_hz
        self._inside = start is None
        self.start = start or PhyStart()

    def elaborate(self, platform):
        m = Module()
        oscillator_hz, clock_hz, memory_hz = self._hz
        chip_hz = 2 * memory_hz
        divider, feedback, (fast, sync) = pll_settings(oscillator_hz, chip_hz, clock_hz)
        m.domains += [
            ClockDomain("sync"),
            ClockDomain("memory"),
            ClockDomain("init"),
            ClockDomain(FAST, reset_less=True),
        ]
        locked, ungated = Signal(), Signal()
        m.d.comb += ClockSignal("init").eq(platform.request(platform.default_clk, dir="i").i)
        start = self.start
        if self._inside:
            m.submodules.start = start
        m.submodules.pll = pll(
            oscillator_hz,
            (divider, feedback),
            ClockSignal("init"),
            ungated,
            locked,
            CLKOP=(chip_hz, fast, 0, ungated),
            CLKOS=(clock_hz, sync, 0, ClockSignal("sync")),
        )
        m.submodules.gate = Instance(
            "ECLKSYNCB",
            i_ECLKI=ungated,
            i_STOP=start.stop,
            o_ECLKO=ClockSignal(FAST),
        )
        m.submodules.divider = Instance(
            "CLKDIVF",
            p_DIV="2.0",
            i_CLKI=ClockSignal(FAST),
            i_RST=start.reset,
            i_ALIGNWD=Const(0),
            o_CDIVX=ClockSignal("memory"),
        )
        m.submodules.init_reset = ResetSynchronizer(~locked, domain="init")
        for domain in ("sync", "memory"):
            m.submodules[f"{domain}_reset"] = ResetSynchronizer(~start.done, domain=domain)
        return m


def connect_reporting_console(m, platform, soc, levelled, clock_hz, baud):
    """The console, whose line tells what was tried if the reads could not be levelled."""
    uart = connect_console(m, platform, soc, lambda number: platform.request("rgb_led", number).r.o)
    m.submodules.report = report = Report(clock_hz, baud)
    failed = Signal()
    m.submodules.failed = FFSynchronizer(levelled.failed, failed)
    m.d.comb += [
        report.failed.eq(failed),
        # It stands still since long before `failed`
        report.good.eq(levelled.good),
        uart.tx.o.eq(Mux(failed, report.line, soc.tx_line)),
    ]


class Ddr3Top(Elaboratable):
    """The gateware of a board with an ECP5 and a DDR3 SDRAM: a ``Soc`` with clocks, cells and pins.
    If the reads of the chip cannot be levelled, the serial line tells what was tried instead of
    what the device would say.
    """

    def __init__(self, board):
        self._board = board

    def elaborate(self, platform):
        m = Module()
        config = self._board.config
        m.submodules.clocks = clocks = Ddr3Clocks(
            platform.default_clk_frequency, config.clock_hz, config.memory_hz
        )
        m.submodules.soc = soc = Soc(config, self._board.baud)
        connect_reporting_console(m, platform, soc, soc.levelled, config.clock_hz, self._board.baud)
        cells = Ddr3Phy(DDR3_CHIPS[config.ddr3].row_bits)
        m.submodules.phy = phy = DomainRenamer("memory")(cells)
        connect(m, soc.pins.dfi, phy.dfi)
        connect(m, soc.pins.trim, phy.trim)
        m.d.comb += [
            phy.ddrdel.eq(clocks.start.ddrdel),
            phy.pause.eq(clocks.start.pause),
        ]
        connect_pads(m, phy.pads, raw_port(platform, "ddr3", 0))
        return m


def connect_pads(m, pads, port):
    """The buffers at the pins of a chip. They get the cells' outputs as they are: whether the
    platform calls a pin inverted is of no concern here.
    """
    outputs = {
        "clk": port.clk.p,
        "clk_en": port.clk_en.io,
        "odt": port.odt.io,
        "we": port.we.io,
        "ras": port.ras.io,
        "cas": port.cas.io,
        "a": port.a.io,
        "ba": port.ba.io,
        "dm": port.dm.io,
    }
    own = {"clk_en": "cke", "we": "we_n", "ras": "ras_n", "cas": "cas_n"}
    for name, pins in outputs.items():
        value = getattr(pads, own.get(name, name))
        for k in range(len(pins)):
            m.submodules[f"{name}{k}"] = Instance("OB", i_I=value[k], o_O=pins[k])
    for name, pins in (("dq", port.dq.io), ("dqs", port.dqs.p)):
        for k in range(len(pins)):
            m.submodules[f"{name}{k}"] = Instance(
                "BB",
                i_I=getattr(pads, f"{name}_o")[k],
                i_T=getattr(pads, f"{name}_t")[k],
                o_O=getattr(pads, f"{name}_i")[k],
                io_B=pins[k],
            )
