"""Kria KV260 of AMD: a Zynq UltraScale+ with 4 GiB of DDR4, of which the upper half is the model
memory, behind four ports of 128 bits of its processing system. The host is the board's own Linux:
the serial line is a UART of the processing system, inside of the chip.
"""

from dataclasses import replace

from sterna.hw.boards.board import Board
from sterna.hw.presets import PRESETS

BOARDS = [
    Board(
        config=replace(PRESETS["kv260"], name="kv260"),
        platform="sterna.hw.boards.zynq:KV260Platform",
        top="sterna.hw.boards.zynq:ZynqTop",
        programmer=(),
        # Of the UART's 100 MHz a whole number, and the rate that fills a model in the least time
        baud=4_000_000,
        vivado=True,
    )
]
