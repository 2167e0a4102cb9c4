"""Files mapped into memory, of which no more is held than is in use."""

import mmap
import os
import weakref

import numpy as np


class Mapping:
    """A file that is only read.

    Parameters
    ----------
    file : file object
        With a descriptor; it may be closed afterwards.

    Attributes
    ----------
    data : uint8 array
        All of it.
    """

    def __init__(self, file):
        self._handle = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._handle)
        self._stamp = self._now()
        self._map = mmap.mmap(self._handle, 0, access=mmap.ACCESS_READ)
        self.data = np.frombuffer(self._map, np.uint8)

    def _now(self):
        found = os.fstat(self._handle)
        return found.st_size, found.st_mtime_ns

    @property
    def changed(self):
        """Whether the file has been written since it was mapped: what was checked is not what is read now."""
        return self._now() != self._stamp

    def release(self, begin, end):
        """Gives back the pages that hold some bytes: they come again if they are read again."""
        first = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE
        if end > first and hasattr(self._map, "madvise"):
            self._map.madvise(mmap.MADV_DONTNEED, first, end - first)
