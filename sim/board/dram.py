"""Settings of the DRAM that stands behind a simulated board's AXI ports (dram.hpp), and what they stand for."""

from dataclasses import astuple, dataclass


@dataclass(frozen=True, kw_only=True)
class Dram:
    """A DRAM and the way to it; times in picoseconds.

    Attributes
    ----------
    transfer : int
        Of 64 bytes on the data lines: a burst of 8 on 64 bits.
    rcd, rp, rrd, ras, cas, rfc, refi, write_recovery : int
        Times of the chips' data sheet: ACTIVATE to READ, PRECHARGE to ACTIVATE, between ACTIVATEs, ACTIVATE to
        PRECHARGE, READ to data, REFRESH to ACTIVATE, between REFRESHes, last data written to PRECHARGE.
    turn : int
        The data lines stand still for it between reads and writes, either way.
    path : int
        From a port's pins to the controller, and from its data back to the pins.
    depth : int
        Bursts that a port takes before it has answered the first of them.
    wrong_burst, wrong_write : int
        Number of the read burst, and of the write burst, from 1, that is answered with an error; 0: none.
    """

    transfer: int
    rcd: int = 13_750
    rp: int = 13_750
    rrd: int = 5_300
    ras: int = 32_000
    cas: int = 13_750
    rfc: int = 350_000
    refi: int = 7_800_000
    write_recovery: int = 15_000
    turn: int = 10_000
    path: int = 80_000
    depth: int = 16
    wrong_burst: int = 0
    wrong_write: int = 0

    def option(self):
        """As the harness takes it (str)."""
        return ",".join(map(str, astuple(self)))


# Of the four MT40A512M16 of a Kria K26, DDR4-2400 of 8 Gb with 64 data lines: tRCD, tRP and CL of 13.75 ns as of
# the grade -062E, tRFC of 8 Gb, tREFI up to 85 degrees. `path` is a guess: it makes a read of an idle memory take
# about 46 cycles of 250 MHz. What a linear stream gets of each stands in docs/memory.md.
SETTINGS = {
    # 64 bytes per 4 ns, what four ports of 16 bytes take at 250 MHz; nothing but the refresh costs time.
    "ideal": Dram(transfer=4_000, rcd=0, rp=0, rrd=0, ras=0, write_recovery=0, turn=0),
    # The chips' data lines, 64 bytes in 8 / 2400 us: faster than the ports, so that reads ahead hide what is lost.
    "ddr4": Dram(transfer=3_333),
    # The pace at which a linear stream gets 12.73 GB/s, refresh included.
    "measured": Dram(transfer=4_779),
}
# GB/s that a linear stream gets of each over four ports of 16 bytes at 250 MHz: tests/rtl/test_dram.py holds the
# model to them.
LINEAR = {"ideal": 16 * (1 - 0.35 / 7.8), "ddr4": 16.0, "measured": 12.73}
DEFAULT = "ideal"
