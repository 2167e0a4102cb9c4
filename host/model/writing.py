"""Writes an image in order, a layer at a time: of what is packed, no more than two layers are in memory.

docs/image-format.md is the normative description. The header stands in front of the sections and
holds what is known behind them only, checksums, numbers of trits and the known answer: its room is
left free, and filled at the end.
"""

import io
import json
import lzma
import shutil
import struct
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict

import numpy as np
from crc32c import crc32c

from sterna.firmware.layout import ALIGN, TABLES, LayoutError, layout, memory_map, tiling_of, up
from sterna.host.model.answer import widest
from sterna.host.model.header import SECTIONS, ImageError, matrix_names
from sterna.host.model.mapping import Mapping
from sterna.host.model.unpacking import unpacked
from sterna.sim.golden import fp24
from sterna.sim.golden.trits import counts, pack_matrix, pack_records

MAGIC = b"STERNA\r\n"
# Versions of the format and of the numerics that the values follow, by the mixer of a geometry: what numerics
# changed since is no value of an image.
VERSIONS = {"glu": (1, 1), "tree": (2, 4)}
HEAD = struct.Struct("<8s4I")
ROWS = 1 << 12  # of the embedding, written together
TABLE_BYTES = 1 << 22  # of a table of trees, written together
_WIDEST = 1.2345678901234567e-123  # as long as any number becomes in JSON


def placed(config, geometry):
    """MemoryMap; ImageError if the model does not fit the memory."""
    try:
        return memory_map(config, geometry)
    except LayoutError as error:
        raise ImageError(str(error)) from None


