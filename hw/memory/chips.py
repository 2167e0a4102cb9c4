"""SDRAM chips, single data rate and DDR3: what their data sheets ask for."""

from dataclasses import dataclass
from math import ceil

BANK_BITS = 2
DATA_BYTES = 2


@dataclass(frozen=True, kw_only=True)
class SdramChip:
    """An SDR SDRAM of 16 bits and four banks; times in ns, as the data sheet's minima unless said.

    Attributes
    ----------
    row_bits, column_bits : int
    t_rcd, t_rp, t_ras, t_rc, t_rrd, t_rfc, t_wr, t_mrd : float
        ACTIVATE to READ or WRITE, PRECHARGE to ACTIVATE, ACTIVATE to PRECHARGE, ACTIVATE to
        ACTIVATE of one bank and of two, REFRESH to ACTIVATE, last data written to PRECHARGE, LOAD
        MODE to any command.
    t_ras_max : float
        A row may be open no longer.
    t_refresh : float
        Mean time between two REFRESHes.
    t_init : float
        From stable power and clock to the first command.
    t_ac2, t_ac3, t_oh : float
        Clock to data at a CAS latency of 2 and 3 (maxima), and how long the data then stay.
    cas2_hz : int
        Highest clock at a CAS latency of 2; above it, it is 3.
    """

    name: str
    row_bits: int
    column_bits: int
    t_rcd: float
    t_rp: float
    t_ras: float
    t_rc: float
    t_rrd: float
    t_rfc: float
    t_wr: float
    t_mrd: float
    t_ras_max: float = 100_000
    t_refresh: float = 64e6 / 8192
    t_init: float = 200_000
    t_ac2: float = 6.0
    t_ac3: float = 5.4
    t_oh: float = 2.5
    cas2_hz: int = 100_000_000

    @property
    def bytes(self):
        """Size of the memory."""
        return DATA_BYTES << self.address_bits

    @property
    def address_bits(self):
        """Bits of the address of a word: row, bank, column."""
        return self.row_bits + BANK_BITS + self.column_bits

    def cycles(self, name, clock_hz):
        """A time of the data sheet ("t_rcd" ...) in whole cycles, rounded up (int)."""
        return ceil(getattr(self, name) * clock_hz * 1e-9 - 1e-9)

    def cas_latency(self, clock_hz):
        """2 or 3 cycles."""
        return 2 if clock_hz <= self.cas2_hz else 3


# The slowest figures of the two makers' -7 grades, so that either fits: Alliance AS4C16M16SA-7 and
# AS4C32M16SB-7 (t_rcd and t_rp of 21 ns, t_rc of 63 ns), ISSI IS42S16160G-7.
_GRADE7 = {
    "t_rcd": 21,
    "t_rp": 21,
    "t_ras": 42,
    "t_rc": 63,
    "t_rrd": 14,
    "t_rfc": 63,
    "t_wr": 14,
    "t_mrd": 14,
}
CHIPS = {
    chip.name: chip
    for chip in (
        SdramChip(name="AS4C16M16SA-7", row_bits=13, column_bits=9, **_GRADE7),
        SdramChip(name="AS4C32M16SB-7", row_bits=13, column_bits=10, **_GRADE7),
    )
}


@dataclass(frozen=True, kw_only=True)
class Ddr3Chip:
    """A DDR3 SDRAM of 16 bits and eight banks.

    Attributes
    ----------
    row_bits, column_bits : int
        The data sheet's row and column addresses.
    controller_hz : tuple of int
        Lowest and highest clock of the controller, half of the chip's: with its delay locked loop
        on, a DDR3 chip runs at 303 MHz (tCK of 3.3 ns) or more.
    """

    name: str
    row_bits: int
    column_bits: int
    bank_bits: int = 3
    controller_hz: tuple = (151_515_152, 200_000_000)

    @property
    def bytes_per_cycle(self):
        """Bytes that it gives in a cycle of the controller: two of its clocks, two edges each."""
        return 4 * DATA_BYTES

    @property
    def bytes(self):
        """Size of the memory."""
        return DATA_BYTES << self.row_bits + self.bank_bits + self.column_bits


DDR3_CHIPS = {
    chip.name: chip
    for chip in (Ddr3Chip(name="MT41K256M16-125", row_bits=15, column_bits=10),)
}
