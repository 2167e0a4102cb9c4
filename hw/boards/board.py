"""What makes a board: the FPGA's pins as amaranth-boards knows them, a configuration,
and a rate of the serial line.
"""

import importlib
from dataclasses import dataclass

from sterna.hw.config import Config, ConfigError


@dataclass(frozen=True, kw_only=True)
class Board:
    """One board that bitstreams are built for. Importing it needs neither Amaranth nor
    amaranth-boards.

    Attributes
    ----------
    config : Config
        Of the name of the board; ``clock_hz`` is the clock that is built, and ``sdram`` the
        smallest chip that the board is sold with.
    platform : str
        "module:Class" of the amaranth-boards platform.
    top : str
        "module:Class" of the gateware around the ``Soc``: clocks and pins; constructed with the
        Board.
    baud : int
        Of the serial line.
    programmer : tuple of str
        Arguments of openFPGALoader before the file.
    tied_high : tuple of (resource, number, pin)
        Outputs that the board wants to be high.
    flash_offset : int or None
        Where a model lies in the board's flash, if the gateware loads it from there.
    ddr3, memory_hz : str, int
        Chip and controller's clock of a memory that ``top`` has behind the plain memory port.
    vivado : bool
        The vendor's tools make the bitstream, of a project that is written here
        (``sterna.hw.flow.vivado``), and the board's own Linux loads it.
    """

    config: Config
    platform: str
    top: str
    programmer: tuple
    baud: int = 1_000_000
    tied_high: tuple = ()
    flash_offset: int | None = None
    ddr3: str = ""
    memory_hz: int = 0
    vivado: bool = False

    @property
    def name(self):
        """Name of the board and its configuration."""
        return self.config.name


def connect_console(m, platform, soc, led=None):
    """Wires the serial line and the two LEDs that every board has: the first one is on while the
    accelerator works on something, the second one while a byte is on the line. ``led`` gives the
    signal of the LED of a number; by default it is that of the platform's resource "led".

    Returns
    -------
    The serial line; what follows may drive its ``tx`` otherwise.
    """
    led = led or (lambda number: platform.request("led", number).o)
    uart = platform.request("uart", 0)
    m.d.comb += [
        soc.rx_line.eq(uart.rx.i),
        uart.tx.o.eq(soc.tx_line),
    ]
    for number, value in enumerate((~soc.idle, ~uart.rx.i)):
        m.d.comb += led(number).eq(value)
    return uart


def load(path):
    """The object that "module:name" names.

    Raises
    ------
    ConfigError
        There is no such module or no such name in it.
    """
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{path!r} cannot be loaded: {error}; use module:name") from None
