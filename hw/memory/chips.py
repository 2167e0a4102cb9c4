"""SDRAM chips, SDR and DDR3: what their data sheets ask for."""

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


DDR3_BANK_BITS, DDR3_BURST_BITS = 3, 3  # eight banks; bursts of eight beats
DDR3_BEATS = 1 << DDR3_BURST_BITS
# Of the chip's clock, ns, at CAS latencies of 5 for reads and writes (JESD79-3F, speed bins; the
# same in Alliance's data sheet of the AS4C256M16D3B-12, DDR3-1600)
DDR3_PERIOD_CL5 = (3.0, 3.3)


@dataclass(frozen=True, kw_only=True)
class Ddr3Chip:
    """A DDR3 SDRAM of 16 bits and eight banks; times as the data sheet's minima unless said, each a
    number of ns and, where the sheet says "the greater of", of clocks. The defaults are those of
    all speed grades (JESD79-3F; the same in Samsung's data sheets of DDR3 modules).

    Attributes
    ----------
    row_bits, column_bits : int
    t_aa : tuple of (clocks, ns)
        READ to its first data.
    t_rcd, t_rp, t_ras, t_rc, t_rrd, t_faw, t_rfc, t_wr, t_wtr, t_rtp, t_ccd, t_mrd, t_mod : tuple
        ACTIVATE to READ or WRITE, PRECHARGE to ACTIVATE, ACTIVATE to PRECHARGE, ACTIVATE to
        ACTIVATE of one bank, of two, and of the first of four to the fifth, REFRESH to any command,
        last data written to PRECHARGE and to READ, READ to PRECHARGE, READ to READ, MODE to MODE
        and MODE to any other command.
    t_xpr, t_zq_init, t_dll : tuple
        CKE to the first command; the first calibration; reset of the DLL to READ.
    t_ras_max, t_refresh : float
        ns; a row may be open no longer; mean time between two REFRESHes.
    t_reset, t_cke : float
        ns that RESET# is low with stable power, and from its end to CKE.
    """

    name: str
    row_bits: int
    column_bits: int = 10
    t_aa: tuple
    t_rcd: tuple
    t_rp: tuple
    t_ras: tuple
    t_rc: tuple
    t_rrd: tuple
    t_faw: tuple
    t_rfc: tuple
    t_xpr: tuple
    t_wr: tuple = (0, 15)
    t_wtr: tuple = (4, 7.5)
    t_rtp: tuple = (4, 7.5)
    t_ccd: tuple = (4, 0)
    t_mrd: tuple = (4, 0)
    t_mod: tuple = (12, 15)
    t_zq_init: tuple = (512, 640)
    t_dll: tuple = (512, 0)
    t_ras_max: float = 9 * 7_800
    t_refresh: float = 7_800
    t_reset: float = 200_000
    t_cke: float = 500_000

    @property
    def controller_hz(self):
        """Lowest and highest clock of the controller, half of the chip's (tuple of int): with its
        delay locked loop on, at a CAS latency of 5.
        """
        shortest, longest = DDR3_PERIOD_CL5
        return ceil(0.5e9 / longest), int(0.5e9 / shortest)

    @property
    def bytes_per_cycle(self):
        """Bytes that it gives in a cycle of the controller: two of its clocks, two edges each."""
        return 4 * DATA_BYTES

    @property
    def bytes(self):
        """Size of the memory."""
        return DATA_BYTES << (self.row_bits + DDR3_BANK_BITS + self.column_bits)

    @property
    def address_bits(self):
        """Bits of the address of a burst: row, bank, column without the beats of the burst."""
        return self.row_bits + DDR3_BANK_BITS + self.column_bits - DDR3_BURST_BITS

    def clocks(self, name, chip_hz):
        """A time of the data sheet ("t_rcd" ...) in whole periods of the chip's clock (int)."""
        value = getattr(self, name)
        least, ns = value if isinstance(value, tuple) else (0, value)
        return max(least, ceil(ns * chip_hz * 1e-9 - 1e-9))


# Micron DDR3L data sheets, -107 of 4 Gb and -125 of 2 Gb, both x16 (pages of 2 KB). Slower clocks
# than the grade's keep its times in ns. Compared with what is public elsewhere: t_rcd, t_rp, t_ras,
# t_rc, t_faw, t_rfc and t_wr are those of public headers with a memory controller's parameters for
# both ("DDR Model: DDR3L-1866-107" and "DDR3L-1600-125", supplier Micron). LiteDRAM 2024.12 has
# the -125's t_rcd, t_rp, t_ras and t_faw, but as its t_rfc 208 clocks, which are 260 ns at the
# highest clock alone.
DDR3_CHIPS = {
    chip.name: chip
    for chip in (
        Ddr3Chip(
            name="MT41K256M16-107",
            row_bits=15,
            t_aa=(5, 13.91),
            t_rcd=(0, 13.91),
            t_rp=(0, 13.91),
            t_ras=(0, 34),
            t_rc=(0, 47.91),
            t_rrd=(4, 6),
            t_faw=(0, 35),
            t_rfc=(0, 260),
            t_xpr=(5, 270),
        ),
        Ddr3Chip(
            name="MT41K128M16-125",
            row_bits=14,
            t_aa=(5, 13.75),
            t_rcd=(0, 13.75),
            t_rp=(0, 13.75),
            t_ras=(0, 35),
            t_rc=(0, 48.75),
            t_rrd=(4, 7.5),
            t_faw=(0, 40),
            t_rfc=(0, 160),
            t_xpr=(5, 170),
        ),
    )
}
