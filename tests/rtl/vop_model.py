"""Model of vector operations, written from docs/isa.md: one `Vop` at a time, on float64 arrays of fp24 values."""

from dataclasses import dataclass

import numpy as np
from sterna.sim.golden import fp24, rng, tables

FUNCTIONS = (None, tables.sigmoid, tables.recip, tables.rsqrt, tables.log2, tables.log1m, tables.exponent)
NONE, VECTOR, SCALAR, CODES0, CODES1, MEM, SAMPLE = range(7)
ROW, STREAM32, STREAM8, RANDOM = 4, 5, 6, 7
PLUS, MOD = 1 << 15, 1 << 14


@dataclass
class Vop:
    """Fields of a vector operation."""

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


class Model:
    """State of the vector engine: ``banks`` [3, words, V], ``scalars`` [32], row counter, best row, outputs.

    ``rows`` (lists of V int), ``stream`` (bytes of whole words) are consumed; ``trace`` (values or codes of V per
    beat), ``codes`` ((first, buffer, codes) per beat) and ``store`` (memory words, int) are appended to.
    """

    def __init__(self, lanes, port_bytes, words):
        self.lanes, self.port_bytes = lanes, port_bytes
        self.banks = np.zeros((3, words, lanes))
        self.scalars = np.zeros(32)
        self.scalars[1] = 1.0
        self.rows, self.stream = [], bytearray()
        self.trace, self.codes, self.store = [], [], []
        self.start(0, 0)

    def start(self, seed, position):
        """Start a new sampling."""
        self.key, self.row, self.best, self.best_score = rng.key(seed, position), 0, 0, None

    def _address(self, field, vop, beat, offset):
        base = field & 0x3FFF
        if vop.one:
            return base
        if field & MOD:
            return base + (offset + beat) % (64 // self.lanes)
        return base + beat + (offset if field & PLUS else 0)

    def run(self, vop, count, offset):
        """Execute one operation on ``count`` elements at strip offset ``offset``."""
        lanes = self.lanes
        n = 1 if vop.one else count
        beats = -(-n // lanes)
        own_operands = vop.table in (0, 6)
        code = vop.d in (CODES0, CODES1)
        peak = self.scalars[vop.k]
        sections = bytearray()
        if vop.a in (STREAM32, STREAM8):
            size = beats * lanes * (4 if vop.a == STREAM32 else 1)
            padded = -(-size // self.port_bytes) * self.port_bytes
            sections, self.stream = self.stream[:padded], self.stream[padded:]
            numbers = np.frombuffer(bytes(sections[:size]), "<u4" if vop.a == STREAM32 else np.int8)
            if vop.a == STREAM32:
                numbers = fp24.from_bits(numbers & 0xFFFFFF)
            else:
                numbers = fp24.from_int(numbers.astype(np.int64))
        words = bytearray()
        for beat in range(beats):
            index = np.arange(beat * lanes, beat * lanes + lanes)
            taken = index < n
            random, zeros = rng.row_random(self.key, self.row + index)
            if vop.a < 3:
                a = self.banks[vop.a, self._address(vop.aa, vop, beat, offset)]
            elif vop.a == 3:
                a = np.full(lanes, self.scalars[vop.aa & 31])
            elif vop.a == ROW:
                a = fp24.from_int(np.array(self.rows.pop(0)))
            elif vop.a == RANDOM:
                a = random
            else:
                a = numbers[beat * lanes:beat * lanes + lanes]
            if not vop.one:
                a = np.where(taken, a, 0.0)
            b = c = np.zeros(lanes)
            if own_operands:
                b = (self.banks[vop.b, self._address(vop.ba, vop, beat, offset)] if vop.b < 3
                     else np.full(lanes, self.scalars[vop.ba & 31]))
                if vop.c < 3:
                    c = self.banks[vop.c, self._address(vop.ca & (0x7FF if vop.one else 0xFFFF), vop, beat, offset)]
                elif vop.c == 3:
                    c = np.full(lanes, self.scalars[vop.ca & 31])
                else:
                    c = fp24.mul(fp24.from_int(zeros), fp24.LN2)
                if vop.one:
                    c = np.roll(c, -(vop.ca >> 11 & 7))
            sign_p, sign_c = (-1.0 if vop.negp else 1.0), (-1.0 if vop.negc else 1.0)
            if vop.table == 6:
                a = FUNCTIONS[6](a)
            if code:
                product = sign_p * a * b
                values = np.sign(product) * np.minimum(127, np.floor(np.abs(product) + 0.5))
                values = np.where(taken, values, 0).astype(int)
                self.trace.append([int(v) for v in values])
                self.codes.append((int(beat == 0), vop.d - CODES0, [int(v) for v in values]))
                continue
            if 1 <= vop.table <= 5:
                assert vop.negp == vop.negc, "the model has no parts of a table function"
                r = sign_p * FUNCTIONS[vop.table](a) + 0.0
            else:
                r = fp24.add(sign_p * fp24.mul(a, b) + 0.0, sign_c * c + 0.0)
            self.trace.append([int(v) for v in fp24.to_bits(r)])
            if vop.peak:
                peak = (max if vop.peak == 1 else min)([peak, *np.abs(r)[taken]])
            if vop.d == VECTOR:
                address = self._address(vop.da, vop, beat, offset)
                for bank in range(3):
                    if vop.banks >> bank & 1:
                        self.banks[bank, address] = r
            elif vop.d == SCALAR and vop.da & 31 > 1:
                self.scalars[vop.da & 31] = r[0]
            elif vop.d == MEM:
                words += fp24.to_bits(r).astype("<u4").tobytes()
            elif vop.d == SAMPLE:
                for lane in range(lanes):
                    if taken[lane] and (self.best_score is None or r[lane] > self.best_score):
                        self.best, self.best_score = int(self.row + index[lane]), r[lane]
        if vop.peak and vop.k > 1:
            self.scalars[vop.k] = peak
        if vop.d == SAMPLE:
            self.row += n
        words += bytes(-len(words) % self.port_bytes)
        self.store += [int.from_bytes(words[k:k + self.port_bytes], "little")
                       for k in range(0, len(words), self.port_bytes)]
