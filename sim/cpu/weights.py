"""A packed model in the layout of the kernels: trits of 2 bits, vectors padded with zeros."""

import ctypes
import weakref

import numpy as np

from sterna.sim.cpu.structures import (
    MATRICES,
    VECTORS,
    Codes,
    Layer,
    ModelStructure,
    constants_of,
    pointer,
    table_structure,
)
from sterna.sim.golden.packed import PackError

PADDING = 64  # elements to which vectors are filled up: SUMS of fp24.h
_EXACT = (1 << 24) // 127  # columns whose sums the golden model still holds exactly


def padded(count):
    """``count`` elements with their padding (int)."""
    return -(-count // PADDING) * PADDING


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
        Bytes of all matrices as they lie in memory; bytes that a token with its head reads: the matrices, the
        vectors and a row of the embedding.

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
        hidden, inner, count = geometry.hidden_size, geometry.intermediate_size, geometry.num_hidden_layers
        for columns in (hidden, inner):
            if columns > _EXACT:
                raise PackError(f"a matrix has {columns} columns: at most {_EXACT} keep the sums exact")
        square, wide, tall = (library.sterna_matrix_bytes(*shape)
                              for shape in ((hidden, hidden), (inner, hidden), (hidden, inner)))
        head = library.sterna_matrix_bytes(geometry.vocab_size, hidden)
        self.matrix_bytes = count * (4 * square + 2 * wide + tall) + head
        self._at = library.sterna_map(self.matrix_bytes)
        if not self._at:
            raise MemoryError(f"no room for {self.matrix_bytes:,} bytes of weights")
        self._free = weakref.finalize(self, library.sterna_unmap, self._at, self.matrix_bytes)
        self._free.atexit = False  # a daemon thread may read them then, and the kernel takes memory back anyway
        self._tables, self._layers = table_structure(), (Layer * count)()
        self.structure = ModelStructure(
            hidden, inner, count, geometry.vocab_size, padded(hidden), padded(inner), constants_of(geometry),
            ctypes.pointer(self._tables), self._layers)
        vectors = 0
        layers = iter(packed.layers)
        for number, target in enumerate(self._layers):
            layer = next(layers)
            for k, name in enumerate(MATRICES):
                trits = layer.gate[:inner] if name == "gate" else layer.gate[inner:] if name == "value" else \
                    getattr(layer, name)
                target.matrix[k] = self._pack(trits)
                target.ws[k] = getattr(layer, "ws_gate" if name == "value" else f"ws_{name}")
            for name in VECTORS:
                setattr(target, name, self._vector(getattr(layer, name)))
            vectors += 8 * (9 * padded(hidden) + padded(inner))
            del layer
            progress(number + 1, count + 1)
        s = self.structure
        s.head, s.ws_head = self._pack(packed.head), packed.ws_head
        s.final_outer, s.w_head = self._vector(packed.final_outer), self._vector(packed.w_head)
        s.embedding = self._keep(packed.embedding_codes, np.int8, Codes)
        s.embedding_scale = self._keep(packed.embedding_scale, np.float64)
        s.pool = pool
        self.token_bytes = self.matrix_bytes + vectors + 16 * padded(hidden) + hidden
        progress(count + 1, count + 1)

    @property
    def tables(self):
        """The Tables of the kernels."""
        return self._tables

    def _pack(self, trits):
        """Packs a matrix int8 [rows, columns] behind the last one; its address (int)."""
        trits, at = np.ascontiguousarray(trits, np.int8), self._at
        self._library.sterna_pack(at, pointer(trits, Codes), *trits.shape)
        self._at += self._library.sterna_matrix_bytes(*trits.shape)
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
