"""Trits to bytes and back (trit5, bit2): matrices to runs of R x C tiles, and tables to records, one for each row."""

import numpy as np

_BLOCK_BYTES = 1 << 22  # trits handled at a time: more are slower, and the largest matrices would take several copies


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
# The byte of the five trits whose value, sum t_k 3^(4-k), this is modulo 256.
_TRIT5_BYTES = np.zeros(256, np.uint8)
_TRIT5_BYTES[np.arange(-121, 122)] = -(-256 * np.arange(243) // 243)
_PER_BYTE = {"trit5": 5, "bit2": 4}


def counts(trits):
    """Numbers of -1, 0 and +1 (ints) in an int8 array of trits."""
    plus, some = int(np.count_nonzero(trits > 0)), int(np.count_nonzero(trits))
    return some - plus, trits.size - some, plus


def encode_trits(tiles, code):
    """Bytes of tiles: trits int8 [n, k] to uint8 [n, k / 5] (trit5, k a multiple of 5) or [n, ceil(k / 4)] (bit2)."""
    per_byte = _PER_BYTE[code]
    if tiles.shape[1] % per_byte:
        tiles = np.pad(tiles, ((0, 0), (0, -tiles.shape[1] % per_byte)))
    parts = np.ascontiguousarray(tiles).view(np.uint8).reshape(len(tiles), -1, per_byte)
    if code == "trit5":
        value = parts[..., 0] * np.uint8(3)  # modulo 256, where -1 is 255
        for k in range(1, 4):
            value += parts[..., k]
            value *= np.uint8(3)
        value += parts[..., 4]
        return _TRIT5_BYTES[value]
    value = parts[..., 0] & np.uint8(3)
    for k in range(1, 4):
        value |= (parts[..., k] & np.uint8(3)) << np.uint8(2 * k)
    return value


def decode_trits(data, size, code):
    """Inverse of ``encode_trits``: uint8 [n, bytes] to int8 [n, size]."""
    table = _TRIT5 if code == "trit5" else _BIT2
    return np.take(table, data, axis=0).reshape(len(data), -1)[:, :size]


def _by_rows(tile_columns, code):
    """Whether a byte of a tile holds trits of one row alone: then rows are coded before they are cut into tiles."""
    return tile_columns % _PER_BYTE[code] == 0


def pack_matrix(trits, tile_rows, tile_columns, code):
    """uint8 run of the tiles of a matrix of trits int8 [rows, columns], without the padding to a port word."""
    rows, columns = trits.shape
    chunks, size = -(-columns // tile_columns), tile_rows * tile_columns
    tile_bytes = -(-size // _PER_BYTE[code])
    bands = -(-rows // tile_rows)
    out = np.empty((bands, chunks * tile_bytes), np.uint8)
    step = max(1, _BLOCK_BYTES // (size * chunks))
    for first in range(0, bands, step):
        block = trits[first * tile_rows:(first + step) * tile_rows]
        missing = -len(block) % tile_rows, chunks * tile_columns - columns
        if any(missing):
            block = np.pad(block, ((0, missing[0]), (0, missing[1])))
        if by_rows := _by_rows(tile_columns, code):
            block = encode_trits(block, code)
        tiles = block.reshape(-1, tile_rows, chunks, block.shape[1] // chunks).swapaxes(1, 2)
        if not by_rows:
            tiles = encode_trits(tiles.reshape(-1, size), code)
        out[first:first + step] = tiles.reshape(-1, chunks * tile_bytes)
    return out.reshape(-1)


def unpack_matrix(data, rows, columns, tile_rows, tile_columns, code):
    """Inverse of ``pack_matrix``: int8 [rows, columns]; ``data`` may be longer than the run."""
    chunks, size = -(-columns // tile_columns), tile_rows * tile_columns
    tile_bytes = -(-size // _PER_BYTE[code])
    bands = -(-rows // tile_rows)
    out = np.empty((rows, columns), np.int8)
    step = max(1, _BLOCK_BYTES // (chunks * size))
    for first in range(0, bands, step):
        last = min(first + step, bands)
        run = data[first * chunks * tile_bytes:last * chunks * tile_bytes]
        to = out[first * tile_rows:last * tile_rows]
        if by_rows := _by_rows(tile_columns, code):
            tiles = run.reshape(last - first, chunks, tile_rows, tile_bytes // tile_rows)
        else:
            trits = decode_trits(run.reshape(-1, tile_bytes), size, code)
            tiles = trits.reshape(last - first, chunks, tile_rows, tile_columns)
        block = tiles.swapaxes(1, 2).reshape((last - first) * tile_rows, -1)[:len(to)]
        to[:] = decode_trits(block, columns, code) if by_rows else block[:, :columns]
    return out


def pack_records(trits, tile_trits, record_bytes, code):
    """uint8 [rows, record_bytes]: a record of whole tiles for each row of trits int8 [rows, columns]."""
    rows, columns = trits.shape
    tiles = -(-columns // tile_trits)
    used = tiles * -(-tile_trits // _PER_BYTE[code])
    out = np.zeros((rows, record_bytes), np.uint8)
    step = max(1, _BLOCK_BYTES // (tiles * tile_trits))
    for at in range(0, rows, step):
        block = np.pad(trits[at:at + step], ((0, 0), (0, tiles * tile_trits - columns)))
        out[at:at + step, :used] = encode_trits(block.reshape(-1, tile_trits), code).reshape(len(block), used)
    return out


def unpack_records(records, columns, tile_trits, code):
    """Inverse of ``pack_records``: uint8 [rows, record_bytes] to int8 [rows, columns]."""
    tiles = -(-columns // tile_trits)
    tile_bytes = -(-tile_trits // _PER_BYTE[code])
    out = np.empty((len(records), columns), np.int8)
    step = max(1, _BLOCK_BYTES // (tiles * tile_trits))
    for at in range(0, len(records), step):
        run = np.ascontiguousarray(records[at:at + step, :tiles * tile_bytes])
        trits = decode_trits(run.reshape(-1, tile_bytes), tile_trits, code)
        out[at:at + step] = trits.reshape(len(run), -1)[:, :columns]
    return out
