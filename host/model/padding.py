"""Padding of an image: the array takes it as weights and numbers, so all of it must be zero, and
codes of two bits must be those of a trit (docs/image-format.md).
"""

import numpy as np

from sterna.firmware.layout import TABLES
from sterna.sim.golden.errors import SternaError
from sterna.sim.golden.trits import decode_trits

NUMBER_BYTES = 3  # of the four in which an fp24 number lies
BLOCK_BYTES = 1 << 24  # of a matrix that are looked at together
TABLE_BYTES = 1 << 17  # of tables, of which more is decoded


class PaddingError(SternaError, ValueError):
    """Something that must be zero is not; the message says where."""


def check_between(data, sections, at, align):
    """PaddingError unless zeros alone are between sections, and the file ends with those behind the last one.

    Parameters
    ----------
    data : uint8 array
        The whole file.
    sections : iterable of {name, offset, bytes}
        One behind the other, all within the file.
    at : int
        Where the header ends.
    align : int
        Sections and the file end at multiples of it.
    """
    before = "the header"
    for entry in [*sorted(sections, key=lambda entry: entry["offset"]), None]:
        until = entry["offset"] if entry else -(-at // align) * align
        if until > len(data):
            raise PaddingError(f"truncated image behind {before}")
        if data[at:until].any():
            wrong = at + int(np.argmax(data[at:until] != 0))
            raise PaddingError(f"damaged image: byte {wrong} behind {before} must be 0")
        if entry:
            at, before = until + entry["bytes"], f"section {entry['name']}"
    if until != len(data):
        raise PaddingError(f"damaged image: {len(data) - until} bytes behind its end at {until}")


def unheard(begin, end):
    """Where nobody wants to know what has been checked."""


def check_embedding(shape, table, checked=unheard):
    """PaddingError for the first row of an embedding section with padding that is not zero.

    Parameters
    ----------
    shape : Layout
    table : uint8 array [V * row_bytes]
    checked : callable(begin, end)
        Told which bytes have been looked at.
    """
    head, hidden = shape.vector_bytes(1), shape.geometry.hidden_size
    padding = np.ones(shape.row_bytes, bool)
    padding[:NUMBER_BYTES] = False
    padding[head:head + hidden] = False
    rows, step = table.reshape(-1, shape.row_bytes), max(1, BLOCK_BYTES // shape.row_bytes)
    for at in range(0, len(rows), step):
        wrong = rows[at:at + step][:, padding].any(1)
        if wrong.any():
            raise PaddingError(f"damaged section embedding: the padding of row {at + int(np.argmax(wrong))} is not "
                               "zero")
        checked(at * shape.row_bytes, min(at + step, len(rows)) * shape.row_bytes)


def check_stream(shape, data, checked=unheard):
    """PaddingError for the first vector or matrix of a stream section with padding that is not zero.

    Only the edges of a matrix are decoded, so this takes a small part of the time of a checksum.

    Parameters
    ----------
    shape : Layout
    data : uint8 array [stream_bytes]
    checked : callable(begin, end)
        Told which bytes have been looked at.
    """
    inner = getattr(shape.geometry, "intermediate_size", None)
    at = 0
    for part, layer in shape.order():
        for kind, name, *size in shape.sections(part):
            if kind == "vector":
                length = shape.vector_bytes(*size)
                count = inner if name == "w_down" else size[0]
                good = _vector_is_padded(data[at:at + length], count)
            else:
                length = shape.matrix_bytes(*size)
                real = np.ones(size[0], bool) if name != "gate" else shape.gate_order % shape.inner < inner
                columns = inner if name == "down" else size[1]
                if shape.weight_code == "bit2" and not _has_trits(data[at:at + length]):
                    raise PaddingError(f"damaged section stream: {name}, layer {layer}, at byte "
                                       f"{at} holds the bits 10, which are no trit")
                good = _matrix_is_padded(shape, data[at:at + length], real, columns, size[1])
            if not good:
                raise PaddingError(f"damaged section stream: the padding of {name}, layer {layer}, "
                                   f"at byte {at} is not zero")
            checked(at, at + length)
            at += length


def check_tree(shape, data, checked=unheard):
    """PaddingError for the first record of a tree section with padding that is not zero, or bits that are no trit.

    Parameters
    ----------
    shape : Layout
    data : uint8 array [tree_bytes]
    checked : callable(begin, end)
        Told which bytes have been looked at.
    """
    size, tiles, neurons = shape.tile_bytes, shape.record_tiles, shape.geometry.neurons
    trits = shape.rows * shape.columns
    last = shape.geometry.hidden_size - (tiles - 1) * trits  # elements of a row in the last tile
    records, step = data.reshape(-1, shape.record_bytes), max(1, TABLE_BYTES // shape.record_bytes)
    for at in range(0, len(records), step):
        some = records[at:at + step]
        wrong = some[:, tiles * size:].any(1)
        wrong |= decode_trits(some[:, (tiles - 1) * size:tiles * size], trits, shape.weight_code)[:, last:].any(1)
        if shape.weight_code == "bit2" and trits % 4:  # the last byte of a tile is not full
            wrong |= (some[:, size - 1:tiles * size:size] >> 2 * (trits % 4)).any(1)
        if wrong.any():
            raise PaddingError(_of_record(at + int(np.argmax(wrong)), neurons, "has padding that is not zero"))
        if shape.weight_code == "bit2" and not _has_trits(some.reshape(-1)):
            bad = next(k for k, record in enumerate(some) if not _has_trits(record))
            raise PaddingError(_of_record(at + bad, neurons, "holds the bits 10, which are no trit"))
        checked(at * shape.record_bytes, (at + len(some)) * shape.record_bytes)


def _of_record(record, neurons, what):
    table, row = divmod(record, neurons)
    return f"damaged section tree: row {row} of {TABLES[table % 2]}, layer {table // 2}, {what}"


def _vector_is_padded(data, count):
    """Whether only the first ``count`` numbers of a vector are there, each in the lower bytes of its word."""
    words = data.reshape(-1, 4)
    return not words[:, NUMBER_BYTES:].any() and not words[count:].any()


def _has_trits(data):
    """Whether no pair of bits is 10: what the array takes for it is defined nowhere."""
    blocks = (data[at:at + BLOCK_BYTES] for at in range(0, len(data), BLOCK_BYTES))
    return not any((block >> 1 & ~block & 0x55).any() for block in blocks)


def _matrix_is_padded(shape, data, real, columns, stored_columns):
    """Whether all trits are zero in rows that are not ``real`` (bool [rows]), and from column ``columns`` on."""
    height, width, size = shape.rows, shape.columns, shape.tile_bytes
    bands, chunks = -(-len(real) // height), -(-stored_columns // width)
    tiles = data[:bands * chunks * size].reshape(bands, chunks, size)
    if data[tiles.size:].any():
        return False
    unused = height * width % 4 if shape.weight_code == "bit2" else 0  # trits in the last byte, if it is not full
    if unused and (tiles[..., -1] >> 2 * unused).any():
        return False

    def trits(part):
        """int8 [bands, rows of a tile, columns] of some bands and chunks."""
        flat = decode_trits(part.reshape(-1, size), height * width, shape.weight_code)
        return flat.reshape(*part.shape[:2], height, width).swapaxes(1, 2).reshape(len(part), height, -1)

    first = columns // width
    if first < chunks and trits(tiles[:, first:])[..., columns - first * width:].any():
        return False
    padded = np.ones(bands * height, bool)
    padded[:len(real)] = ~real
    padded = padded.reshape(bands, height)
    some = padded.any(1)
    return not some.any() or not trits(tiles[some])[padded[some]].any()
