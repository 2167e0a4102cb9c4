"""What the interpreter's machine has around the vector engine: the stream, products and their rows, codes, stores."""

from collections import deque

import numpy as np

from sterna.firmware.dealing import gather_matrix
from sterna.firmware.layout import share, up
from sterna.sim.golden import fp24
from sterna.sim.golden.trits import unpack_matrix
from sterna.sim.machine.errors import MachineError
from sterna.sim.machine.walk import Records, Table, gather, walk


class _Product:
    """One MATVEC: waits for its turn in the stream, then holds the rows that were not taken yet."""

    def __init__(self, buffer, rows, chunks):
        self.buffer, self.count, self.chunks = buffer, rows, chunks
        self.rows = None  # float64 [beats, B, V] once computed
        self.taken = 0


class _Walk(_Product):
    """One WALK: ``count`` rows that it makes, of the records of ``visits`` rows."""

    def __init__(self, fields):
        super().__init__(fields["buffer"], fields["length"] if fields["out"] else fields["rows"], fields["chunks"])
        self.out, self.visits, self.length = fields["out"], fields["rows"], fields["length"]


class Stream:
    """Fetches, products and stores in the order of the program, without any notion of time.

    A method raises MachineError, without the program counter, where the device would wait for ever or lose data.

    Parameters
    ----------
    config : hw.config.Config
    memory : uint8 array

    Attributes
    ----------
    codes : int8 [2, B, C * activation_words]
        The activation buffers of every slot.
    active : bool [B]
        Slots with a token in this run.
    places : int64 [B, N] or None
        The records of the last walk; 0 for a slot without a token.
    """

    def __init__(self, config, memory):
        self.config, self.memory = config, memory
        self.codes = np.zeros((2, config.batch, config.activation_words * config.columns), np.int8)
        # On chip the words of every fetch are taken by instructions before the next one.
        self._most_fetches = config.queued_fetches if config.memory == "external" else 1
        self._fetched = deque()  # [first word, words left], or Records
        self.active = np.ones(config.batch, bool)
        self.places = None
        self._stores = deque()
        self._products = deque()

    @property
    def idle(self):
        """Whether no product, no announced word and no record is left; linear fetches may be."""
        return not (self._products or self._stores or any(isinstance(one, Records) for one in self._fetched))

    def _queue(self, entry, end):
        if len(self._fetched) >= self._most_fetches:
            raise MachineError(f"more than {self._most_fetches} unfinished fetches")
        if end * self.config.word_bytes > len(self.memory):
            raise MachineError(f"fetch up to word {end}: outside the memory")
        self._fetched.append(entry)

    def fetch(self, first, words):
        """FETCH of ``words`` words at word ``first``."""
        self._queue([first, words], first + words)

    def fetch_records(self, walked, first, fields):
        """FETCH of kind walk (``walked``) or gather, of the table at word ``first``."""
        shape = {name: fields[name] for name in ("words", "trees", "levels", "always")}
        records = Records(walked, first, active=self.active, **shape)
        if not (records.trees and records.levels and records.words) or records.rows > self.config.tree_rows:
            raise MachineError(f"{records.trees} trees of {records.levels} levels, {records.always} rows always, "
                               f"{records.words} words each: the device walks {self.config.tree_rows} rows at most")
        self._queue(records, records.end)

    def announce(self, first, words):
        """STORE of the next ``words`` port words at word ``first``."""
        first *= self.config.engines
        if self._stores:
            raise MachineError("STORE before the words of the one before it were written")
        self._stores.append([first, words])

    def store(self, bits):
        """Numbers of destination MEM: uint32 array, padded to whole words."""
        port = self.config.port_bytes
        data = bits.astype("<u4").reshape(-1).view(np.uint8)
        words = -(-len(data) // port)
        if not self._stores or self._stores[0][1] < words:
            raise MachineError("writes more memory words than STORE announced")
        first, left = self._stores[0]
        self.memory[first * port:first * port + words * port] = 0
        self.memory[first * port:first * port + len(data)] = data
        if left == words:
            self._stores.popleft()
        else:
            self._stores[0] = [first + words, left - words]

    def _take(self, size):
        """uint8 [size] of the next stream section, which starts at a word and may span fetches."""
        port, pieces = self.config.word_bytes, []
        words = -(-size // port)
        while words:
            if not self._fetched:
                raise MachineError(f"waits for {words} stream words that no fetch before it brings")
            if isinstance(self._fetched[0], Records):
                raise MachineError("takes a section that stands behind the records of a walk")
            first, left = self._fetched[0]
            count = min(words, left)
            pieces.append(self.memory[first * port:(first + count) * port])
            if count == left:
                self._fetched.popleft()
            else:
                self._fetched[0] = [first + count, left - count]
            words -= count
        return np.concatenate(pieces)[:size] if pieces else np.zeros(0, np.uint8)

    def section(self, count, code_bytes):
        """A vector section of ``count`` elements, fp24 (4 bytes) or int8 codes, as float64 [beats, 1, V]."""
        for product in self._products:  # these lie before it in the stream
            self._finish(product)
        self._check_row_queue()
        v = self.config.lanes
        beats = -(-count // v)
        data = self._take(beats * v * code_bytes)
        if code_bytes == 1:
            return data.view(np.int8).astype(np.float64).reshape(beats, 1, v)
        return fp24.from_bits(data.view("<u4") & 0xFFFFFF).reshape(beats, 1, v)

    # Products

    def product(self, buffer, rows, chunks):
        """MATVEC."""
        self._append(_Product(buffer, rows, chunks))

    def walk(self, fields):
        """WALK."""
        self._append(_Walk(fields))

    def _append(self, product):
        if len(self._products) >= 2:
            self._finish(self._products[0])
            self._check_row_queue()
        self._products.append(product)

    def write_codes(self, buffer, codes):
        """int8 [B, n]: the first n codes of a buffer that no product may be using."""
        if any(p.buffer == buffer for p in self._products):
            raise MachineError(f"activation buffer {buffer} is written while a product uses it")
        count = codes.shape[1]
        if count > self.codes.shape[2]:
            raise MachineError(f"{count} activations: the buffer holds {self.codes.shape[2]}")
        self.codes[buffer, :, :count] = codes

    def rows(self, beats):
        """The next ``beats`` words of the row queue as fp24 values, float64 [beats, B, V]."""
        pieces = []
        while beats:
            product = next((p for p in self._products if p.rows is None or p.taken < len(p.rows)), None)
            if product is None:
                raise MachineError("waits for rows that no product makes")
            self._finish(product)
            count = min(beats, len(product.rows) - product.taken)
            pieces.append(product.rows[product.taken:product.taken + count])
            product.taken += count
            beats -= count
            while self._products and self._products[0].rows is not None \
                    and self._products[0].taken == len(self._products[0].rows):
                self._products.popleft()
        return np.concatenate(pieces)

    def _compute(self, product):
        """int64 [rows, B] of a MATVEC."""
        c = self.config
        columns = product.chunks * c.columns
        if columns > self.codes.shape[2]:
            raise MachineError(f"product over {columns} codes: the buffer holds {self.codes.shape[2]}")
        tiles = -(-share(product.count, c.unit, c.engines) // c.rows) * product.chunks
        data = self._take(c.engines * up(tiles * c.tile_bytes, c.port_bytes))
        if c.engines > 1:
            data = gather_matrix(data, product.count, c, columns)
        trits = unpack_matrix(data, product.count, columns, c.rows, c.columns, c.weight_code)
        codes = self.codes[product.buffer, :, :columns].T
        acc = trits.astype(np.float32) @ codes.astype(np.float32)  # exact below 2^24
        return acc.astype(np.int64)

    def _compute_walk(self, product):
        """int64 [rows, B] of a WALK."""
        c, codes = self.config, self.codes[product.buffer]
        if not self._fetched or not isinstance(self._fetched[0], Records):
            raise MachineError("WALK: the next words of the stream are not the records of a walk")
        records, tile = self._fetched.popleft(), c.rows * c.columns
        if records.walk == bool(product.out):
            raise MachineError(f"WALK out={product.out}: the next records are those of a "
                               f"{'walk' if records.walk else 'gather'}")
        if product.visits != records.rows or -(-product.chunks * c.tile_bytes // c.port_bytes) != records.words:
            raise MachineError(f"WALK of {product.visits} rows of {product.chunks} tiles: FETCH has brought "
                               f"{records.rows} of {records.words} words")
        if product.visits > codes.shape[1] or product.length > min(product.chunks * tile, codes.shape[1]):
            raise MachineError(f"WALK of {product.visits} rows of length {product.length}: a buffer holds "
                               f"{codes.shape[1]} codes and a record {product.chunks * tile} trits")
        table = Table(c, records, self.memory, product.chunks, product.length)
        if not product.out:
            sums, self.places = walk(table, codes)
        elif self.places is None or self.places.shape[1] != product.visits:
            raise MachineError(f"gathers {product.visits} rows that no walk has visited")
        else:
            sums = gather(table, codes[:, :product.visits], self.places)
        return sums.T

    def _finish(self, product):
        if product.rows is not None:
            return
        c = self.config
        rows = np.zeros((-(-product.count // c.lanes) * c.lanes, c.batch))
        acc = self._compute_walk(product) if isinstance(product, _Walk) else self._compute(product)
        rows[:product.count] = fp24.from_int(acc)
        product.rows = rows.reshape(-1, c.lanes, c.batch).transpose(0, 2, 1)

    def _check_row_queue(self):
        """Products that must finish although nobody takes rows: what is left of them has to fit the row queue."""
        waiting = sum(len(p.rows) - p.taken for p in self._products if p.rows is not None)
        if waiting > self.config.row_words:
            raise MachineError(f"waits for a product whose {waiting} words of rows do not fit the row queue")
