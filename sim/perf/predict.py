"""Cycles per token of a model on a configuration, in milliseconds to seconds: no gateware is simulated."""

from dataclasses import dataclass, replace
from functools import lru_cache
from math import erf, log, sqrt

from sterna.firmware import isa
from sterna.firmware.layout import memory_map
from sterna.firmware.program import ProgramError, build_program
from sterna.sim.perf.machine import Kind, Machine
from sterna.sim.perf.memory import TIMING, Timing

FEW_LAYERS = 3  # of a large model; the others take as long as the one in the middle
LARGE = 60_000  # events of all layers, from which on a model is large
LARGE_HEAD = 1 << 15  # rows of the head, beyond which not all are walked
FEW_ROWS = 1 << 13  # so many of them, and twice as many; the others take as long as the second half of these
WARM = 1  # runs of the program until it goes on evenly
RUNS, FEW_RUNS = 4, 1  # runs whose mean is taken, of a large model too


@dataclass(frozen=True)
class Prediction:
    """What a model does on a configuration.

    Attributes
    ----------
    config : Config
    cycles_per_run : float
        Of the accelerator's clock, as its counter of cycles counts them.
    tokens_per_run : int
        Tokens that one sweep of the weights serves.
    words, refresh, full, empty, wait : float
        Words that the memory gives per run; cycles per run without one, by cause (docs/performance.md).
    stall_stream, stall_rows, stall_idle : float
        Cycles per run in which the array waits for words, for room for its rows, and for a product.
    """

    config: object
    cycles_per_run: float
    tokens_per_run: int
    words: float
    refresh: float
    full: float
    empty: float
    wait: float
    stall_stream: float
    stall_rows: float
    stall_idle: float

    @property
    def cycles_per_token(self):
        """Cycles divided by all tokens of a run (float)."""
        return self.cycles_per_run / self.tokens_per_run

    @property
    def stream_tokens_per_second(self):
        """Tokens per second of one sequence at the configuration's clock (float)."""
        return self.config.clock_hz / self.cycles_per_run

    @property
    def tokens_per_second(self):
        """Tokens per second of all slots together (float)."""
        return self.config.clock_hz / self.cycles_per_token


class Conversions:
    """Mean cycles of a serial conversion (``hw/vector/serial.py``) beside its least ones: places to be shifted by.

    They depend on the numbers. Assumed are codes of normal numbers, the largest of n being 127, before the matrices
    behind a norm; those before the output projection and the down projection are products, whose peaks stand out
    more. The factors were taken from random and trained models (hidden 60 to 240), which lie on both sides.
    """

    GATED = (3, 5)  # of the six products of a layer
    DENSITY = 0.89  # root mean square of a trit times what codes have in common
    fractions = 2.0  # the first bit is 0, and so many leading zeros a random number has

    def __init__(self, hidden):
        self.codes = self._shifts(self._plain(hidden))
        self._known = {}

    @staticmethod
    def _plain(count):
        return 127 / sqrt(2 * log(max(count, 3)))

    @staticmethod
    def _gated(count):
        return 25.8 * (60 / count) ** 0.31

    @staticmethod
    def _shifts(deviation):
        """16 less the mean number of bits of a normal integer (float)."""
        total, below = 0.0, 0.0
        for bits in range(16):
            upto = erf((2**bits - 0.5) / deviation / sqrt(2))
            total += (upto - below) * (16 - bits)
            below = upto
        return total

    def rows(self, columns, product):
        """For the sums of so many columns, of a product of the run (float)."""
        kind = columns, product % 6 in self.GATED
        if kind not in self._known:
            deviation = self._gated(columns) if kind[1] else self._plain(columns)
            self._known[kind] = self._shifts(self.DENSITY * deviation * sqrt(columns))
        return self._known[kind]


def _events(config, geometry):
    """Instructions, rows of tiles, bursts and beats of a layer, roughly (int)."""
    h, slots = geometry.hidden_size, config.batch
    if geometry.mixer == "tree":
        inner, mixer = geometry.visits * slots * config.rows, 2 * h * geometry.visits * slots
    else:
        inner, mixer = geometry.intermediate_size, 3 * h * geometry.intermediate_size
    rows = 5 * h + 2 * inner
    words = (4 * h * h + mixer) / 5 / config.port_bytes
    return int(400 + rows / config.rows + 2 * rows / config.lanes + words / 32)


