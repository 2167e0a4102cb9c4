"""The .sterna file: a packed model tiled for one array, and where its parts lie in the device's memory.

docs/image-format.md is the normative description; sizes and addresses are those of ``sterna.firmware.layout``.
"""

import json
import lzma
import struct
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from crc32c import crc32c

from sterna.firmware.layout import ALIGN, LayoutError, layout, memory_map, tiling_of, up
from sterna.host.model import padding
from sterna.hw.config import TILING, check_tiling
from sterna.sim.golden import fp24, strictjson
from sterna.sim.golden.errors import SternaError
from sterna.sim.golden.packed import Geometry, PackedLayer, PackedModel, PackError
from sterna.sim.golden.trits import pack_matrix, unpack_matrix

HEADER_BYTES = 1 << 24  # the largest that is read; a layer takes some 300 bytes
MOST_ENDS = 256
SECTIONS = ("embedding", "stream", "tokenizer")
MAGIC = b"STERNA\r\n"
IMAGE_VERSION = 1
NUMERICS_VERSION = 1  # of the values in an image; versions 2 and 3 changed the sampling alone
LINK_BYTES = 4  # words of the link: requests begin and end with one
_HEAD = struct.Struct("<8s4I")
XZ_MEMORY_BYTES = 1 << 27  # xz -9 takes half of it
MOST_RATIO = 64  # tokenizers compress 3 to 10 times


class HeaderError(SternaError, ValueError):
    """A header that describes no image; one line without the file's name."""


@dataclass(frozen=True)
class Header:
    """``sections`` maps the three names to their entries {name, offset, bytes, crc32c}; ``eos`` is
    a token id, ``ends`` are one or more.
    """

    geometry: Geometry
    tiling: dict
    name: str
    eos: int
    ends: tuple
    sections: dict


def _natural(value, below):
    return type(value) is int and 0 <= value < below


def _section(entry, start, align):
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise HeaderError("a section is not described")
    good = _natural(entry.get("offset"), 1 << 62) and _natural(entry.get("bytes"), 1 << 62) \
        and _natural(entry.get("crc32c"), 1 << 32) and entry["offset"] >= start and not entry["offset"] % align
    if not good:
        raise HeaderError(f"section {strictjson.short(entry['name'])} has no place in a file")
    return entry


