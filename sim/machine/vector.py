"""The vector engine of the interpreter's machine: vector operations on all slots at once, and their hazards."""

from dataclasses import dataclass

import numpy as np

from sterna.firmware import isa
from sterna.sim.golden import fp24, rng, tables
from sterna.sim.golden.toplist import choose
from sterna.sim.machine.errors import MachineError

AGES = 3  # operations after which every result of one has been written
_TABLES = (None, tables.sigmoid, tables.recip, tables.rsqrt, tables.log2, tables.log1m, tables.exponent)


@dataclass
class Context:
    """What the control side adds to the fields of an operation.

    Attributes
    ----------
    length, offset : int
        vl and off.
    writes : bool [B]
        Slots whose banks and scalar registers are written.
    slot : int or None
        The slot of a slot loop.
    prior : bool
        An operand C in a bank is that of the slot before.
    """

    length: int
    offset: int
    writes: np.ndarray
    slot: int | None = None
    prior: bool = False


class VectorEngine:
    """Banks, scalar registers and sampler of every slot.

    Results under way are told apart by word, not by slot: what is under way in one slot is so in all.

    Parameters
    ----------
    config : hw.config.Config
    stream : machine_stream.Stream

    Attributes
    ----------
    banks : float64 [3, vector_words, B, V]
    scalars : float64 [32, B]
    keys : uint32 [B]
        Random keys of the tokens under way.
    """

    def __init__(self, config, stream):
        self.config, self._stream = config, stream
        self.banks = np.zeros((3, config.vector_words, config.batch, config.lanes))
        self.scalars = np.zeros((isa.SCALARS, config.batch))
        self.scalars[1] = 1.0
        self.keys = np.zeros(config.batch, np.uint32)
        self._beat, self._sums = 0, isa.PARTIAL_SUMS // config.lanes  # first beat of what is computed at once
        self._operation = 0  # number of the present vector operation; what follows tells which one wrote
        self._pending = np.full((3, config.vector_words), -AGES, np.int64)
        self._pending_beat = np.zeros((3, config.vector_words), np.int32)
        self._pending_scalars, self._pending_codes, self._pending_rows = {}, {}, -AGES
        self.begin_sampling()

    def begin_sampling(self):
        """SAMPLE 0: row counter 0, no scores and no keys of the list."""
        self._row, self._scores, self._list = 0, [], []

    def chosen(self, slot, k, p_code):
        """The row that a slot samples; ``k`` rows at most take part in it, or all for 0."""
        if not self._scores:
            raise MachineError("no row was sampled")
        scores = np.concatenate(self._scores)[:, slot]
        if not k or not self._list:
            return int(np.argmax(scores))
        if k > self.config.top_k:
            raise MachineError(f"list of {k} rows: the device has {self.config.top_k}")
        return int(choose(np.concatenate(self._list)[:, slot], scores, k, p_code))

    def execute(self, f, context):
        """One VOP: (r as uint32 [beats, B, V], codes as int8 [B, N] or None)."""
        self._operation += AGES if f["wait"] else 1
        self._context = context
        lanes = self.config.lanes
        count = 1 if f["one"] else context.length
        beats = -(-count // lanes)
        if not count:
            raise MachineError("vector length 0")
        self._check_codes(f)
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
        return fp24.to_bits(r), codes

    def _check_codes(self, f):
        last = isa.D_LIST if self.config.top_k else isa.D_SAMPLE
        if f["table"] > 6 or f["peak"] > 2 or f["c_kind"] > isa.C_RANDOM or f["d_kind"] > last:
            raise MachineError("reserved code in a vector operation")
        if self._context.slot is None:
            if f["d_kind"] == isa.D_MEM and self.config.batch > 1:
                raise MachineError("destination MEM outside of a slot loop: nothing tells whose numbers it takes")
            return
        table = 1 <= f["table"] <= 5
        for text, kinds, name in isa.NOT_IN_SLOT_LOOPS:
            if f[name + "_kind"] in kinds and not (table and name == "c"):
                raise MachineError(f"{text} in a slot loop")
        if f["peak"]:
            raise MachineError("a peak in a slot loop")

    def _span(self, code, beats, one, kind_c=False):
        address, plus, mod, rotate = isa.unpack(code, one, kind_c)
        off = 0 if one else self._context.offset
        step = self._beat + np.arange(beats)
        if mod and not one:
            step = (step + off) % self._sums
        elif plus:
            step = step + off
        words = address + step
        if words.max() >= self.config.vector_words:
            raise MachineError(f"vector word {words.max()}: a bank has {self.config.vector_words}")
        return words, rotate

    def _source(self, name, f, count, beats, reads):
        """An operand as float64 [beats, B or 1, V]."""
        kind, code = f[name + "_kind"], f[name]
        if kind < 3:
            words, rotate = self._span(code, beats, f["one"], name == "c")
            if any(other == kind and not np.array_equal(at, words) for other, at in reads):
                raise MachineError(f"bank {kind} is read at two addresses")
            if self._under_way(kind, words):
                raise MachineError(f"reads bank {kind} word {words[0]} while a result is under way: wait is missing")
            reads.append((kind, words))
            values = np.roll(self.banks[kind, words], -rotate, 2)
            if name == "c" and self._context.prior:
                values = np.concatenate([values[:, :1], values[:, :-1]], 1)
            return values
        if kind == isa.KIND_SCALAR:
            if self._late(self._pending_scalars, code):
                raise MachineError(f"reads s{code} while a result is under way: wait is missing")
            return np.broadcast_to(self.scalars[code & 31][:, None], (beats, self.config.batch, self.config.lanes))
        if kind == (isa.C_RANDOM if name == "c" else isa.A_RANDOM):
            if self._operation - self._pending_rows < AGES:
                raise MachineError("reads the row counter while it is under way: wait is missing")
            v, n = rng.row_random(self.keys[:, None], self._row + np.arange(beats * self.config.lanes))
            values = rng.ZEROS_LN2[n] if name == "c" else v
            return values.reshape(len(values), beats, -1).transpose(1, 0, 2)
        if kind == isa.A_ROW:
            return self._stream.rows(beats)
        return self._stream.section(count, 4 if kind == isa.A_STREAM32 else 1)

    def _flat(self, values, count):
        """[beats, B, V] to [B, count]: the elements of every slot."""
        return values.transpose(1, 0, 2).reshape(values.shape[1], -1)[:, :count]

    def _operate(self, f, count, beats):
        lanes, one = self.config.lanes, f["one"]
        reads, plain = [], not 1 <= f["table"] <= 5
        a = self._source("a", f, count, beats, reads)
        live = np.arange(beats * lanes).reshape(beats, 1, lanes) < count
        if not (one and f["d_kind"] == isa.D_VECTOR):
            a = np.where(live, a, 0.0)
        if f["table"]:
            a = _TABLES[f["table"]](a)
        a = np.broadcast_to(a, (beats, self.config.batch, lanes))
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
                raise MachineError(f"peak of s{f['k']} while a result is under way: wait is missing")
            sizes, now = np.abs(self._flat(r, count)), self.scalars[f["k"]]
            self._set_scalar(f["k"], np.maximum(now, sizes.max(1)) if f["peak"] == isa.PEAK_MAX
                             else np.minimum(now, sizes.min(1)), AGES)
        return r, codes

    def _late(self, pending, key):
        return self._operation < pending.get(key, 0)

    def _set_scalar(self, number, values, age=2):
        if number > 1:
            self.scalars[number, self._context.writes] = values[self._context.writes]
        self._pending_scalars[number] = self._operation + age

    def _quantise(self, buffer, product, count):
        if self._late(self._pending_codes, buffer):
            raise MachineError(f"activation buffer {buffer} is under way: wait is missing")
        flat = self._flat(product, count)
        codes = np.copysign(np.minimum(127, np.floor(np.abs(flat) + 0.5)), flat).astype(np.int8)
        self._stream.write_codes(buffer, codes)
        self._pending_codes[buffer] = self._operation + 2
        return codes

    def _write(self, f, r, count, beats, reads):
        kind = f["d_kind"]
        if kind in (isa.D_VECTOR, isa.D_LIST):
            self._write_banks(f, r, beats, reads)
        if kind == isa.D_SCALAR:
            if self._late(self._pending_scalars, f["d"]):
                raise MachineError(f"writes s{f['d']} while a result is under way: wait is missing")
            self._set_scalar(f["d"] & 31, r[0, :, 0])
        elif kind == isa.D_MEM:
            self._stream.store(fp24.to_bits(r[:, self._context.slot or 0]))
        elif kind == isa.D_LIST:
            if sum(map(len, self._list)) != self._row:
                raise MachineError("keys of the list before the scores of those before them")
            self._list.append(self._flat(r, count).T)
        elif kind == isa.D_SAMPLE:
            self._scores.append(self._flat(r, count).T)
            self._row += count
            if self._list and sum(map(len, self._list)) != self._row:
                raise MachineError("scores of other rows than the keys of the list")
            self._pending_rows = self._operation
            self.scalars[isa.BEST_SCALAR] = np.nan  # nobody may use it now

    def _write_banks(self, f, r, beats, reads):
        words, _ = self._span(f["d"], beats, f["one"])
        slots = np.flatnonzero(self._context.writes)
        for number in range(3):
            if f["d_banks"] >> number & 1:
                if self._under_way(number, words):
                    raise MachineError(f"writes bank {number} word {words[0]} while a result is under way: "
                                       "wait is missing")
                self._check_overlap(number, words, reads)
                self.banks[number, words[:, None], slots] = r[:, slots]
                self._pending[number, words] = self._operation
                self._pending_beat[number, words] = self._beat + np.arange(len(words))

    def _under_way(self, number, words):
        """Whether a word may be on its way when its beat comes: the operation before wrote it, in another beat."""
        last = self._pending[number, words] == self._operation - 1
        return np.any(last & (self._pending_beat[number, words] != self._beat + np.arange(len(words))))

    def _check_overlap(self, number, words, reads):
        """An operation must not read what an earlier beat of itself wrote: that result would still be under way."""
        if len(words) != len(set(words.tolist())):
            raise MachineError(f"writes a word of bank {number} twice in one operation")
        first = dict(zip(words.tolist(), range(len(words)), strict=True))
        for kind, at in reads:
            if kind == number and any(first.get(w, beat) < beat for beat, w in enumerate(at.tolist())):
                raise MachineError(f"reads a word of bank {number} that an earlier beat of it writes")
