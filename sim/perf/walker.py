"""Which records of tables are asked for, and when: the walker between the queue of fetches and their bursts."""

from collections import deque
from random import Random

from sterna.firmware import isa

SEED = 1  # of the branches
SPAN = 2  # cycles from the begin of a walk until its first record is counted, beside one for each level
FIRST = 1  # more of them until a root is counted, at the begin or behind rows that are always read
STEP = 2  # cycles between two records that are counted
STAGES = 2  # cycles from there until a record can be asked for
LEVEL = 2  # cycles from the last record of a level until the next level's first one is counted
GATHER = 2  # cycles from the begin of a gather until its first record is counted


class Walker:
    """Turns the descriptors of the queue into linear reads (``hw/tree/walker.py``); branches are random.

    Parameters
    ----------
    batch : int
        Slots, all of them active.

    Attributes
    ----------
    signs : list of int
        Cycles in which the signs of the walks' records have come, in their order, which the array appends to.
    """

    def __init__(self, batch):
        self._batch, self._random = batch, Random(SEED)
        self.signs = []
        self._queue = deque()  # (cycle of its acceptance, its fields)
        self._records = None  # reads of the walk or gather under way
        self._seen = 0  # cycle from which on the next descriptor can be looked at
        self._asked = 0  # records of all walks
        self._places = []  # of the last walk, in words behind the table's begin
        # Of records: cycle in which the last one was counted; in which that and the one before it were asked for.
        self._counted = self._last = self._before = -1
        self._free = 0

    def __bool__(self):
        return bool(self._queue or self._records)

    @property
    def walks(self):
        """The last read was a record (bool)."""
        return self._records is not None

    def add(self, time, kind, address, words, trees=0, levels=0, always=0):
        """A descriptor that is accepted at a time."""
        self._queue.append((time, kind, address, words, trees, levels, always))

    def next(self, free):
        """The next read, when the one before has been cut into bursts in the cycle ``free``.

        Returns
        -------
        (int, int, int) or None
            Cycle in which it is taken, address, words; None while that depends on what is not known yet, or none is
            left.
        """
        self._free = free
        while self:
            if self._records:
                read = next(self._records, "end")
                if read != "end":
                    return read
                self._records, self._seen = None, self._last + 1
                continue
            time, kind, address, words, *shape = self._queue[0]
            begin = max(time + 1, self._seen)
            if kind == isa.KIND_LINEAR:
                self._queue.popleft()
                begin = max(begin, free)
                self._seen = begin + 1
                return begin, address, words
            if kind == isa.KIND_GATHER:
                self._records = self._gather(begin + GATHER, address, words)
            elif len(self.signs) < self._asked:
                return None
            else:
                begin = max(begin, self.signs[-1] + 1) if self.signs else begin
                self._records = self._walk(begin, address, words, *shape)
            self._queue.popleft()
        return None

    def _take(self, earliest, sign=None):
        """Cycle in which the next record is taken, not counted before ``earliest``; None while its sign has not come.

        Counted is the next one while at most one stands before the place where records are asked for.
        """
        if sign is not None and sign >= len(self.signs):
            return None
        self._counted = max(self._counted + STEP, self._before, earliest)
        time = max(self._counted + STAGES, self._last + 1, self._free, 0 if sign is None else self.signs[sign])
        self._before, self._last = self._last, time
        return time

    def _walk(self, begin, table, words, trees, levels, always):
        batch, base = self._batch, self._asked
        self._asked += batch * (always + trees * levels)
        self._places = []
        earliest = begin + levels + SPAN

        def reads(slots, earliest, sign=None):
            for slot, record in enumerate(slots):
                while (time := self._take(earliest, None if sign is None else sign + slot)) is None:
                    yield None
                self._places.append(record * words)
                yield time, table + record * words, words

        for row in range(always):
            yield from reads([row] * batch, earliest)
        earliest = max(earliest, self._counted + STEP if always else 0) + FIRST
        nodes, size = [[0] * trees for _ in range(batch)], (1 << levels) - 1
        for level in range(levels):
            for tree in range(trees):
                root = always + tree * size
                sign = base + (always + (level - 1) * trees + tree) * batch if level else None
                yield from reads([root + of_slot[tree] for of_slot in nodes], earliest, sign)
            earliest = self._last + LEVEL
            for of_slot in nodes:
                of_slot[:] = [2 * node + 1 + (self._random.random() < 0.5) for node in of_slot]

    def _gather(self, earliest, table, words):
        for place in self._places:
            yield self._take(earliest), table + place, words
