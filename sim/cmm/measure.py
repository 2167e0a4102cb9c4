"""Times calls in short turns: what else the machine does then meets all ways alike."""

import time
from dataclasses import asdict, dataclass

import numpy as np

from sterna.sim.cmm.check import check
from sterna.sim.cmm.ways import PACKED_COPIES, Buffers
from sterna.sim.cmm.weights import widened

STATES = ("same", "warm", "cold")
TURNS, CALLS = 6, 10  # of every way; a fast one makes more calls in a turn
QUICK_TURNS, QUICK_CALLS = 2, 4
TURN_NS, MOST_CALLS = 2_000_000, 50
WITHIN = 1.5  # ways this much slower than the best of their group and kind drop out after the first look
LOOK_CALLS = 5
SLEEP_S = 0.03  # between turns with several threads: those of OpenBLAS and OpenMP spin for some time
WARMER = 3  # what is read between two calls on a copy of the layer is this many times the last cache


@dataclass(frozen=True)
class Row:
    """Times of the calls of a way.

    Attributes
    ----------
    threads, batch : int
    state, group, kind, name : str
        "look" is the first look, in the state "warm".
    median_us, minimum_us, p90_us : float
    calls : int
    """

    threads: int
    batch: int
    state: str
    group: str
    kind: str
    name: str
    median_us: float
    minimum_us: float
    p90_us: float
    calls: int


def row(threads, batch, state, way, times_ns):
    """A Row of times in ns."""
    us = np.asarray(times_ns) / 1e3
    return Row(threads, batch, state, way.group, way.kind, way.name, float(np.median(us)), float(us.min()),
               float(np.percentile(us, 90)), len(us))


class Inputs:
    """Inputs in batches, copied into the buffers as the layer before would leave them.

    Parameters
    ----------
    x : float32 [samples, HIDDEN]
    x_half : uint16 [samples, HIDDEN]
        The same, rounded to bfloat16.
    batch : int
    """

    def __init__(self, x, x_half, batch):
        self.buffers, self._x, self._half, self._batch, self._next = Buffers(batch), x, x_half, batch, 0

    def load(self, way, number=None):
        """Copies batch ``number``, or the next one, into what a way reads."""
        if number is None:
            self._next = (self._next + 1) % (len(self._x) // self._batch)
            number = self._next
        part = slice(number * self._batch, (number + 1) * self._batch)
        if way.half:
            np.copyto(self.buffers.x_half, self._half[part])
        else:
            np.copyto(self.buffers.x, self._x[part])

    def result(self, way):
        """What a way left (float64)."""
        return (widened(self.buffers.y_half) if way.half else self.buffers.y).astype(np.float64)


class Copies:
    """Copies of the layer but the first, visited in turn: between two calls on one, ``distance`` bytes are read.

    Parameters
    ----------
    layers : weights.Layers
        Enough of them: all but two have ``distance`` bytes.
    distance : int
    """

    def __init__(self, layers, distance):
        if (layers.count - 2) * layers.copy_bytes < distance:
            raise ValueError(f"{layers.count} copies are too few")
        self._layers, self._distance = layers, distance
        self._read, self._at, self._seen = 0, 1, {}

    def read(self):
        """Reads the copy that was left alone for longest."""
        self._layers.read(self._at)
        self._at = self._at % (self._layers.count - 1) + 1
        self._read += self._layers.copy_bytes

    @property
    def current(self):
        """The copy that was left alone for longest (int)."""
        return self._at

    def make_cold(self, key):
        """Reads on until a thing of that name has not been used for long enough."""
        while self._read - self._seen.get(key, self._read - self._distance) < self._distance:
            self.read()

    def used(self, key):
        """Notes that a thing of that name has been read."""
        self._seen[key] = self._read


class Contest:
    """All ways for one batch with so many threads.

    Parameters
    ----------
    bench : ways.Bench
    inputs : Inputs
    threads : int
    cold : Copies or None
    turns, calls : int
    """

    def __init__(self, bench, inputs, threads, cold, turns=TURNS, calls=CALLS):
        self._bench, self._inputs, self._threads, self._cold = bench, inputs, threads, cold
        self._turns, self._calls, self._prepared = turns, calls, {}

    @property
    def batch(self):
        """Samples of a batch (int)."""
        return len(self._inputs.buffers.x)

    def function(self, way, copy):
        """The function of a way for a copy; made once."""
        key = way, copy
        if key not in self._prepared:
            self._prepared[key] = way.prepare(self._bench, copy, self._inputs.buffers)
        return self._prepared[key]

    def check(self, way, truth):
        """The error of a way beside float64; raises as ``check.check``."""
        self._inputs.load(way, 0)
        buffers = self._inputs.buffers
        buffers.y[:], buffers.y_half[:] = np.nan, 0x7fc0
        self.function(way, 0)()
        return check(way, self._inputs.result(way), truth.of(way, self.batch), self.batch)

    def look(self, ways):
        """(those that are worth more, rows of all): a few calls each."""
        times = {way: self._turn(way, "warm", LOOK_CALLS) for way in ways}
        best = {}
        for way, found in times.items():
            key = way.group, way.kind
            best[key] = min(best.get(key, float("inf")), min(found))
        kept = [way for way, found in times.items() if min(found) <= WITHIN * best[way.group, way.kind]]
        return kept, [row(self._threads, self.batch, "look", way, found) for way, found in times.items()]

    def run(self, ways, state):
        """Rows of all ways in a state, in turns."""
        times = {way: [] for way in ways}
        for number in range(self._turns):
            first = number * len(ways) // self._turns
            for way in [*ways[first:], *ways[:first]]:
                times[way] += self._turn(way, state, self._calls)
        return [row(self._threads, self.batch, state, way, found) for way, found in times.items()]

    def _turn(self, way, state, calls):
        """Times in ns of a turn; the first call is not among them."""
        if self._threads > 1:
            time.sleep(SLEEP_S)
        self._inputs.load(way, 0)
        if state == "cold":
            return self._cold_turn(way, calls)
        function, clock, out, total = self.function(way, 0), time.perf_counter_ns, [], 0
        function()
        while len(out) < calls or (total < TURN_NS and len(out) < MOST_CALLS):
            if state == "warm":
                self._inputs.load(way)
            start = clock()
            function()
            out.append(clock() - start)
            total += out[-1]
        return out

    def _cold_turn(self, way, calls):
        """As ``_turn``. Only the weights are cold: right before, the same code runs on the first copy, then the input
        is written.
        """
        cold, clock, out, first = self._cold, time.perf_counter_ns, [], self.function(way, 0)
        own = {(way, k): self.function(way, ("own", k)) for k in range(PACKED_COPIES)} if way.own else {}
        for _ in range(calls + 1):
            if way.own:
                key = (way, self._next_own(way))
                function = own[key]
                cold.make_cold(key)
            else:
                key = cold.current
                function = self.function(way, key)
            first()
            self._inputs.load(way)
            if not way.own:
                self._bench.layers.touch(key)
            start = clock()
            function()
            out.append(clock() - start)
            # The rest of the copy is read too, so that every call moves all of them on by one.
            cold.read()
            cold.used(key)
        return out[1:]

    def _next_own(self, way):
        count = self._prepared.get(("next", way), 0)
        self._prepared["next", way] = count + 1
        return count % PACKED_COPIES


def as_dicts(rows):
    """Rows as JSON takes them (list of dict)."""
    return [asdict(one) for one in rows]
