"""ECPIX-5 of LambdaConcept: a Lattice ECP5-5G with 512 MB of DDR3 SDRAM (MT41K256M16, 16 bits), its
serial line through an FTDI FT2232H.
"""

from sterna.hw.boards.board import Board
from sterna.hw.presets import PRESETS

BOARDS = [
    Board(
        config=PRESETS["ecpix5-85"],
        platform="amaranth_boards.ecpix5:ECPIX585Platform",
        top="sterna.hw.boards.ecp5_ddr3:Ddr3Top",
        programmer=("--board", "ecpix5"),
    )
]
