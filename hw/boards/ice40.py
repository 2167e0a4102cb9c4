"""Boards with an iCE40 UP5K: the clock from the PLL, the model from the board's flash."""

from amaranth import ClockDomain, ClockSignal, Const, Elaboratable, Instance, Module, Signal
from amaranth.lib.cdc import ResetSynchronizer

from sterna.hw.boards.board import connect_console
from sterna.hw.soc import Soc

VCO_HZ = (533e6, 1066e6)  # iCE40 UltraPlus Family Data Sheet, sysCLOCK PLL timing
TOLERANCE = 1e-6


def pll_settings(input_hz, clock_hz):
    """(DIVF, DIVQ): clock = input * (DIVF + 1) / 2 ** DIVQ, its VCO within bounds; ValueError if
    there is none.
    """
    for divq in range(1, 7):
        divf = round(clock_hz / input_hz * (1 << divq)) - 1
        made = input_hz * (divf + 1) / (1 << divq)
        if (
            0 <= divf < 128
            and VCO_HZ[0] <= made * (1 << divq) <= VCO_HZ[1]
            and abs(made / clock_hz - 1) < TOLERANCE
        ):
            return divf, divq
    raise ValueError(
        f"no PLL setting makes {clock_hz / 1e6:g} MHz of {input_hz / 1e6:g} MHz: use a multiple of "
        f"{input_hz / 32e6:g} MHz"
    )


class SpramTop(Elaboratable):
    """The gateware of a board with an iCE40 UP5K: a ``Soc`` with memory on chip that starts from
    the board's flash.

    The PLL takes some microseconds to lock, and ``FlashBoot`` some more before the first byte
    moves, so nothing reads a block RAM in the 3 us behind the configuration, in which those of the
    iCE40 read as zeros.
    """

    def __init__(self, board):
        self._board = board

    def elaborate(self, platform):
        m = Module()
        config = self._board.config
        m.domains.sync = ClockDomain()
        divf, divq = pll_settings(platform.default_clk_frequency, config.clock_hz)
        locked = Signal()
        m.submodules.pll = Instance(
            "SB_PLL40_PAD",
            p_FEEDBACK_PATH="SIMPLE",
            p_DIVR=Const(0, 4),
            p_DIVF=Const(divf, 7),
            p_DIVQ=Const(divq, 3),
            p_FILTER_RANGE=Const(1, 3),
            p_PLLOUT_SELECT="GENCLK",
            i_PACKAGEPIN=platform.request(platform.default_clk, dir="-").io,
            i_RESETB=Const(1),
            i_BYPASS=Const(0),
            o_PLLOUTGLOBAL=ClockSignal(),
            o_LOCK=locked,
        )
        m.submodules.reset = ResetSynchronizer(~locked)

        m.submodules.soc = soc = Soc(
            config, self._board.baud, flash_offset=self._board.flash_offset
        )
        connect_console(m, platform, soc)
        if self._board.flash_offset is not None:
            # Its pins for write protection and hold stay inactive
            flash = platform.request("spi_flash_1x", 0)
            m.d.comb += [
                flash.cs.o.eq(~soc.flash.select_n),
                flash.clk.o.eq(soc.flash.clock),
                flash.copi.o.eq(soc.flash.to_flash),
                soc.flash.from_flash.eq(flash.cipo.i),
            ]
        return m
