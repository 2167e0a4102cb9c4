"""Icepi Zero: an ECP5-25F with 32 MB of SDR SDRAM in the format of a Raspberry Pi Zero, its serial
line through an FT231X.

Same chip and clocks as the ULX3S with a 25F, so no walks of trees; the PLL makes the clocks of 50
MHz. This file is all that the board needs.
"""

from dataclasses import replace

from sterna.hw.boards import ulx3s
from sterna.hw.boards.board import Board

BOARDS = [
    Board(
        config=replace(ulx3s.CONFIG, name="icepi-zero"),
        platform="amaranth_boards.icepi_zero:IcepiZero1_3Platform",
        top="sterna.hw.boards.ecp5:SdramTop",
        programmer=("--board", "icepi-zero"),
    )
]
