"""Boards: one file each, with pins, clocks and a configuration; and the configurations by name."""

from dataclasses import asdict, replace

from sterna.hw.boards import ecpix5, icebreaker, icepi_zero, kv260, ulx3s
from sterna.hw.boards.board import Board, load
from sterna.hw.config import ConfigError
from sterna.hw.presets import PRESETS

BOARDS = {
    board.name: board
    for module in (ulx3s, icepi_zero, ecpix5, icebreaker, kv260)
    for board in module.BOARDS
}


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
        raise ConfigError(
            f"unknown board {name!r}: use one of {', '.join(BOARDS)}, or module:NAME of a Board"
        )
    return board


def preset(name):
    """The preset or board called ``name``, with other parameters if they follow:
    "lanes40,batch=4,top_k=16".

    Raises
    ------
    ConfigError
        There is no such preset or board, no such parameter of integers, or the value does not fit.
    """
    base, *changes = name.split(",")
    known = PRESETS | {board.name: board.config for board in BOARDS.values()}
    if base not in known:
        raise ConfigError(f"unknown preset {base!r}: use one of {', '.join(known)}")
    config = known[base]
    values = {field: value for field, value in asdict(config).items() if type(value) is int}
    for change in changes:
        field, equals, text = change.partition("=")
        if field not in values or not equals:
            raise ConfigError(
                f"preset {name!r}: {change!r} changes nothing: use PARAMETER=NUMBER with one of "
                f"{', '.join(values)}"
            )
        if not (text.isascii() and text.isdigit()):
            raise ConfigError(f"preset {name!r}: {field} is {text!r}: use a number")
        values[field] = int(text)
    return replace(config, name=name, **values) if changes else config
