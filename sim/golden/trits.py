"""Trits to bytes and back (trit5, bit2), and matrices to runs of R x C tiles. Exact inverses of each other."""

import numpy as np

_BLOCK_BYTES = 1 << 24  # trits handled at a time: the largest matrices would take several copies otherwise
_POWERS = np.array([81, 27, 9, 3, 1], np.uint8)


def _trit5_table():
    table = np.zeros((256, 5), np.int8)
    left = np.arange(256)
    for k in range(5):
        product = 3 * left
        table[:, k] = (product >> 8) - 1
        left = product & 255
    return table


_TRIT5 = _trit5_table()
_BIT2 = np.array([[(0, 1, 0, -1)[byte >> 2 * k & 3] for k in range(4)] for byte in range(256)], np.int8)


def encode_trits(tiles, code):
    """Bytes of tiles: trits int8 [n, k] to uint8 [n, k / 5] (trit5, k a multiple of 5) or [n, ceil(k / 4)] (bit2)."""
    count, size = tiles.shape
    if code == "trit5":
        value = ((tiles + 1).astype(np.uint8).reshape(count, size // 5, 5) * _POWERS).sum(2, dtype=np.uint16)
        return ((value.astype(np.uint32) * 256 + 242) // 243).astype(np.uint8)
    padded = np.pad(tiles, ((0, 0), (0, -size % 4))).astype(np.uint8) & 3
    return (padded.reshape(count, -1, 4) << np.array([0, 2, 4, 6], np.uint8)).sum(2, dtype=np.uint8)


def decode_trits(data, size, code):
    """Inverse of ``encode_trits``: uint8 [n, bytes] to int8 [n, size]."""
    return (_TRIT5 if code == "trit5" else _BIT2)[data].reshape(len(data), -1)[:, :size]


def pack_matrix(trits, tile_rows, tile_columns, code):
    """uint8 run of the tiles of a matrix of trits int8 [rows, columns], without the padding to a port word."""
    rows, columns = trits.shape
    chunks = -(-columns // tile_columns)
    step = max(1, _BLOCK_BYTES // (tile_rows * chunks * tile_columns)) * tile_rows
    out = []
    for first in range(0, rows, step):
        block = trits[first:first + step]
        block = np.pad(block, ((0, -len(block) % tile_rows), (0, chunks * tile_columns - columns)))
        tiles = block.reshape(-1, tile_rows, chunks, tile_columns).swapaxes(1, 2)
        out.append(encode_trits(tiles.reshape(-1, tile_rows * tile_columns), code).reshape(-1))
    return np.concatenate(out)


def unpack_matrix(data, rows, columns, tile_rows, tile_columns, code):
    """Inverse of ``pack_matrix``: int8 [rows, columns]; ``data`` may be longer than the run."""
    chunks, size = -(-columns // tile_columns), tile_rows * tile_columns
    tile_bytes = size // 5 if code == "trit5" else -(-size // 4)
    bands = -(-rows // tile_rows)
    out = np.empty((rows, columns), np.int8)
    step = max(1, _BLOCK_BYTES // (chunks * size))
    for first in range(0, bands, step):
        last = min(first + step, bands)
        run = data[first * chunks * tile_bytes:last * chunks * tile_bytes].reshape(-1, tile_bytes)
        tiles = decode_trits(run, size, code).reshape(last - first, chunks, tile_rows, tile_columns)
        block = tiles.swapaxes(1, 2).reshape((last - first) * tile_rows, chunks * tile_columns)
        out[first * tile_rows:last * tile_rows] = block[:min(rows, last * tile_rows) - first * tile_rows, :columns]
    return out
