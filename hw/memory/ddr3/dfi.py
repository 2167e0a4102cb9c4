"""What lies between a controller of DDR3 SDRAM and the cells at its pins."""

from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sterna.hw.memory.chips import DATA_BYTES, DDR3_BANK_BITS, DDR3_BEATS

BURST_BYTES = DATA_BYTES * DDR3_BEATS
BURST_BITS = 8 * BURST_BYTES
# Latencies of the chip in its clocks, of reads and writes. Both are odd: a burst whose command
# takes the second clock of a cycle begins with the first clock of another one.
CAS, CAS_WRITE = 5, 5
# ras_n, cas_n, we_n from bit 2 down.
MODE, REFRESH, PRECHARGE, ACTIVATE, WRITE, READ, CALIBRATE, NOP = range(8)


class Ddr3Dfi(wiring.Signature):
    """Commands and bursts of a controller whose cycle is two clocks of the chip, in the manner of
    the DDR PHY interface: commands for rows take the first clock of a cycle and READ and WRITE the
    second, so neither waits for the other.

    Members
    -------
    reset_n, cke, odt : Out(1)
        Levels.
    row_command, column_command : Out(3)
        ras_n, cas_n, we_n from bit 2 down.
    row_bank, column_bank : Out(3)
    row_address, column_address : Out(row_bits)
    write_data : Out(128)
        In the cycle of a WRITE: eight beats of 16 bits, the first lowest.
    write_mask : Out(16)
        With it; bit k is set if byte k is kept.
    read_data : In(128)
    read_valid : In(1)
        The bursts of all READs, in their order.
    """

    def __init__(self, row_bits):
        super().__init__(
            {
                "reset_n": Out(1),
                "cke": Out(1),
                "odt": Out(1),
                "row_command": Out(3, init=NOP),
                "row_bank": Out(DDR3_BANK_BITS),
                "row_address": Out(row_bits),
                "column_command": Out(3, init=NOP),
                "column_bank": Out(DDR3_BANK_BITS),
                "column_address": Out(row_bits),
                "write_data": Out(BURST_BITS),
                "write_mask": Out(BURST_BYTES),
                "read_data": In(BURST_BITS),
                "read_valid": In(1),
            }
        )
