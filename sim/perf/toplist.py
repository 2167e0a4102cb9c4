"""When the list of the best rows has taken a strip, and when its choice is made; for rows in random order."""

from bisect import bisect_left, insort
from math import ceil
from random import Random

SCORE_CYCLES = 3  # from a score to the comparison of its element
LIST_SEED = 1


class TopList:
    """A list of the k best rows, of rows with random keys.

    Parameters
    ----------
    k : int
        Entries; 0: no list.
    p : bool
        Whether top-p chooses among them.
    """

    def __init__(self, k, p):
        self._k, self._p = k, p
        self._random = Random(LIST_SEED)
        self.free = 0  # cycle from which on the next strip's keys may begin
        self.start()

    def start(self):
        """A new sampling."""
        self._keys = []

    def scores(self, first, last, elements):
        """The scores of a strip are written from ``first`` to ``last``."""
        if not self._k:
            return
        time = first + SCORE_CYCLES
        pace = max(1, (last - first + 1) / elements)
        keys, k = self._keys, self._k
        for number in range(elements):
            time = max(time + 1, first + SCORE_CYCLES + number * pace)
            key = self._random.random()
            if len(keys) < k:
                insort(keys, key)
                time += bisect_left(keys, key) + 2
            elif key > keys[0]:
                keys.pop(0)
                insort(keys, key)
                time += bisect_left(keys, key) + 2
        self.free = ceil(time)

    def done(self, time):
        """When the choice is made behind everything, not before a time."""
        if not self._k:
            return time
        n = len(self._keys)
        # The weights fall from 1 to e^-(range of the list): about two thirds of the list take part in a top-p.
        parts = max(1, ceil(2 * n / 3))
        return max(time, self.free + (2 * n + parts + 37 if self._p else n + 3))
