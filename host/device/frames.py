"""Frames of the link (docs/protocol.md): their bytes, and a decoder of a stream of bytes."""

from dataclasses import dataclass

import crc32c
from cobs import cobs

from sterna.hw.protocol import (
    DELIMITER,
    HASH_UNIT_BYTES,
    HIGH_BITS,
    HIGH_LSB,
    MAX_FRAME_BYTES,
    OVERHEAD_BYTES,
    Kind,
)
from sterna.sim.golden.errors import SternaError


class FrameError(SternaError, ValueError):
    """A frame with a broken code, a wrong length or a wrong checksum."""


@dataclass(frozen=True)
class Frame:
    """One frame; ``length`` counts the bytes of ``data``, or for READ and ACK the bytes asked for and written; for
    HASH, units of 64 bytes. ``address`` has 36 bits in a request, and the low 32 of these in its reply.
    """

    kind: int
    sequence: int
    address: int
    length: int
    data: bytes = b""

    def encode(self):
        """The frame as it is sent: checksum, COBS code and delimiter added (bytes)."""
        high, low = divmod(self.address, 1 << 32)
        header = bytes((self.kind | high << HIGH_LSB, self.sequence)) + low.to_bytes(4, "little")
        header += bytes((self.length,))
        body = header + self.data
        return cobs.encode(body + crc32c.crc32c(body).to_bytes(4, "little")) + DELIMITER

    @classmethod
    def decode(cls, code):
        """The frame in ``code``, COBS bytes without the delimiter; FrameError if it is damaged."""
        try:
            decoded = cobs.decode(code)
        except cobs.DecodeError as error:
            raise FrameError(f"broken code: {error}") from None
        if not OVERHEAD_BYTES <= len(decoded) <= MAX_FRAME_BYTES:
            raise FrameError(f"{len(decoded)} bytes: a frame has {OVERHEAD_BYTES} to {MAX_FRAME_BYTES}")
        body, checksum = decoded[:-4], int.from_bytes(decoded[-4:], "little")
        if crc32c.crc32c(body) != checksum:
            raise FrameError(f"checksum {checksum:08x} instead of {crc32c.crc32c(body):08x}")
        kind, high = body[0], 0
        if kind < Kind.DATA & 0x80:  # a request
            high = kind >> HIGH_LSB & (1 << HIGH_BITS) - 1
            kind &= (1 << HIGH_LSB) - 1
        return cls(kind, body[1], int.from_bytes(body[2:6], "little") | high << 32, body[6], body[7:])

    @classmethod
    def read(cls, sequence, address, length):
        """READ of ``length`` bytes, a multiple of 4 from 4 to 224."""
        return cls(Kind.READ, sequence, address, length)

    @classmethod
    def write(cls, sequence, address, data):
        """WRITE of ``data``, a multiple of 4 from 4 to 224 bytes."""
        return cls(Kind.WRITE, sequence, address, len(data), bytes(data))

    @classmethod
    def hash(cls, sequence, address, n_bytes):
        """HASH of ``n_bytes``, a multiple of 256 from 256 to 14336."""
        return cls(Kind.HASH, sequence, address, n_bytes // HASH_UNIT_BYTES)

    @classmethod
    def simulated(cls, ahead):
        """SIMULATED: what a simulated board sends first; ``ahead`` hosts have it before this one."""
        return cls(Kind.SIMULATED, 0, 0, 4, ahead.to_bytes(4, "little"))

    @property
    def word(self):
        """The data as one little-endian number."""
        return int.from_bytes(self.data, "little")


class FrameDecoder:
    """Cuts a byte stream into frames.

    Attributes
    ----------
    frames_bad : int
        Damaged frames dropped so far.
    """

    def __init__(self):
        self._part = bytearray()
        self._overlong = False
        self.frames_bad = 0

    def feed(self, received):
        """The undamaged frames that ``received`` (bytes) completes, in order (list of Frame)."""
        frames = []
        *complete, rest = bytes(received).split(DELIMITER)
        for piece in complete:
            self._take(piece)
            if self._part:
                try:
                    if self._overlong:
                        raise FrameError("overlong")
                    frames.append(Frame.decode(bytes(self._part)))
                except FrameError:
                    self.frames_bad += 1
            self._part.clear()
            self._overlong = False
        self._take(rest)
        return frames

    def _take(self, piece):
        room = 2 * MAX_FRAME_BYTES - len(self._part)  # a line that sends no delimiter must not fill the memory
        self._overlong |= len(piece) > room
        self._part += piece[:max(room, 0)]
