"""Requests for the memory of a device, cut into frames and sent as fast as its credits allow (docs/protocol.md)."""

from contextlib import contextmanager

from sterna.host.device.frames import Frame
from sterna.host.device.window import RequestWindow
from sterna.hw import protocol

CHUNK_BYTES = protocol.MAX_DATA_BYTES


class Link:
    """What every device answers.

    Parameters
    ----------
    transport : object with name, baud, read(timeout_s), write(data), close()
        See ``sterna.host.device.transport``.
    timeout_s : float
        Seconds without a reply to a request, or a TOKEN frame, after which the device counts as gone.
    retry_s : float or None
        Seconds after which a request is sent again; None: as ``RequestWindow`` finds right for the transport.
    tell : callable(str)
        Takes a line for the user where something takes long.
    """

    def __init__(self, transport, timeout_s, retry_s, tell=lambda line: None):
        self.transport = transport
        self.name = transport.name
        self._window = RequestWindow(transport, timeout_s, retry_s, tell)

    @property
    def simulated(self):
        """Whether a simulated board has said that it is one (bool): its cycles take no time of a clock."""
        return self._window.simulated

    @property
    def requests_repeated(self):
        """Requests that were sent again since the device was opened (int)."""
        return self._window.requests_repeated

    def read(self, address, n_bytes, progress=None):
        """``n_bytes`` from ``address``, both multiples of 4 (bytes); calls ``progress(done, total)`` in bytes."""
        self._aligned(address, n_bytes)
        chunks = [(k, min(CHUNK_BYTES, n_bytes - k)) for k in range(0, n_bytes, CHUNK_BYTES)]
        parts = [b""] * len(chunks)
        done = 0

        def answered(index, reply):
            nonlocal done
            parts[index] = reply.data
            done += len(reply.data)
            if progress:
                progress(done, n_bytes)

        self._window.exchange((lambda s, k=k, n=n: Frame.read(s, address + k, n) for k, n in chunks), answered)
        return b"".join(parts)

    def write(self, address, data, progress=None):
        """``data`` (bytes-like) to ``address``, address and length multiples of 4; ``progress`` as for ``read``."""
        data = memoryview(data).cast("B")
        self._aligned(address, len(data))
        done = 0

        def answered(index, reply):
            nonlocal done
            done += reply.length
            if progress:
                progress(done, len(data))

        self._window.exchange((lambda s, k=k: Frame.write(s, address + k, data[k:k + CHUNK_BYTES])
                               for k in range(0, len(data), CHUNK_BYTES)), answered)

    def exchange(self, frames, answered):
        """Requests of any kind; see ``RequestWindow.exchange``."""
        self._window.exchange(frames, answered)

    @contextmanager
    def at_once(self, requests):
        """Within it at most so many requests are unanswered at a time (int)."""
        kept, self._window.size = self._window.size, min(requests, self._window.size)
        try:
            yield
        finally:
            self._window.size = kept

    @staticmethod
    def _aligned(address, n_bytes):
        if address % 4 or n_bytes % 4 or n_bytes < 0 or not 0 <= address <= (1 << 32) - n_bytes:
            raise ValueError(f"address {address:#x}, {n_bytes} bytes: both must be multiples of 4 within 32 bits")

    def wait_token(self, wait_s, slot=0):
        """The next TOKEN frame of a slot as (position, token), waiting up to ``wait_s``; None if none came."""
        return self._window.wait_token(wait_s, slot)

    def wait_any(self, wait_s, slots):
        """Waits up to ``wait_s`` until a TOKEN frame of one of the slots is there for ``wait_token``."""
        self._window.wait_any(wait_s, slots)

    def forget_tokens(self, slot=0):
        """Drops TOKEN frames of earlier runs of a slot."""
        self._window.forget_tokens(slot)

    def close(self):
        """Closes the transport."""
        self.transport.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
