"""One frozen configuration for gateware, simulated board and host, with named presets."""

import hashlib
import json
import reprlib
from dataclasses import asdict, dataclass, replace
from math import lcm

from sterna.hw.memory.behind import BLOCK_BYTES, check_memory, delivered_bytes
from sterna.hw.protocol import (
    BATCHES,
    FLAT,
    MEMORIES,
    MOST_ROWS,
    REGISTER_BITS,
    VERSIONS,
    WEIGHT_CODES,
)
from sterna.sim.golden.errors import SternaError

SLOW_HZ = 40_000_000
ROW_BITS = 24  # of the number of a row that is sampled
ACCUMULATOR_BITS = 22  # |sum| <= 127 * columns: enough for 16512 columns of a matrix
SUM_BITS = 24  # of a row's sum where the vector engine takes it
# What an image depends on
TILING = ("rows", "columns", "lanes", "port_bytes", "strip", "weight_code")
# What the gateware can be built with, field by field; bounds of 16 bits are those of the register
# block, which tells them. `fetch` wants 4 words at least, and a ring of one entry has no place for
# the token that follows.
RANGES = {
    "rows": (1, 0xFFFF),
    "columns": (5, 0xFFFF),
    "lanes": (1, 32),
    "port_bytes": (2, 128),
    "memory_bytes": (256, FLAT),
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
    "block_bytes": BLOCK_BYTES,
}
ENGINES = (1, 2, 4, 8, 16, 32)


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
        Size of the model memory, up to 32 GiB.
    sdram : str
        Name of the SDR SDRAM chip that is the external memory, of ``sterna.hw.memory.chips``; "":
        any memory behind the port.
    memory_hz : int
        Clock of that chip and its controller; of a DDR3 chip the controller's, half the chip's.
    ddr3 : str
        Name of the DDR3 chip that is the external memory, of ``sterna.hw.memory.chips``; "": none.
    axi_ports : int
        AXI4 masters that are the external memory together, 1, 2, 4 or 8, each of port_bytes /
        axi_ports bytes; 0: none.
    block_bytes : int
        Bytes that follow each other at one AXI port, a power of two; without effect if there is
        none.
    engines : int
        K, engines that share the rows of every matrix, each with a memory of its own.
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
    ddr3: str = ""
    axi_ports: int = 0
    block_bytes: int = 256
    engines: int = 1
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
        need(
            self.weight_code != "trit5" or self.rows * self.columns % 5 == 0,
            f"columns {self.columns}: rows {self.rows} x columns must be a multiple of 5, the "
            "trits of a byte",
        )
        for field in ("lanes", "port_bytes", "ring", "block_bytes"):
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
        check_memory(self, need)
        words, most = self.activation_words, ((1 << SUM_BITS - 1) - 1) // (127 * self.columns)
        need(
            words <= most,
            f"activation_words {words}: a row may have {words * self.columns} columns then, whose "
            f"sum does not fit {SUM_BITS} bits: use at most {most}",
        )
        unit = max(64, self.port_bytes)
        need(
            self.memory_bytes % unit == 0,
            f"memory_bytes {self.memory_bytes}: must be a multiple of {unit}",
        )
        need(
            self.memory_bytes <= self.port_bytes << 32,
            f"memory_bytes {self.memory_bytes}: at most {self.port_bytes << 32}, as an address "
            f"register counts 2^32 words of {self.port_bytes} bytes",
        )
        need(
            self.engines in ENGINES,
            f"engines {self.engines}: use one of {', '.join(map(str, ENGINES))}",
        )
        if self.engines > 1:
            self._check_engines(need)

    def _check_engines(self, need):
        """What several engines need."""
        text = f"engines {self.engines}"
        need(self.memory == "external", f"{text}: needs memory outside of the chip")
        need(
            not (self.axi_ports or self.ddr3),
            f"{text}: {'axi_ports' if self.axi_ports else 'ddr3'} serve one engine so far",
        )
        need(not self.tree_rows, f"{text}: walks no trees: use tree_rows 0 or one engine")
        need(not self.slow, f"{text}: needs a clock above {SLOW_HZ} Hz")
        need(self.port_bytes >= 4, f"{text}: needs words of 4 bytes, port_bytes {self.port_bytes}")
        need(
            self.memory_bytes % (64 * self.word_bytes) == 0,
            f"{text}: memory_bytes {self.memory_bytes}: must be a multiple of "
            f"{64 * self.word_bytes}",
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
    def word_bytes(self):
        """Bytes of a word of every engine's memory: those of one address of the program."""
        return self.port_bytes * self.engines

    @property
    def word_address_bits(self):
        """Bits of a memory word address, of the memory of one engine."""
        return (self.memory_bytes // self.word_bytes - 1).bit_length()

    @property
    def all_address_bits(self):
        """Bits of the address of a word of P bytes among those of all engines."""
        return (self.memory_bytes // self.port_bytes - 1).bit_length()

    @property
    def unit(self):
        """Rows of a matrix in an engine's turn (docs/scaling.md): whole tiles and whole beats."""
        return lcm(self.rows, self.lanes)

    @property
    def of_engine(self):
        """The Config of one engine's memory."""
        if self.engines == 1:
            return self
        return replace(self, engines=1, memory_bytes=self.memory_bytes // self.engines)

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
