"""When vector operations issue their beats, and when their results are written."""

from math import ceil

from sterna.firmware import isa
from sterna.hw.vector.stages import Stages, sum_words

SETUP = 3  # cycles from the begin of an operation to its first possible beat
KEY_CYCLES = 11  # from the start of a sampling to its first random number's operation
PLACES = 2  # of the words on their way to the store engine
PRELUDE = 2  # cycles before the write of a first beat, in which the sampler reads its scalar register


class VectorEngine:
    """Operations in program order.

    Parameters
    ----------
    config : Config
    rows : Rows or GatheredRows
    fetch : ReadAhead, DirectReads or MergedWords
    serial : object
        ``rows(columns, product)``, ``codes`` and ``fractions``: mean cycles that the conversion of an operand takes
        beside its least ones, where it is serial (`compact`).

    Attributes
    ----------
    drained : int
        First cycle in which nothing is under way.
    stored : int
        First cycle in which no word waits for the memory.
    first_write, last_write : int
        Cycles in which the last operation's first and last beats are written.
    """

    def __init__(self, config, rows, fetch, serial):
        self._rows_of, self._fetch, self._serial = rows, fetch, serial
        self._lanes, self._port = config.lanes, config.port_bytes
        self._compact, self._slow = config.compact, config.slow
        self._stages = Stages.of(config)
        self._levels = config.lanes.bit_length() - 1
        self._sums = sum_words(config.lanes)
        self._pause = self._stages.pause(config.lanes)
        self._adding_pause = self._stages.adding_pause(config.lanes)
        self._behind = 2 if self._stages.registered else 1
        self._piece = config.fifo_words // 4
        self._period = 2 * config.lanes // max(1, config.lanes // 2)  # cycles of a beat of random numbers
        self._free = self.drained = self.stored = 0
        self._reads = -1  # cycle in which the sampler reads a scalar register
        self._key = 0
        self.product = 0, 0  # columns and number of the product whose rows are taken

    def start(self, time):
        """Begins a sampling; the cycle in which that is taken."""
        begin = max(time, self._free, self.drained)
        self._key = begin + KEY_CYCLES
        self._free = begin + 1 + self._stages.registered
        return begin

    @property
    def idle(self):
        """First cycle in which the sequencer sees that nothing is under way."""
        return max(self.drained, self.stored) + self._stages.registered

    def execute(self, time, f, elements, section=None, ready=0):
        """An operation whose command is there at a time.

        Parameters
        ----------
        f : dict
            Fields of its instruction.
        elements : int
        section : (front, first word) or None
            Of the stream.
        ready : int
            Cycle before which it may not begin.

        Returns
        -------
        (int, int or None)
            Cycle in which the command is taken; that of the last word of the section.
        """
        one = f["one"]
        beats = 1 if one else -(-elements // self._lanes)
        kind = f["a_kind"]
        random = kind == isa.A_RANDOM or f["c_kind"] == isa.C_RANDOM
        begin = max(time, self._free, ready)
        if f["wait"] or random:
            begin = max(begin, self.drained)
        if random:
            begin = max(begin, self._key)
        setup = begin
        for _ in range(SETUP):  # the scalar registers have one reader at a time
            setup += 1 + (setup == self._reads)
        fresh = setup
        done = None
        if kind == isa.A_ROW:
            first, last = self._rows(fresh, beats, self._gap(f))
        elif kind in (isa.A_STREAM32, isa.A_STREAM8):
            first, last, done = self._stream(fresh, beats, kind == isa.A_STREAM8, *section)
        elif random:
            first, last = self._random(begin, fresh, beats)
        else:
            first, last = fresh, fresh + beats - 1 + self._gap(f) * ((beats - 1) // self._sums)
        self._leave(first, last, beats, f["peak"] or f["d_kind"] == isa.D_SAMPLE)
        return fresh, done

    def _leave(self, first, last, beats, peak):
        write = self._stages.write
        self._free = max(last + 1 + max(0, write - 2 - beats), first + write - 2)
        drained = last + write + self._behind
        if peak:
            drained += 1 + self._levels
            self._reads = first + write - PRELUDE + self._levels
        self.drained = max(self.drained, drained)
        self.first_write, self.last_write = first + write, last + write

    def _gap(self, f):
        """Cycles that the beats pause behind every turn of the partial sums."""
        if not self._pause or f["one"]:
            return 0
        names = "a" if 1 <= f["table"] <= 5 else "abc"
        mod = {name for name in names if f[f"{name}_kind"] < 3 and f[name] >> isa.MOD_BIT & 1}
        adds = (mod == {"c"} and f["c"] == f["d"] and f["d_kind"] == isa.D_VECTOR and not f["negc"]
                and f["d_banks"] >> f["c_kind"] & 1 and f["a_kind"] <= isa.KIND_SCALAR)
        return (self._adding_pause if adds else self._pause) if mod else 0

    def _rows(self, fresh, beats, gap):
        rows, pull = self._rows_of, fresh - 1
        if self._compact:
            take, more = fresh, self._serial.rows(*self.product)
            for number in range(beats):
                take = max(take, rows.there())
                rows.take(ceil(take))
                pull = take + 1 + more
                first = pull if not number else first
                take = pull + 2
            return ceil(first) + self._stages.pull, ceil(pull) + self._stages.pull
        for number in range(beats):
            pull += 1
            if gap and number and number % self._sums == 0:
                pull += gap
            there = rows.there()
            if there > pull:
                pull = there
            rows.take(pull)
            if not number:
                first = pull
        return first + self._stages.pull, pull + self._stages.pull

    def _stream(self, fresh, beats, codes, front, word):
        """Beats of a section from ``front`` on, whose first word is ``word``."""
        each = self._lanes * (1 if codes else 4) / self._port  # words of a beat
        ahead = max(0, ceil(each) - 1)  # words that are collected before a beat's last one
        pace, behind = max(1, ceil(each)), self._stages.pull
        if self._compact:
            more = self._serial.codes if codes else 0
            pace, behind = 3 + more + ahead, behind + 1 + more
        available, add = self._fetch.available, self._fetch.taken.add
        first, done, begin = None, 0, max(fresh, front) + ahead
        size = max(1, int(self._piece / each))  # beats that are looked at at a time: no more than the FIFO holds
        while done < beats:
            count = min(size, beats - done)
            start, words = word + int(done * each), ceil((done + count) * each) - int(done * each)
            at = max(begin, available(start + ahead))
            take = max(at + (count - 1) * pace, available(start + words - 1))
            first = at if first is None else first
            add(words, at, (take - at + pace) / words)
            done, begin = done + count, take + pace
        take = ceil(take)
        return ceil(first + behind), ceil(take + behind), take

    def _random(self, begin, fresh, beats):
        there, pull = begin + self._period + 3, fresh - 1
        more = 1 + self._serial.fractions if self._compact else 0
        first, take = None, fresh
        for _ in range(beats):
            take = max(take, there)
            there = max(there, take) + self._period
            pull = take + more
            take = pull + (2 if self._compact else 1)
            first = pull if first is None else first
        return ceil(first) + self._stages.pull, ceil(pull) + self._stages.pull

    def stalled(self, cycles):
        """The engine has stood still for so many cycles, since the store took no beat."""
        self._free += cycles
        self.drained += cycles
        self.last_write += cycles
