"""Cycles per token of a model on a configuration, in milliseconds to seconds: no gateware is simulated."""

from dataclasses import dataclass, replace
from math import erf, log, sqrt

from sterna.firmware import isa
from sterna.firmware.layout import layout, memory_map
from sterna.firmware.program import build_program
from sterna.hw.config import delivered_bytes
from sterna.sim.perf.machine import Counts, Kind, Machine
from sterna.sim.perf.memory import TIMING, Timing

MOST_LAYERS = 4  # of a large model; the others take as long as its last ones
LARGE = 150_000  # rows of tiles, bursts and beats of a layer times layers, from which on a model is large
WARM, RUNS = 1, 3  # runs of the program: until it goes on evenly, and those that are looked at


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

    Codes are those of normal numbers, the largest of which is 127; two trits in three are not zero.
    """

    codes_per_deviation = 127
    fractions = 2.0  # the first bit is 0, and so many leading zeros a random number has

    @staticmethod
    def _shifts(deviation):
        """16 less the mean number of bits of a normal integer (float)."""
        if deviation <= 0:
            return 16.0
        total, below = 0.0, 0.0
        for bits in range(16):
            upto = erf((2**bits - 0.5) / deviation / sqrt(2))
            total += (upto - below) * (16 - bits)
            below = upto
        return total

    def _deviation(self, count):
        return 127 / sqrt(2 * log(max(count, 3)))

    def __init__(self, hidden):
        self.codes = self._shifts(self._deviation(hidden))
        self._known = {}

    def rows(self, columns):
        """For the sums of so many columns (float)."""
        if columns not in self._known:
            self._known[columns] = self._shifts(self._deviation(columns) * sqrt(columns * 2 / 3))
        return self._known[columns]


def _events(config, geometry):
    """Rows of tiles, bursts and beats of a layer, roughly (int)."""
    h, i = geometry.hidden_size, geometry.intermediate_size
    rows = 5 * h + 2 * i
    words = (4 * h * h + 3 * h * i) / 5 / config.port_bytes
    return int(rows / config.rows + 2 * rows / config.lanes + words / 32)


def _measure(config, geometry, timing, kind):
    """Mean Counts of a run (of floats)."""
    where = memory_map(config, geometry, check=False)
    program = [isa.decode(word) for word in build_program(config, geometry, where).words]
    bits = max(0, (geometry.vocab_size - 1).bit_length() - 1)
    machine = Machine(config, program, timing, kind, Conversions(geometry.hidden_size), bits)
    for _ in range(WARM):
        machine.run()
    found = [machine.run() for _ in range(RUNS)]
    return Counts(*(sum(getattr(c, name) for c in found) / RUNS for name in Counts.__dataclass_fields__))


def predict(config, geometry, *, prompt=False, sampled=True, top_k=0, top_p=False, timing=None):
    """What a model does on a configuration, in the steady state: every slot has a token in each run.

    Parameters
    ----------
    config : Config
        A preset, a board's, or one of them with other parameters.
    geometry : Geometry
    prompt : bool
        Tokens of a prompt are read, with slots chained; otherwise they are made, each slot of a build for itself.
    sampled, top_k, top_p
        How tokens are made: with a temperature, among the ``top_k`` best rows (0: all), of these by top-p.
    timing : Timing, optional
        Of a memory behind the port; by default the preset's (``TIMING``), without refreshes for others.

    Returns
    -------
    Prediction

    Raises
    ------
    ProgramError
        The model does not fit the build: its vectors, codes or program. The size of the memory is not looked at.
    """
    timing = timing or TIMING.get(config.name.partition(",")[0], Timing())
    kind = Kind(output=not prompt, sampled=sampled and not prompt, top_k=top_k, top_p=top_p,
                chained=prompt and config.batch > 1)
    layers = geometry.num_hidden_layers
    if layers <= MOST_LAYERS or _events(config, geometry) * layers <= LARGE:
        found = _measure(config, geometry, timing, kind)
    else:
        few, some = (_measure(config, replace(geometry, num_hidden_layers=n), timing, kind)
                     for n in (MOST_LAYERS - 2, MOST_LAYERS))
        more = (layers - MOST_LAYERS) / 2
        found = Counts(*(getattr(some, name) + more * (getattr(some, name) - getattr(few, name))
                         for name in Counts.__dataclass_fields__))
    return Prediction(config, found.end, config.batch, found.words, found.refresh, found.full, found.empty,
                      found.wait, found.stall_stream, found.stall_rows, found.end - found.busy)
