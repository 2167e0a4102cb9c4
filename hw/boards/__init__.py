"""Boards: one file each, with pins, clocks and a configuration; `simulated` is the one of the compiled harness."""

from sterna.hw.boards import icebreaker, icepi_zero, ulx3s
from sterna.hw.boards.board import Board, load
from sterna.hw.config import ConfigError

BOARDS = {board.name: board for module in (ulx3s, icepi_zero, icebreaker) for board in module.BOARDS}


def find_board(name):
    """The Board called ``name``, or that of "module:NAME".

    Raises
    ------
    ConfigError
        There is no such board.
    """
    if name in BOARDS:
        return BOARDS[name]
    board = load(name) if ":" in name else None
    if not isinstance(board, Board):
        raise ConfigError(f"unknown board {name!r}: use one of {', '.join(BOARDS)}, or module:NAME of a Board")
    return board
