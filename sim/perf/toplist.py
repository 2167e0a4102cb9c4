"""When the lists of the best rows have taken a strip, and when the choice is made; for rows in random order."""

from bisect import bisect_left, insort
from math import ceil
from random import Random

SCORE_CYCLES = 3  # from a score to the comparison of its element
INSERT_CYCLES = 2  # of an insertion, beside one for each place that it goes up
UNDER_WAY = 2  # elements that may be compared and inserted while the next strip begins
LIST_SEED = 1


class TopList:
    """A list of the k best rows; ``keys()`` gives the next row's key."""

    def __init__(self, k, keys):
        self._k, self._next = k, keys
        self.start()

    def start(self):
        """A new sampling."""
        self._keys, self.done, self.free = [], 0, 0

    def scores(self, first, last, elements):
        """The scores of a strip are written from ``first`` to ``last``."""
        time, pace = max(self.done, first + SCORE_CYCLES), max(1, (last - first + 1) / elements)
        keys, k, ends = self._keys, self._k, [first] * UNDER_WAY
        for number in range(elements):
            time = max(time + 1, first + SCORE_CYCLES + number * pace)
            key = self._next()
            if len(keys) < k or key > keys[0]:
                if len(keys) == k:
                    keys.pop(0)
                time += bisect_left(keys, key) + INSERT_CYCLES
                insort(keys, key)
            ends.append(time)
        self.done, self.free = time, ends[-1 - UNDER_WAY] + 1

    @property
    def entries(self):
        """Rows in the list (int)."""
        return len(self._keys)


class TopLists:
    """Those of all slots, which wait for each other.

    Parameters
    ----------
    batch : int
    k : int
        Entries of a list; 0: no lists.
    p : bool
        Whether top-p chooses among them.
    keys : callable, optional
        The next row's key (float), slot by slot.
    """

    def __init__(self, batch, k, p, keys=None):
        keys = keys or Random(LIST_SEED).random
        self._lists = [TopList(k, keys) for _ in range(batch)] if k else []
        self._p = p

    def start(self):
        """A new sampling."""
        for one in self._lists:
            one.start()

    def scores(self, first, last, elements):
        """The scores of a strip are written from ``first`` to ``last``."""
        for one in self._lists:
            one.scores(first, last, elements)

    @property
    def free(self):
        """Cycle from which on the next strip's keys may begin (int)."""
        return ceil(max((one.free for one in self._lists), default=0))

    def done(self, time):
        """When the choices are made, not before a time (int)."""
        for one in self._lists:
            n = one.entries
            # How many take part in a top-p depends on the model: about half of them.
            choice = 2 * n + n // 2 + 37 if self._p else n + 3
            time = max(time, ceil(one.done) + choice)
        return time
