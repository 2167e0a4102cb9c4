"""When the rows of products come: the ternary array, tile row by tile row or record by record, and its row queue."""

from math import ceil, gcd

QUEUE_CYCLES = 2  # of a word of rows through the row queue's memory
DENSE, WALK, GATHER = range(3)  # what a product is, as in hw/array/control.py
SETTLE = 3  # cycles until the array is found empty, behind those until the last tile's rows are in the queue
HAZARD, HAZARD_SLOW = 4, 2  # cycles between a tile of a gather and the same one of the next record
DRAIN, DRAIN_SLOW = 5, 2  # cycles from a gather's last tile until its first sums leave
LEAVE, LEAVE_SLOW = 3, 2  # cycles of V sums on their way to the row queue, where they are a cycle later


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


def collecting_cycles(rows, batch, slow):
    """Cycles from the sums of a record in the accumulators to one sum and its sign (int)."""
    return 1 if slow else 1 + (rows - 1).bit_length() + (batch > 1)


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
        Of a walk or gather, those of a slot, and the tiles of a record.
    mode : int
        DENSE, WALK or GATHER.
    records : int
        Of a walk or gather.
    loads, done : int or None
        Cycle before the first one in which a tile may be taken; cycle in which the last tile was.
    drained : int
        First cycle in which all sums of a gather have left.
    """

    def __init__(self, accepted, front, first, rows, chunks, mode=DENSE, records=1):
        self.accepted, self.front, self.first = accepted, front, first
        self.rows, self.chunks, self.mode, self.records = rows, chunks, mode, records
        self.loads = self.done = None
        self.drained = 0


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
        self._slow, self._batch = config.slow, config.batch
        self._depth = config.row_words
        self._most = max(self._begun(*divmod(k, self._per_tile + 1)) for k in
                         range(self._per_word * (self._per_tile + 1)))
        self._piece = max(1, config.fifo_words // 4 * self._port // self._tile)  # tiles that are looked at at a time
        self._latency = (meeting_cycles(config) + tree_cycles(config.columns, config.slow)
                         + (self._per_tile > 1) + (self._per_word > 1) + QUEUE_CYCLES)
        # Sums of a record: in the accumulators; in one sum, and its sign.
        summed = meeting_cycles(config) + tree_cycles(config.columns, config.slow)
        collected = collecting_cycles(config.rows, config.batch, config.slow)
        self._sign = summed + collected
        self._settle = summed + max(self._per_tile, collected) + SETTLE
        self._hazard = HAZARD_SLOW if config.slow else HAZARD
        self._drain_cycles, self._leave = (DRAIN_SLOW, LEAVE_SLOW) if config.slow else (DRAIN, LEAVE)
        self._drain = None  # words of a gather that have not left, and the cycle in which the next one may
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
        return self._loads(len(self.products) - 1) + 1 if self.products else 0

    def _loads(self, number):
        """Cycle before the first one in which a product may take tiles."""
        product = self.products[number]
        if product.loads is None:
            product.loads = product.accepted + 1
            if number:
                before, done = self.products[number - 1], self.finish(number - 1)
                if before.mode == product.mode == DENSE:
                    product.loads = max(done, product.accepted + (done <= product.accepted))
                else:
                    while self._drain:
                        self._step()
                    product.loads = max(product.loads, done + self._settle, before.drained)
        return product.loads

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
        while self._drain or self._next < len(self.products):
            if (self._drain[1] if self._drain else self._last) >= time:
                return
            if self._short() is None:
                return
            self._step()

    def _short(self):
        """Beats that must have left before the next row of tiles may begin; None if they have not yet."""
        if self._drain:
            need = 1
        elif (product := self.products[self._next]).mode != DENSE:
            need = self._begins(product)
        else:
            left = product.rows - self._row * self._rows
            groups = self._per_tile if left > self._rows else -(-left // self._group)
            need = self._most if self._slow else self._begun(self._groups, groups)
        pops = self._words + need - self._depth
        return pops if pops <= len(self._pops) else None

    def _begins(self, product):
        """Whether the next record of a walk begins a word of rows."""
        return product.mode == WALK and self._row % (self._lanes * self._batch) == 0

    def _step(self):
        """The next row of tiles or record, or what has become of a gather."""
        pops = self._short()
        if pops is None:
            raise RuntimeError("the array waits for rows that nobody takes")
        popped = self._pops[pops - 1] + 1 if pops > 0 else 0
        if self._drain:
            self._leaves(popped)
            return
        product = self.products[self._next]
        begin, enter = self._enter(product)
        self.stall_stream += enter - begin
        if pops > 0 and (popped := popped + self._slow) > enter:
            self.stall_rows += popped - enter
            enter = popped
        if product.mode == DENSE:
            self._tiles(product, enter)
        else:
            self._record(product, enter)

    def _record(self, product, enter):
        """A record of a walk or gather."""
        words = -(-product.chunks * self._tile // self._port)
        self._words += self._begins(product)
        end = self._last = self._take(product, enter, 0, product.first + self._row * words)
        self._row += 1
        ends = self._row == product.records
        if product.mode == WALK:
            self._fetch.signs.append(end + self._sign)
            if ends or self._row % (self._lanes * self._batch) == 0:
                self.beats.append(end + self._sign + QUEUE_CYCLES)
        if ends:
            product.done = end
            self.busy += end - product.loads
            self._next, self._row = self._next + 1, 0
            if product.mode == GATHER:
                self._drain = [-(-product.rows // self._lanes), end + self._drain_cycles]

    def _leaves(self, room):
        """The next word of a gather's sums, V of a slot at a time; not before there is ``room`` for it."""
        words, time = self._drain
        self.stall_rows += max(0, room - time)
        last = max(time, room) + self._batch - 1
        self._words += 1
        self.beats.append(last + self._leave + 1 + QUEUE_CYCLES)
        self._drain = [words - 1, last + 1] if words > 1 else None
        if words == 1:
            product = self.products[self._next - 1]
            product.drained = last + self._leave + 1
            self.busy += product.drained - product.done

    def _tiles(self, product, enter):
        """A row of tiles."""
        end = self._take(product, enter, self._row * product.chunks, product.first)
        last = max(end, self._last + self._per_tile) if self._row else end
        self.stall_rows += last - end
        left = product.rows - self._row * self._rows
        ends = left <= self._rows
        groups = -(-left // self._group) if ends else self._per_tile
        self._last, self._row = last, self._row + 1
        self._beats(last, groups, ends, self._begun(self._groups, groups))
        if ends:
            product.done = last
            self.busy += last - product.loads
            self._next, self._row = self._next + 1, 0

    def _enter(self, product):
        """Cycles in which a row of tiles could begin, with its first tile there at once, and as the stream is."""
        if self._row:
            begin = self._last + 1
            if product.mode == GATHER:
                begin += max(0, self._hazard - product.chunks)
            return begin, begin
        begin = self._loads(self._next) + 1
        front = self.products[self._next - 1].done + 1 if product.front is None else product.front
        return begin, max(begin, front + self._gear)

    def _take(self, product, enter, base, number):
        """Takes the tiles of a row or record, the first one in the cycle ``enter``; the cycle of the last one.

        ``base`` tiles of the section that begins with the word ``number`` were taken before. It goes in pieces, as
        the FIFO does not hold all that a row may have. The array is faster than the stream, or as fast: so it is held
        up by the last word of a piece or, where the words are there, by the first one.
        """
        tile, port, fetch = self._tile, self._port, self._fetch
        words = -(-base * tile // port)  # that these have taken
        at, begin = 0, enter
        while at < product.chunks:
            size = min(self._piece, product.chunks - at)
            at += size
            upto = -(-(base + at) * tile // port)
            end = due = begin + size - 1
            if upto > words:
                last = fetch.available(number + upto - 1) + self._gear
                first = fetch.available(number + words) + self._gear
                end = ceil(max(end, last, first + size - 1))
                end += fetch.stolen(begin, end)
                begin = max(begin, end - size + 1)
                fetch.taken.add(upto - words, begin - self._gear, (end - begin + 1) / (upto - words))
                self.stall_stream += end - due
            words, begin = upto, end + 1
        return end

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
