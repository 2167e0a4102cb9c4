"""What stands between engines and vector engine: rows in the order of their matrix, words in that of the stream."""

from collections import deque
from math import ceil

SHARE_CYCLES = 1  # more from the announcement of a product until it is taken
BEHIND_CYCLES = 1  # of a beat from an engine's row queue to the vector engine
BEHIND_PLACES = 2
TURN_CYCLES = 2  # from the last beat of a matrix to the first one of the next


class Rows:
    """Beats of rows from one array.

    Attributes
    ----------
    pops : list of int
        Cycles in which beats were taken, which the array looks at.
    """

    def __init__(self, array, pops):
        self._array, self.pops = array, pops

    def product(self, beats):
        """A product of so many beats was queued."""

    def there(self):
        """Cycle from which on the next beat can be taken."""
        return self._array.beat(len(self.pops))

    def take(self, time):
        """The next beat is taken."""
        self.pops.append(time)


class GatheredRows:
    """Beats of rows from several arrays in turn (``hw/engines/rows.py``).

    Parameters
    ----------
    config : Config
    arrays : list of Array
    pops : list of lists of int
        Of each array, the cycles in which its beats leave its queue.
    """

    def __init__(self, config, arrays, pops):
        self._arrays, self._pops = arrays, pops
        self._turn = config.unit // config.lanes
        self._round = self._turn * len(arrays)
        self._products = deque()  # beats of each
        self._number = 0  # of the next beat, within its product
        self._left = deque(maxlen=BEHIND_PLACES)  # cycles in which the last beats were taken
        self._in = -TURN_CYCLES  # cycle of the last beat's entry
        self._first = 0  # beats of each array before this product

    def product(self, beats):
        """A product of so many beats was queued."""
        self._products.append(beats)

    def there(self):
        """Cycle from which on the next beat can be taken."""
        turn, place = divmod(self._number, self._turn)
        rounds, engine = divmod(turn, len(self._arrays))
        time = self._arrays[engine].beat(self._first + rounds * self._turn + place)
        time = max(time, self._in + (1 if self._number else TURN_CYCLES))
        if len(self._left) == BEHIND_PLACES:
            time = max(time, self._left[0] + 1)
        self._engine, self._entry = engine, time
        return time + BEHIND_CYCLES

    def take(self, time):
        """The next beat is taken; ``there`` was asked before."""
        self._in = self._entry
        self._pops[self._engine].append(ceil(self._in))
        self._left.append(time)
        self._number += 1
        if self._number == self._products[0]:
            self._drop(self._products.popleft())
            self._number = 0

    def _drop(self, beats):
        """What is left of the arrays' beats behind a product's last one."""
        rounds, rest = divmod(beats, self._round)
        each = rounds * self._turn + min(rest, self._turn)
        self._first += each
        for array, pops in zip(self._arrays, self._pops, strict=True):
            time = self._in
            while len(pops) < self._first:
                time = max(time + 1, array.beat(len(pops)))
                pops.append(ceil(time))


class MergedWords:
    """Words of vectors from several engines in turn (``hw/engines/words.py``), with the methods of a read-ahead.

    Word w of a section that begins at word f of every engine is word f + w // K of engine w % K, here number f K + w.
    """

    def __init__(self, fetches):
        self._fetches, self.taken = fetches, self

    def begin(self, first):
        """A section begins, with a word of every engine."""
        self._first = self._at = first * len(self._fetches)

    def available(self, number):
        """When a word, and all before it, can be taken."""
        count = len(self._fetches)
        return max(self._fetches[k % count].available(k // count)
                   for k in range(max(self._first, number - count + 1), number + 1))

    def add(self, words, time, pace):
        """The next words are taken, the first one at a time, each ``pace`` cycles behind the one before."""
        count = len(self._fetches)
        for k in range(min(count, words)):
            engine = (self._at + k) % count
            self._fetches[engine].taken.add(-(-(words - k) // count), time + k * pace, pace * count)
        self._at += words

    def end(self, done):
        """The section's last word is taken: cycles from which on each engine's stream is for the next one (list)."""
        count = len(self._fetches)
        ends, padded = [done + 1] * count, -(-self._at // count) * count
        for k in range(self._at, padded):
            fetch = self._fetches[k % count]
            time = max(done + 1, ceil(fetch.available(k // count)))
            fetch.taken.add(1, time, 1)
            ends[k % count] = time + 1
        return ends