def _in_a_row(sections, at, align):
    """HeaderError unless each section begins at the first multiple of ``align`` behind the one before."""
    for entry in sorted(sections, key=lambda entry: (entry["offset"], entry["bytes"])):
        begin = -(-at // align) * align
        if entry["offset"] != begin:
            what = "overlaps what is before it" if entry["offset"] < begin else "leaves a gap"
            raise HeaderError(f"section {entry['name']} at byte {entry['offset']} {what}: must be at {begin}")
        at = begin + entry["bytes"]


def parse_header(text, start, align):
    """The Header in ``text`` (bytes), in front of sections from byte ``start`` on at multiples of ``align``.

    The sections lie one behind the other. Sizes are not compared with the geometry here, and
    nothing takes more time or memory than the text is long.

    Raises
    ------
    HeaderError
    """
    try:
        raw = strictjson.parse(text)
        if not isinstance(raw, dict):
            raise HeaderError("it holds no JSON object")
        geometry, tiling = raw.get("geometry"), raw.get("tiling")
        names = Geometry.__dataclass_fields__
        if not isinstance(geometry, dict) or set(geometry) != set(names):
            raise HeaderError(f"geometry must have exactly {', '.join(names)}")
        if not isinstance(tiling, dict) or not set(TILING) <= set(tiling):
            raise HeaderError(f"tiling must have {', '.join(TILING)}")
        geometry, tiling = Geometry(**geometry), {key: tiling[key] for key in TILING}
        check_tiling(tiling)
        name, eos, listed = raw.get("name"), raw.get("eos"), raw.get("sections")
        if not isinstance(name, str):
            raise HeaderError(f"name is {strictjson.short(name)}: must be a text")
        if not _natural(eos, geometry.vocab_size):
            raise HeaderError(f"eos is {strictjson.short(eos)}: must be a token below {geometry.vocab_size}")
        ends = raw.get("ends", [eos])
        good = isinstance(ends, list) and 0 < len(ends) <= MOST_ENDS \
            and all(_natural(end, geometry.vocab_size) for end in ends)
        if not good or len(set(ends)) != len(ends):
            raise HeaderError(f"ends is {strictjson.short(ends)}: must be different tokens below "
                              f"{geometry.vocab_size}, 1 to {MOST_ENDS}")
        sections = [_section(entry, start, align) for entry in listed] if isinstance(listed, list) else []
        if sorted(s["name"] for s in sections) != sorted(SECTIONS):
            raise HeaderError(f"sections must be {', '.join(SECTIONS)}")
        _in_a_row(sections, start, align)
    except (strictjson.JsonError, PackError) as error:
        raise HeaderError(str(error)) from None
    except ValueError as error:  # of the tiling
        raise error if isinstance(error, HeaderError) else HeaderError(str(error)) from None
    return Header(geometry, tiling, name, eos, tuple(ends), {s["name"]: s for s in sections})


class ImageError(SternaError, ValueError):
    """An image that cannot be written, read or used; one line."""


def _placed(config, geometry):
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
    if name == "gate":
        half, pad = trits.shape[0] // 2, ((0, shape.inner - trits.shape[0] // 2), (0, 0))
        trits = np.concatenate([np.pad(trits[:half], pad), np.pad(trits[half:], pad)])[shape.gate_order]
    if trits.shape[1] < columns:  # the padded neurons may need one chunk more
        trits = np.pad(trits, ((0, 0), (0, columns - trits.shape[1])))
    data = pack_matrix(trits, shape.rows, shape.columns, shape.weight_code)
    return data.tobytes().ljust(shape.matrix_bytes(rows, columns), b"\0")


def embedding_bytes(packed, shape):
    """uint8 [V * row_bytes]: the embedding section."""
    g, head = packed.geometry, shape.vector_bytes(1)
    out = np.zeros((g.vocab_size, shape.row_bytes), np.uint8)
    out[:, :4] = fp24.to_bits(packed.embedding_scale).astype("<u4").view(np.uint8).reshape(-1, 4)
    out[:, head:head + g.hidden_size] = packed.embedding_codes.view(np.uint8)
    return out.reshape(-1)


def stream_parts(packed, shape):
    """Yields (part, layer, bytes) of the stream in order, one part at a time."""
    for part, number in shape.order():
        source = packed if part in ("end", "head") else packed.layers[number]
        yield part, number, b"".join(
            _vector(shape, getattr(source, s[1]), s[2]) if s[0] == "vector"
            else _matrix(shape, s[1], getattr(source, s[1]), *s[2:]) for s in shape.sections(part))


def build_image(packed, config, tokenizer_json, name, eos, ends=None):
    """bytes of the .sterna file of a model for a configuration.

    ``eos`` is the token that ended the texts of the training, ``ends`` (tuple of int) those that
    end a text that the model makes: without it ``eos``. ImageError: it does not fit the memory.
    """
    geometry, shape = packed.geometry, layout(config, packed.geometry)
    _placed(config, geometry)
    embedding = embedding_bytes(packed, shape).tobytes()
    pieces, sizes = [], []
    for part, number, data in stream_parts(packed, shape):
        pieces.append(data)
        sizes.append({"part": part, "layer": number, "bytes": len(data)})
    bodies = {"embedding": [embedding], "stream": pieces,
              "tokenizer": [lzma.compress(tokenizer_json.encode())]}
    sections = []
    for section, parts in bodies.items():
        crc = 0
        for part in parts:
            crc = crc32c(part, crc)
        sections.append({"name": section, "offset": 0, "bytes": sum(map(len, parts)), "crc32c": crc})
    sections[1]["layers"] = sizes
    header = {"geometry": asdict(geometry), "tiling": tiling_of(config), "name": name, "eos": eos}
    header |= ({} if ends in (None, (eos,)) else {"ends": list(ends)}) | {"sections": sections}
    # Offsets count digits of the header itself: they settle once they are wide enough.
    base = 0
    while True:
        at = base
        for entry in sections:
            entry["offset"] = at
            at = up(at + entry["bytes"], ALIGN)
        text = json.dumps(header).encode()
        if up(_HEAD.size + len(text), ALIGN) <= base:
            break
        base = up(_HEAD.size + len(text), ALIGN)
    out = [_HEAD.pack(MAGIC, IMAGE_VERSION, NUMERICS_VERSION, len(text), crc32c(text)), text]
    at = _HEAD.size + len(text)
    for entry in sections:
        out += [bytes(entry["offset"] - at), *bodies[entry["name"]]]
        at = entry["offset"] + entry["bytes"]
    return b"".join([*out, bytes(-at % ALIGN)])


class Image:
    """A checked image.

    Attributes
    ----------
    geometry : Geometry
    tiling : dict
        rows, columns, lanes, port_bytes, strip, weight_code.
    name : str
    eos : int
    ends : tuple of int
        Tokens that end a text that the model makes.
    data : uint8 array
        The whole file (memory-mapped by ``load``).
    """

    def __init__(self, data):
        self.data = np.frombuffer(data, np.uint8) if not isinstance(data, np.ndarray) else data
        raw = bytes(self.data[:_HEAD.size])
        if raw[:8] != MAGIC[:len(raw[:8])] or not raw:
            raise ImageError("not a Sterna image: make one with sterna convert")
        if len(raw) < _HEAD.size:
            raise ImageError("truncated image: download or pack it again")
        _, version, numerics, length, crc = _HEAD.unpack(raw)
        if (version, numerics) != (IMAGE_VERSION, NUMERICS_VERSION):
            raise ImageError(f"image format {version}, numerics {numerics}: this version reads "
                             f"{IMAGE_VERSION} and {NUMERICS_VERSION}; pack the model again")
        if _HEAD.size + length > len(self.data):
            raise ImageError("truncated image: download or pack it again")
        if length > HEADER_BYTES:
            raise ImageError(f"damaged section header: it has {length} bytes")
        text = bytes(self.data[_HEAD.size:_HEAD.size + length])
        if crc32c(text) != crc:
            raise ImageError("damaged section header: download or pack the image again")
        try:
            header = parse_header(text, _HEAD.size + length, ALIGN)
        except HeaderError as error:
            raise ImageError(f"damaged section header: {error}") from None
        self.geometry, self.tiling, self.sections = header.geometry, header.tiling, header.sections
        self.name, self.eos, self.ends = header.name, header.eos, header.ends
        self.layout = layout(self.tiling, self.geometry)
        wanted = {"embedding": self.layout.row_bytes * self.geometry.vocab_size, "stream": self.layout.stream_bytes}
        for section, entry in self.sections.items():
            if entry["bytes"] != wanted.get(section, entry["bytes"]):
                raise ImageError(f"damaged section header: section {section} has {entry['bytes']} bytes, its "
                                 f"geometry takes {wanted[section]}")
            if entry["offset"] + entry["bytes"] > len(self.data):
                raise ImageError(f"truncated image in section {section}: download or pack it again")
            if crc32c(self.section(section)) != entry["crc32c"]:
                raise ImageError(f"damaged section {section}: download or pack the image again")
        self._check_padding(_HEAD.size + length)

    def _check_padding(self, header_end):
        """ImageError unless all that is no header, number or trit is zero, and the end is right."""
        try:
            padding.check_between(self.data, self.sections.values(), header_end, ALIGN)
            for name, check in (("embedding", padding.check_embedding), ("stream", padding.check_stream)):
                check(self.layout, self.section(name))
        except padding.PaddingError as error:
            raise ImageError(f"{error}: download or pack the image again") from None

    @classmethod
    def load(cls, path):
        """Image of a file, with every check. ImageError: one line starting with the path."""
        try:
            if Path(path).stat().st_size == 0:
                raise ImageError("not a Sterna image: the file is empty")
            return cls(np.memmap(path, np.uint8, "r"))
        except OSError as error:
            raise ImageError(f"{path}: {error.strerror}") from None
        except ValueError as error:  # an ImageError, or nothing that can be mapped
            raise ImageError(f"{path}: {error}") from None

    def section(self, name):
        """uint8 view of a section's bytes."""
        entry = self.sections[name]
        return self.data[entry["offset"]:entry["offset"] + entry["bytes"]]

    @property
    def tokenizer_json(self):
        """Text of tokenizer.json; ImageError if it is damaged, or far longer than its compressed form lets expect."""
        data = self.section("tokenizer").tobytes()
        limit = (1 << 20) + MOST_RATIO * len(data)
        try:
            unpacker = lzma.LZMADecompressor(memlimit=XZ_MEMORY_BYTES)
            text = unpacker.decompress(data, limit)
            if not unpacker.eof:
                raise ImageError("damaged section tokenizer: " + (
                    "it ends too early" if unpacker.needs_input else f"more than {limit:,} bytes when unpacked"))
            return text.decode()
        except (lzma.LZMAError, UnicodeDecodeError):
            raise ImageError("damaged section tokenizer: download or pack the image again") from None

    def check(self, config):
        """MemoryMap on a device. ImageError: other tiling, or the memory is too small."""
        for key, value in self.tiling.items():
            if getattr(config, key) != value:
                raise ImageError(f"image for {key} {value} but the device has {getattr(config, key)}: "
                                 "pack the model for this device")
        return _placed(config, self.geometry)

    def regions(self, config):
        """[(byte address, uint8 array)] to load into the device's memory: whole 32-bit words, as the link takes them.

        The last word of a part may reach into the zeros behind it, of the file as of the memory.
        """
        where = self.check(config)
        return [(where.embedding_address, self._words("embedding")), (where.stream_address, self._words("stream"))]

    def _words(self, name):
        """uint8 view of a section, up to the end of its last 32-bit word."""
        entry = self.sections[name]
        return self.data[entry["offset"]:entry["offset"] + up(entry["bytes"], LINK_BYTES)]

    def unpack(self):
        """The PackedModel that was packed, exactly."""
        g, shape = self.geometry, self.layout
        table = self.section("embedding").reshape(g.vocab_size, shape.row_bytes)
        head = shape.vector_bytes(1)
        scale = fp24.from_bits(np.ascontiguousarray(table[:, :4]).view("<u4")[:, 0])
        codes = np.ascontiguousarray(table[:, head:head + g.hidden_size]).view(np.int8)
        layers = [{} for _ in range(g.num_hidden_layers)]
        ends, at, stream = {}, 0, self.section("stream")
        for part, number in shape.order():
            target = ends if part in ("end", "head") else layers[number]
            for kind, name, *size in shape.sections(part):
                if kind == "vector":
                    n = g.intermediate_size if name == "w_down" else size[0]
                    length = shape.vector_bytes(size[0])
                    values = fp24.from_bits(stream[at:at + 4 * n].copy().view("<u4"))
                    target[name] = float(values[0]) if name.startswith("ws_") else values
                else:
                    length = shape.matrix_bytes(*size)
                    target[name] = self._trits(name, stream[at:at + length], *size)
                at += length
        return PackedModel(geometry=g, embedding_codes=codes, embedding_scale=scale,
                           layers=tuple(PackedLayer(**values) for values in layers), **ends)

    def _trits(self, name, data, rows, columns):
        shape, inner = self.layout, self.geometry.intermediate_size
        trits = unpack_matrix(data, rows, columns, shape.rows, shape.columns, shape.weight_code)
        if name == "gate":
            ordered = np.empty_like(trits)
            ordered[shape.gate_order] = trits
            trits = np.concatenate([ordered[:inner], ordered[shape.inner:shape.inner + inner]])
        return np.ascontiguousarray(trits[:, :inner]) if name == "down" else trits
