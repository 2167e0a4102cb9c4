"""States behind texts that have been read, so that a text that begins in the same way need not be read again."""

import os
import threading
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from stat import S_ISREG

import numpy as np

from sterna.host.runtime.state import State, StateError, load_state, model_hash, save_state
from sterna.sim.golden import fp24

PIECE = 32  # tokens: where texts part is looked for at multiples of these, and less is read again
SEEN = 1 << 16  # such places that are remembered
ON_DISK = 16  # times as many bytes as in memory
_MODULUS, _BASE = (1 << 61) - 1, 1_000_003
_SUFFIX, _HEADER = ".state", 4096  # a file has so many bytes besides its state and tokens, at most


def prefix_hashes(tokens):
    """Hashes (list of int) of the first 0, 1, ... tokens; equal ones are compared token by token."""
    return list(accumulate(tokens, lambda value, token: (value * _BASE + token + 1) % _MODULUS, initial=1))


@dataclass(frozen=True)
class _Entry:
    tokens: np.ndarray  # int32, those that have been read
    bits: np.ndarray  # uint32 [L, H]

    @property
    def size_bytes(self):
        return self.tokens.nbytes + self.bits.nbytes


class StateCache:
    """States by the tokens that they have read; of those that do not fit the longest unused go. Thread-safe.

    With a folder, what goes, and at ``close`` all, is written there as state files with the model's hash and a sum,
    and taken from there again; the folder holds ON_DISK times as much. A file that is damaged or of another model is
    none. Its names are hashes; nothing of a text is in them. Several processes may share the folder: each counts the
    bytes that it knows of, and a file that another one has removed is none.

    Parameters
    ----------
    packed : PackedModel
        Whose states they are.
    limit_bytes : int
        Of the memory; 0 keeps nothing.
    folder : str or Path, optional
    tell : callable(str)
        Takes a line about a file that is of no use.
    """

    def __init__(self, packed, limit_bytes, folder=None, tell=lambda line: None):
        self._packed, self.limit_bytes, self._tell = packed, limit_bytes, tell
        self._entries, self._seen = OrderedDict(), OrderedDict()  # the latest last
        self._files, self._disk_bytes = OrderedDict(), 0  # (size, path) by hash
        self._lock = threading.RLock()
        self.size_bytes = 0
        self._folder = Path(folder) if folder is not None and limit_bytes else None
        if self._folder:
            self._name = model_hash(packed)[:16]
            self._open()

    def __len__(self):
        return len(self._entries)

    def begin(self, tokens):
        """What there is of a text that is about to be read.

        Parameters
        ----------
        tokens : list of int

        Returns
        -------
        state : State or None
            Behind the longest beginning of which one is there; it leaves at least the last of ``tokens`` to be read,
            and its own last token is that of this text.
        parting : int
            How far the text is as others before it, in whole pieces; it counts as one of these from now on.
        """
        if not self.limit_bytes:
            return None, 0
        hashes = prefix_hashes(tokens)
        with self._lock:
            return self._longest(tokens, hashes), self._parting(hashes)

    def find(self, tokens):
        """The State of a text whose last token has not been read, or None."""
        if not self.limit_bytes:
            return None
        with self._lock:
            found = self._longest(tokens, prefix_hashes(tokens), len(tokens) - 1)
        return found

    def _longest(self, tokens, hashes, least=1):
        for position in range(len(tokens) - 1, least - 1, -1):
            key = hashes[position]
            if key in self._entries or key in self._files and self._load(key):
                entry = self._entries[key]
                if len(entry.tokens) == position and entry.tokens.tolist() == list(tokens[:position]):
                    self._entries.move_to_end(key)
                    return State(fp24.from_bits(entry.bits), list(tokens[:position + 1]))
        return None

    def _parting(self, hashes):
        known = 0
        for position in range(PIECE, len(hashes) - 1, PIECE):
            if hashes[position] in self._seen:
                known = position
            self._seen[hashes[position]] = None
            self._seen.move_to_end(hashes[position])
        while len(self._seen) > SEEN:
            self._seen.popitem(last=False)
        return known

    def add(self, state):
        """Keep a State, if it has read anything."""
        if not self.limit_bytes or state.position < 1:
            return
        entry = _Entry(np.array(state.tokens[:-1], np.int32), fp24.to_bits(state.values).astype(np.uint32))
        if entry.size_bytes > self.limit_bytes:
            return
        with self._lock:
            self._put(prefix_hashes(state.tokens[:-1])[-1], entry)

    def close(self):
        """Writes what is in memory into the folder, if there is one."""
        with self._lock:
            if self._folder:
                for key, entry in self._entries.items():
                    self._save(key, entry)
            self._entries.clear()
            self.size_bytes = 0

    def _put(self, key, entry):
        old = self._entries.pop(key, None)
        self.size_bytes += entry.size_bytes - (old.size_bytes if old else 0)
        self._entries[key] = entry
        while self.size_bytes > self.limit_bytes:
            oldest, gone = self._entries.popitem(last=False)
            self.size_bytes -= gone.size_bytes
            if self._folder:
                self._save(oldest, gone)

    # On disk

    def _open(self):
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # the tokens of texts are in the files
            found = []
            for entry in os.scandir(self._folder):
                number = entry.name.removeprefix(self._name + "-").removesuffix(_SUFFIX)
                if entry.name == self._file(number) and len(number) == 16 and set(number) <= set("0123456789abcdef"):
                    with suppress(FileNotFoundError):  # another process has removed it meanwhile
                        status = entry.stat()
                        if not S_ISREG(status.st_mode):
                            continue
                        found += [(status.st_mtime_ns, int(number, 16), status.st_size, Path(entry.path))]
            for _, *file in sorted(found):
                self._count(*file)
        except OSError as error:
            raise StateError(f"cannot use the folder of states {self._folder}: {error.strerror}: give another one") \
                from None

    def _file(self, number):
        return f"{self._name}-{number}{_SUFFIX}"

    def _count(self, key, size, path):
        self._disk_bytes += size - self._files.pop(key, (0, None))[0]
        self._files[key] = size, path
        while self._disk_bytes > ON_DISK * self.limit_bytes and len(self._files) > 1:
            self._remove(next(iter(self._files)))

    def _remove(self, key):
        size, path = self._files.pop(key)
        self._disk_bytes -= size
        path.unlink(missing_ok=True)

    def _save(self, key, entry):
        path = self._folder / self._file(f"{key:016x}")
        if key in self._files and path.exists():
            return
        try:
            # The token behind those that were read belongs to no text: the last one stands for it.
            save_state(path, State(fp24.from_bits(entry.bits), [*entry.tokens.tolist(), int(entry.tokens[-1])]),
                       self._packed)
            self._count(key, path.stat().st_size, path)
        except (StateError, OSError) as error:
            self._tell(f"a state was not kept: {error}")

    def _load(self, key):
        """Takes a state from its file into memory; whether it was whole (bool)."""
        size, path = self._files[key]
        if size > self.limit_bytes + _HEADER:  # it would not be kept
            return False
        try:
            state = load_state(path, self._packed, checked=True)
            if state.position < 1 or prefix_hashes(state.tokens[:-1])[-1] != key:
                raise StateError(f"{path} is damaged: its tokens are not those of its name")
        except StateError as error:
            self._tell(f"a state is read anew: {error}")
            try:
                self._remove(key)
            except OSError:
                self._files.pop(key, None)
            return False
        entry = _Entry(np.array(state.tokens[:-1], np.int32), fp24.to_bits(state.values).astype(np.uint32))
        if entry.size_bytes > self.limit_bytes:
            return False
        self._put(key, entry)
        return True
