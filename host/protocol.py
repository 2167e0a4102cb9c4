"""Addresses, registers and the register block of a device (docs/protocol.md). No input or output happens here.

The names of ``sterna.host.frames`` are among those of this module.
"""

from dataclasses import dataclass
from enum import IntEnum

from sterna.host.errors import HostError
from sterna.host.frames import (DELIMITER, HASH_UNIT_BYTES, MAX_DATA_BYTES, MAX_FRAME_BYTES,  # noqa: F401
                                MAX_HASH_BYTES, OVERHEAD_BYTES, Frame, FrameDecoder, FrameError, hash_, read,
                                simulated, write)
from sterna.host.tiling import check_tiling
from sterna.hw.config import BATCHES, VERSIONS, Kind  # noqa: F401

NAK_REASONS = {1: "unknown type or length", 2: "address"}

MEMORY = 0x00000000
PROGRAM = 0x80000000
REGISTERS = 0x90000000
SCALARS = 0xA0000000
RING = 0xB0000000
MAGIC = 0x4E525453  # "STRN"
NEVER = 0xFFFFFFFF  # `start` and `stop` registers: no position, no token


class Register(IntEnum):
    """Byte offsets in the register block."""

    MAGIC = 0x00
    VERSIONS = 0x04
    ARRAY = 0x08
    LANES = 0x0C
    PORT_BYTES = 0x10
    MEMORY_BYTES = 0x14
    VECTOR_WORDS = 0x18
    ACTIVATION_WORDS = 0x1C
    CLOCK_HZ = 0x20
    BUILD = 0x24
    LIST = 0x28
    CONTROL = 0x40
    STATUS = 0x44
    POSITION = 0x48
    START = 0x4C
    LIMIT = 0x50
    PROMPT_END = 0x54
    SEED = 0x58
    FLAGS = 0x5C
    STOP = 0x60
    TOP = 0x64
    DRAFT_END = 0x68
    SOURCE = 0x6C


HELLO_BYTES = 0x2C
REGISTERS_PER_SLOT, SCALARS_PER_SLOT = 0x100, 0x80  # bytes
MOST_SLOTS, MOST_ROWS = max(BATCHES), 64  # of any build
WEIGHT_CODES, MEMORIES = ("trit5", "bit2"), ("external", "onchip")  # bits 16 and 17 of the register lanes
COUNTERS = 0x80
COUNTER_NAMES = ("cycles", "port_busy", "array_busy", "stall_stream", "stall_rows", "stall_idle", "refresh", "runs",
                 "frames_bad", "frames_lost", "line_errors", "port_full", "port_empty")
CONTROL_RUN = 1
CONTROL_RESET = 2
STATUS_RUNNING = 1
FLAG_SAMPLE = 1
FLAG_CHAINED = 2
FAULTS = {1: "instruction"}


def register_address(register, slot=0):
    """Address of a register of a slot by its offset."""
    return REGISTERS + REGISTERS_PER_SLOT * slot + register


def scalar_address(number, slot=0):
    """Address of a scalar register of a slot."""
    return SCALARS + SCALARS_PER_SLOT * slot + 4 * number


def program_bytes(words):
    """Contents of the program memory: instructions of 96 bits (sequence of int), each in 16 bytes (bytes)."""
    return b"".join(int(word).to_bytes(16, "little") for word in words)


def scalar_writes(values, slot=0):
    """Generator of (address, bytes) that sets scalar registers of a slot: {number: bits of an fp24 number}."""
    for number, bits in values.items():
        yield scalar_address(number, slot), int(bits).to_bytes(4, "little")


def ring_address(position, ring, slot=0):
    """Address of the token of a position in a slot's ring of ``ring`` entries."""
    return RING + 4 * (slot * ring + position % ring)


class ProtocolError(HostError):
    """The device speaks another protocol, or is no Sterna device."""


