"""Boards: one file each, with pins, clocks and a configuration; `simulated` is the one of the compiled harness."""

from sterna.hw.boards import ulx3s

BOARDS = {board.name: board for module in (ulx3s,) for board in module.BOARDS}
