"""Boards with an ECP5 and a DDR3 SDRAM that LiteDRAM reads and writes."""

from amaranth import Elaboratable, Module
from amaranth.lib.wiring import connect

from sterna.hw.boards.ecp5 import raw_port
from sterna.hw.boards.ecp5_ddr3 import Ddr3Clocks, connect_pads, connect_reporting_console
from sterna.hw.memory.chips import DDR3_CHIPS
from sterna.hw.memory.litedram.memory import LitedramMemory
from sterna.hw.soc import Soc


class LitedramTop(Elaboratable):
    """As ``Ddr3Top``, with LiteDRAM's controller and cells behind the memory port of a ``Soc``: the
    board names chip and clock.
    """

    def __init__(self, board):
        self._board = board

    def elaborate(self, platform):
        m = Module()
        board, config = self._board, self._board.config
        m.submodules.soc = soc = Soc(config, board.baud)
        m.submodules.memory = memory = LitedramMemory(
            DDR3_CHIPS[board.ddr3], board.memory_hz, config.word_address_bits
        )
        connect(m, soc.memory, memory.port)
        m.submodules.clocks = Ddr3Clocks(
            platform.default_clk_frequency,
            config.clock_hz,
            board.memory_hz,
            memory.start,
        )
        connect_reporting_console(m, platform, soc, memory.levelled, config.clock_hz, board.baud)
        connect_pads(m, memory.pads, raw_port(platform, "ddr3", 0))
        return m
