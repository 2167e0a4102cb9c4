"""Trits and scales of every matrix, counted in the bytes of a stream without unpacking it."""

import numpy as np

from sterna.sim.golden import fp24
from sterna.sim.golden.trits import counts, decode_trits

PIECE_BYTES = 1 << 16  # counted together: more are slower


def _trits_of_bytes(code):
    """[-1, +1] trits in a byte of each value (int64 [256, 2])."""
    per_byte = 5 if code == "trit5" else 4
    each = decode_trits(np.arange(256, dtype=np.uint8)[:, None], per_byte, code)
    return np.array([[minus, plus] for minus, _, plus in map(counts, each)])


def counted(shape, stream, read=lambda name, begin, end: None):
    """{matrix: [-1, 0, +1, scale]} of a checked stream; padding is of zeros, which are not counted.

    Parameters
    ----------
    shape : Layout
    stream : uint8 array
    read : callable(section, begin, end)
        Told when bytes of the stream have been read.
    """
    trits, geometry = _trits_of_bytes(shape.weight_code), shape.geometry
    inner = geometry.intermediate_size
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
            histogram = np.zeros(256, np.int64)
            for begin in range(at, at + tiles, PIECE_BYTES):
                histogram += np.bincount(stream[begin:min(begin + PIECE_BYTES, at + tiles)], minlength=256)
            minus, plus = (int(n) for n in histogram @ trits)
            rows, columns = 2 * inner if name == "gate" else size[0], inner if name == "down" else size[1]
            found[prefix + name] = [minus, rows * columns - minus - plus, plus]
            at += shape.matrix_bytes(*size)
            read("stream", at - shape.matrix_bytes(*size), at)
    return {name: [*found[name], scales[name]] for name in found}
