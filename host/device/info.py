"""What a device tells about itself: the first registers of its block (docs/protocol.md, "Registers")."""

from dataclasses import dataclass

from sterna.firmware.layout import check_tiling
from sterna.host.errors import HostError
from sterna.hw import protocol
from sterna.hw.config import ENGINES
from sterna.hw.protocol import Register


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
    tree_rows: int = 0
    engines: int = 1
    memory_hz: int = 0
    register_bits: int = 32

    @property
    def word_bytes(self):
        """As of ``sterna.hw.config.Config``."""
        return self.port_bytes * self.engines

    @classmethod
    def parse(cls, block, name="the device"):
        """From the first 0x30 bytes of the register block; ProtocolError if magic or versions differ."""
        if len(block) < protocol.HELLO_BYTES:
            raise ProtocolError(f"{name} sent {len(block)} bytes of its register block instead of "
                                f"{protocol.HELLO_BYTES}")
        value = {r: int.from_bytes(block[r:r + 4], "little") for r in Register if r < protocol.HELLO_BYTES}
        if value[Register.MAGIC] != protocol.MAGIC:
            raise ProtocolError(f"{name} is no Sterna device: magic 0x{value[Register.MAGIC]:08x} instead of "
                                f"0x{protocol.MAGIC:08x}; check the port, or program the board")
        theirs = dict(zip(protocol.VERSIONS, value[Register.VERSIONS].to_bytes(4, "little")))
        for what, version in theirs.items():
            if version != protocol.VERSIONS[what]:
                raise ProtocolError(f"{name} has {what} version {version} and this software has "
                                    f"{protocol.VERSIONS[what]}: "
                                    + ("update this software" if version > protocol.VERSIONS[what] else
                                       "rebuild the bitstream and program the board again"))
        low = {r: v & 0xFFFF for r, v in value.items()}
        high = {r: v >> 16 for r, v in value.items()}
        lanes, batch, codes, credits = value[Register.LANES].to_bytes(4, "little")
        code, register_bits = codes & 3, codes >> 2
        if register_bits not in protocol.REGISTER_BITS:
            raise ProtocolError(f"{name} reports registers of {register_bits} bits: use a build with "
                                f"{protocol.REGISTER_BITS[0]} to {protocol.REGISTER_BITS[-1]}")
        if not credits or not low[Register.PORT_BYTES] or not high[Register.ACTIVATION_WORDS]:
            raise ProtocolError(f"{name} reports {credits} credits, a port of {low[Register.PORT_BYTES]} bytes and "
                                f"a ring of {high[Register.ACTIVATION_WORDS]} tokens: none may be 0; "
                                "rebuild the bitstream")
        if (engines := high[Register.TREE] + 1) not in ENGINES:
            raise ProtocolError(f"{name} reports {engines} engines: use a build with "
                                f"{', '.join(map(str, ENGINES))}")
        rows = value[Register.LIST] & 0xFF
        if batch not in protocol.BATCHES or rows > protocol.MOST_ROWS:
            raise ProtocolError(f"{name} reports {batch} slots and a list of {rows} rows: use a build with "
                                f"{', '.join(map(str, protocol.BATCHES))} slots and at most "
                                f"{protocol.MOST_ROWS} rows")
        info = cls(
            rows=low[Register.ARRAY], columns=high[Register.ARRAY], lanes=lanes, batch=batch,
            weight_code=protocol.WEIGHT_CODES[code & 1], memory=protocol.MEMORIES[code >> 1], credits=credits,
            port_bytes=low[Register.PORT_BYTES], strip=high[Register.PORT_BYTES],
            memory_bytes=value[Register.MEMORY_UNITS] * protocol.MEMORY_UNIT_BYTES,
            vector_words=low[Register.VECTOR_WORDS], program_words=high[Register.VECTOR_WORDS],
            activation_words=low[Register.ACTIVATION_WORDS], ring=high[Register.ACTIVATION_WORDS],
            clock_hz=value[Register.CLOCK_HZ], build=value[Register.BUILD], top_k=rows,
            tree_rows=low[Register.TREE], engines=engines,
            memory_hz=(value[Register.LIST] >> 8) * 1000, register_bits=register_bits)
        try:
            check_tiling(info.to_tiling())
        except ValueError as error:
            raise ProtocolError(f"{name} reports an array that cannot be: {error}; rebuild the bitstream") from None
        return info

    def pack(self):
        """The first 0x30 bytes of the register block of such a device (bytes)."""
        code = protocol.WEIGHT_CODES.index(self.weight_code) | protocol.MEMORIES.index(self.memory) << 1
        words = (protocol.MAGIC, protocol.version_word(), self.rows | self.columns << 16,
                 self.lanes | self.batch << 8 | code << 16 | self.register_bits << 18 | self.credits << 24,
                 self.port_bytes | self.strip << 16,
                 self.memory_bytes // protocol.MEMORY_UNIT_BYTES, self.vector_words | self.program_words << 16,
                 self.activation_words | self.ring << 16, self.clock_hz, self.build,
                 self.top_k | self.memory_hz // 1000 << 8, self.tree_rows | self.engines - 1 << 16)
        return b"".join(word.to_bytes(4, "little") for word in words)

    def to_tiling(self):
        """The entry ``tiling`` of an image's header that this device can run (dict, docs/image-format.md)."""
        return {"rows": self.rows, "columns": self.columns, "lanes": self.lanes, "port_bytes": self.port_bytes,
                "strip": self.strip, "weight_code": self.weight_code}
