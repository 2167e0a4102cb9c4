"""Walks of the interpreter's machine (docs/isa.md, "Walks"): which records they read, and what comes of them."""

from dataclasses import dataclass

import numpy as np

from sterna.sim.golden.trits import unpack_matrix
from sterna.sim.machine.errors import MachineError


@dataclass(frozen=True)
class Records:
    """A descriptor of the kinds walk and gather: the records of visited rows of the table at a word of the memory.

    Attributes
    ----------
    walk : bool
        Kind walk, otherwise gather.
    first, words : int
        The table's first word, and the words of a record.
    trees, levels, always : int
    active : bool [B]
        Slots whose records are read.
    """

    walk: bool
    first: int
    words: int
    trees: int
    levels: int
    always: int
    active: np.ndarray

    @property
    def nodes(self):
        return (1 << self.levels) - 1

    @property
    def rows(self):
        """N, visited rows of a slot."""
        return self.always + self.trees * self.levels

    @property
    def end(self):
        """The word behind the table."""
        return self.first + (self.always + self.trees * self.nodes) * self.words


@dataclass(frozen=True)
class Table:
    """The records of a table in memory, as trits.

    Attributes
    ----------
    config : hw.config.Config
    records : Records
        With the table inside the memory.
    memory : uint8 array
    chunks : int
        Tiles of a record.
    length : int
        H, elements of a row; those behind them in the tiles are dropped, and must be zero.
    """

    config: object
    records: Records
    memory: np.ndarray
    chunks: int
    length: int

    def rows(self, places):
        """int8 [n, H]: rows of the records ``places`` [n]. MachineError: a record has further trits."""
        config, records = self.config, self.records
        tile = config.rows * config.columns  # of one row, in natural order
        starts = (records.first + places * records.words) * config.port_bytes
        data = self.memory[starts[:, None] + np.arange(self.chunks * config.tile_bytes)]
        trits = unpack_matrix(data.reshape(-1), len(places), self.chunks * tile, 1, tile, config.weight_code)
        if trits[:, self.length:].any():
            raise MachineError(f"a record has trits behind its {self.length}")
        return trits[:, :self.length]


def walk(table, codes):
    """The sums of the visited rows, and their places.

    Parameters
    ----------
    table : Table
    codes : int8 [B, H or more]

    Returns
    -------
    sums, places : int64 [B, N]
        Zero for a slot without a token.
    """
    r = table.records
    sums, places = np.zeros((2, len(codes), r.rows), np.int64)
    for slot in np.flatnonzero(r.active):
        code = codes[slot, :table.length].astype(np.int64)
        places[slot, :r.always] = np.arange(r.always)
        sums[slot, :r.always] = table.rows(places[slot, :r.always]) @ code
        node = np.zeros(r.trees, np.int64)
        for level in range(r.levels):
            here = slice(r.always + level * r.trees, r.always + (level + 1) * r.trees)
            places[slot, here] = r.always + np.arange(r.trees) * r.nodes + node
            sums[slot, here] = table.rows(places[slot, here]) @ code
            node = 2 * node + 1 + (sums[slot, here] > 0)
    return sums, places


def gather(table, codes, places):
    """Sums int64 [B, H] of the records ``places`` [B, N], each times its code [B, N]; else as ``walk``."""
    sums = np.zeros((len(codes), table.length), np.int64)
    for slot in np.flatnonzero(table.records.active):
        sums[slot] = codes[slot].astype(np.int64) @ table.rows(places[slot])
    return sums
