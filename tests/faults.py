"""A transport that damages what passes through it, with a seeded generator."""

import os
import random

SEED = int(os.environ.get("STERNA_SEED", "1"))


class FaultyTransport:
    """Wraps a transport; each direction suffers from bytes changed, lost and doubled, and frames lost, doubled and
    cut short.

    Parameters
    ----------
    inner : transport
    seed : int
    corrupt, drop, duplicate : float
        Chance per byte.
    drop_frame, duplicate_frame, truncate_frame : float
        Chance per frame, a frame being what ends with 0x00.

    ``faults`` counts what was done.
    """

    def __init__(self, inner, seed, *, corrupt=0.0, drop=0.0, duplicate=0.0, drop_frame=0.0, duplicate_frame=0.0,
                 truncate_frame=0.0):
        self.inner = inner
        self.random = random.Random(seed)
        self.rates = (corrupt, drop, duplicate)
        self.frame_rates = (drop_frame, duplicate_frame, truncate_frame)
        self.faults = 0

    name = property(lambda self: self.inner.name)
    baud = property(lambda self: self.inner.baud)

    def write(self, data):
        self.inner.write(self.damage(data))

    def read(self, timeout_s):
        return self.damage(self.inner.read(timeout_s))

    def close(self):
        self.inner.close()

    def _hit(self, rate):
        hit = self.random.random() < rate
        self.faults += hit
        return hit

    def damage(self, data):
        """``data`` (bytes) after the faults."""
        corrupt, drop, duplicate = self.rates
        drop_frame, duplicate_frame, truncate_frame = self.frame_rates
        *frames, rest = bytes(data).split(b"\0")
        out = bytearray()
        for frame in [f + b"\0" for f in frames] + [rest]:
            if self._hit(drop_frame):
                continue
            if len(frame) > 1 and self._hit(truncate_frame):
                frame = frame[:self.random.randrange(1, len(frame))]
            out += frame * (2 if self._hit(duplicate_frame) else 1)
        result = bytearray()
        for byte in out:
            if self._hit(drop):
                continue
            if self._hit(corrupt):
                byte ^= 1 << self.random.randrange(8)
            result += bytes((byte,)) * (2 if self._hit(duplicate) else 1)
        return bytes(result)
