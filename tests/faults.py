"""A transport that damages what passes through it, with a seeded generator."""

import os
import random

SEED = int(os.environ.get("STERNA_SEED", "1"))


class FaultyTransport:
    """Wraps a transport; each direction suffers from bytes changed, lost and doubled, from bursts of lost bytes, and
    from frames lost, doubled, cut short and sent in another order.

    Parameters
    ----------
    inner : transport
    seed : int
    corrupt, drop, duplicate : float
        Chance per byte.
    burst : float
        Chance per byte that up to 600 bytes from it on are lost.
    drop_frame, duplicate_frame, truncate_frame : float
        Chance per frame, a frame being what ends with 0x00.
    reorder_frame : float
        Chance per frame that it comes behind the next one, or behind what comes later if there is none yet.

    Each kind comes for the first time within the first ``1 / chance`` bytes or frames, so that how a reader's bytes
    happen to be cut up does not decide whether a test has any. ``faults`` counts what was done.
    """

    def __init__(self, inner, seed, *, corrupt=0.0, drop=0.0, duplicate=0.0, burst=0.0, drop_frame=0.0,
                 duplicate_frame=0.0, truncate_frame=0.0, reorder_frame=0.0):
        self.inner = inner
        self.random = random.Random(seed)
        self.rates = {"corrupt": corrupt, "drop": drop, "duplicate": duplicate, "burst": burst,
                      "drop frame": drop_frame, "duplicate frame": duplicate_frame,
                      "truncate frame": truncate_frame, "reorder frame": reorder_frame}
        self._first = {kind: self.random.randrange(int(1 / rate)) for kind, rate in self.rates.items() if rate}
        self.faults = 0
        self._late = {True: b"", False: b""}  # a frame kept back, by direction
        self._lost = {True: 0, False: 0}  # bytes of a burst still to be lost

    name = property(lambda self: self.inner.name)
    baud = property(lambda self: self.inner.baud)

    def write(self, data):
        self.inner.write(self.damage(data, True))

    def read(self, timeout_s):
        return self.damage(self.inner.read(timeout_s), False)

    def close(self):
        self.inner.close()

    def _hit(self, kind):
        hit = self.random.random() < self.rates[kind]
        if kind in self._first:
            self._first[kind] -= 1
            hit = hit or self._first[kind] < 0
            if hit:
                del self._first[kind]
        self.faults += hit
        return hit

    def damage(self, data, to_device):
        """``data`` (bytes) after the faults."""
        result = bytearray()
        for byte in self._frames(data, to_device):
            if self._lost[to_device]:
                self._lost[to_device] -= 1
                continue
            if self._hit("drop"):
                continue
            if self._hit("burst"):
                self._lost[to_device] = self.random.randrange(600)
                continue
            if self._hit("corrupt"):
                byte ^= 1 << self.random.randrange(8)
            result += bytes((byte,)) * (2 if self._hit("duplicate") else 1)
        return bytes(result)

    def _frames(self, data, to_device):
        *frames, rest = bytes(data).split(b"\0")
        out = bytearray()
        for frame in [f + b"\0" for f in frames] + [rest]:
            if self._hit("drop frame"):
                continue
            if len(frame) > 1 and self._hit("truncate frame"):
                frame = frame[:self.random.randrange(1, len(frame))]
            frame *= 2 if self._hit("duplicate frame") else 1
            if frame.endswith(b"\0") and not self._late[to_device] and self._hit("reorder frame"):
                self._late[to_device] = frame
                continue
            out += frame
            if frame.endswith(b"\0"):
                out += self._late[to_device]
                self._late[to_device] = b""
        return out
