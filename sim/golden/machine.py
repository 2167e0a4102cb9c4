"""Instruction-level interpreter of the whole device (docs/isa.md), exact in its values, without any notion of time.

It also checks what a program must guarantee: no read of a result under way without ``wait``, no bank read at two
addresses, no fetch, product or row that an in-order device would wait for forever.
"""

from collections import deque

import numpy as np

from sterna.firmware import isa
from sterna.host import tiling
from sterna.sim.golden import fp24, rng, tables

FETCHES = {"external": 4, "onchip": 1}  # that may be unfinished on every device
AGES = 3  # operations after which every result of one has been written
_TABLES = (None, tables.sigmoid, tables.recip, tables.rsqrt, tables.log2, tables.log1m, tables.exponent)


class MachineError(RuntimeError):
    """A program that the device could not run; the message names the program counter."""


class _Product:
    """One MATVEC: waits for its turn in the stream, then holds the rows that were not taken yet."""

    def __init__(self, buffer, rows, chunks):
        self.buffer, self.count, self.chunks = buffer, rows, chunks
        self.rows = None  # float64 [beats, V] once computed
        self.taken = 0


class Machine:
    """The device, one token at a time.

    Parameters
    ----------
    config : hw.config.Config
    memory : bytearray or uint8 array
        Model memory; the state regions are written.
    trace : callable, optional
        ``trace(pc, fields, r_bits, codes)`` after each VOP: r as uint32 [beats, V], codes int8 [N] or None.

    Attributes
    ----------
    ring : uint32 [config.ring]
    position, start, limit, prompt_end, seed, flags, stop : int
        The registers of docs/protocol.md.
    fault : int
        1 after an illegal instruction.
    """

    def __init__(self, config, memory, trace=None):
        self.config, self.trace = config, trace
        self.memory = memory if isinstance(memory, np.ndarray) else np.frombuffer(memory, np.uint8)
        v = config.lanes
        self.banks = np.zeros((3, config.vector_words, v))
        self.scalars = np.zeros(isa.SCALARS)
        self.scalars[1] = 1.0
        self.codes = np.zeros((2, config.activation_words * config.columns), np.int8)
        self.ring = np.zeros(config.ring, np.uint32)
        self.program = []
        self.position = self.limit = self.prompt_end = self.seed = self.flags = self.fault = 0
        self.start = self.stop = 0xFFFFFFFF
        self._beat, self._sums = 0, isa.PARTIAL_SUMS // config.lanes  # first beat of what is computed at once
        self._operation = 0  # number of the present vector operation; what follows tells which one wrote
        self._pending = np.full((3, config.vector_words), -AGES, np.int64)
        self._pending_beat = np.zeros((3, config.vector_words), np.int32)
        self._pending_scalars, self._pending_codes, self._pending_rows = {}, {}, -AGES
        self._fresh = True  # no token has ended yet
        self.address = [0] * 4
        self._fetched = deque()  # [first word, words left]
        self._stores = deque()
        self._products = deque()

    def load(self, program):
        """Write the program memory and the constant registers of a ``firmware.program.Program``."""
        self.load_program(program.words)
        for number, bits in program.scalars.items():
            self.write_scalar(number, bits)

    def load_program(self, words):
        """Write the program memory. MachineError: too long."""
        if len(words) > self.config.program_words:
            raise MachineError(f"program of {len(words)} instructions: the device holds {self.config.program_words}")
        self.program = [isa.decode(word) for word in words]

    def write_scalar(self, number, bits):
        """Write a scalar register with fp24 bits; registers 0 and 1 keep their constants."""
        if number > 1:
            self.scalars[number] = fp24.from_bits(np.uint32(bits))

    def run(self):
        """Process tokens while position < limit. Returns the (position, token) pairs that were reported."""
        out = []
        while self.position < self.limit and not self.fault:
            out += self.token()
        return out

    def _fail(self, text):
        raise MachineError(f"instruction {self.pc}: {text}")

    def token(self):
        """Run the program once. Returns [(position, token)] that it reported (none or one)."""
        self.pc, self._loop, self._off, self._left, self._vl = 0, 0, 0, 0, 0
        self._best, self._row = None, 0
        token = int(self.ring[self.position % self.config.ring])
        reported, wrapped = [], 1 << 32
        while True:
            if self.pc >= len(self.program):
                self._fail(f"the program has {len(self.program)} instructions")
            opcode, f = self.program[self.pc]
            following = self.pc + 1
            if opcode == isa.VOP:
                self._vop(f)
            elif opcode == isa.HALT:
                if self._products or self._stores:
                    self._fail("the token ends with products or announced words left")
                self.position += 1
                self._fresh = False
                return reported
            elif opcode == isa.FETCH:
                if len(self._fetched) >= FETCHES[self.config.memory]:
                    self._fail(f"more than {FETCHES[self.config.memory]} unfinished fetches")
                first = self.address[f["areg"]]
                if (first + f["words"]) * self.config.port_bytes > len(self.memory):
                    self._fail(f"fetch up to word {first + f['words']}: outside the memory")
                self._fetched.append([first, f["words"]])
                self.address[f["areg"]] = (first + f["words"]) % wrapped
            elif opcode == isa.SETA:
                self.address[f["areg"]] = f["value"]
            elif opcode == isa.ROWA:
                self.address[f["areg"]] = (f["base"] + token * f["stride"]) % wrapped
            elif opcode == isa.MATVEC:
                if len(self._products) >= 2:
                    self._finish(self._products[0])
                    self._check_row_queue()
                self._products.append(_Product(f["buffer"], f["rows"], f["chunks"]))
            elif opcode == isa.STRIP:
                self._left, self._off = f["elements"], 0
                self._vl = min(f["strip"], self._left)
            elif opcode == isa.NEXT:
                self._left -= f["strip"]
                self._off += f["step"]
                if self._left > 0:
                    self._vl = min(f["strip"], self._left)
                    following = f["target"]
            elif opcode == isa.LOOP:
                self._loop = f["count"]
            elif opcode == isa.AGAIN:
                self._loop -= 1
                if self._loop > 0:
                    following = f["target"]
            elif opcode == isa.JUMP and f["condition"] <= isa.FRESH:
                if (True, self._loop == 1, self.position + 1 < self.prompt_end, not self.flags & 1,
                        self.position == self.start, self._fresh)[f["condition"]]:
                    following = f["target"]
            elif opcode == isa.STORE:
                if self._stores:
                    self._fail("STORE before the words of the one before it were written")
                self._stores.append([self.address[f["areg"]], f["words"]])
                self.address[f["areg"]] = (self.address[f["areg"]] + f["words"]) % wrapped
            elif opcode == isa.SAMPLE:
                if f["end"]:
                    if self._best is None:
                        self._fail("no row was sampled")
                    reported.append(self._append(self._best[1]))
                else:
                    self._best, self._row = None, 0
            elif opcode != isa.WAITM:
                self.fault = 1
                return reported
            self.pc = following

    def _append(self, token):
        where = self.position + 1
        self.ring[where % self.config.ring] = token
        if token == self.stop:
            self.limit = where
        return where, token

    # The stream and the products

    def _take(self, size):
        """uint8 [size] of the next stream section, which starts at a word and may span fetches."""
        port, pieces = self.config.port_bytes, []
        words = -(-size // port)
        while words:
            if not self._fetched:
                self._fail(f"waits for {words} stream words that no fetch before it brings")
            first, left = self._fetched[0]
            count = min(words, left)
            pieces.append(self.memory[first * port:(first + count) * port])
            if count == left:
                self._fetched.popleft()
            else:
                self._fetched[0] = [first + count, left - count]
            words -= count
        return np.concatenate(pieces)[:size] if pieces else np.zeros(0, np.uint8)

    def _compute(self, product):
        c = self.config
        columns = product.chunks * c.columns
        if columns > self.codes.shape[1]:
            self._fail(f"product over {columns} codes: the buffer holds {self.codes.shape[1]}")
        tiles = -(-product.count // c.rows) * product.chunks
        trits = tiling.unpack_matrix(self._take(tiles * c.tile_bytes), product.count, columns, c.rows, c.columns,
                                     c.weight_code)
        acc = trits.astype(np.float32) @ self.codes[product.buffer, :columns].astype(np.float32)  # exact below 2^24
        rows = np.zeros(-(-product.count // c.lanes) * c.lanes)
        rows[:product.count] = fp24.from_int(acc.astype(np.int64))
        product.rows = rows.reshape(-1, c.lanes)

    def _finish(self, product):
        if product.rows is None:
            self._compute(product)

    def _check_row_queue(self):
        """Products that must finish although nobody takes rows: what is left of them has to fit the row queue."""
        waiting = sum(len(p.rows) - p.taken for p in self._products if p.rows is not None)
        if waiting > self.config.row_words:
            self._fail(f"waits for a product whose {waiting} words of rows do not fit the row queue")

    def _take_rows(self, beats):
        pieces = []
        while beats:
            product = next((p for p in self._products if p.rows is None or p.taken < len(p.rows)), None)
            if product is None:
                self._fail("waits for rows that no product makes")
            self._finish(product)
            count = min(beats, len(product.rows) - product.taken)
            pieces.append(product.rows[product.taken:product.taken + count])
            product.taken += count
            beats -= count
            while self._products and self._products[0].rows is not None \
                    and self._products[0].taken == len(self._products[0].rows):
                self._products.popleft()
        return np.concatenate(pieces)

    def _take_section(self, count, code_bytes):
        """A vector section of ``count`` elements, fp24 (4 bytes) or int8 codes, as float64 [beats, V]."""
        for product in self._products:  # these lie before it in the stream
            self._finish(product)
        self._check_row_queue()
        v = self.config.lanes
        beats = -(-count // v)
        data = self._take(beats * v * code_bytes)
        if code_bytes == 1:
            return data.view(np.int8).astype(np.float64).reshape(beats, v)
        return fp24.from_bits(data.view("<u4") & 0xFFFFFF).reshape(beats, v)

    # Vector operations

    def _span(self, code, beats, one, kind_c=False):
        address, plus, mod, rotate = isa.unpack(code, one, kind_c)
        off = 0 if one else self._off
        step = self._beat + np.arange(beats)
        if mod and not one:
            step = (step + off) % self._sums
        elif plus:
            step = step + off
        words = address + step
        if words[-1] >= self.config.vector_words or words.max() >= self.config.vector_words:
            self._fail(f"vector word {words.max()}: a bank has {self.config.vector_words}")
        return words, rotate

    def _source(self, name, f, count, beats, reads):
        kind, code = f[name + "_kind"], f[name]
        if kind < 3:
            words, rotate = self._span(code, beats, f["one"], name == "c")
            if any(other == kind and not np.array_equal(at, words) for other, at in reads):
                self._fail(f"bank {kind} is read at two addresses")
            if self._under_way(kind, words):
                self._fail(f"reads bank {kind} word {words[0]} while a result is under way: wait is missing")
            reads.append((kind, words))
            return np.roll(self.banks[kind, words], -rotate, 1)
        if kind == isa.KIND_SCALAR:
            if self._late(self._pending_scalars, code):
                self._fail(f"reads s{code} while a result is under way: wait is missing")
            return np.full((beats, self.config.lanes), self.scalars[code & 31])
        if kind == (isa.C_RANDOM if name == "c" else isa.A_RANDOM):
            if self._operation - self._pending_rows < AGES:
                self._fail("reads the row counter while it is under way: wait is missing")
            key = rng.key(self.seed, self.position)
            v, n = rng.row_random(key, self._row + np.arange(beats * self.config.lanes))
            return (rng.ZEROS_LN2[n] if name == "c" else v).reshape(beats, -1)
        if kind == isa.A_ROW:
            return self._take_rows(beats)
        return self._take_section(count, 4 if kind == isa.A_STREAM32 else 1)

    def _vop(self, f):
        self._operation += AGES if f["wait"] else 1
        lanes, one = self.config.lanes, f["one"]
        count = 1 if one else self._vl
        beats = -(-count // lanes)
        if not count:
            self._fail("vector length 0")
        if f["table"] > 6 or f["peak"] > 2 or f["c_kind"] > 4 or f["d_kind"] > isa.D_SAMPLE:
            self._fail("reserved code in a vector operation")
        if beats > self._sums and any(isa.unpack(f[name])[2] for name in "abc" if f[f"{name}_kind"] < 3):
            # It comes back to its partial sums: the beats pause until a round of them has been written.
            rounds = []
            for self._beat in range(0, beats, self._sums):
                here = min(count - self._beat * lanes, self._sums * lanes)
                rounds.append(self._operate(f, here, -(-here // lanes))[0])
            self._beat = 0
            r, codes = np.concatenate(rounds), None
        else:
            r, codes = self._operate(f, count, beats)
        if self.trace:
            self.trace(self.pc, f, fp24.to_bits(r), codes)

    def _operate(self, f, count, beats):
        lanes, one = self.config.lanes, f["one"]
        reads, plain = [], not 1 <= f["table"] <= 5
        a = self._source("a", f, count, beats, reads)
        live = np.arange(beats * lanes).reshape(beats, lanes) < count
        if not (one and f["d_kind"] == isa.D_VECTOR):
            a = np.where(live, a, 0.0)
        if f["table"]:
            a = _TABLES[f["table"]](a)
        if plain:
            b = self._source("b", f, count, beats, reads)
            product = fp24.mul(a, b)
            c = self._source("c", f, count, beats, reads)
            r = fp24.add(-product if f["negp"] else product, -c if f["negc"] else c)
        else:
            r, b = a, np.ones_like(a)
        codes = None
        if f["d_kind"] in (isa.D_ACTIVATION0, isa.D_ACTIVATION1):
            codes = self._quantise(f["d_kind"] - isa.D_ACTIVATION0, (-a if f["negp"] else a) * b, count)
        else:
            self._write(f, r, count, beats, reads)
        if f["peak"]:
            if self._late(self._pending_scalars, f["k"]):
                self._fail(f"peak of s{f['k']} while a result is under way: wait is missing")
            top = np.abs(r.reshape(-1)[:count])
            value = max(self.scalars[f["k"]], top.max()) if f["peak"] == isa.PEAK_MAX else \
                min(self.scalars[f["k"]], top.min())
            self._set_scalar(f["k"], value, AGES)
        return r, codes

    def _late(self, pending, key):
        return self._operation < pending.get(key, 0)

    def _set_scalar(self, number, value, age=2):
        if number > 1:
            self.scalars[number] = value
        self._pending_scalars[number] = self._operation + age

    def _quantise(self, buffer, product, count):
        flat = product.reshape(-1)[:count]
        if any(p.buffer == buffer for p in self._products):
            self._fail(f"activation buffer {buffer} is written while a product uses it")
        if self._late(self._pending_codes, buffer):
            self._fail(f"activation buffer {buffer} is under way: wait is missing")
        if count > self.codes.shape[1]:
            self._fail(f"{count} activations: the buffer holds {self.codes.shape[1]}")
        codes = np.copysign(np.minimum(127, np.floor(np.abs(flat) + 0.5)), flat).astype(np.int8)
        self.codes[buffer, :count] = codes
        self._pending_codes[buffer] = self._operation + 2
        return codes

    def _write(self, f, r, count, beats, reads):
        kind = f["d_kind"]
        if kind == isa.D_VECTOR:
            words, _ = self._span(f["d"], beats, f["one"])
            for number in range(3):
                if f["d_banks"] >> number & 1:
                    if self._under_way(number, words):
                        self._fail(f"writes bank {number} word {words[0]} while a result is under way: "
                                   "wait is missing")
                    self._check_overlap(number, words, reads)
                    self.banks[number, words] = r
                    self._pending[number, words] = self._operation
                    self._pending_beat[number, words] = self._beat + np.arange(len(words))
        elif kind == isa.D_SCALAR:
            if self._late(self._pending_scalars, f["d"]):
                self._fail(f"writes s{f['d']} while a result is under way: wait is missing")
            self._set_scalar(f["d"] & 31, r[0, 0])
        elif kind == isa.D_MEM:
            self._store(fp24.to_bits(r))
        elif kind == isa.D_SAMPLE:
            scores = r.reshape(-1)[:count]
            best = int(np.argmax(scores))
            if self._best is None or scores[best] > self._best[0]:
                self._best = scores[best], self._row + best
            self._row += count
            self._pending_rows = self._operation
            self.scalars[isa.BEST_SCALAR] = np.nan  # nobody may use it now

    def _under_way(self, number, words):
        """Whether a word may still be on its way when its beat comes: the operation before wrote it, in another beat."""
        last = self._pending[number, words] == self._operation - 1
        return np.any(last & (self._pending_beat[number, words] != self._beat + np.arange(len(words))))

    def _check_overlap(self, number, words, reads):
        """An operation must not read what an earlier beat of itself wrote: that result would still be under way."""
        if len(words) != len(set(words.tolist())):
            self._fail(f"writes a word of bank {number} twice in one operation")
        first = dict(zip(words.tolist(), range(len(words)), strict=True))
        for kind, at in reads:
            if kind == number and any(first.get(w, beat) < beat for beat, w in enumerate(at.tolist())):
                self._fail(f"reads a word of bank {number} that an earlier beat of it writes")

    def _store(self, bits):
        port = self.config.port_bytes
        data = bits.astype("<u4").reshape(-1).view(np.uint8)
        words = -(-len(data) // port)
        if not self._stores or self._stores[0][1] < words:
            self._fail("writes more memory words than STORE announced")
        first, left = self._stores[0]
        self.memory[first * port:first * port + words * port] = 0
        self.memory[first * port:first * port + len(data)] = data
        if left == words:
            self._stores.popleft()
        else:
            self._stores[0] = [first + words, left - words]
