"""When the rows of products come: the ternary array, tile row by tile row, and its row queue."""

from collections import deque
from math import gcd

LOADS = 2  # cycles from a command that finds the array at rest to its first chunk
QUEUE_CYCLES = 2  # of a word of rows through the row queue's memory


def tree_cycles(columns, slow):
    """Cycles of a chunk through the adder tree and the accumulator (int)."""
    if slow:
        return 1
    levels = (columns - 1).bit_length()
    return 2 + sum(level % 2 == 1 or level == levels - 1 for level in range(levels))


def meeting_cycles(config):
    """Cycles from a chunk's entry to where trits and codes meet (int)."""
    if config.slow:
        return 1
    return 3 if config.weight_code == "trit5" else 2


class Product:
    """A product that was queued.

    Attributes
    ----------
    accepted : int
        Cycle in which the array took the command.
    front : int or None
        Cycle from which on the stream is for this product; None: behind the product before.
    first : int
        Number of its first word.
    rows, chunks : int
    done : int or None
        Cycle in which its last tile was taken.
    """

    def __init__(self, accepted, front, first, rows, chunks):
        self.accepted, self.front, self.first = accepted, front, first
        self.rows, self.chunks = rows, chunks
        self.loads = self.done = None


class Array:
    """The queued products in order, a row of tiles at a time, as their rows are asked for.

    Parameters
    ----------
    config : Config
    fetch : ReadAhead or DirectReads
    pops : list of int
        Cycles in which beats left the row queue, which the vector engine appends to.

    Attributes
    ----------
    beats : list of int
        Cycles from which on beats of rows can be taken.
    busy, stall_stream, stall_rows : float
        Cycles with a product; of these, waiting for tiles, and for room in the row queue.
    """

    def __init__(self, config, fetch, pops):
        self._fetch, self._pops = fetch, pops
        self._rows, self._lanes = config.rows, config.lanes
        self._group = gcd(config.rows, config.lanes)
        self._per_tile, self._per_word = config.rows // self._group, config.lanes // self._group
        self._tile, self._port = config.tile_bytes, config.port_bytes
        self._gear = int(self._tile != self._port)
        self._slow = config.slow
        self._depth = config.row_words
        self._most = max(self._begun(*divmod(k, self._per_tile + 1)) for k in
                         range(self._per_word * (self._per_tile + 1)))
        self._piece = max(1, config.fifo_words // 4 * self._port // self._tile)  # tiles that are looked at at a time
        self._latency = (meeting_cycles(config) + tree_cycles(config.columns, config.slow)
                         + (self._per_tile > 1) + (self._per_word > 1) + QUEUE_CYCLES)
        self.beats = []
        self.products = []
        self._next = 0  # product under way
        self._row = 0  # tile rows of it
        self._last = -1  # entry of the last chunk so far
        self._groups = self._words = 0  # groups of the word that was begun; words begun in all
        self.busy = self.stall_stream = self.stall_rows = 0.0

    def _begun(self, phase, groups):
        return -(-(phase + groups) // self._per_word) - (phase != 0)

    def product(self, *values):
        """Queues a Product of the values."""
        self.products.append(Product(*values))

    def free(self):
        """The first cycle in which a further product would be taken."""
        if not self.products:
            return 0
        last = self.products[-1]
        if len(self.products) == 1:
            return last.accepted + 2
        return max(last.accepted + 1, self.finish(-2)) + 1

    def finish(self, number=-1):
        """Cycle in which the last tile of a product is taken."""
        product = self.products[number]
        while product.done is None:
            self._step()
        return product.done

    def beat(self, number):
        """Cycle from which on a beat of rows can be taken."""
        while len(self.beats) <= number:
            self._step()
        return self.beats[number]

    def run_until(self, time):
        """Goes on as far as the array is at a time, if no room in the row queue holds it up that long."""
        while self._next < len(self.products) and self._last < time:
            if self._short() is None:
                return
            self._step()

    def _short(self):
        """Beats that must have left before the next row of tiles may begin; None if they have not yet."""
        product = self.products[self._next]
        left = product.rows - self._row * self._rows
        groups = self._per_tile if left > self._rows else -(-left // self._group)
        need = self._most if self._slow else self._begun(self._groups, groups)
        pops = self._words + need - self._depth
        return pops if pops <= len(self._pops) else None

    def _step(self):
        """The next row of tiles."""
        product = self.products[self._next]
        before = self.products[self._next - 1] if self._next else None
        if not self._row:
            front = before.done + 1 if product.front is None else product.front
            if before and before.done > product.accepted:
                product.loads = before.done
            else:
                product.loads = product.accepted + 1
            self._first = max(product.loads + 1, front + self._gear)
            self._begin = product.loads + 1
        pops = self._short()
        if pops is None:
            raise RuntimeError("the array waits for rows that nobody takes")
        left = product.rows - self._row * self._rows
        ends = left <= self._rows
        groups = -(-left // self._group) if ends else self._per_tile
        enter = max(self._last + 1, self._first) if not self._row else self._last + 1
        stream = enter - (self._begin if not self._row else self._last + 1)
        if pops > 0 and (popped := self._pops[pops - 1] + 1 + self._slow) > enter:
            self.stall_rows += popped - enter
            enter = popped
        # Pieces of the row, so that no piece is longer than what the FIFO can hold.
        tile, port, chunks = self._tile, self._port, product.chunks
        base = self._row * chunks
        taken = self._fetch.taken
        hop = self._fetch.latency * 0 + self._gear
        begin, at = enter, 0
        words = -(-(base * tile) // port)  # that the tiles before have taken
        while at < chunks:
            size = min(self._piece, chunks - at)
            at += size
            upto = -(-((base + at) * tile) // port)
            new = upto - words
            end = begin + size - 1
            if new > 0:
                there = self._fetch.available(product.first + upto - 1) + hop
                start = self._fetch.available(product.first + words) + hop
                end_there = max(there, start + size - 1)
                if end_there > end:
                    whole = -(-int(end_there * 256) // 256)
                    stream += whole - end
                    end = whole
                stolen = self._fetch.stolen(begin, end)
                stream += stolen
                end += stolen
                taken.add(new, max(begin, end - size + 1) - hop, (end - max(begin, end - size + 1) + 1) / new)
            words = upto
            begin = end + 1
        last = max(end, self._last + self._per_tile) if self._row else end
        self.stall_rows += last - end
        self.stall_stream += stream
        self._last = last
        self._row += 1
        self._beats(last, groups, ends, self._begun(self._groups, groups))
        if ends:
            product.done = last
            self.busy += last - product.loads
            # The rest of the last word of memory goes with the last tile.
            self._next, self._row = self._next + 1, 0

    def _beats(self, last, groups, ends, begun):
        """Notes the beats that a row of tiles completes."""
        self._words += begun
        time = last + self._latency
        phase = self._groups
        for k in range(groups):
            phase += 1
            if phase == self._per_word or (ends and k == groups - 1):
                self.beats.append(time + k)
                phase = 0
        self._groups = 0 if ends else phase