@dataclass(frozen=True)
class DeviceInfo:
    """Build parameters that the device tells about itself (docs/protocol.md, "Registers").

    ``vector_words`` counts words per bank, ``activation_words`` words per buffer, ``ring`` the entries of the token
    ring, ``build`` is the hash of the configuration; the other fields are named as in ``sterna.hw.config.Config``.
    """

    rows: int
    columns: int
    lanes: int
    batch: int
    weight_code: str
    credits: int
    port_bytes: int
    strip: int
    memory_bytes: int
    vector_words: int
    program_words: int
    activation_words: int
    ring: int
    clock_hz: int
    build: int
    memory: str = "external"
    top_k: int = 0
    memory_hz: int = 0

    @classmethod
    def parse(cls, block, name="the device"):
        """From the first 0x2C bytes of the register block; ProtocolError if magic or versions differ."""
        if len(block) < HELLO_BYTES:
            raise ProtocolError(f"{name} sent {len(block)} bytes of its register block instead of {HELLO_BYTES}")
        value = {r: int.from_bytes(block[r:r + 4], "little") for r in Register if r < HELLO_BYTES}
        if value[Register.MAGIC] != MAGIC:
            raise ProtocolError(f"{name} is no Sterna device: magic 0x{value[Register.MAGIC]:08x} instead of "
                                f"0x{MAGIC:08x}; check the port, or program the board")
        theirs = dict(zip(("protocol", "isa", "numerics", "image"), value[Register.VERSIONS].to_bytes(4, "little")))
        for what, version in theirs.items():
            if version != VERSIONS[what]:
                raise ProtocolError(f"{name} has {what} version {version} and this software has {VERSIONS[what]}: "
                                    + ("update this software" if version > VERSIONS[what] else
                                       "rebuild the bitstream and program the board again"))
        low = {r: v & 0xFFFF for r, v in value.items()}
        high = {r: v >> 16 for r, v in value.items()}
        lanes, batch, code, credits = value[Register.LANES].to_bytes(4, "little")
        if code > 3:
            raise ProtocolError(f"{name} has the unknown weight code or memory {code}: update this software")
        if not credits or not low[Register.PORT_BYTES] or not high[Register.ACTIVATION_WORDS]:
            raise ProtocolError(f"{name} reports {credits} credits, a port of {low[Register.PORT_BYTES]} bytes and "
                                f"a ring of {high[Register.ACTIVATION_WORDS]} tokens: none may be 0; "
                                "rebuild the bitstream")
        rows = value[Register.LIST] & 0xFF
        if batch not in BATCHES or rows > MOST_ROWS:
            raise ProtocolError(f"{name} reports {batch} slots and a list of {rows} rows: use a build with "
                                f"{', '.join(map(str, BATCHES))} slots and at most {MOST_ROWS} rows")
        info = cls(
            rows=low[Register.ARRAY], columns=high[Register.ARRAY], lanes=lanes, batch=batch,
            weight_code=WEIGHT_CODES[code & 1], memory=MEMORIES[code >> 1], credits=credits,
            port_bytes=low[Register.PORT_BYTES], strip=high[Register.PORT_BYTES],
            memory_bytes=value[Register.MEMORY_BYTES],
            vector_words=low[Register.VECTOR_WORDS], program_words=high[Register.VECTOR_WORDS],
            activation_words=low[Register.ACTIVATION_WORDS], ring=high[Register.ACTIVATION_WORDS],
            clock_hz=value[Register.CLOCK_HZ], build=value[Register.BUILD], top_k=rows,
            memory_hz=(value[Register.LIST] >> 8) * 1000)
        try:
            check_tiling(info.to_tiling())
        except ValueError as error:
            raise ProtocolError(f"{name} reports an array that cannot be: {error}; rebuild the bitstream") from None
        return info

    def pack(self):
        """The first 0x2C bytes of the register block of such a device (bytes)."""
        versions = sum(VERSIONS[name] << 8 * k for k, name in enumerate(("protocol", "isa", "numerics", "image")))
        code = WEIGHT_CODES.index(self.weight_code) | MEMORIES.index(self.memory) << 1
        words = (MAGIC, versions, self.rows | self.columns << 16,
                 self.lanes | self.batch << 8 | code << 16 | self.credits << 24, self.port_bytes | self.strip << 16,
                 self.memory_bytes, self.vector_words | self.program_words << 16,
                 self.activation_words | self.ring << 16, self.clock_hz, self.build,
                 self.top_k | self.memory_hz // 1000 << 8)
        return b"".join(word.to_bytes(4, "little") for word in words)

    def to_tiling(self):
        """The entry ``tiling`` of an image's header that this device can run (dict, docs/image-format.md)."""
        return {"rows": self.rows, "columns": self.columns, "lanes": self.lanes, "port_bytes": self.port_bytes,
                "strip": self.strip, "weight_code": self.weight_code}
