"""Trits and scales of every matrix, counted in the bytes of the sections without unpacking them."""

import numpy as np

from sterna.firmware.layout import TABLES
from sterna.sim.golden import fp24
from sterna.sim.golden.trits import counts, decode_trits

PIECE_BYTES = 1 << 16  # counted together: more are slower


def _trits_of_bytes(code):
    """[-1, +1] trits in a byte of each value (int64 [256, 2])."""
    per_byte = 5 if code == "trit5" else 4
    each = decode_trits(np.arange(256, dtype=np.uint8)[:, None], per_byte, code)
    return np.array([[minus, plus] for minus, _, plus in map(counts, each)])


def _signs(data, trits):
    """(-1, +1) trits (ints) in bytes, ``trits`` of each value."""
    histogram = np.zeros(256, np.int64)
    for at in range(0, len(data), PIECE_BYTES):
        histogram += np.bincount(data[at:at + PIECE_BYTES], minlength=256)
    return (int(n) for n in histogram @ trits)


def _in_tables(shape, tables, trits, read):
    """{matrix: [-1, 0, +1]} of the section of trees."""
    geometry, found, size = shape.geometry, {}, shape.table_bytes
    names = [f"{layer}.{name}" for layer in range(geometry.num_hidden_layers) for name in TABLES]
    used = shape.record_tiles * shape.tile_bytes
    step = max(1, PIECE_BYTES // shape.record_bytes)
    for k, name in enumerate(names):
        records, minus, plus = tables[k * size:(k + 1) * size].reshape(-1, shape.record_bytes), 0, 0
        for at in range(0, len(records), step):
            fewer, more = _signs(records[at:at + step, :used].reshape(-1), trits)
            minus, plus = minus + fewer, plus + more
        found[name] = [minus, geometry.neurons * geometry.hidden_size - minus - plus, plus]
        read("tree", k * size, (k + 1) * size)
    return found


def counted(shape, sections, read=lambda name, begin, end: None):
    """{matrix: [-1, 0, +1, scale]} of checked sections; padding is of zeros, which are not counted.

    Parameters
    ----------
    shape : Layout
    sections : dict of str to uint8 array
        "stream", and of a model with trees "tree".
    read : callable(section, begin, end)
        Told when bytes of a section have been read.
    """
    trits, geometry, stream = _trits_of_bytes(shape.weight_code), shape.geometry, sections["stream"]
    inner = getattr(geometry, "intermediate_size", None)
    found, scales, at = {}, {}, 0
    for part, number in shape.order():
        for kind, name, *size in shape.sections(part):
            prefix = "" if part in ("head", "end") else f"{number}."
            if kind == "vector":
                if name.startswith("ws_"):
                    scales[prefix + name[3:]] = float(fp24.from_bits(stream[at:at + 4].copy().view("<u4"))[0])
                at += shape.vector_bytes(*size)
                continue
            tiles = -(-size[0] // shape.rows) * -(-size[1] // shape.columns) * shape.tile_bytes
            minus, plus = _signs(stream[at:at + tiles], trits)
            rows, columns = 2 * inner if name == "gate" else size[0], inner if name == "down" else size[1]
            found[prefix + name] = [minus, rows * columns - minus - plus, plus]
            at += shape.matrix_bytes(*size)
            read("stream", at - shape.matrix_bytes(*size), at)
    if shape.tree_bytes:
        found |= _in_tables(shape, sections["tree"], trits, read)
    return {name: [*found[name], scales[name]] for name in found}
