"""The PackedModel inside the sections of an image: the inverse of ``sterna.host.model.writing``."""

import numpy as np

from sterna.firmware.layout import TABLES
from sterna.sim.golden import fp24
from sterna.sim.golden.packed import PACKED_LAYERS, OnDemand, eager, is_small
from sterna.sim.golden.trits import unpack_matrix, unpack_records


class _Unpacker:
    """Makes the parts of a PackedModel out of the sections, each when it is asked for."""

    def __init__(self, shape, sections, read, before):
        self._shape, self._geometry, self._read, self._before = shape, shape.geometry, read, before
        self._embedding, self._stream, self._tree = (sections.get(name) for name in ("embedding", "stream", "tree"))
        self._at, at = {}, 0
        for part, number in shape.order():
            self._at[part, number] = at
            at += shape.part_bytes(part)

    def _part(self, part, number):
        """Yields (attribute, value) of a part of the stream."""
        shape, begin = self._shape, self._at[part, number]
        at = begin
        self._before()
        for kind, name, *size in shape.sections(part):
            if kind == "vector":
                n = self._geometry.intermediate_size if name == "w_down" else size[0]
                length = shape.vector_bytes(size[0])
                values = fp24.from_bits(self._stream[at:at + 4 * n].copy().view("<u4"))
                yield name, float(values[0]) if name.startswith("ws_") else values
            else:
                length = shape.matrix_bytes(*size)
                yield name, self._trits(name, self._stream[at:at + length], *size)
            at += length
        self._read("stream", begin, at)

    def _trits(self, name, data, rows, columns):
        shape = self._shape
        trits = unpack_matrix(data, rows, columns, shape.rows, shape.columns, shape.weight_code)
        if name not in ("gate", "down"):
            return trits
        inner = self._geometry.intermediate_size
        if name == "gate":
            ordered = np.empty_like(trits)
            ordered[shape.gate_order] = trits
            return ordered if inner == shape.inner else \
                np.concatenate([ordered[:inner], ordered[shape.inner:shape.inner + inner]])
        return np.ascontiguousarray(trits[:, :inner])

    def _tables(self, number):
        """Yields (attribute, trits) of the tables of a layer."""
        shape, size = self._shape, self._shape.table_bytes
        for k, name in enumerate(TABLES, number * len(TABLES)):
            self._before()
            records = self._tree[k * size:(k + 1) * size].reshape(-1, shape.record_bytes)
            yield name, unpack_records(records, self._geometry.hidden_size, shape.rows * shape.columns,
                                       shape.weight_code)
            self._read("tree", k * size, (k + 1) * size)

    def layer(self, number):
        parts = {name: value for part in self._shape.parts for name, value in self._part(part, number)}
        if self._shape.tree_bytes:
            parts |= dict(self._tables(number))
        return PACKED_LAYERS[self._geometry.mixer](**parts)

    def embedding(self):
        """(codes, scales)"""
        g, shape = self._geometry, self._shape
        table, head = self._embedding.reshape(g.vocab_size, shape.row_bytes), shape.vector_bytes(1)
        self._before()
        scale = fp24.from_bits(np.ascontiguousarray(table[:, :4]).view("<u4")[:, 0])
        # A copy, even of a large one: a view would be read when nobody looks any more at what becomes of the file.
        codes = table[:, head:head + g.hidden_size].view(np.int8).copy()
        self._read("embedding", 0, len(self._embedding))
        return codes, scale

    def ends(self):
        """The final norm: vectors and ``ws_head``."""
        return dict(self._part("end", self._geometry.num_hidden_layers))

    def head(self):
        """(trits, ws)"""
        (_, trits), = self._part("head", self._geometry.num_hidden_layers)
        return trits, self.ends()["ws_head"]


def unpacked(shape, sections, read=lambda name, begin, end: None, before=lambda: None):
    """The PackedModel that was packed, exactly; parts of a large one are made when they are asked for.

    Parameters
    ----------
    shape : Layout
    sections : dict of str to uint8 array
        "embedding", "stream", and of a model with trees "tree".
    read : callable(section, begin, end)
        Told when bytes of a section have been read, and are not needed any more.
    before : callable()
        Called before bytes of a section are read.
    """
    unpacker = _Unpacker(shape, sections, read, before)
    ends = unpacker.ends()
    ws_head = ends.pop("ws_head")
    packed = OnDemand(shape.geometry, unpacker.layer, unpacker.embedding, unpacker.head, ends)
    packed._scales["head"] = ws_head
    return eager(packed) if is_small(shape.geometry) else packed
