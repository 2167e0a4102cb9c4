"""Writes safetensors files tensor by tensor, in one file or in shards with an index."""

import json
import math
import os

KIND, KIND_BYTES = "BF16", 2
INDEX = "model.safetensors.index.json"


def split(tensors, count):
    """The tensors in ``count`` parts of about the same size, in order (list of list of (name, shape)).

    Parameters
    ----------
    tensors : sequence of (str, tuple of int)
    count : int
        From 1 to the number of tensors.
    """
    parts, room = [[]], 0
    left = sum(size_bytes(shape) for _, shape in tensors)
    room = left / count
    for number, (name, shape) in enumerate(tensors):
        full = sum(size_bytes(s) for _, s in parts[-1]) >= room
        needed = count - len(parts) == len(tensors) - number  # one tensor for each part to come
        if parts[-1] and len(parts) < count and (full or needed):
            left -= sum(size_bytes(s) for _, s in parts[-1])
            room = left / (count - len(parts))
            parts.append([])
        parts[-1].append((name, shape))
    return parts


def size_bytes(shape):
    """Bytes of a tensor (int)."""
    return math.prod(shape) * KIND_BYTES


def header(tensors):
    """The bytes in front of the tensors of a file, which lie behind it in the order given."""
    entries, at = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in tensors:
        end = at + size_bytes(shape)
        entries[name] = {"dtype": KIND, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def write_tensors(folder, tensors, blocks, shards=1, advance=lambda count: None):
    """Write model.safetensors, or its shards and their index, into a folder.

    Parameters
    ----------
    folder : Path
    tensors : sequence of (str, tuple of int)
        Names and shapes.
    blocks : callable(name, shape)
        Yields the bits of a tensor in order, as uint16 arrays.
    shards : int
        Files.
    advance : callable(int)
        Told how many bytes have been written since it was last called.

    Raises
    ------
    OSError
    """
    places, total = {}, 0
    for number, part in enumerate(split(tensors, shards), 1):
        name = "model.safetensors" if shards == 1 else f"model-{number:05}-of-{shards:05}.safetensors"
        part = sorted(part)  # as the format's own library orders tensors of one type
        with (folder / name).open("wb") as file:
            file.write(header(part))
            for tensor, shape in part:
                for block in blocks(tensor, shape):
                    file.write(block.astype("<u2", copy=False).data)
                    advance(block.nbytes)
                places[tensor] = name
                total += size_bytes(shape)
            file.flush()
            os.fsync(file.fileno())  # some file systems say only now that they are full
    if shards > 1:
        text = json.dumps({"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}, indent=2)
        (folder / INDEX).write_text(text + "\n")
