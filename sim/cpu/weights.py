"""A packed model in the layout of the kernels: trits of 2 bits, vectors padded with zeros."""

import ctypes
import weakref

import numpy as np

from sterna.sim.cpu.structures import (
    MATRICES,
    TABLES,
    VECTORS,
    Codes,
    Layer,
    ModelStructure,
    constants_of,
    inner_of,
    pointer,
    table_structure,
)
from sterna.sim.golden.packed import PackError

PADDING = 64  # elements to which vectors are filled up: SUMS of fp24.h
_EXACT = (1 << 24) // 127  # columns whose sums the golden model still holds exactly


def padded(count):
    """``count`` elements with their padding (int)."""
    return -(-count // PADDING) * PADDING


def _matrices(layer, inner):
    """Yields (attribute of its scale, trits) of a layer's matrices, in the order of MATRICES."""
    for name in MATRICES:
        if name in ("gate", "value"):
            if hasattr(layer, "gate"):
                yield "gate", layer.gate[:inner] if name == "gate" else layer.gate[inner:]
        elif hasattr(layer, name):
            yield name, getattr(layer, name)


class Weights:
    """The weights of a PackedModel, which is not kept: its layers are taken in order, once each.

    Parameters
    ----------
    packed : PackedModel
    library : ctypes.CDLL
        As ``structures.declare`` returns it.
    pool : int
        Address of the kernels' threads.
    progress : callable(done, total)
        Told about the layers.

    Attributes
    ----------
    structure : ModelStructure
        What the kernels take. Valid as long as this object.
    matrix_bytes, token_bytes : int
        Bytes of all matrices and tables as they lie in memory; bytes that a token with its head reads: the
        matrices, of the tables the rows that it visits, the vectors and a row of the embedding.

    Raises
    ------
    PackError
        A matrix has too many columns for exact sums.
    MemoryError
        There is no room for the matrices.
    """

    def __init__(self, packed, library, pool, progress=lambda done, total: None):
        geometry = packed.geometry
        self._library, self._kept = library, []
        hidden, inner, count = geometry.hidden_size, inner_of(geometry), geometry.num_hidden_layers
        trees = geometry.mixer == "tree"
        for columns in (hidden, inner):
            if columns > _EXACT:
                raise PackError(f"a matrix has {columns} columns: at most {_EXACT} keep the sums exact")
        square, head = (library.sterna_matrix_bytes(rows, hidden) for rows in (hidden, geometry.vocab_size))
        if trees:
            mixer, read = (2 * library.sterna_table_bytes(rows, hidden) for rows in (geometry.neurons, inner))
        else:
            mixer = read = sum(library.sterna_matrix_bytes(*shape) for shape in
                               ((inner, hidden), (inner, hidden), (hidden, inner)))
        self.matrix_bytes = count * (4 * square + mixer) + head
        self._at = library.sterna_map(self.matrix_bytes)
        if not self._at:
            raise MemoryError(f"no room for {self.matrix_bytes:,} bytes of weights")
        self._free = weakref.finalize(self, library.sterna_unmap, self._at, self.matrix_bytes)
        self._free.atexit = False  # a daemon thread may read them then, and the kernel takes memory back anyway
        self._tables, self._layers = table_structure(), (Layer * count)()
        self.structure = ModelStructure(
            hidden, inner, count, geometry.vocab_size, padded(hidden), padded(inner),
            *((geometry.trees, geometry.levels, geometry.tree_always) if trees else ()))
        self.structure.constants = constants_of(geometry)
        self.structure.tables, self.structure.layer = ctypes.pointer(self._tables), self._layers
        vectors = 0
        layers = iter(packed.layers)
        for number, target in enumerate(self._layers):
            layer = next(layers)
            for k, (name, trits) in enumerate(_matrices(layer, inner)):
                target.matrix[k] = self._pack(trits)
                target.ws[k] = getattr(layer, "ws_" + name)
            if trees:
                for name in TABLES:
                    setattr(target, name, self._pack(getattr(layer, name), "table"))
                    setattr(target, "ws_" + name, getattr(layer, "ws_" + name))
            for name in VECTORS:
                if hasattr(layer, name):
                    vector = getattr(layer, name)
                    setattr(target, name, self._vector(vector))
                    vectors += 8 * padded(len(vector))
            del layer
            progress(number + 1, count + 1)
        s = self.structure
        s.head, s.ws_head = self._pack(packed.head), packed.ws_head
        s.final_outer, s.w_head = self._vector(packed.final_outer), self._vector(packed.w_head)
        s.embedding = self._keep(packed.embedding_codes, np.int8, Codes)
        s.embedding_scale = self._keep(packed.embedding_scale, np.float64)
        s.pool = pool
        self.token_bytes = self.matrix_bytes - count * (mixer - read) + vectors + 16 * padded(hidden) + hidden
        progress(count + 1, count + 1)

    @property
    def tables(self):
        """The Tables of the kernels."""
        return self._tables

    def _pack(self, trits, kind="matrix"):
        """Packs a matrix or table int8 [rows, columns] behind the last one; its address (int)."""
        trits, at = np.ascontiguousarray(trits, np.int8), self._at
        pack, size = (self._library.sterna_pack_table, self._library.sterna_table_bytes) if kind == "table" else \
            (self._library.sterna_pack, self._library.sterna_matrix_bytes)
        pack(at, pointer(trits, Codes), *trits.shape)
        self._at += size(*trits.shape)
        return at

    def _keep(self, values, dtype, *kind):
        array = np.ascontiguousarray(values, dtype)
        self._kept.append(array)
        return pointer(array, *kind)

    def _vector(self, values):
        array = np.zeros(padded(len(values)))
        array[:len(values)] = values
        return self._keep(array, np.float64)

    def close(self):
        """Gives the memory back; nothing may use ``structure`` any more."""
        self._free()
