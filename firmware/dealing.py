"""How a packed model is dealt to several engines: a permutation of an image's bytes, with padding (docs/scaling.md).

Word w of the memory is word w // K of engine w % K. So the words of a vector, which lie behind each other, are dealt
to the engines one by one, and a matrix lies there as the words of its parts in turn. An image is for every K.
"""

import numpy as np

from sterna.firmware.layout import share, up


def deal_matrix(data, rows, shape, columns):
    """The tiles of a matrix as the engines of a layout have them.

    Parameters
    ----------
    data : uint8 array
        Its tiles for one engine; it may be longer.
    rows, columns : int
    shape : Layout

    Returns
    -------
    uint8 array
        ``shape.matrix_bytes(rows, columns)`` bytes: part k is every K-th word from word k on. What no row stands for
        is zero.
    """
    engines, port = shape.engines, shape.port_bytes
    band = -(-columns // shape.columns) * shape.tile_bytes  # of a row of tiles
    bands, unit = -(-rows // shape.rows), shape.unit // shape.rows
    bands_each = -(-share(rows, shape.unit, engines) // shape.rows)
    words = up(bands_each * band, port) // port
    out = np.zeros((words, engines, port), np.uint8)
    tiles = np.zeros((up(bands_each, unit) * engines, band), np.uint8)
    tiles[:bands] = data[:bands * band].reshape(bands, band)
    dealt = tiles.reshape(-1, engines, unit, band)
    for k in range(engines):
        part = dealt[:, k].reshape(-1)[:bands_each * band]
        part = np.pad(part, (0, words * port - len(part)))
        out[:, k] = part.reshape(words, port)
    return out.reshape(-1)


def gather_matrix(data, rows, shape, columns):
    """Inverse of ``deal_matrix``: the tiles for one engine, without padding behind them (uint8 array)."""
    engines, port = shape.engines, shape.port_bytes
    band = -(-columns // shape.columns) * shape.tile_bytes
    bands, unit = -(-rows // shape.rows), shape.unit // shape.rows
    bands_each = -(-share(rows, shape.unit, engines) // shape.rows)
    words = up(bands_each * band, port) // port
    parts = data[:words * engines * port].reshape(words, engines, port)
    tiles = np.zeros((up(bands_each, unit), engines, band), np.uint8)
    for k in range(engines):
        tiles[:bands_each, k] = parts[:, k].reshape(-1)[:bands_each * band].reshape(bands_each, band)
    dealt = tiles.reshape(-1, unit, engines, band).swapaxes(1, 2)
    return np.ascontiguousarray(dealt).reshape(-1)[:bands * band]


def deal_embedding(data, source, target):
    """The embedding rows of a layout for one engine as those of a layout for more (uint8 array)."""
    rows = data[:len(data) // source.row_bytes * source.row_bytes].reshape(-1, source.row_bytes)
    out = np.zeros((len(rows), target.row_bytes), np.uint8)
    scale, head = source.vector_bytes(1), target.vector_bytes(1)
    codes = source.row_bytes - scale
    out[:, :scale] = rows[:, :scale]
    out[:, head:head + codes] = rows[:, scale:]
    return out.reshape(-1)


def deal_stream(data, source, target):
    """The stream of a layout for one engine as that of a layout for more (uint8 array)."""
    out = np.zeros(target.stream_bytes, np.uint8)
    at = to = 0
    for part, _ in source.order():
        for kind, _, *size in source.sections(part):
            if kind == "vector":
                length, place = source.vector_bytes(*size), target.vector_bytes(*size)
                out[to:to + length] = data[at:at + length]
            else:
                length, place = source.matrix_bytes(*size), target.matrix_bytes(*size)
                out[to:to + place] = deal_matrix(data[at:at + length], size[0], target, size[1])
            at, to = at + length, to + place
    return out


DEALT = {"embedding": deal_embedding, "stream": deal_stream}  # by the section of an image


def dealt(name, data, source, target):
    """Bytes of a section of an image (uint8 array) for a device with more engines; for one ``data`` itself."""
    return data if target.engines == 1 else DEALT[name](data, source, target)
