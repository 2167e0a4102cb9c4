"""ULX3S of Radiona: a Lattice ECP5 with 32 or 64 MB of SDR SDRAM, its serial line through an FTDI
FT231X.

The chips are the slowest ones that these boards are sold with (AS4C16M16SA-7, IS42S16160G-7,
W9825G6KH-6 ...). A build for 32 MB works with 64, too.
"""

from dataclasses import replace

from sterna.hw.boards.board import Board
from sterna.hw.config import Config

# Walks of trees take block RAM for what a walk remembers and for the sums of its gather, some 14
# more than the rest: too much for the 56 of a 25F, which is also in the 12F.
TREE_ROWS = {"85f": 1024, "45f": 1024, "25f": 0, "12f": 0}
# The chip gives 2 bytes at 125 MHz, which is 3 per cycle at 83.3 MHz or 15 trits: the array takes
# 20, so that it catches up with what was read while it waited.
CONFIG = Config(
    name="ulx3s",
    rows=1,
    columns=20,
    lanes=1,
    port_bytes=4,
    memory_bytes=32 << 20,
    sdram="AS4C16M16SA-7",
    clock_hz=83_333_333,
    memory_hz=125_000_000,
    vector_words=4096,
    activation_words=512,
    strip=16,
    top_k=64,
    fifo_words=2048,
    row_words=64,
    credits=16,
)


def _board(size, suffix="", **changes):
    return Board(
        config=replace(CONFIG, name=f"ulx3s-{size}{suffix}", tree_rows=TREE_ROWS[size], **changes),
        platform=f"amaranth_boards.ulx3s:ULX3S_{size.upper()}_Platform",
        top="sterna.hw.boards.ecp5:SdramTop",
        programmer=("--board", "ulx3s"),
        # Or the ESP32 on the board may take the FPGA for its own
        tied_high=(("esp32", 0, "gpio0"),),
    )


BOARDS = [
    *map(_board, ("85f", "45f", "25f", "12f")),
    _board("85f", "-64m", sdram="AS4C32M16SB-7", memory_bytes=64 << 20),
]
