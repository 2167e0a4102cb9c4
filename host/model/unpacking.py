"""The PackedModel inside the sections of an image: the inverse of ``sterna.host.model.writing``."""

import numpy as np

from sterna.sim.golden import fp24
from sterna.sim.golden.packed import OnDemand, PackedLayer, eager, is_small
from sterna.sim.golden.trits import unpack_matrix

LAYER_PARTS = ("norm", "gates", "mixer", "out", "glu", "down")


class _Unpacker:
    """Makes the parts of a PackedModel out of the two sections, each when it is asked for."""

    def __init__(self, shape, embedding, stream, read, before):
        self._shape, self._geometry, self._read, self._before = shape, shape.geometry, read, before
        self._embedding, self._stream = embedding, stream
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
        shape, inner = self._shape, self._geometry.intermediate_size
        trits = unpack_matrix(data, rows, columns, shape.rows, shape.columns, shape.weight_code)
        if name == "gate":
            ordered = np.empty_like(trits)
            ordered[shape.gate_order] = trits
            trits = ordered if inner == shape.inner else \
                np.concatenate([ordered[:inner], ordered[shape.inner:shape.inner + inner]])
        return np.ascontiguousarray(trits[:, :inner]) if name == "down" else trits

    def layer(self, number):
        return PackedLayer(**{name: value for part in LAYER_PARTS for name, value in self._part(part, number)})

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


def unpacked(shape, embedding, stream, read=lambda name, begin, end: None, before=lambda: None):
    """The PackedModel that was packed, exactly; parts of a large one are made when they are asked for.

    Parameters
    ----------
    shape : Layout
    embedding, stream : uint8 array
        The two sections.
    read : callable(section, begin, end)
        Told when bytes of a section have been read, and are not needed any more.
    before : callable()
        Called before bytes of a section are read.
    """
    unpacker = _Unpacker(shape, embedding, stream, read, before)
    ends = unpacker.ends()
    ws_head = ends.pop("ws_head")
    packed = OnDemand(shape.geometry, unpacker.layer, unpacker.embedding, unpacker.head, ends)
    packed._scales["head"] = ws_head
    return eager(packed) if is_small(shape.geometry) else packed
