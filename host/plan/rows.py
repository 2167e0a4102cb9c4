"""A row per board and preset: whether a model fits, and what it would do there."""

from dataclasses import dataclass, replace

from sterna.firmware.layout import layout, memory_map
from sterna.host.runtime.statistics import useful_bytes
from sterna.hw.boards import BOARDS, preset
from sterna.hw.config import delivered_bytes, most_tokens, most_visits
from sterna.hw.presets import PRESETS
from sterna.hw.protocol import MAX_DATA_BYTES, OVERHEAD_BYTES
from sterna.sim.golden.errors import SternaError
from sterna.sim.perf.predict import predict, program_of, timing_of

SLOTS = 8  # of the presets' second rows
# No place and route of their own: one has one more address bit, the other the die of the ulx3s-25f.
ALIKE = ("ulx3s-85f-64m", "ulx3s-12f")
FRAME_BYTES = MAX_DATA_BYTES + OVERHEAD_BYTES + 2  # on the line: COBS adds a byte and the delimiter
BITS_PER_BYTE = 10  # of a serial line
# Mean power in W of docs/energy.md, low, likely and high: projected with models whose words set the pace, or on the
# iCE40 the vector engine, as they do with others. All boards with an ECP5 have the same memory and gateware.
POWER = {"ecp5": (0.38, 0.77, 1.5), "ice40": (0.0021, 0.0074, 0.024)}
WIDENED = ("lanes160", "lanes320")  # presets whose speed is told with the memories that a model wants, too


@dataclass(frozen=True)
class Row:
    """One configuration with one model.

    Attributes
    ----------
    name, kind : str
        "board" exists and has a bitstream; "preset" is a timing model that no board is built of.
    clock : str
        "placed" (met in nextpnr's model), "as placed" (its twin was) or "projected" (assumed).
    clock_hz, slots : int
    fits : bool
    reasons : tuple of str
        Why it does not fit.
    widened : dict
        Parameters that were made larger for the speeds of a preset that the model does not fit; empty else.
    memory_bytes, image_bytes : int
        What there is, and what the model takes: embedding, weights and vectors.
    load_seconds : float or None
        To send it by the board's serial line; None where there is no board.
    stream_tokens_per_second, tokens_per_second, prompt_tokens_per_second, share : float or None
        One sequence; all slots together; a prompt; useful bytes of what the memory can deliver
        (docs/architecture.md).
        None where the model does not fit.
    cycles_per_run : float or None
        Of a run of the program that makes a token per slot.
    joules_per_token : (float, float, float) or None
        Low, likely and high, by the mean power of the board's kind; None for presets.
    needed_bytes : int
        Memory that the model takes with the states of its texts.
    assumed : str
        What the speeds assume of a memory that is not known here; "" else.
    """

    name: str
    kind: str
    clock: str
    clock_hz: int
    slots: int
    fits: bool
    reasons: tuple
    widened: dict
    memory_bytes: int
    image_bytes: int
    load_seconds: float | None = None
    stream_tokens_per_second: float | None = None
    tokens_per_second: float | None = None
    prompt_tokens_per_second: float | None = None
    share: float | None = None
    cycles_per_run: float | None = None
    joules_per_token: tuple | None = None
    needed_bytes: int = 0
    assumed: str = ""


def names():
    """Configurations of the rows, boards first (list of str)."""
    presets = [name for name in PRESETS if name != "up5k"]  # the board icebreaker is this preset
    rows = [row for name in presets for row in (name, f"{name},batch={SLOTS}")]
    return [*dict.fromkeys([*BOARDS, *rows])]


def needs(config, geometry):
    """Bytes of memory (int) that a model takes on a configuration, its states included."""
    return memory_map(config, geometry, check=False).end


def reasons(config, geometry):
    """Why a model does not fit a configuration (list of str), empty if it does."""
    found, size = [], needs(config, geometry)
    if size > config.memory_bytes:
        found.append(f"memory: needs {megabytes(size)}, has {megabytes(config.memory_bytes)}")
    if geometry.vocab_size > most_tokens(config):
        found.append(f"vocabulary: {geometry.vocab_size:,} tokens, counts {most_tokens(config):,}")
    if geometry.mixer == "tree" and geometry.visits > most_visits(config):
        found.append(f"trees: visits {geometry.visits:,} neurons, walks {most_visits(config):,}")
    try:
        program_of(config, geometry)
    except SternaError as error:  # or a number that no instruction has room for
        found.append(str(error).partition(": use ")[0])
    return found


