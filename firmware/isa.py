"""Instruction encodings of docs/isa.md: the one table that assembler, disassembler, decoder and interpreter share.

``FIELDS[opcode][field]`` is ``(lsb, width)`` in the 96-bit instruction word. Everything else here names a code.
"""

from dataclasses import dataclass, field

from sterna.sim.golden.errors import SternaError
from sterna.sim.golden.fp24 import PARTIAL_SUMS  # noqa: F401 (what programs and engines take it from)

INSTRUCTION_BITS = 96
SLOT_BYTES = 16
SCALARS = 32
BEST_SCALAR = 31  # holds the score of the best row during a sampling

HALT, VOP, FETCH, SETA, ROWA, MATVEC, STRIP, NEXT, LOOP, AGAIN, JUMP, WAITM, STORE, SAMPLE, WALK, SLOT = range(16)
OPCODE_NAMES = ("HALT", "VOP", "FETCH", "SETA", "ROWA", "MATVEC", "STRIP", "NEXT", "LOOP", "AGAIN", "JUMP", "WAITM",
                "STORE", "SAMPLE", "WALK", "SLOT")

FIELDS = {
    HALT: {},
    VOP: {"one": (4, 1), "wait": (5, 1), "negp": (6, 1), "negc": (7, 1), "table": (8, 3), "peak": (11, 2),
          "k": (13, 5), "a_kind": (18, 3), "b_kind": (21, 2), "c_kind": (23, 3), "d_kind": (26, 3),
          "d_banks": (29, 3),
          "a": (32, 16), "b": (48, 16), "c": (64, 16), "d": (80, 16)},
    FETCH: {"areg": (4, 2), "kind": (6, 2), "trees": (8, 12), "levels": (20, 5), "words": (32, 24),
            "always": (64, 12)},
    SETA: {"areg": (4, 2), "value": (32, 32)},
    ROWA: {"areg": (4, 2), "base": (32, 32), "stride": (64, 32)},
    MATVEC: {"buffer": (4, 1), "rows": (32, 24), "chunks": (64, 16)},
    STRIP: {"elements": (32, 24), "strip": (64, 16)},
    NEXT: {"target": (32, 10), "strip": (64, 16), "step": (80, 16)},
    LOOP: {"count": (32, 16)},
    AGAIN: {"target": (32, 10)},
    JUMP: {"condition": (4, 4), "target": (32, 10)},
    WAITM: {},
    STORE: {"areg": (4, 2), "words": (32, 24)},
    SAMPLE: {"end": (4, 1)},
    WALK: {"buffer": (4, 1), "out": (5, 1), "rows": (32, 24), "chunks": (64, 16), "length": (80, 16)},
    SLOT: {"again": (4, 1), "which": (5, 2), "prior": (7, 1), "target": (32, 10)},
}
OPCODE_FIELD = (0, 4)

TABLES = ("NONE", "SIGMOID", "RECIP", "RSQRT", "LOG2", "LOG1M", "EXPONENT")
TABLE = {name: code for code, name in enumerate(TABLES)}
PEAK_NONE, PEAK_MAX, PEAK_MIN = range(3)
ALWAYS, LAST_LAYER, NOT_WANTED, GREEDY, AT_START, FRESH, CHAINED = range(7)
CONDITIONS = ("always", "last", "unwanted", "greedy", "start", "fresh", "chained")
ACTIVE, READS, WRITES, FIRST = range(4)  # which slots a slot loop is for
WHICH = ("active", "reads", "writes", "first")
KIND_LINEAR, KIND_WALK, KIND_GATHER, KIND_SKIP = range(4)  # of FETCH
FETCH_KINDS = ("linear", "walk", "gather", "skip")

# Operand kinds. Banks are 0..2 in A, B and C alike, and 3 is a scalar register.
KIND_SCALAR = 3
A_ROW, A_STREAM32, A_STREAM8, A_RANDOM = 4, 5, 6, 7
C_RANDOM = 4
D_NONE, D_VECTOR, D_SCALAR, D_ACTIVATION0, D_ACTIVATION1, D_MEM, D_SAMPLE, D_LIST = range(8)

# What a slot loop does not allow: (name, kinds, operand). Peaks are not allowed there either.
NOT_IN_SLOT_LOOPS = (
    ("operand ROW", (A_ROW,), "a"), ("operand RANDOM", (A_RANDOM,), "a"), ("operand RANDOM", (C_RANDOM,), "c"),
    ("destination ACTIVATION", (D_ACTIVATION0, D_ACTIVATION1), "d"), ("destination SAMPLE", (D_SAMPLE,), "d"),
    ("destination LIST", (D_LIST,), "d"))

MOD_BIT, PLUS_BIT = 14, 15  # flags above the address of an operand
FLAG_PLUS = 1 << PLUS_BIT
FLAG_MOD = 1 << MOD_BIT
ADDRESS_MASK = FLAG_MOD - 1
# In the C address of a one-element operation: 0, or one more than the binary logarithm of the lanes to rotate by
ROTATE_LSB, ROTATE_BITS = 11, 3


