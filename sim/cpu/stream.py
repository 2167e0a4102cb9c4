"""How fast this machine reads its memory, when nothing else is to be done: what a CPU's share is a share of."""

import ctypes
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from sterna.sim.cpu.build import kernels

LANES = 64  # words that the kernel takes at a time, STREAM_LANES of stream.h
LEAST_BYTES = 1 << 27  # that a measurement reads, so that it lasts some milliseconds


class Stream:
    """A buffer that is read, each thread its own part, as a model's weights are for a token.

    Parameters
    ----------
    size_bytes : int
        More than the caches hold, or as much as what it stands for. Rounded down to whole lanes of every thread.
    threads : int

    Raises
    ------
    ToolError
        No compiler, as of ``build.kernels``.
    """

    def __init__(self, size_bytes, threads):
        self._function = kernels().sterna_stream
        self._function.restype = ctypes.c_uint64
        self._function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
        count = max(1, size_bytes // (8 * LANES * threads)) * LANES
        self._words = np.arange(count * threads, dtype=np.uint64)  # written: pages of their own
        self._parts = self._words.reshape(threads, count)
        self._times = -(-LEAST_BYTES // self._words.nbytes)
        self._pool = ThreadPoolExecutor(threads)
        self.size_bytes = self._words.nbytes

    def close(self):
        """Ends the threads."""
        self._pool.shutdown()

    def sums(self):
        """The sum of each thread's words modulo 2^64 (list of int)."""
        return list(self._pool.map(self._read, self._parts))

    def _read(self, part):
        return self._function(part.ctypes.data, part.size, self._times)

    def rate(self):
        """Bytes a second of one measurement (float)."""
        started = time.perf_counter()
        self.sums()
        return self.size_bytes * self._times / (time.perf_counter() - started)


def best_rate(size_bytes, threads, seconds=0.5):
    """The best rate (bytes a second) of as many measurements as begin within some seconds, three at least."""
    stream = Stream(size_bytes, threads)
    try:
        ends, rates = time.perf_counter() + seconds, []
        while len(rates) < 3 or time.perf_counter() < ends:
            rates.append(stream.rate())
    finally:
        stream.close()
    return max(rates)