@lru_cache(maxsize=8)
def program_of(config, geometry):
    """The token program, decoded, of a model whose memory is as large as it has to be (list of (opcode, fields)).

    ProgramError: its vectors, codes or program do not fit the configuration. IsaError: a number of it, as that of
    its layers, is larger than an instruction has room for.
    """
    where = memory_map(config, geometry, check=False)
    return [isa.decode(word) for word in build_program(config, geometry, where).words]


def _measure(config, geometry, timing, kind, conversions, keys, count):
    """Mean Counts of a run."""
    program_of(config, geometry)  # the whole one can be encoded, even if less of it is walked
    layers, rows, runs = geometry.num_hidden_layers, geometry.vocab_size, count or RUNS
    if layers > FEW_LAYERS and _events(config, geometry) * layers > LARGE:
        geometry, runs = replace(geometry, num_hidden_layers=FEW_LAYERS), count or FEW_RUNS
    more, bits = layers - geometry.num_hidden_layers, max(0, (rows - 1).bit_length() - 1)

    def walked(geometry, runs):
        machine = Machine(config, program_of(config, geometry), timing, kind, conversions, bits, keys)
        for _ in range(WARM):
            machine.run()
        found = [machine.run(more) for _ in range(runs)]
        return sum(found[1:], found[0]) * (1 / runs)

    if rows <= LARGE_HEAD or not kind.output or kind.top_k:  # a list takes rows ever more rarely
        return walked(geometry, runs)
    some, twice = (walked(replace(geometry, vocab_size=n), count or FEW_RUNS) for n in (FEW_ROWS, 2 * FEW_ROWS))
    return twice + (twice - some) * ((rows - 2 * FEW_ROWS) / FEW_ROWS)


def timing_of(config):
    """Timing of a configuration's memory behind the port (Timing), and whether it is assumed (bool): no preset's."""
    name = config.name.partition(",")[0]
    return TIMING.get(name, Timing()), config.memory == "external" and not config.sdram and name not in TIMING


def predict(config, geometry, *, prompt=False, sampled=True, top_k=0, top_p=False, timing=None,
            conversions=None, keys=None, runs=None):
    """What a model does on a configuration, in the steady state: every slot has a token in each run.

    Parameters
    ----------
    config : Config
        A preset, a board's, or one of them with other parameters.
    geometry : ModelGeometry
    prompt : bool
        Tokens of a prompt are read, with slots chained; otherwise they are made, each slot of a build for itself.
    sampled, top_k, top_p
        How tokens are made: with a temperature, among the ``top_k`` best rows (0: all), of these by top-p.
    timing : Timing, optional
        Of a memory behind the port; by default that of ``timing_of``: the preset's, without refreshes for others.
    conversions : Conversions, optional
        For builds that convert serially (`compact`); by default of numbers as models have them.
    keys : callable, optional
        The next row's key (float) for the list of the best rows, from the run on that warms up; by default the rows
        are in random order.
    runs : int, optional
        Runs behind the first one whose mean is taken.

    Returns
    -------
    Prediction

    Raises
    ------
    ProgramError, IsaError
        The model does not fit the build: its vectors, codes or program, all layers of it. The size of the memory is
        not looked at, nor how many rows a walk may have. Trees, and memory on the chip.
    """
    if geometry.mixer == "tree" and config.memory != "external":
        raise ProgramError(f"trees: {config.name} has its memory on the chip, where no records are walked: use a "
                           "configuration with memory outside of it")
    timing = timing or timing_of(config)[0]
    kind = Kind(output=not prompt, sampled=sampled and not prompt, top_k=top_k, top_p=top_p,
                chained=prompt and config.batch > 1)
    conversions = conversions or Conversions(geometry.hidden_size)
    found = _measure(config, geometry, timing, kind, conversions, keys, runs)
    return Prediction(config, found.cycles, config.batch, found.words, found.refresh, found.full, found.empty,
                      found.wait, found.stall_stream, found.stall_rows, found.cycles - found.busy)
