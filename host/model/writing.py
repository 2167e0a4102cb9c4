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

from sterna.firmware.layout import ALIGN, LayoutError, layout, memory_map, tiling_of, up
from sterna.host.model.answer import widest
from sterna.host.model.header import MATRICES, ImageError
from sterna.host.model.mapping import Mapping
from sterna.host.model.unpacking import unpacked
from sterna.sim.golden import fp24
from sterna.sim.golden.trits import counts, pack_matrix

MAGIC = b"STERNA\r\n"
IMAGE_VERSION = 1
NUMERICS_VERSION = 1  # of the values in an image; versions 2 and 3 changed the sampling alone
HEAD = struct.Struct("<8s4I")
ROWS = 1 << 12  # of the embedding, written together
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
    """The layers of a model as the order of the stream wants them; a thread makes the next one meanwhile."""

    def __init__(self, packed, pool):
        self._layers, self._pool, self._made = packed.layers, pool, {}

    def _submit(self, number):
        if number < len(self._layers) and number not in self._made:
            self._made[number] = self._pool.submit(self._layers.__getitem__, number)

    def __call__(self, part, number):
        self._submit(number)
        layer = self._made[number].result()
        if part == "gates":
            self._submit(number + 1)
        if part == "down":
            del self._made[number]
        return layer


class _Sections:
    """Writes the sections, and takes down what the header says about them."""

    def __init__(self, file, at, shape, written):
        self._file, self._at, self._shape, self._written = file, at, shape, written
        self.entries, self.statistics = [], {}

    def _write(self, data):
        self._file.write(data)
        entry = self.entries[-1]
        entry["bytes"] += memoryview(data).nbytes
        entry["crc32c"] = crc32c(data, entry["crc32c"])

    @contextmanager
    def section(self, name):
        """A section: all that is written in the block."""
        self.entries.append({"name": name, "offset": self._at, "bytes": 0, "crc32c": 0})
        yield self._write
        self._at = up(self._at + self.entries[-1]["bytes"], ALIGN)
        self._file.write(bytes(self._at - self.entries[-1]["offset"] - self.entries[-1]["bytes"]))

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
        sizes = []
        with self.section("stream") as write, ThreadPoolExecutor(1) as pool:
            layer = _Ahead(packed, pool)
            for part, number in self._shape.order():
                before = self.entries[-1]["bytes"]
                at_end = part in ("end", "head")
                self._part(write, packed if at_end else layer(part, number), part, "" if at_end else f"{number}.")
                sizes.append({"part": part, "layer": number, "bytes": self.entries[-1]["bytes"] - before})
                self._written(part, number)
        self.entries[-1]["layers"] = sizes

    def _part(self, write, source, part, prefix):
        for kind, name, *size in self._shape.sections(part):
            value = getattr(source, name)
            if kind == "vector":
                write(_vector(self._shape, value, size[0]))
                continue
            self.statistics[prefix + name] = [*counts(value), float(getattr(source, "ws_" + name))]
            for data in _matrix(self._shape, name, value, *size):
                write(data)


def _text(fixed, sections, extra):
    header = fixed | extra | {"sections": sections}
    return json.dumps({key: value for key, value in header.items() if value is not None}).encode()


def _longer(one, other):
    """Of two values the one that takes more room as JSON."""
    return max(one, other, key=lambda value: len(json.dumps(value)))


def _room(shape, fixed, source, answer):
    """Bytes (int) that the header's text takes at most; an answer and a source that are not made yet are short."""
    geometry, far = shape.geometry, 1 << 62
    names = [f"{layer}.{name}" for layer in range(geometry.num_hidden_layers) for name in MATRICES]
    most = 2 * geometry.intermediate_size * max(geometry.hidden_size, geometry.vocab_size)
    sections = [{"name": name, "offset": far, "bytes": far, "crc32c": (1 << 32) - 1}
                for name in ("embedding", "stream", "tokenizer")]
    sections[1]["layers"] = [{"part": part, "layer": number, "bytes": shape.part_bytes(part)}
                             for part, number in shape.order()]
    made = {"sha256": "0" * 64, "sterna": "0" * 32, "numerics": 1000, "weights": "BF16,F16,F32"}
    known = widest(geometry.vocab_size).to_json()
    extra = {"statistics": {name: [most, most, most, _WIDEST] for name in [*names, "head"]},
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

    return unpacked(shape, *(whole[entry["offset"]:][:entry["bytes"]] for entry in entries[:2]), read)


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
    shape = layout(config, geometry)
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
    file.write(HEAD.pack(MAGIC, IMAGE_VERSION, NUMERICS_VERSION, len(text), crc32c(text)) + text)
    return file.seek(0, io.SEEK_END)


def build_image(packed, config, tokenizer_json, name, eos, ends=None, **more):
    """bytes of the .sterna file, see `write_image`."""
    file = io.BytesIO()
    write_image(file, packed, config, tokenizer_json, name, eos, ends, **more)
    return file.getvalue()
