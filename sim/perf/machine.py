"""Walks the program of a token as the sequencer does and asks the engines when each instruction is taken."""

from dataclasses import astuple, dataclass
from math import ceil

from sterna.firmware import isa
from sterna.firmware.layout import share
from sterna.sim.perf.array import DENSE, GATHER, WALK, Array
from sterna.sim.perf.engines import SHARE_CYCLES, GatheredRows, MergedWords, Rows
from sterna.sim.perf.fetch import DirectReads, ReadAhead
from sterna.sim.perf.memory import PortMemory, SdramMemory
from sterna.sim.perf.toplist import TopLists
from sterna.sim.perf.vector import PLACES, VectorEngine

RESTART = 2  # cycles between the end of a run and the next one's first state, one slot
EVENT_CYCLES = 22  # of the frame of a token, on a link that takes a byte a cycle
STORE_PIECE = 16  # words of a store, behind which reads may have gone on
HELD = 3  # words of a store between the vector engine and the memory


@dataclass(frozen=True)
class Kind:
    """What the runs are that follow each other.

    Attributes
    ----------
    output : bool
        Tokens are made, otherwise read.
    sampled : bool
    top_k : int
    top_p : bool
    chained : bool
        The slots have consecutive tokens of one sequence.
    """

    output: bool = True
    sampled: bool = False
    top_k: int = 0
    top_p: bool = False
    chained: bool = False


@dataclass
class Counts:
    """What the counters say, as floats: cycles in all, words that were taken, and cycles by cause."""

    cycles: float
    words: float
    refresh: float
    full: float
    empty: float
    wait: float
    busy: float
    stall_stream: float
    stall_rows: float

    def __sub__(self, other):
        return self + other * -1

    def __add__(self, other):
        return Counts(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, factor):
        return Counts(*(value * factor for value in astuple(self)))


