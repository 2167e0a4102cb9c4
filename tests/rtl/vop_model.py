"""Model of vector operations, written from docs/isa.md: one `Vop` at a time, on float64 arrays of fp24 values."""

from dataclasses import dataclass, field

import numpy as np
from sterna.sim.golden import fp24, rng, tables, toplist

FUNCTIONS = (None, tables.sigmoid, tables.recip, tables.rsqrt, tables.log2, tables.log1m, tables.exponent)
NONE, VECTOR, SCALAR, CODES0, CODES1, MEM, SAMPLE, LIST = range(8)
ROW, STREAM32, STREAM8, RANDOM = 4, 5, 6, 7
PLUS, MOD = 1 << 15, 1 << 14


@dataclass
class Vop:
    """Fields of a vector operation; the last three are not in its word but come from the slot loop around it."""

    one: int = 0
    wait: int = 1
    negp: int = 0
    negc: int = 0
    table: int = 0
    peak: int = 0
    k: int = 0
    a: int = 3
    b: int = 3
    c: int = 3
    d: int = 0
    banks: int = 0
    aa: int = 0
    ba: int = 0
    ca: int = 0
    da: int = 0
    slots: int = 255
    slot: int = 0
    prior: int = 0

    def word(self):
        """The 96-bit instruction."""
        fields = ((1, 4), (self.one, 1), (self.wait, 1), (self.negp, 1), (self.negc, 1), (self.table, 3),
                  (self.peak, 2), (self.k, 5), (self.a, 3), (self.b, 2), (self.c, 3), (self.d, 3), (self.banks, 3),
                  (self.aa, 16), (self.ba, 16), (self.ca, 16), (self.da, 16))
        word, place = 0, 0
        for value, width in fields:
            assert 0 <= value < 1 << width, (self, value, width)
            word |= value << place
            place += width
        return word


@dataclass
class SlotState:
    """What each slot has: ``banks`` [3, words, V], ``scalars`` [32], the key of its random numbers, its best row, and
    the keys and scores of its list (k rows, p).
    """

    banks: np.ndarray
    scalars: np.ndarray = field(default_factory=lambda: np.array([0.0, 1.0, *[0.0] * 30]))
    key: int = 0
    top: tuple = (0, 0)
    best: int = 0
    best_score: float | None = None
    keys: list = field(default_factory=list)
    scores: list = field(default_factory=list)

    def chosen(self):
        """The row that wins."""
        if not self.top[0] or not self.keys:
            return self.best
        return toplist.choose(np.array(self.keys), np.array(self.scores), *self.top)


