"""iCEBreaker of 1BitSquared: a Lattice iCE40 UP5K with 128 KB of SPRAM, 16 MB of flash and an FTDI
FT2232H.
"""

from dataclasses import replace

from sterna.hw.boards.board import Board
from sterna.hw.presets import PRESETS
from sterna.hw.protocol import FLASH_OFFSET

BOARDS = [
    Board(
        config=replace(PRESETS["up5k"], name="icebreaker"),
        platform="amaranth_boards.icebreaker:ICEBreakerPlatform",
        top="sterna.hw.boards.ice40:SpramTop",
        programmer=("--board", "ice40_generic"),
        flash_offset=FLASH_OFFSET,
    )
]