class Machine:
    """The accelerator with a program in it.

    Parameters
    ----------
    config : Config
    program : list of (opcode, fields)
    timing : Timing
        Of a memory behind the port.
    kind : Kind
    serial : object
        As for ``VectorEngine``.
    token_bits : int
        Bits of the tokens' numbers.
    keys : callable, optional
        The next row's key (float), for the list of the best rows; random ones by default.
    """

    def __init__(self, config, program, timing, kind, serial, token_bits, keys=None):
        self._config, self._program, self._kind = config, program, kind
        self._token_bits = token_bits
        count = config.engines
        if config.memory == "external":
            each = config.of_engine
            self._memories = [SdramMemory(each) if config.sdram else PortMemory(timing) for _ in range(count)]
            self._fetches = [ReadAhead(each, memory) for memory in self._memories]
        else:
            self._memories, self._fetches = [], [DirectReads()]
        pops = [[] for _ in range(count)]
        self._arrays = [Array(config, fetch, of) for fetch, of in zip(self._fetches, pops, strict=True)]
        # What is counted, is counted of the first engine.
        self.memory, self._fetch, self._array = (self._memories or [None])[0], self._fetches[0], self._arrays[0]
        several = count > 1
        self._rows = GatheredRows(config, self._arrays, pops) if several else Rows(self._array, pops[0])
        self._merged = MergedWords(self._fetches) if several else None
        self._vector = VectorEngine(config, self._rows, self._merged or self._fetch, serial)
        self._list = TopLists(config.batch, min(kind.top_k, config.top_k) if kind.sampled else 0, kind.top_p, keys)
        self._registered = not config.slow
        self._step = 3 if self._registered else 2
        self._turns = config.slow and config.word_address_bits <= 16  # the address registers form a ring
        self._first_register = 0
        self._address = [0] * 4
        self._word = 0  # number of the next section's first word
        # Of each engine, the cycle from which on its stream is for the next section; None: behind the last product.
        self._fronts = [0] * count
        self._stores = 0  # first cycle in which the store engine is at rest
        self._taken = []  # of products whose rows are taken: [columns, number in the run, beats left]
        self._fresh = True
        self._time = 0

    def run(self, layers=0):
        """One run of the program; returns the Counts of its cycles.

        Parameters
        ----------
        layers : int
            Further layers that the model has, each as the one before the last one of the program.
        """
        before = self._counts(self._time)
        begin = self._time
        self._ends = []  # of layers
        self._loop = self._off = self._left = self._vl = self._number = 0
        self._slot = None
        time, pc = begin + self._step - 1, 0
        while pc is not None:
            opcode, f = self._program[pc]
            done, pc = self._execute(opcode, f, time, pc)
            time = done + self._step
        self._fresh = False
        found = self._counts(done + 1) - before
        if layers:
            found += (self._ends[-1] - self._ends[-2]) * layers
        self._time = done + 1 + self._gap()
        return found

    def _gap(self):
        """Cycles between two runs, which are not counted."""
        batch = self._config.batch
        return RESTART if batch == 1 else 9 * batch + 4

    def _counts(self, time):
        fetch, array = self._fetch, self._array
        refresh = self.memory.refreshes(0, time) if self.memory else 0
        return Counts(time, self._word, refresh, fetch.full, fetch.empty, fetch.wait, array.busy, array.stall_stream,
                      array.stall_rows)

    def _execute(self, opcode, f, time, pc):
        """(cycle in which an instruction is done that is issued at a time, the next one)."""
        follows = pc + 1
        if opcode == isa.VOP:
            return (self._operation(f, time) if self._meant() else time), follows
        if opcode == isa.NEXT:
            self._left -= f["strip"]
            self._off += f["step"]
            time += not self._registered
            if self._left > 0:
                self._vl = min(f["strip"], self._left)
                return time, f["target"]
        elif opcode == isa.STRIP:
            self._left, self._off = f["elements"], 0
            self._vl = min(f["strip"], self._left)
        elif opcode == isa.JUMP:
            if self._holds(f["condition"]):
                return time, f["target"]
        elif opcode in (isa.MATVEC, isa.WALK):
            time = self._product(opcode, f, time)
        elif opcode in (isa.FETCH, isa.STORE):
            time = self._block(opcode, f, time)
        elif opcode in (isa.SETA, isa.ROWA):
            time = self._set(opcode, f, time)
        elif opcode == isa.LOOP:
            self._loop = f["count"]
        elif opcode == isa.AGAIN:
            self._loop -= 1
            if self._loop > 0:
                self._ends.append(self._counts(time))
                return time, f["target"]
        elif opcode == isa.SLOT:
            return time, self._slot_loop(f, pc)
        elif opcode == isa.WAITM:
            time = max(time, self._vector.idle, self._stores + self._registered)
        elif opcode == isa.SAMPLE:
            time = self._sample(f, time)
        elif opcode == isa.HALT:
            time = max(time, self._vector.idle, self._finish() + 1 + self._registered,
                       self._stores + self._registered)
            return time, None
        return time, follows

    def _holds(self, condition):
        kind = self._kind
        return (True, self._loop == 1, not kind.output, not kind.sampled, False, self._fresh, kind.chained)[condition]

    def _slot_loop(self, f, pc):
        if not f["again"]:
            self._slot = f, 0
            return pc + 1
        begin, slot = self._slot
        self._slot = (begin, slot + 1) if slot + 1 < self._config.batch else None
        return f["target"] if self._slot else pc + 1

    def _meant(self):
        """Whether VOP, FETCH and STORE do anything here: all slots have a token, none is at its start."""
        if not self._slot:
            return True
        begin, slot = self._slot
        if begin["which"] == isa.FIRST:
            return False
        if self._kind.chained and begin["which"] in (isa.READS, isa.WRITES):
            return slot == self._config.batch - 1
        return True

    def _set(self, opcode, f, time):
        """SETA and ROWA."""
        self._address[f["areg"]] = f["value"] if opcode == isa.SETA else f["base"]
        if self._turns:
            return self._turn(f["areg"], time)
        return time + (self._token_bits + 2 if opcode == isa.ROWA else 0)

    def _turn(self, register, time):
        """The ring of address registers turns until one comes first, and on behind it."""
        if not self._turns:
            return time
        time += (register - self._first_register) % 4
        self._first_register = (register + 1) % 4
        return time

    def _block(self, opcode, f, time):
        """FETCH and STORE."""
        register, words = f["areg"], f["words"]
        kind = f["kind"] if opcode == isa.FETCH else isa.KIND_LINEAR
        time = self._turn(register, time)
        address = self._address[register]
        if kind in (isa.KIND_LINEAR, isa.KIND_SKIP):
            self._address[register] += words if opcode == isa.FETCH else -(-words // self._config.engines)
        if not self._meant() or kind == isa.KIND_SKIP:
            return time
        if opcode == isa.FETCH:
            time = self._fetch.accept(time)
            for fetch in self._fetches:
                fetch.command(time, kind, address, words, f["trees"], f["levels"], f["always"])
            return time
        time = max(time, self._stores)
        self._store = address, words
        return time

    def _product(self, opcode, f, time):
        """MATVEC and WALK."""
        config = self._config
        accepted = max(time + 1, self._vector.idle, *(array.free() for array in self._arrays))
        if config.engines > 1:
            accepted = max(accepted, time + 1 + SHARE_CYCLES)
        rows, columns = f["rows"], f["chunks"] * config.columns
        each = share(rows, config.unit, config.engines)
        mode, records, tiles = DENSE, 1, -(-each // config.rows) * f["chunks"]
        if opcode == isa.WALK:
            mode, records, tiles = GATHER if f["out"] else WALK, rows * config.batch, f["chunks"]
            rows, columns = (f["length"], rows) if f["out"] else (rows, f["length"])
        for array, front in zip(self._arrays, self._fronts, strict=True):
            front = None if front is None else max(front, time + 1)
            array.product(accepted, front, self._word, each if mode == DENSE else rows, f["chunks"], mode, records)
        self._word += records * -(-tiles * config.tile_bytes // config.port_bytes)
        self._fronts = [None] * config.engines
        self._rows.product(-(-rows // config.lanes))
        self._taken.append([columns, self._number, -(-rows // config.lanes)])
        self._number += 1
        return accepted

    def _operation(self, f, time):
        """VOP."""
        config, vector = self._config, self._vector
        section, ready = None, 0
        kind = f["a_kind"]
        elements = 1 if f["one"] else self._vl
        beats = -(-elements // config.lanes)
        if kind in (isa.A_STREAM32, isa.A_STREAM8):
            time += 1  # its section is announced
            front = self._finish() + 1 if self._fronts[0] is None else max(self._fronts)
            section = max(front, time), self._word * config.engines
            if self._merged:
                self._merged.begin(self._word)
        elif kind == isa.A_ROW:
            rows = self._taken[0]
            vector.product = rows[:2]
            rows[2] -= beats
            if not rows[2]:
                self._taken.pop(0)
        if f["d_kind"] == isa.D_LIST:
            ready = self._list.free
        taken, done = vector.execute(time, f, elements, section, ready)
        if section:
            bytes_ = beats * config.lanes * (1 if kind == isa.A_STREAM8 else 4)
            self._word += -(-bytes_ // config.word_bytes)
            self._fronts = self._merged.end(done) if self._merged else [done + 1]
        if f["d_kind"] == isa.D_MEM:
            self._write(beats)
        elif f["d_kind"] == isa.D_SAMPLE:
            self._list.scores(vector.first_write, vector.last_write, elements)
        return taken

    def _finish(self):
        """Cycle in which all engines have taken the last tile of the last product."""
        return max(array.finish() for array in self._arrays)

    def _write(self, beats):
        """The words of a VOP to memory."""
        vector = self._vector
        address, words = self._store
        pace = max(1, beats / words)  # of the words, at least
        taken = []
        if not self.memory:
            self._fetch.write(vector.first_write + PLACES, words)
        for number in range(words):
            time = vector.first_write + PLACES + number * pace
            if number >= HELD:
                time = max(time, taken[number - HELD] + PLACES)
            if not number or not (number % STORE_PIECE or self._config.sdram):  # an SDRAM's reads wait
                for array, fetch in zip(self._arrays, self._fetches, strict=True):
                    array.run_until(time)
                    fetch.run_until(time)
            at, engine = divmod(number, self._config.engines)
            taken.append(self._memories[engine].write(time, address + at) if self.memory else time)
        self._stores = ceil(taken[-1]) + 1
        late = ceil(taken[-1 - min(HELD, words - 1)]) - vector.last_write
        if late > 0:
            vector.stalled(late)
        vector.stored = self._stores

    def _sample(self, f, time):
        """SAMPLE."""
        if not f["end"]:
            self._list.start()
            return self._vector.start(time)
        time = max(time, self._vector.idle, self._list.done(time))
        # With several slots each token is recorded when the link has taken the one before.
        batch = self._config.batch
        return time + (0 if batch == 1 else 4 + EVENT_CYCLES * (batch - 1)) + (not self._registered)