def megabytes(size):
    """A number of bytes in MB, or in kB where that is better read (str)."""
    return f"{size / 1e6:,.0f} MB" if size >= 10e6 else f"{size / 1e3:,.0f} kB"


def speed(value):
    """Tokens per second with three significant digits (str)."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def widened(config, geometry):
    """{parameter: value} with which the vectors and codes of a model fit a configuration, {} if they do.

    What no wider memory mends, as too many layers for a program, is no reason to widen: ``predict`` raises it.
    """
    trees = geometry.mixer == "tree"
    inner = geometry.visits if trees else layout(config, geometry).inner
    codes = -(-max(geometry.hidden_size, inner) // config.columns)
    out = {"activation_words": codes} if codes > config.activation_words else {}
    if trees and inner > config.tree_rows:
        out["tree_rows"] = inner
    words = config.vector_words
    while words < 1 << 14 and _short(replace(config, vector_words=words, **out), geometry):
        words *= 2
    return out | ({"vector_words": words} if words > config.vector_words else {})


def _short(config, geometry):
    """Whether the vectors do not fit (bool)."""
    try:
        program_of(config, geometry)
    except SternaError as error:
        return str(error).startswith("vector memory")
    return False


def load_seconds(size, baud):
    """Seconds (float) to send so many bytes into a device by a serial line, answers not waited for."""
    return size / MAX_DATA_BYTES * FRAME_BYTES * BITS_PER_BYTE / baud


def row(name, geometry, known=None):
    """The Row of a board or preset, or of one with other parameters ("lanes40,batch=4").

    Parameters
    ----------
    known : dict, optional
        Predictions by configuration: boards that differ in nothing else share them.

    Raises
    ------
    ConfigError
        There is no such board, preset or parameter.
    """
    config, known = preset(name), {} if known is None else known
    board = BOARDS.get(name)
    size = memory_map(config, geometry, check=False).state_address
    why = reasons(config, geometry)
    # Vivado has not been run, nor has LiteDRAM's board been placed.
    placed = board and not (board.vivado or board.memory_hz)
    clock = "as placed" if name in ALIKE else "placed" if placed else "projected"
    out = Row(name, "board" if board else "preset", clock, config.clock_hz, config.batch, not why, tuple(why), {},
              config.memory_bytes, size, board and load_seconds(size, board.baud),
              needed_bytes=needs(config, geometry))
    if why and config.name.partition(",")[0] not in WIDENED:
        return out
    if why:
        try:
            more = widened(config, geometry)
            config = replace(config, **more)
            speeds = _speeds(config, geometry, known)
        except SternaError:  # nor would a wider one do
            return out
        size = needs(config, geometry)
        more |= {"memory_bytes": size} if size > config.memory_bytes else {}
        return replace(out, widened=more, **speeds)
    out = replace(out, **_speeds(config, geometry, known))
    if board and (config.sdram or config.memory == "onchip"):  # of others no measurement is known
        power = POWER["ecp5" if config.sdram else "ice40"]
        out = replace(out, joules_per_token=tuple(watts / out.tokens_per_second for watts in power))
    return out


def _assumed(config):
    timing, assumed = timing_of(config)
    if not assumed:
        return ""
    return f"its memory is not known: {timing.latency} cycles until the first word and no refreshes are assumed"


def _speeds(config, geometry, known):
    key = config.digest, timing_of(config)  # a memory's timing goes by the name, which the digest leaves out
    if key not in known:
        made, read = predict(config, geometry), predict(config, geometry, prompt=True)
        useful = useful_bytes(geometry, config.weight_code, tokens=config.batch) / delivered_bytes(config)
        known[key] = {
            "stream_tokens_per_second": made.stream_tokens_per_second, "tokens_per_second": made.tokens_per_second,
            "prompt_tokens_per_second": read.tokens_per_second,
            "share": useful / (made.cycles_per_run - made.refresh), "cycles_per_run": made.cycles_per_run,
            "assumed": _assumed(config)}
    return known[key]


def rows(geometry, which=None, progress=lambda name: None):
    """A Row per name of ``names()``, or of ``which``; ``progress`` takes each name before it is computed."""
    known, out = {}, []
    for name in which or names():
        progress(name)
        out.append(row(name, geometry, known))
    return out
