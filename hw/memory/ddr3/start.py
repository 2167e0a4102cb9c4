"""The initialisation of a DDR3 SDRAM (JESD79-3F, section 3.3.1)."""

from math import ceil

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

from sterna.hw.memory.chips import DDR3_BANK_BITS
from sterna.hw.memory.ddr3.dfi import CALIBRATE, CAS, CAS_WRITE, MODE, NOP


def mode_registers(chip, chip_hz, cas=CAS, cas_write=CAS_WRITE):
    """Values of MR0 to MR3 (list of int): bursts of eight, sequential; the latencies of READ (5 to
    11 clocks) and of WRITE (5 to 8); drivers of 34 ohm; terminations of 60 ohm while a WRITE is and
    while none is.
    """
    recovery = chip.clocks("t_wr", chip_hz)  # used by automatic precharge alone
    codes = {5: 1, 6: 2, 7: 3, 8: 4, 10: 5, 12: 6, 14: 7, 16: 0}
    write_recovery = codes[min((clocks for clocks in codes if clocks >= recovery), default=16)]
    reset_dll = 1 << 8
    mr0 = (cas - 4) << 4 | reset_dll | write_recovery << 9
    mr1 = 1 << 1 | 1 << 2  # 34 ohm (RZQ/7), RTT_NOM of 60 ohm (RZQ/4)
    mr2 = (cas_write - 5) << 3 | 1 << 9  # RTT_WR of 60 ohm
    return [mr0, mr1, mr2, 0]


class Start(wiring.Component):
    """Brings a chip up once: RESET# and CKE with their pauses, mode registers 2, 3, 1 and 0, and
    the calibration of its drivers.

    Parameters
    ----------
    chip : sterna.hw.memory.chips.Ddr3Chip
    clock_hz : int
        Of the controller, half of the chip's.
    cas, cas_write : int
        Latencies of the chip in its clocks.

    Members
    -------
    command, bank, address : Out(3), Out(3), Out(row_bits)
        For the first clock of a cycle.
    reset_n, cke : Out(1)
    done : Out(1)
        Stays high.
    """

    def __init__(self, chip, clock_hz, cas=CAS, cas_write=CAS_WRITE):
        chip_hz = 2 * clock_hz
        self.cycles = {
            name: ceil(chip.clocks(name, chip_hz) / 2)
            for name in ("t_reset", "t_cke", "t_xpr", "t_mrd", "t_mod", "t_zq_init", "t_dll")
        }
        self._registers = mode_registers(chip, chip_hz, cas, cas_write)
        super().__init__(
            {
                "command": Out(3, init=NOP),
                "bank": Out(DDR3_BANK_BITS),
                "address": Out(chip.row_bits),
                "reset_n": Out(1),
                "cke": Out(1),
                "done": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        t, mode = self.cycles, self._registers
        # What each step begins with, and the cycles that it takes: (command, bank, address, ...)
        steps = [
            (NOP, 0, 0, t["t_reset"]),
            (NOP, 0, 0, t["t_cke"]),
            (NOP, 0, 0, t["t_xpr"]),
            *((MODE, number, mode[number], t["t_mrd"]) for number in (2, 3, 1)),
            (MODE, 0, mode[0], t["t_mod"]),
            (CALIBRATE, 0, 1 << 10, max(t["t_zq_init"], t["t_dll"])),
        ]
        most = max(cycles for *_, cycles in steps)
        number, left, passed = Signal(range(len(steps) + 1)), Signal(range(most + 1)), Signal()
        m.d.sync += [
            self.command.eq(NOP),
            left.eq(left - 1),
            passed.eq(left == 1),
        ]
        begin = Signal(init=1)
        with m.If(begin | passed):
            with m.Switch(number):
                for k, (command, bank, address, cycles) in enumerate(steps):
                    with m.Case(k):
                        m.d.sync += [
                            self.command.eq(command),
                            self.bank.eq(bank),
                            self.address.eq(address),
                            self.reset_n.eq(k >= 1),
                            self.cke.eq(k >= 2),
                            left.eq(cycles - 1),
                        ]
                with m.Default():
                    m.d.sync += self.done.eq(1)
            with m.If(number != len(steps)):
                m.d.sync += number.eq(number + 1)
            m.d.sync += [
                begin.eq(0),
                passed.eq(0),
            ]
        return m
