"""ECPIX-5 of LambdaConcept: a Lattice ECP5-5G with 512 MB of DDR3 SDRAM (MT41K256M16, 16 bits), its
serial line through an FTDI FT2232H. With the own controller and cells, and with LiteDRAM's, whose
clock is lower: its words of 16 bytes come at most every second cycle of it.
"""

from dataclasses import replace

from sterna.hw.boards.board import Board
from sterna.hw.presets import PRESETS

_OWN = PRESETS["ecpix5-85"]
_PLATFORM, _PROGRAMMER = "amaranth_boards.ecpix5:ECPIX585Platform", ("--board", "ecpix5")
BOARDS = [
    Board(
        config=_OWN,
        platform=_PLATFORM,
        top="sterna.hw.boards.ecp5_ddr3:Ddr3Top",
        programmer=_PROGRAMMER,
    ),
    Board(
        config=replace(
            _OWN, name="ecpix5-85-litedram", clock_hz=50_000_000, ddr3="", memory_hz=0
        ),
        platform=_PLATFORM,
        top="sterna.hw.boards.ecp5_litedram:LitedramTop",
        programmer=_PROGRAMMER,
        ddr3=_OWN.ddr3,
        memory_hz=100_000_000,
    ),
]
