"""State files: a run that was stopped, to go on later on any device that holds the same model."""

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from itertools import chain
from pathlib import Path
from weakref import WeakKeyDictionary

import numpy as np
from crc32c import crc32c
from safetensors.numpy import save

from sterna.host.errors import HostError
from sterna.sim.golden import fp24, tensorfile
from sterna.sim.golden.files import write_file
from sterna.sim.golden.strictjson import short

VERSION = "1"
_hashes = WeakKeyDictionary()


class StateError(HostError):
    """A state file that cannot be used."""


@dataclass(frozen=True)
class State:
    """Where a text stands.

    Attributes
    ----------
    values : float64 array [L, H]
        The recurrent state, fp24 values, after the first ``position`` tokens have been read.
    tokens : list of int
        The whole text; the last token is not read yet, so there are ``position + 1`` of them.
    model : Model, PackedModel or None
        Whose state it is, where that is known.
    """

    values: np.ndarray
    tokens: list
    model: object = field(default=None, compare=False, repr=False)

    @property
    def position(self):
        """Number of tokens that the state has read."""
        return len(self.tokens) - 1

    def fits(self, model):
        """Whether it is one of a Model, as far as that is known (bool); hashes are computed for another object alone.
        """
        return self.model in (None, model) or model_hash(_packed(self.model)) == model_hash(model.packed)


def _packed(model):
    return getattr(model, "packed", model)


def model_hash(packed):
    """Hex SHA-256 of everything that a PackedModel computes with; the same for every tiling of it.

    It is computed once for each: a large model is unpacked as a whole for it.
    """
    if packed not in _hashes:
        _hashes[packed] = _hash(packed)
    return _hashes[packed]


def _hash(packed):
    digest = hashlib.sha256(json.dumps(asdict(packed.geometry), sort_keys=True).encode())
    parts = chain([packed], packed.layers)  # one layer after the other: those of a large model are not kept
    for part in parts:
        for one in fields(part):
            if one.name not in ("geometry", "layers"):
                digest.update(one.name.encode())
                digest.update(np.ascontiguousarray(getattr(part, one.name)))
    return digest.hexdigest()


def save_state(path, state, packed):
    """Write a state file; it is there only when it is whole. StateError if it cannot be written."""
    bits, tokens = fp24.to_bits(state.values).astype("<u4"), np.array(state.tokens, "<i4")
    data = save({"state": bits, "tokens": tokens},
                metadata={"format": "sterna-state", "version": VERSION, "model": model_hash(packed),
                          "sum": _sum(bits, tokens)})
    try:
        write_file(path, data)
    except OSError as error:
        raise StateError(f"cannot write the state file {path}: {error.strerror}: give --save-state another place") \
            from None


def _sum(bits, tokens):
    """CRC-32C of a state file's contents, as hex."""
    return f"{crc32c(tokens.tobytes(), crc32c(bits.tobytes())):08x}"


def load_state(path, packed, checked=False):
    """The State in a file.

    Parameters
    ----------
    path : str or Path
    packed : PackedModel
    checked : bool
        Refuse a file without a sum too, as older versions have written it.

    Raises
    ------
    StateError
        The file cannot be read, is no state file, is damaged, or belongs to another model.
    """
    path = Path(path)
    try:
        entries, metadata, _ = tensorfile.scan(path, {"U32": 4, "I32": 4})
    except OSError as error:
        raise StateError(f"cannot read the state file {path}: {error.strerror}") from None
    except tensorfile.TensorFileError:
        raise StateError(f"{path} is no state file, or a damaged one: give one that --save-state has written") \
            from None
    if metadata.get("format") != "sterna-state" or set(entries) != {"state", "tokens"}:
        raise StateError(f"{path} is no state file: give one that --save-state has written")
    if metadata.get("version") != VERSION:
        raise StateError(f"{path} is a state file of version {short(metadata.get('version'))}, this program "
                         f"reads {VERSION}")
    if metadata.get("model") != model_hash(packed):
        raise StateError(f"{path} belongs to another model: give the model that it was saved with")
    shape = (packed.geometry.num_hidden_layers, packed.geometry.hidden_size)
    state, tokens = entries["state"], entries["tokens"]
    damaged = StateError(f"{path} is damaged: its state or tokens do not fit the model")
    if (state.shape, state.kind, tokens.kind) != (shape, "U32", "I32") or len(tokens.shape) != 1 or not tokens.count:
        raise damaged
    try:
        bits, ids = state.read("<u4").reshape(shape), tokens.read("<i4")
    except (OSError, ValueError) as error:
        raise StateError(f"cannot read the state file {path}: {error}") from None
    told = metadata.get("sum", None if checked else _sum(bits, ids))
    if told != _sum(bits, ids) or (bits >> 24).any() or ((ids < 0) | (ids >= packed.geometry.vocab_size)).any():
        raise damaged
    return State(fp24.from_bits(bits), ids.tolist(), packed)
