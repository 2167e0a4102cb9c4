"""One frozen configuration for gateware, simulated board and host, with named presets."""

import hashlib
import json
import reprlib
from dataclasses import asdict, dataclass

from sterna.hw.memory.chips import CHIPS, DATA_BYTES
from sterna.hw.protocol import BATCHES, MEMORIES, MOST_ROWS, REGISTER_BITS, VERSIONS, WEIGHT_CODES
from sterna.sim.golden.errors import SternaError

SLOW_HZ = 40_000_000
ROW_BITS = 24  # of the number of a row that is sampled
ACCUMULATOR_BITS = 22  # |sum| <= 127 * columns: enough for 16512 columns of a matrix
SUM_BITS = 24  # of a row's sum where the vector engine takes it
# What an image depends on
TILING = ("rows", "columns", "lanes", "port_bytes", "strip", "weight_code")
# What the gateware can be built with, field by field; bounds of 16 bits are those of the register
# block, which tells them. `fetch` wants 4 words at least, the ISA rotates by up to 7 lanes, and a
# ring of one entry has no place for the token that follows.
RANGES = {
    "rows": (1, 0xFFFF),
    "columns": (5, 0xFFFF),
    "lanes": (1, 8),
    "port_bytes": (2, 64),
    "memory_bytes": (256, 1 << 31),
    "vector_words": (1, 1 << 14),
    "activation_words": (1, 0xFFFF),
    "program_words": (1, 1 << 10),
    "fifo_words": (4, 1 << 16),
    "row_words": (1, 1 << 20),
    "ring": (2, 1 << 15),
    "strip": (1, 0xFFFF),
    "credits": (1, 0xFF),
    "clock_hz": (1, 0xFFFFFFFF),
    "register_bits": (REGISTER_BITS[0], REGISTER_BITS[-1]),
    "top_k": (0, MOST_ROWS),
    "tree_rows": (0, 0xFFFF),
}
# Of the chips of SDRAM: refreshes take most of the time below
MEMORY_HZ = (10_000_000, 143_000_000)


def longest_text(build):
    """Tokens of the longest text on a Config or DeviceInfo (int): its registers count positions up
    to that.
    """
    return (1 << build.register_bits) - 1


def most_tokens(build):
    """The largest vocabulary of a Config or DeviceInfo (int): a token is the number of a row of the
    head, and all bits set are no token.
    """
    return min(1 << ROW_BITS, (1 << build.register_bits) - 1)


def most_visits(build):
    """The most neurons N that a slot visits in a tree layer of a Config or DeviceInfo (int): each
    has a place in the path memory and a code in an activation buffer. 0: no tree model runs there.
    """
    return min(build.tree_rows, build.activation_words * build.columns)


class ConfigError(SternaError, ValueError):
    """A configuration that cannot be built; the message names the value and the constraint."""

    exit_code = 2


def delivered_bytes(config):
    """Bytes that the memory of a Config or DeviceInfo gives at most per cycle of the accelerator:
    the port's, or an SDRAM's.
    """
    return (
        DATA_BYTES * config.memory_hz / config.clock_hz if config.memory_hz else config.port_bytes
    )


