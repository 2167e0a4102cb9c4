"""Boards with a Zynq UltraScale+: the platform in the style of amaranth-boards, and the gateware
around the ``Soc`` between the ports of the processing system.
"""

from amaranth import Cat, ClockDomain, ClockSignal, Const, Elaboratable, Instance, Module, Signal
from amaranth.build import Attrs, Connector, Pins, Resource
from amaranth.lib import io
from amaranth.lib.cdc import ResetSynchronizer
from amaranth.lib.wiring import In
from amaranth.vendor import XilinxPlatform

from sterna.hw.boards.zynq_system import (
    CLOCK,
    FAN,
    PORT_WIDTHS,
    RESET,
    RXD,
    TXD,
    WRAPPER,
    memory_base,
    port_name,
)
from sterna.hw.soc import Soc

# What AXI leaves to the board (AMBA AXI, "Transaction attributes"): memory that may be buffered and
# reordered, no lock, no priority. Protection 0 is what the vendor's own masters send.
ATTRIBUTES = {"cache": (0b0011, 4), "prot": (0, 3), "lock": (0, 1), "qos": (0, 4)}


class KV260Platform(XilinxPlatform):
    """Kria KV260 of AMD: a K26 module (DS987) on its carrier. Clocks, serial line and memory are
    those of the processing system; of its own pins the gateware has the fan's and the Pmod (names
    of the balls: Xilinx/kria-base-hardware, k26_starter_kits).
    """

    device = "xck26"
    package = "sfvc784"
    speed = "2LV-c"
    default_clk = None
    resources = [
        Resource(
            "fan", 0, Pins("A12", dir="o"), Attrs(IOSTANDARD="LVCMOS33", SLEW="SLOW", DRIVE="4")
        ),
    ]
    connectors = [
        Connector("pmod", 0, "H12 E10 D10 C11 - - B10 E12 D11 B11 - -"),
    ]


class ZynqTop(Elaboratable):
    """The gateware of a board with a Zynq UltraScale+: a ``Soc`` whose AXI ports, clock, reset and
    serial line are those of the block design (``zynq_system``), whose wrapper is an instance here.

    The clock is the system's, at the rate that its registers are set to; the reset is released with
    it. The fan's pin carries on with what drives it without this gateware, a timer of the system.
    """

    def __init__(self, board):
        self._board = board

    def elaborate(self, platform):
        m = Module()
        config = self._board.config
        m.domains.sync = ClockDomain()
        reset_n, fan = Signal(), Signal(3)
        m.submodules.soc = soc = Soc(config, self._board.baud)
        m.submodules.reset = ResetSynchronizer(~reset_n)
        ports = {
            f"o_{CLOCK}": ClockSignal(),
            f"o_{RESET}": reset_n,
            f"o_{TXD}": soc.rx_line,
            f"i_{RXD}": soc.tx_line,
            f"o_{FAN}": fan,
        }
        base = memory_base(config)
        for number, bus in enumerate(soc.axi):
            ports |= self._port(m, number, bus, base)
        m.submodules.system = Instance(WRAPPER, **ports)
        m.submodules.fan = pin = io.Buffer("o", platform.request("fan", 0, dir="-"))
        m.d.comb += pin.o.eq(fan[2])
        return m

    @staticmethod
    def _port(m, number, bus, base):
        """Ports of the wrapper that belong to an AXI port, by name with direction."""
        ports = {}
        for name, member in bus.signature.members.items():
            value, pin = getattr(bus, name), port_name(number, name)
            bits = PORT_WIDTHS.get(name, len(value))
            if member.flow == In:
                back = Signal(bits, name=f"{name}_{number}")
                m.d.comb += value.eq(back)
                ports[f"o_{pin}"] = back
                continue
            if name.endswith("addr"):
                value = value | Const(base, len(value))
            ports[f"i_{pin}"] = Cat(value, Const(0, bits - len(value)))
        for name, (value, bits) in ATTRIBUTES.items():
            for channel in ("ar", "aw"):
                ports[f"i_{port_name(number, channel + name)}"] = Const(value, bits)
        return ports
