"""Files mapped into memory, of which no more is held than is in use."""

import mmap

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
        self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.data = np.frombuffer(self._map, np.uint8)

    def release(self, begin, end):
        """Gives back the pages that hold some bytes: they come again if they are read again."""
        first = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE
        if end > first and hasattr(self._map, "madvise"):
            self._map.madvise(mmap.MADV_DONTNEED, first, end - first)
