"""Safetensors files: where the tensors are, with every field of the header checked before anything is read."""

import math
import stat
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sterna.sim.golden import strictjson
from sterna.sim.golden.errors import SternaError

HEADER_BYTES = 1 << 23  # at most; a tensor takes some 130 bytes, and as JSON many times its text's memory


class TensorFileError(SternaError, ValueError):
    """A file that is no safetensors file, or a damaged one; the message does not name it."""


@dataclass(frozen=True)
class Entry:
    """A tensor in a file: ``count`` numbers of ``kind`` (F32, BF16 ...) at byte ``offset``."""

    path: Path
    offset: int
    shape: tuple
    kind: str

    @property
    def count(self):
        """Numbers in the tensor (int)."""
        return math.prod(self.shape)

    def read(self, dtype):
        """The numbers as a flat array of a NumPy ``dtype``; TensorFileError if the file has become shorter."""
        data = np.fromfile(self.path, dtype, self.count, offset=self.offset)
        if len(data) != self.count:
            raise TensorFileError("cut short while it was read")
        return data


def _natural(value):
    return type(value) is int and value >= 0


def _check_cover(spans, begin, size):
    """TensorFileError unless {name: (begin, end)} cover the bytes from ``begin`` to the end of the file, each once.

    A gap means that somebody inserted or removed bytes: then tensors are read from the wrong places.
    """
    at, before = begin, "the header"
    for name, (first, end) in sorted(spans.items(), key=lambda item: item[1]):
        if first != at:
            what = f"shares bytes with {before}" if first < at else f"leaves {first - at} bytes behind {before}"
            raise TensorFileError(f"tensor {strictjson.short(name)} at byte {first} {what}, which "
                                  f"ends at {at}: the file is damaged: download it again")
        at, before = end, f"tensor {strictjson.short(name)}"
    if at != size:
        raise TensorFileError(f"{size - at} bytes behind {before}, which ends at {at}: the file is "
                              "damaged: download it again")


def _check_length(entries, room):
    """TensorFileError if tensors end beyond the ``room`` behind the header: the file has not come to its end."""
    ends = [entry["data_offsets"][-1] for entry in entries if isinstance(entry, dict)
            and isinstance(entry.get("data_offsets"), list) and entry["data_offsets"]]
    longest = max((end for end in ends if _natural(end) and end < 1 << 48), default=0)
    if longest > room:
        raise TensorFileError(f"damaged or not loaded to its end: {longest - room:,} bytes are missing behind "
                              f"{room:,} of its tensors: download it again")


def scan(path, kinds):
    """The tensors of a file.

    Parameters
    ----------
    path : Path
    kinds : dict of str to int
        The types of numbers that are allowed, and their bytes.

    Returns
    -------
    entries : dict of str to Entry
        They cover the bytes behind the header, each once, so together they take no more memory than the file is long.
    metadata : dict of str to str
    size_bytes : int
        Of the file.

    Raises
    ------
    TensorFileError
    OSError
    """
    damaged = TensorFileError("damaged or not a safetensors file: download it again")
    about = path.stat()
    if not stat.S_ISREG(about.st_mode):  # opening a FIFO may never end
        raise TensorFileError("no regular file")
    size = about.st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if length > size - 8:
            raise damaged
        if length > HEADER_BYTES:
            raise TensorFileError(f"its header has {length:,} bytes, and at most {HEADER_BYTES:,} are read: download "
                                  "it again")
        try:
            header = strictjson.parse(file.read(length))
        except strictjson.JsonError:
            raise damaged from None
    if not isinstance(header, dict):
        raise damaged
    metadata = header.pop("__metadata__", {})
    entries, room = {}, size - 8 - length
    _check_length(header.values(), room)
    for name, entry in header.items():
        if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= set(entry):
            raise damaged
        kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(kind, str) or kind not in kinds:
            raise TensorFileError(f"tensor {strictjson.short(name)} has type {strictjson.short(kind)}: use "
                                  + " or ".join(kinds))
        if not isinstance(shape, list) or not all(_natural(n) and n < 1 << 48 for n in shape) or len(shape) > 8 \
                or not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_natural, offsets)):
            raise damaged
        begin, end = offsets
        if not begin <= end <= room or end - begin != math.prod(shape) * kinds[kind]:
            raise damaged
        entries[name] = Entry(path, 8 + length + begin, tuple(shape), kind)
    spans = {n: (e.offset, e.offset + e.count * kinds[e.kind]) for n, e in entries.items()}
    _check_cover(spans, 8 + length, size)
    return entries, metadata if isinstance(metadata, dict) else {}, size