class Model:
    """State of the vector engine: ``states``, one per slot, the row counter, and outputs.

    ``rows`` (lists of B V int), ``stream`` (bytes of whole words) are consumed; ``trace`` (values or codes of B V per
    beat), ``codes`` ((first, buffer, codes) per beat) and ``store`` (memory words, int) are appended to.
    """

    def __init__(self, lanes, port_bytes, words, batch=1):
        self.lanes, self.port_bytes = lanes, port_bytes
        self.states = [SlotState(np.zeros((3, words, lanes))) for _ in range(batch)]
        self.rows, self.stream = [], bytearray()
        self.trace, self.codes, self.store = [], [], []
        self.start([0] * batch, [0] * batch, [(0, 0)] * batch)

    def start(self, seeds, positions, tops):
        """Start a new sampling."""
        self.row = 0
        for state, seed, position, top in zip(self.states, seeds, positions, tops, strict=True):
            state.key, state.top, state.best, state.best_score = rng.key(seed, position), top, 0, None
            state.keys, state.scores = [], []

    def _address(self, field, vop, beat, offset):
        base = field & 0x3FFF
        if vop.one:
            return base
        if field & MOD:
            return base + (offset + beat) % (64 // self.lanes)
        return base + beat + (offset if field & PLUS else 0)

    def _section(self, vop, beats):
        """Numbers of the operation's section of the stream."""
        size = beats * self.lanes * (4 if vop.a == STREAM32 else 1)
        padded = -(-size // self.port_bytes) * self.port_bytes
        section, self.stream = self.stream[:padded], self.stream[padded:]
        numbers = np.frombuffer(bytes(section[:size]), "<u4" if vop.a == STREAM32 else np.int8)
        return fp24.from_bits(numbers & 0xFFFFFF) if vop.a == STREAM32 else fp24.from_int(numbers.astype(np.int64))

    def _operand(self, state, kind, code, vop, beat, offset):
        """Bank word or scalar."""
        if kind == 3:
            return np.full(self.lanes, state.scalars[code & 31])
        return state.banks[kind, self._address(code, vop, beat, offset)].copy()

    def _abc(self, k, vop, beat, offset, taken, numbers, row):
        """Operands of slot ``k``; ``numbers``: of the stream, ``row``: of the row queue."""
        state, lanes = self.states[k], self.lanes
        random, zeros = rng.row_random(state.key, self.row + beat * lanes + np.arange(lanes))
        if vop.a <= 3:
            a = self._operand(state, vop.a, vop.aa, vop, beat, offset)
        elif vop.a == ROW:
            a = fp24.from_int(np.array(row[k * lanes:k * lanes + lanes]))
        elif vop.a == RANDOM:
            a = random
        else:
            a = numbers[beat * lanes:beat * lanes + lanes]
        if not vop.one:
            a = np.where(taken, a, 0.0)
        b = c = np.zeros(lanes)
        if vop.table in (0, 6):
            b = self._operand(state, vop.b, vop.ba, vop, beat, offset)
            source = self.states[k - 1] if vop.prior and k and vop.c < 3 else state
            if vop.c <= 3:
                code = vop.ca & 0x7FF if vop.one and vop.c < 3 else vop.ca
                c = self._operand(source, vop.c, code, vop, beat, offset)
            else:
                c = fp24.mul(fp24.from_int(zeros), fp24.LN2)
            if vop.one:
                c = np.roll(c, -(1 << (vop.ca >> 11 & 7) >> 1))
        return FUNCTIONS[6](a) if vop.table == 6 else a, b, c

    def run(self, vop, count, offset):
        """Execute one operation on ``count`` elements at strip offset ``offset``."""
        lanes, slots = self.lanes, range(len(self.states))
        n = 1 if vop.one else count
        beats = -(-n // lanes)
        numbers = self._section(vop, beats) if vop.a in (STREAM32, STREAM8) else None
        sign_p, sign_c = (-1.0 if vop.negp else 1.0), (-1.0 if vop.negc else 1.0)
        peaks = [state.scalars[vop.k] for state in self.states]
        words = bytearray()
        for beat in range(beats):
            taken = np.arange(beat * lanes, beat * lanes + lanes) < n
            row = self.rows.pop(0) if vop.a == ROW else None
            operands = [self._abc(k, vop, beat, offset, taken, numbers, row) for k in slots]
            if vop.d in (CODES0, CODES1):
                codes = []
                for a, b, _ in operands:
                    product = sign_p * a * b
                    values = np.sign(product) * np.minimum(127, np.floor(np.abs(product) + 0.5))
                    codes += [int(v) for v in np.where(taken, values, 0)]
                self.trace.append(codes)
                self.codes.append((int(beat == 0), vop.d - CODES0, codes))
                continue
            if 1 <= vop.table <= 5:
                assert vop.negp == vop.negc, "the model has no parts of a table function"
                results = [sign_p * FUNCTIONS[vop.table](a) + 0.0 for a, _, _ in operands]
            else:
                results = [fp24.add(sign_p * fp24.mul(a, b) + 0.0, sign_c * c + 0.0) for a, b, c in operands]
            self.trace.append([int(v) for r in results for v in fp24.to_bits(r)])
            for k in slots:
                self._write(k, vop, beat, offset, taken, results[k])
                if vop.peak:
                    peaks[k] = (max if vop.peak == 1 else min)([peaks[k], *np.abs(results[k])[taken]])
            if vop.d == MEM:
                words += fp24.to_bits(results[vop.slot if len(slots) > 1 else 0]).astype("<u4").tobytes()
        if vop.peak and vop.k > 1:
            for state, peak in zip(self.states, peaks, strict=True):
                state.scalars[vop.k] = peak
        if vop.d == SAMPLE:
            self.row += n
        words += bytes(-len(words) % self.port_bytes)
        self.store += [int.from_bytes(words[k:k + self.port_bytes], "little")
                       for k in range(0, len(words), self.port_bytes)]

    def _write(self, k, vop, beat, offset, taken, r):
        """Writes a beat's results of slot ``k``."""
        state = self.states[k]
        written = vop.slots >> k & 1 or len(self.states) == 1
        if vop.d == LIST:
            state.keys += list(r[taken])
        elif vop.d == SAMPLE:
            state.scores += list(r[taken])
        if vop.d in (VECTOR, LIST) and written:
            for bank in range(3):
                if vop.banks >> bank & 1:
                    state.banks[bank, self._address(vop.da, vop, beat, offset)] = r
        elif vop.d == SCALAR and vop.da & 31 > 1 and written:
            state.scalars[vop.da & 31] = r[0]
        elif vop.d == SAMPLE:
            for lane in range(self.lanes):
                if taken[lane] and (state.best_score is None or r[lane] > state.best_score):
                    state.best, state.best_score = self.row + beat * self.lanes + lane, r[lane]
