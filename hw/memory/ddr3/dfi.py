"""What lies between a controller of DDR3 SDRAM, its leveller and the cells at its pins."""

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


LANES, DELAYS, SLIPS = DATA_BYTES, 8, 4
DELAY_BITS, SLIP_BITS = 3, 2


class Ddr3Trim(wiring.Signature):
    """What is set and seen at the cells of each byte while reads are levelled, from the leveller.

    Members
    -------
    delay : Out(6)
        When the gate for the chip's strobe opens, in quarters of its clock, 3 bits a byte.
    slip : Out(4)
        By how many beats later a burst begins in what the cells give, 2 bits a byte.
    pause : Out(1)
        High for some cycles around a change of ``delay``; the cells' pointers begin anew.
    clear : Out(1)
        Forgets ``seen``.
    seen : In(2)
        A burst was detected in the gate of the byte.
    """

    def __init__(self):
        super().__init__(
            {
                "delay": Out(LANES * DELAY_BITS),
                "slip": Out(LANES * SLIP_BITS),
                "pause": Out(1),
                "clear": Out(1),
                "seen": In(LANES),
            }
        )


class Levelled(wiring.Signature):
    """What the levelling has found, from the leveller, in the controller's domain.

    Members
    -------
    done : Out(1)
        It has ended.
    failed : Out(1)
        Then: some byte was wrong in the end, so what is read is.
    good : Out(64)
        Whether a setting was good, bit ``32 byte + 8 slip + delay``.
    """

    def __init__(self):
        super().__init__(
            {
                "done": Out(1),
                "failed": Out(1),
                "good": Out(LANES * SLIPS * DELAYS),
            }
        )


class CellsStart(wiring.Signature):
    """What the start of the cells says to the clocks around it, in the domain ``init``.

    Members
    -------
    stop : Out(1), reset : Out(1)
        For ECLKSYNCB, and for CLKDIVF.
    done : Out(1)
        Until then the other domains are held in reset. Stays high.
    """

    def __init__(self):
        super().__init__(
            {
                "stop": Out(1),
                "reset": Out(1),
                "done": Out(1),
            }
        )


class Ddr3Pins(wiring.Signature):
    """All that lies between the memory of a board with DDR3 and the cells at the chip's pins."""

    def __init__(self, row_bits):
        super().__init__(
            {
                "dfi": Out(Ddr3Dfi(row_bits)),
                "trim": Out(Ddr3Trim()),
            }
        )
