"""Where the parts of a packed model lie: the sections of its stream, and the regions of a device's memory.

docs/image-format.md is the normative description; `Layout` and `MemoryMap` are the one place that computes sizes and
addresses.
"""

import math
import reprlib
from dataclasses import dataclass

import numpy as np

from sterna.hw.config import RANGES, TILING, Config, most_tokens, most_visits
from sterna.hw.presets import PRESETS
from sterna.sim.golden.errors import SternaError
from sterna.sim.golden.geometry import ModelGeometry

ALIGN = 64
MOST_TRITS = 1 << 16  # R C of an array that is believed
# Parts of a layer, by the mixer of a geometry, in the order of the stream but for `BEHIND`.
PARTS = {"glu": ("norm", "gates", "mixer", "out", "glu", "down"), "tree": ("norm", "gates", "mixer", "out", "tree")}
BEHIND = {"glu": ("down",), "tree": ()}  # the parts that stand behind the next layer's norm
TABLES = ("tree_in", "tree_out")  # of a layer with trees, in the order of the section "tree"


class LayoutError(SternaError, ValueError):
    """A model that does not fit a memory; one line."""


def up(n, step):
    """``n`` rounded up to a multiple of ``step`` (int)."""
    return -(-n // step) * step


def share(rows, unit, engines):
    """Rows of a matrix at the first of the ``engines`` (int), which has most: they are dealt ``unit`` at a time.

    Every engine has room for so many and computes so many; what is behind its own rows is dropped.
    """
    rounds, rest = divmod(rows, unit * engines)
    return rounds * unit + min(rest, unit)


def tiling_of(config):
    """{field: value} of what an image depends on in a configuration."""
    return {name: getattr(config, name) for name in TILING}


def check_tiling(tiling):
    """ValueError (one line) unless the values {field of TILING: value} are those of an array that
    can be built.
    """
    for name, value in tiling.items():
        good = (
            isinstance(value, str)
            if name == "weight_code"
            else type(value) is int and 0 < value <= MOST_TRITS
        )
        if not good:
            raise ValueError(f"{name} is {reprlib.repr(value)}: no array has that")
    if tiling["rows"] * tiling["columns"] > MOST_TRITS:
        raise ValueError(
            f"{tiling['rows']} x {tiling['columns']} trits: an array has at most {MOST_TRITS}"
        )
    # What does not belong to the tiling gets values that fit any.
    Config(
        name="tiling",
        memory_bytes=256,
        vector_words=1,
        activation_words=1,
        clock_hz=1,
        row_words=RANGES["row_words"][1],
        **tiling,
    )


@dataclass(frozen=True)
class Layout:
    """Sections of the stream for one geometry and tiling; sizes are in bytes, padded to port words.

    With several ``engines`` a word of the layout, ``word_bytes``, is a word of each of them, and a matrix takes as
    many of these as the engine with most of its rows needs (docs/scaling.md).

    ``sections(part)`` lists the sections ("vector", attribute, n) and ("matrix", attribute, rows, columns) of a part.
    The tables of trees are not in the stream: each is ``table_bytes`` long, neurons in order, a record each.
    """

    geometry: ModelGeometry
    rows: int
    columns: int
    lanes: int
    port_bytes: int
    strip: int
    weight_code: str
    engines: int = 1

    @property
    def word_bytes(self):
        """Bytes of a word of all engines."""
        return self.port_bytes * self.engines

    @property
    def unit(self):
        """Rows of a matrix that an engine takes before it is the next one's turn: whole tiles and whole beats."""
        return math.lcm(self.rows, self.lanes)

    @property
    def inner(self):
        """I padded to a common multiple of R and V, to one of V where C is no multiple of 5; of gated linear units
        alone.
        """
        # Rows of the two halves need not begin a tile, only a beat. What C has always been keeps its padding, and
        # its images.
        step = self.lanes if self.columns % 5 else math.lcm(self.rows, self.lanes)
        return up(self.geometry.intermediate_size, step)

    @property
    def tile_bytes(self):
        trits = self.rows * self.columns
        return trits // 5 if self.weight_code == "trit5" else -(-trits // 4)

    def vector_bytes(self, n):
        """Bytes of a vector of n numbers."""
        return up(4 * up(n, self.lanes), self.word_bytes)

    def codes_bytes(self, n):
        """Bytes of n int8 codes."""
        return up(up(n, self.lanes), self.word_bytes)

    def stored_words(self, n):
        """Port words of n stored numbers, those that fill a word of all engines left out."""
        return -(-4 * up(n, self.lanes) // self.port_bytes)

    def matrix_bytes(self, rows, columns):
        """Bytes of a matrix of trits."""
        tiles = -(-share(rows, self.unit, self.engines) // self.rows) * -(-columns // self.columns)
        return self.engines * up(tiles * self.tile_bytes, self.port_bytes)

    @property
    def record_tiles(self):
        """Tiles of R C trits in one row of a table."""
        return -(-self.geometry.hidden_size // (self.rows * self.columns))

    @property
    def record_bytes(self):
        """Bytes of one row of a table: whole port words."""
        return up(self.record_tiles * self.tile_bytes, self.port_bytes)

    @property
    def table_bytes(self):
        """Bytes of one table of a layer with trees."""
        return self.geometry.neurons * self.record_bytes

    @property
    def tree_bytes(self):
        """Bytes of the tables of all layers; 0 without trees."""
        if self.geometry.mixer != "tree":
            return 0
        return self.geometry.num_hidden_layers * len(TABLES) * self.table_bytes

    @property
    def row_bytes(self):
        """Bytes from one embedding row to the next."""
        return self.vector_bytes(1) + self.codes_bytes(self.geometry.hidden_size)

    def sections(self, part):
        """Sections of a layer's part, or of "end" (the final norm) or "head"."""
        h, v = self.geometry.hidden_size, self.geometry.vocab_size

        def vectors(n, *names):
            return [("vector", name, n) for name in names]

        def matrix(name, rows, columns):
            return [("matrix", name, rows, columns)]

        if self.geometry.mixer == "tree":
            folded, mixer = "w_tree", {"tree": vectors(1, "ws_tree_in", "ws_tree_out")}
        else:
            i, folded = self.inner, "w_gate"
            mixer = {"glu": vectors(1, "ws_gate", "ws_down") + vectors(i, "w_down") + matrix("gate", 2 * i, h),
                     "down": matrix("down", h, i)}
        return (mixer | {
            "norm": vectors(h, "attn_outer", "w_f", "w_i", "w_g_in") + vectors(1, "ws_f", "ws_i", "ws_g"),
            "gates": vectors(h, "keep", "g_norm", "o_in"),
            "mixer": matrix("f", h, h) + matrix("i", h, h) + matrix("g", h, h),
            "out": vectors(1, "ws_o") + vectors(h, "mlp_outer", folded) + matrix("o", h, h),
            "end": vectors(h, "final_outer", "w_head") + vectors(1, "ws_head"),
            "head": matrix("head", v, h),
        })[part]

    def part_bytes(self, part):
        """Bytes of one part of the stream."""
        return sum(self.vector_bytes(s[2]) if s[0] == "vector" else self.matrix_bytes(*s[2:])
                   for s in self.sections(part))

    def image_bytes(self, part):
        """Bytes of one part of the stream, and of the tables that an image has for it."""
        return self.part_bytes(part) + (len(TABLES) * self.table_bytes if part == "tree" else 0)

    @property
    def parts(self):
        """Names of the parts of a layer (tuple of str)."""
        return PARTS[self.geometry.mixer]

    @property
    def stream_bytes(self):
        """Bytes of the whole stream."""
        return self.geometry.num_hidden_layers * sum(map(self.part_bytes, self.parts)) \
            + self.part_bytes("end") + self.part_bytes("head")

    @property
    def token_bytes(self):
        """Bytes of the image that a token with its head reads: of tables only the records of the visited neurons."""
        records = 0
        if self.tree_bytes:
            records = self.geometry.num_hidden_layers * len(TABLES) * self.geometry.visits
        return self.row_bytes + self.stream_bytes + records * self.record_bytes

    @property
    def gate_order(self):
        """Row numbers of the padded gate matrix ([gate half; value half]) in stream order (int array [2 inner])."""
        ends = [(first, min(first + self.strip, self.inner)) for first in range(0, self.inner, self.strip)]
        return np.concatenate([np.r_[first:end, self.inner + first:self.inner + end] for first, end in ends])

    def order(self):
        """(part, layer) in the order of the stream; ("end", L) and ("head", L) belong to the model."""
        last, behind = self.geometry.num_hidden_layers, BEHIND[self.geometry.mixer]
        yield "norm", 0
        for layer in range(last):
            yield from ((part, layer) for part in self.parts[1:] if part not in behind)
            yield ("norm", layer + 1) if layer + 1 < last else ("end", last)
            yield from ((part, layer) for part in behind)
        yield "head", last


def layout(config, geometry):
    """Layout of a geometry on a configuration, or on the ``tiling`` of an image's header: that is for one engine."""
    if isinstance(config, dict):
        return Layout(geometry, **config)
    return Layout(geometry, **tiling_of(config), engines=config.engines)


@dataclass(frozen=True)
class MemoryMap:
    """Byte addresses and sizes of the regions in device memory.

    The state of slot s in layer l is at ``state_address`` + (l B + s) ``layer_state_bytes``; table t (in, out) of
    layer l at ``tree_address`` + (2 l + t) ``Layout.table_bytes``.
    """

    embedding_address: int
    embedding_bytes: int
    stream_address: int
    stream_bytes: int
    tree_address: int
    tree_bytes: int  # of all tables; 0 without trees
    state_address: int
    state_bytes: int  # of all layers and slots
    layer_state_bytes: int  # of one layer and slot
    row_bytes: int
    end: int


def _holds(config, geometry):
    """Whether a model fits the memory of a configuration."""
    return memory_map(config, geometry, check=False).end <= config.memory_bytes


def memory_map(config, geometry, check=True):
    """MemoryMap of a geometry on a configuration.

    LayoutError, with ``check``: it does not fit ``config.memory_bytes``, its tokens not ``config.register_bits``, or
    its trees not ``config.tree_rows``.
    """
    shape = layout(config, geometry)
    align = max(ALIGN, shape.word_bytes)
    embedding = shape.row_bytes * geometry.vocab_size
    stream_address = up(embedding, align)
    stream = shape.stream_bytes
    tree_address = up(stream_address + stream, align)
    state_address = up(tree_address + shape.tree_bytes, align)
    layer_state = shape.vector_bytes(geometry.hidden_size)
    states = geometry.num_hidden_layers * config.batch * layer_state
    end = up(state_address + states, align)
    if check and geometry.vocab_size > most_tokens(config):
        raise LayoutError(f"vocabulary: the model has {geometry.vocab_size:,} tokens and this build can count "
                          f"{most_tokens(config):,}: use a build with more register_bits than "
                          f"{config.register_bits}, or a model with fewer tokens")
    if check and geometry.mixer == "tree" and geometry.visits > most_visits(config):
        raise LayoutError(f"trees: the model visits {geometry.visits:,} neurons in a layer and this build "
                          f"{most_visits(config):,}: use a build with more tree_rows, or a model with fewer trees")
    if check and end > config.memory_bytes:
        holders = [other.name for other in PRESETS.values() if _holds(other, geometry)]
        raise LayoutError(f"memory: the model needs {end} bytes and the device has {config.memory_bytes}: "
                          "use a larger memory or a smaller model"
                          + (f" (of the presets, {', '.join(holders)} can hold it)" if holders else
                             " (no preset can hold it)"))
    return MemoryMap(0, embedding, stream_address, stream, tree_address, shape.tree_bytes, state_address, states,
                     layer_state, shape.row_bytes, end)
