"""What gateware, interpreter and host agree on (docs/protocol.md): versions, addresses, registers,
frames.

Nothing of it stands anywhere else.
"""

from enum import IntEnum

# In the order of their bytes in Register.VERSIONS
VERSIONS = {"protocol": 8, "isa": 5, "numerics": 4, "image": 2}
MAGIC = 0x4E525453  # "STRN"
BATCHES = (1, 2, 4, 8)  # slots that builds may have
MOST_SLOTS, MOST_ROWS = max(BATCHES), 64  # of any build
# Bits 16 and 17 of Register.LANES
WEIGHT_CODES, MEMORIES = ("trit5", "bit2"), ("external", "onchip")

# Regions of the address space, told apart by the four upper bits; everything below PROGRAM is model
# memory.
PROGRAM = 0x80000000
REGISTERS = 0x90000000
SCALARS = 0xA0000000
RING = 0xB0000000
REGION_BIT = 28
# An address has 36 bits. Those with the uppermost one are bytes of the model memory, all of it in
# one piece: what lies behind the first 2 GiB has no other address.
FLAT = 1 << 35
HIGH_LSB, HIGH_BITS = 3, 4  # of address bits 35:32 in the type byte of a request
MEMORY_UNIT_BYTES = 64  # what Register.MEMORY_UNITS counts
REGISTERS_PER_SLOT, SCALARS_PER_SLOT = 0x100, 0x80  # bytes


class Register(IntEnum):
    """Byte offsets in the register block of a slot."""

    MAGIC = 0x00
    VERSIONS = 0x04
    ARRAY = 0x08
    LANES = 0x0C
    PORT_BYTES = 0x10
    MEMORY_UNITS = 0x14
    VECTOR_WORDS = 0x18
    ACTIVATION_WORDS = 0x1C
    CLOCK_HZ = 0x20
    BUILD = 0x24
    LIST = 0x28
    TREE = 0x2C
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


HELLO_BYTES = 0x30  # of the block, which tell what the build is
RUN_OFFSET, RUN_BYTES = 0x40, 0x40  # registers of the run control
NEVER = 0xFFFFFFFF  # `start` and `stop` registers: no position, no token
REGISTER_BITS = range(16, 33)  # of positions and tokens, of any build
CONTROL_RUN = 1
CONTROL_RESET = 2
FLAG_SAMPLE = 1
FLAG_CHAINED = 2
FAULT_INSTRUCTION, FAULT_MEMORY = 1, 2
FAULTS = {FAULT_INSTRUCTION: "instruction", FAULT_MEMORY: "memory"}

COUNTERS = 0x80  # byte offset of the first one
COUNTER_NAMES = (
    "cycles",
    "port_busy",
    "array_busy",
    "stall_stream",
    "stall_rows",
    "stall_idle",
    "refresh",
    "runs",
    "frames_bad",
    "frames_lost",
    "line_errors",
    "port_full",
    "port_empty",
)
# Kept by the link; the others count cycles of an event
LINK_COUNTERS = ("frames_bad", "frames_lost", "line_errors")


class Kind(IntEnum):
    """Frame types of the link."""

    READ = 0x01
    WRITE = 0x02
    HASH = 0x04
    DATA = 0x81
    ACK = 0x82
    NAK = 0x83
    SUM = 0x84
    TOKEN = 0x90
    SIMULATED = 0x91  # of a simulated board, before anything else


NAK_REASONS = {1: "unknown type or length", 2: "address", 3: "its memory answered with an error"}
NAK_MEMORY = 3
MAX_FRAME_BYTES = 240
MAX_DATA_BYTES = 224
OVERHEAD_BYTES = 11  # header and checksum
HASH_UNIT_BYTES = 64  # bytes that a HASH covers for each one of its length
DELIMITER = b"\0"

# The flash of a board that starts by itself holds, from this offset on, the magic, a length, and
# frames of the link.
FLASH_OFFSET = 1 << 20
FLASH_MAGIC = b"STFL"
FLASH_HEADER_BYTES = 8


def version_word():
    """Value of Register.VERSIONS (int)."""
    return sum(version << 8 * k for k, version in enumerate(VERSIONS.values()))


def counter_offset(name):
    """Byte offset of a counter by its name."""
    return COUNTERS + 4 * COUNTER_NAMES.index(name)


def wide(memory_bytes):
    """Whether a device with so much memory has addresses of 36 bits, and not of 32."""
    return memory_bytes > PROGRAM


def memory_address(address, memory_bytes):
    """Address on the link of a byte of a model memory of ``memory_bytes``."""
    return address | FLAT if wide(memory_bytes) else address


def register_address(register, slot=0):
    """Address of a register of a slot by its offset."""
    return REGISTERS + REGISTERS_PER_SLOT * slot + register


def scalar_address(number, slot=0):
    """Address of a scalar register of a slot."""
    return SCALARS + SCALARS_PER_SLOT * slot + 4 * number


def scalar_writes(values, slot=0):
    """Generator of (address, bytes) that sets scalar registers of a slot: {number: bits of an fp24
    number}.
    """
    for number, bits in values.items():
        yield scalar_address(number, slot), int(bits).to_bytes(4, "little")


def ring_address(position, ring, slot=0):
    """Address of the token of a position in a slot's ring of ``ring`` entries."""
    return RING + 4 * (slot * ring + position % ring)