@dataclass(frozen=True, kw_only=True)
class Config:
    """Build parameters of one accelerator. No shape of a model is among them.

    Attributes
    ----------
    rows, columns : int
        R x C of the ternary array; R * C trits are consumed per cycle.
    lanes : int
        V, vector lanes of fp24 arithmetic; a power of two.
    batch : int
        B, sequences per weight fetch: 1, 2, 4 or 8. B > 1 needs memory outside of the chip.
    top_k : int
        Most rows of the list of the best rows, for top-k and top-p sampling; 0: no list.
    tree_rows : int
        Most neurons that a slot visits in a layer of trees; 0: no tree walk is built in. Needs
        memory outside of the chip, and an activation buffer that holds a code for each.
    port_bytes : int
        Bytes per memory word and cycle, a power of two.
    weight_code : str
        "trit5" (1.6 bits per weight) or "bit2".
    memory : str
        "external" (behind the memory port) or "onchip".
    memory_bytes : int
        Size of the model memory.
    sdram : str
        Name of the SDR SDRAM chip that is the external memory, of ``sterna.hw.memory.chips``; "":
        any memory behind the port.
    memory_hz : int
        Clock of that chip and its controller.
    vector_words : int
        Words (of V numbers) of each of the three vector banks; at most 16384.
    activation_words : int
        Words (of C codes) of each of the two activation buffers.
    program_words : int
        Instructions of the program memory; at most 1024.
    fifo_words : int
        Depth of the stream FIFO in memory words; without effect if the memory is on chip, where two
        words suffice.
    row_words : int
        Depth of the row queue in words of V rows.
    ring : int
        Entries of the token ring, a power of two.
    strip : int
        Rows per strip of vector work; a multiple of R and V.
    credits : int
        Frame buffers of the link.
    clock_hz : int
        Clock that projections assume.
    register_bits : int
        Width of the position registers and of the tokens in the ring and in `stop`, 16 to 32.
    counters : bool
        False leaves the counters of cycles and tokens out; they read as 0.
    """

    name: str
    rows: int
    columns: int
    lanes: int
    port_bytes: int
    memory_bytes: int
    vector_words: int
    activation_words: int
    strip: int
    clock_hz: int
    batch: int = 1
    top_k: int = 0
    tree_rows: int = 0
    weight_code: str = "trit5"
    memory: str = "external"
    sdram: str = ""
    memory_hz: int = 0
    program_words: int = 512
    fifo_words: int = 1024
    row_words: int = 128
    ring: int = 1024
    credits: int = 2
    register_bits: int = 32
    counters: bool = True

    def __post_init__(self):
        def need(condition, text):
            if not condition:
                raise ConfigError(f"configuration {self.name!r}: {text}")

        for field, (least, most) in RANGES.items():
            value = getattr(self, field)
            need(
                type(value) is int and least <= value <= most,
                f"{field} {reprlib.repr(value)}: use {least} to {most}",
            )
        need(
            self.batch in BATCHES, f"batch {self.batch}: use one of {', '.join(map(str, BATCHES))}"
        )
        need(
            self.batch == 1 or self.memory == "external",
            f"batch {self.batch}: needs memory outside of the chip",
        )
        need(
            not self.tree_rows or self.memory == "external",
            f"tree_rows {self.tree_rows}: needs memory outside of the chip",
        )
        need(
            self.tree_rows <= self.activation_words * self.columns,
            f"tree_rows {self.tree_rows}: at most the "
            f"{self.activation_words * self.columns} codes of an activation buffer",
        )
        need(
            self.weight_code in WEIGHT_CODES, f"weight_code {self.weight_code!r}: use trit5 or bit2"
        )
        need(self.memory in MEMORIES, f"memory {self.memory!r}: use external or onchip")
        need(self.columns % 5 == 0, f"columns {self.columns}: must be a multiple of 5")
        for field in ("lanes", "port_bytes", "ring"):
            value = getattr(self, field)
            need(value & (value - 1) == 0, f"{field} {value}: must be a power of two")
        need(
            self.lanes <= self.port_bytes,
            f"lanes {self.lanes}: at most port_bytes {self.port_bytes}, so that a word holds "
            "a code for each",
        )
        need(
            self.columns % self.lanes == 0,
            f"lanes {self.lanes}: must divide columns {self.columns}",
        )
        need(
            self.strip % self.rows == 0 and self.strip % self.lanes == 0,
            f"strip {self.strip}: must be a multiple of rows {self.rows} and lanes {self.lanes}",
        )
        need(
            self.row_words * self.lanes >= self.strip + 2 * max(self.rows, self.lanes),
            f"row_words {self.row_words}: the row queue must hold a strip of {self.strip} rows and "
            "two tiles",
        )
        need(
            self.tile_bytes
            <= (2 * self.port_bytes if self.memory == "external" else self.port_bytes),
            f"tiles of {self.tile_bytes} bytes: at most "
            f"{'two words' if self.memory == 'external' else 'a word'} of {self.port_bytes} bytes",
        )
        need(
            not self.pairs or self.fifo_words % 2 == 0,
            f"fifo_words {self.fifo_words}: must be even, since the array takes two words a cycle",
        )
        if self.sdram:
            need(self.sdram in CHIPS, f"sdram {self.sdram!r}: use one of {', '.join(CHIPS)}")
            need(
                self.memory == "external" and self.port_bytes >= DATA_BYTES,
                f"sdram {self.sdram}: needs external memory and words of {DATA_BYTES} bytes or "
                "more",
            )
            need(
                self.memory_bytes == CHIPS[self.sdram].bytes,
                f"memory_bytes {self.memory_bytes}: {self.sdram} has {CHIPS[self.sdram].bytes}",
            )
            need(
                0 < DATA_BYTES * self.memory_hz <= self.port_bytes * self.clock_hz,
                f"memory_hz {self.memory_hz}: use the clock of the chip, which gives {DATA_BYTES} "
                "bytes a cycle; "
                f"the port takes {self.port_bytes} at {self.clock_hz} Hz",
            )
            need(
                MEMORY_HZ[0] <= self.memory_hz <= MEMORY_HZ[1],
                f"memory_hz {self.memory_hz}: use {MEMORY_HZ[0]} to {MEMORY_HZ[1]}",
            )
        else:
            need(
                not self.memory_hz,
                f"memory_hz {self.memory_hz}: needs sdram, the chip that has this clock",
            )
        words, most = self.activation_words, ((1 << SUM_BITS - 1) - 1) // (127 * self.columns)
        need(
            words <= most,
            f"activation_words {words}: a row may have {words * self.columns} columns then, whose "
            f"sum does not fit {SUM_BITS} bits: use at most {most}",
        )
        need(
            self.memory_bytes % 64 == 0,
            f"memory_bytes {self.memory_bytes}: must be a multiple of 64",
        )

    @property
    def tile_bytes(self):
        """T, bytes of one R x C tile of trits."""
        trits = self.rows * self.columns
        return trits // 5 if self.weight_code == "trit5" else -(-trits // 4)

    @property
    def pairs(self):
        """Whether the array takes more than the port gives, so that the FIFO must give two words
        per cycle.
        """
        return self.tile_bytes > self.port_bytes

    @property
    def word_address_bits(self):
        """Bits of a memory word address."""
        return (self.memory_bytes // self.port_bytes - 1).bit_length()

    @property
    def own_memory_clock(self):
        """Whether the memory controller has a clock domain of its own."""
        return self.memory_hz not in (0, self.clock_hz)

    @property
    def delivered_bytes(self):
        """Bytes that the memory gives at most per cycle of the accelerator (int or float)."""
        return delivered_bytes(self)

    @property
    def slow(self):
        """Whether the clock leaves time for long paths, so that registers for speed alone are left
        out.
        """
        return self.clock_hz <= SLOW_HZ

    @property
    def compact(self):
        """Whether cells are scarcer than cycles: the vector engine then converts the operands of
        queues serially.
        """
        return self.slow and self.lanes == 1 and self.row_bits <= 16

    @property
    def row_bits(self):
        """Bits of a row sum: no row is longer than an activation buffer; codes are at most 127."""
        return (127 * self.columns * self.activation_words).bit_length() + 1

    @property
    def gather_bits(self):
        """Bits of a sum over the visited neurons of a tree layer; codes are at most 127."""
        return (127 * most_visits(self)).bit_length() + 1

    @property
    def record_tiles(self):
        """Most tiles of a record of a tree layer: its row is as long as a vector that fits a buffer
        of codes and a bank.
        """
        length = min(self.activation_words * self.columns, self.vector_words * self.lanes)
        return -(-length // (self.rows * self.columns))

    @property
    def record_words(self):
        """Most words of a record of a tree layer."""
        return -(-self.record_tiles * self.tile_bytes // self.port_bytes)

    @property
    def queued_fetches(self):
        """Reads that the fetch engine queues behind the running one: with slots, a row and a state
        for each of them; with trees what stands between one walk and the next, so that a walk that
        waits for codes holds up nothing that the program queues behind it.
        """
        least = 8 if self.tree_rows else 4
        return least if self.batch == 1 else least + 2 * self.batch

    @property
    def frame_counter_bits(self):
        """Bits of the two counters of frames that were not executed."""
        return 32 if self.counters else 8

    @property
    def digest(self):
        """Hex SHA-256 of everything but the name: for build folders and the build register."""
        values = asdict(self) | {"versions": VERSIONS}
        values.pop("name")
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


_MIB = 1 << 20
# fmt: off
PRESETS = {
    c.name: c
    for c in (
        # iCE40 UP5K: 10 lanes out of 128 KB of SPRAM. No trees: their walk makes bursts, which
        # memory on the chip has none of, and the logic cells are all but used up.
        Config(name="up5k", rows=2, columns=5, lanes=1, port_bytes=2, memory="onchip",
               memory_bytes=128 << 10, vector_words=512, activation_words=32, strip=16,
               clock_hz=24_000_000, fifo_words=64, row_words=32, ring=256, credits=2,
               program_words=256, register_bits=16, counters=False),
        # The others are named after the trits per cycle that their memory port delivers. Their
        # array takes more, so that what the FIFO gathers while the array waits for codes is caught
        # up with. On an ECP5 a list of 64 rows takes two block RAMs and fewer LUTs than a shorter
        # one, which would be in LUT RAM.
        # SDR SDRAM x16 of the ULX3S.
        Config(name="lanes10", rows=1, columns=15, lanes=1, port_bytes=2, memory_bytes=32 * _MIB,
               vector_words=4096, activation_words=1024, strip=16, top_k=64, tree_rows=1024,
               clock_hz=80_000_000, fifo_words=4096, row_words=64, credits=16),
        # DDR3 x16 at 1:2 of ECP5 boards.
        Config(name="lanes40", rows=3, columns=20, lanes=4, port_bytes=8, memory_bytes=256 * _MIB,
               vector_words=2048, activation_words=512, strip=36, top_k=64, tree_rows=1024,
               clock_hz=80_000_000, fifo_words=2048, credits=16),
        # The demo's simulated board: wide enough for several tokens per second of wall time.
        Config(name="sim", rows=8, columns=20, lanes=4, port_bytes=32, memory_bytes=64 * _MIB,
               vector_words=2048, activation_words=512, strip=64, top_k=64, tree_rows=1024,
               clock_hz=100_000_000, fifo_words=512, credits=8),
        # DDR3 x32.
        Config(name="lanes160", rows=5, columns=40, lanes=8, port_bytes=32,
               memory_bytes=1024 * _MIB, vector_words=8192, activation_words=256, strip=40,
               top_k=64, tree_rows=1024, clock_hz=200_000_000, fifo_words=1024, credits=16),
        # DDR4 over four ports of the KV260; holds the 2.7B geometry.
        Config(name="lanes320", rows=10, columns=40, lanes=8, port_bytes=64,
               memory_bytes=1024 * _MIB, vector_words=8192, activation_words=256, strip=80,
               top_k=64, tree_rows=1024, clock_hz=200_000_000, fifo_words=2048, credits=16),
    )
}
# fmt: on