class IsaError(SternaError, ValueError):
    """An instruction that cannot be encoded or decoded; the message names the field and its value."""


@dataclass(frozen=True)
class Operand:
    """One source or destination of a vector operation.

    Attributes
    ----------
    kind : int
        Code of the operand kind (A, B, C or D numbering).
    address : int
        Word address without flags, or the number of the scalar register.
    plus, mod : bool
        Add the strip offset; wrap in the 64 partial sums.
    rotate : int
        Lane rotation of a C operand in a one-element operation: 0 or a power of two.
    banks : int
        Mask of the banks written (destination VECTOR only).
    words : int or None
        Vector words that the operand can touch in any strip, for the dependency analysis; not encoded. None: unknown.
    """

    kind: int
    address: int = 0
    plus: bool = False
    mod: bool = False
    rotate: int = 0
    banks: int = 0
    words: int | None = field(default=None, compare=False)

    @property
    def code(self):
        """The 16 address bits with their flags."""
        return self.address | self.plus * FLAG_PLUS | self.mod * FLAG_MOD | self.rotate.bit_length() << ROTATE_LSB


def bank(number, address, *, plus=False, mod=False, rotate=0, words=None):
    """Source operand: a vector at ``address`` of bank ``number``."""
    return Operand(number, address, plus, mod, rotate, words=words)


def scalar(number):
    """Source operand: scalar register ``number``."""
    return Operand(KIND_SCALAR, number)


def to_banks(mask, address, *, plus=False, mod=False, words=None):
    """Destination: the vector at ``address`` of every bank of ``mask``."""
    return Operand(D_VECTOR, address, plus, mod, banks=mask, words=words)


def to_list(mask, address, *, plus=False, mod=False, words=None):
    """Destination: as ``to_banks``, and the keys of the list of the best rows."""
    return Operand(D_LIST, address, plus, mod, banks=mask, words=words)


def to_scalar(number):
    """Destination: scalar register ``number``."""
    return Operand(D_SCALAR, number)


def to_activation(buffer):
    """Destination: activation buffer 0 or 1."""
    return Operand(D_ACTIVATION0 + buffer)


ROW, STREAM32, STREAM8, RANDOM = Operand(A_ROW), Operand(A_STREAM32), Operand(A_STREAM8), Operand(A_RANDOM)
RANDOM_LN2 = Operand(C_RANDOM)
NOWHERE, MEM, TO_SAMPLE = Operand(D_NONE), Operand(D_MEM), Operand(D_SAMPLE)
ZERO, ONE = scalar(0), scalar(1)


def encode(opcode, **values):
    """96-bit word of an instruction; fields left out are zero. IsaError: unknown field or value out of range."""
    if opcode not in FIELDS:
        raise IsaError(f"opcode {opcode}: use 0 to {SLOT}")
    word = opcode
    for name, value in values.items():
        if name not in FIELDS[opcode]:
            raise IsaError(f"{OPCODE_NAMES[opcode]} has no field {name!r}")
        lsb, width = FIELDS[opcode][name]
        if not 0 <= value < 1 << width:
            raise IsaError(f"{OPCODE_NAMES[opcode]} {name} {value}: use 0 to {(1 << width) - 1}")
        word |= int(value) << lsb
    return word


def decode(word):
    """``(opcode, {field: value})`` of a 96-bit word. IsaError: unknown opcode or a bit set outside every field."""
    opcode = word & 15
    if opcode not in FIELDS:
        raise IsaError(f"opcode {opcode}: use 0 to {SLOT}")
    values = {name: word >> lsb & (1 << width) - 1 for name, (lsb, width) in FIELDS[opcode].items()}
    if encode(opcode, **values) != word:
        raise IsaError(f"{OPCODE_NAMES[opcode]} {word:#026x}: bits set outside every field")
    return opcode, values


def unpack(code, one=False, kind_c=False):
    """``(address, plus, mod, rotate)`` of 16 address bits of a vector operand."""
    rotate = 1 << (code >> ROTATE_LSB & (1 << ROTATE_BITS) - 1) >> 1 if one and kind_c else 0
    address = code & ((1 << ROTATE_LSB) - 1 if one and kind_c else ADDRESS_MASK)
    return address, bool(code & FLAG_PLUS), bool(code & FLAG_MOD), rotate


def is_walk(opcode, fields):
    """Whether an instruction needs ``tree_rows``: WALK, and FETCH of kind walk or gather."""
    return opcode == WALK or opcode == FETCH and fields.get("kind", KIND_LINEAR) in (KIND_WALK, KIND_GATHER)


def program_bytes(words):
    """Bytes of the program memory: one 16-byte little-endian slot per instruction."""
    return b"".join(int(word).to_bytes(SLOT_BYTES, "little") for word in words)