def _vector(shape, values, n):
    out = np.zeros(shape.vector_bytes(n) // 4, "<u4")
    values = np.atleast_1d(values)
    out[:len(values)] = fp24.to_bits(values)
    return out.tobytes()


def _matrix(shape, name, trits, rows, columns):
    """Yields the bytes of a matrix."""
    if name == "gate":
        half, missing = trits.shape[0] // 2, shape.inner - trits.shape[0] // 2
        if missing:
            pad = ((0, missing), (0, 0))
            trits = np.concatenate([np.pad(trits[:half], pad), np.pad(trits[half:], pad)])
        trits = trits[shape.gate_order]
    if trits.shape[1] < columns:  # the padded neurons may need one chunk more
        trits = np.pad(trits, ((0, 0), (0, columns - trits.shape[1])))
    data = pack_matrix(trits, shape.rows, shape.columns, shape.weight_code)
    yield data
    yield bytes(shape.matrix_bytes(rows, columns) - len(data))


class _Ahead:
    """The layers of a model as the order of the stream wants them; a thread makes the next one meanwhile.

    ``last`` is the part that stands last of a layer.
    """

    def __init__(self, packed, pool, last):
        self._layers, self._pool, self._last, self._made = packed.layers, pool, last, {}

    def _submit(self, number):
        if number < len(self._layers) and number not in self._made:
            self._made[number] = self._pool.submit(self._layers.__getitem__, number)

    def __call__(self, part, number):
        self._submit(number)
        layer = self._made[number].result()
        if part == "gates":
            self._submit(number + 1)
        if part == self._last:
            del self._made[number]
        return layer


class _Sections:
    """Writes the sections, and takes down what the header says about them.

    The tables of trees have a section of their own, behind the stream. They are written there layer by layer between
    the parts of the stream, whose length is known, so that each layer is made once.
    """

    def __init__(self, file, at, shape, written):
        self._file, self._at, self._shape, self._written = file, at, shape, written
        self.entries, self.statistics, self._entry = [], {}, None

    def _opened(self, name, at):
        self._entry = {"name": name, "offset": at, "bytes": 0, "crc32c": 0}
        self.entries.append(self._entry)
        return self._entry

    def _at_end_of(self, entry):
        """What is written from here on belongs to ``entry``."""
        self._entry = entry
        self._file.seek(entry["offset"] + entry["bytes"])

    def _write(self, data):
        self._file.write(data)
        entry = self._entry
        entry["bytes"] += memoryview(data).nbytes
        entry["crc32c"] = crc32c(data, entry["crc32c"])

    def _close(self, entry):
        """Zeros behind a section, whose end the file stands at."""
        self._at = up(entry["offset"] + entry["bytes"], ALIGN)
        self._file.write(bytes(self._at - entry["offset"] - entry["bytes"]))

    @contextmanager
    def section(self, name):
        """A section: all that is written in the block."""
        entry = self._opened(name, self._at)
        yield self._write
        self._close(entry)

    def embedding(self, packed):
        shape, hidden = self._shape, packed.geometry.hidden_size
        head = shape.vector_bytes(1)
        with self.section("embedding") as write:
            scale, codes = packed.embedding_scale, packed.embedding_codes
            for at in range(0, len(codes), ROWS):
                part = codes[at:at + ROWS]
                out = np.zeros((len(part), shape.row_bytes), np.uint8)
                out[:, :4] = fp24.to_bits(scale[at:at + ROWS]).astype("<u4").view(np.uint8).reshape(-1, 4)
                out[:, head:head + hidden] = part.view(np.uint8)
                write(out)

    def stream(self, packed):
        shape, sizes, stream = self._shape, [], self._opened("stream", self._at)
        tables = self._opened("tree", up(self._at + shape.stream_bytes, ALIGN)) if shape.tree_bytes else None
        self._at_end_of(stream)
        with ThreadPoolExecutor(1) as pool:
            layer = _Ahead(packed, pool, shape.parts[-1])
            for part, number in shape.order():
                before = stream["bytes"]
                at_end = part in ("end", "head")
                source = packed if at_end else layer(part, number)
                self._part(source, part, "" if at_end else f"{number}.")
                sizes.append({"part": part, "layer": number, "bytes": stream["bytes"] - before})
                if part == "tree":
                    self._at_end_of(tables)
                    self._tables(source, number)
                    self._at_end_of(stream)
                self._written(part, number)
        stream["layers"] = sizes
        self._close(stream)
        if tables:
            self._at_end_of(tables)
            self._close(tables)

    def _part(self, source, part, prefix):
        for kind, name, *size in self._shape.sections(part):
            value = getattr(source, name)
            if kind == "vector":
                self._write(_vector(self._shape, value, size[0]))
                continue
            self._count(prefix + name, value, getattr(source, "ws_" + name))
            for data in _matrix(self._shape, name, value, *size):
                self._write(data)

    def _tables(self, layer, number):
        shape = self._shape
        for name in TABLES:
            trits = getattr(layer, name)
            self._count(f"{number}.{name}", trits, getattr(layer, "ws_" + name))
            step = max(1, TABLE_BYTES // shape.record_bytes)
            for at in range(0, len(trits), step):
                self._write(pack_records(trits[at:at + step], shape.rows * shape.columns, shape.record_bytes,
                                         shape.weight_code))

    def _count(self, name, trits, ws):
        self.statistics[name] = [*counts(trits), float(ws)]


def _text(fixed, sections, extra):
    header = fixed | extra | {"sections": sections}
    return json.dumps({key: value for key, value in header.items() if value is not None}).encode()


def _longer(one, other):
    """Of two values the one that takes more room as JSON."""
    return max(one, other, key=lambda value: len(json.dumps(value)))


def _room(shape, fixed, source, answer):
    """Bytes (int) that the header's text takes at most; an answer and a source that are not made yet are short."""
    geometry, far = shape.geometry, 1 << 62
    names = [name for name, _ in matrix_names(geometry)]
    # Rows of the largest matrix; not one for each kind of model, as all images begin with so much room.
    inner = geometry.neurons if shape.tree_bytes else 2 * geometry.intermediate_size
    most = inner * max(geometry.hidden_size, geometry.vocab_size)
    sections = [{"name": name, "offset": far, "bytes": far, "crc32c": (1 << 32) - 1}
                for name in SECTIONS[geometry.mixer]]
    sections[1]["layers"] = [{"part": part, "layer": number, "bytes": shape.part_bytes(part)}
                             for part, number in shape.order()]
    made = {"sha256": "0" * 64, "sterna": "0" * 32, "numerics": 1000, "weights": "BF16,F16,F32"}
    known = widest(geometry.vocab_size).to_json()
    extra = {"statistics": {name: [most, most, most, _WIDEST] for name in names},
             "source": made if source is None or callable(source) else _longer(made, source),
             "answer": None if answer is None else known if callable(answer) else _longer(known, answer.to_json())}
    return len(_text(fixed, sections, extra))


@contextmanager
def naming_temporary():
    """Gives errors of writing a temporary file, which have no name, that of the folder it is in."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            raise OSError(error.errno, error.strerror or str(error), tempfile.gettempdir()) from None
        raise


def _readable(file, shape, entries):
    """The PackedModel in the sections that have been written."""
    if isinstance(file, io.BytesIO):
        whole, release = np.frombuffer(file.getvalue(), np.uint8), None
    else:
        file.flush()
        mapping = Mapping(file)
        whole, release = mapping.data, mapping.release
    at = {entry["name"]: entry["offset"] for entry in entries}

    def read(name, begin, end):
        if release:
            release(at[name] + begin, at[name] + end)

    sections = {entry["name"]: whole[entry["offset"]:][:entry["bytes"]] for entry in entries}
    return unpacked(shape, sections, read)


def write_image(file, packed, config, tokenizer_json, name, eos, ends=None, *, source=None, answer=None,
                fits=True, written=lambda part, number: None):
    """Write the .sterna file of a model for a configuration.

    Parameters
    ----------
    file : binary file
        Empty. One that cannot seek, or cannot be read, is written through a temporary file.
    packed : PackedModel
        Its parts are taken once each and in order.
    config : Config, DeviceInfo or Board
    tokenizer_json, name : str
    eos : int
        Token that ended the texts of the training.
    ends : tuple of int, optional
        Those that end a text that the model makes; without it ``eos``.
    source : dict or callable() -> dict, optional
        The header's ``source``; or what gives it, asked behind the last part.
    answer : Answer or callable(PackedModel, int), optional
        The known answer; or what makes it of a model, the one in the image itself, and of ``eos``.
        It may give None: then the image has none.
    fits : bool
        Refuse what the memory of the configuration does not hold.
    written : callable(part, layer)
        Told about each part of the stream.

    Returns
    -------
    int
        Bytes of the file.

    Raises
    ------
    ImageError
        It does not fit the memory.
    OSError
    """
    geometry = packed.geometry
    shape = layout(tiling_of(config), geometry)
    if fits:
        placed(config, geometry)
    if not (file.seekable() and file.readable()):
        with tempfile.TemporaryFile() as whole:
            with naming_temporary():
                size = write_image(whole, packed, config, tokenizer_json, name, eos, ends, source=source,
                                   answer=answer, fits=fits, written=written)
                whole.seek(0)
            shutil.copyfileobj(whole, file, 1 << 20)
            return size
    fixed = {"geometry": asdict(geometry), "tiling": tiling_of(config), "name": name, "eos": eos,
             "ends": None if ends in (None, (eos,)) else list(ends)}
    base = up(HEAD.size + _room(shape, fixed, source, answer), ALIGN)
    file.write(bytes(base))
    sections = _Sections(file, base, shape, written)
    sections.embedding(packed)
    sections.stream(packed)
    with sections.section("tokenizer") as write:
        write(lzma.compress(tokenizer_json.encode()))
    if callable(answer):
        answer = answer(_readable(file, shape, sections.entries), eos)
    extra = {"statistics": sections.statistics, "source": source() if callable(source) else source,
             "answer": answer.to_json() if answer else None}
    text = _text(fixed, sections.entries, extra).ljust(base - HEAD.size)
    if len(text) > base - HEAD.size:
        raise ImageError(f"the header takes {len(text)} bytes, which is more than was thought: shorten the name")
    file.seek(0)
    file.write(HEAD.pack(MAGIC, *VERSIONS[geometry.mixer], len(text), crc32c(text)) + text)
    return file.seek(0, io.SEEK_END)


def build_image(packed, config, tokenizer_json, name, eos, ends=None, **more):
    """bytes of the .sterna file, see `write_image`."""
    file = io.BytesIO()
    write_image(file, packed, config, tokenizer_json, name, eos, ends, **more)
    return file.getvalue()
