"""The .sterna file: a packed model tiled for one array, and where its parts lie in the device's memory.

docs/image-format.md is the normative description; sizes and addresses are those of ``sterna.firmware.layout``.
"""

import lzma
from pathlib import Path

import numpy as np
from crc32c import crc32c

from sterna.firmware.dealing import dealt
from sterna.firmware.layout import ALIGN, layout, up
from sterna.host.model import padding
from sterna.host.model.counting import counted
from sterna.host.model.header import (  # noqa: F401
    HEADER_BYTES,
    MOST_ENDS,
    HeaderError,
    ImageError,
    check_statistics,
    parse_header,
)
from sterna.host.model.mapping import Mapping
from sterna.host.model.unpacking import unpacked
from sterna.host.model.writing import (  # noqa: F401 (what makes images is asked for here)
    HEAD,
    MAGIC,
    VERSIONS,
    build_image,
    placed,
    write_image,
)

LINK_BYTES = 4  # words of the link: requests begin and end with one
XZ_MEMORY_BYTES = 1 << 27  # xz -9 takes half of it
MOST_RATIO = 64  # tokenizers compress 3 to 10 times
PIECE_BYTES = 1 << 24  # of a section, checked together
CHECKS = {"embedding": padding.check_embedding, "stream": padding.check_stream, "tree": padding.check_tree}
CHANGED = "changed while it was read: start again once nothing writes it any more"


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
    source : dict or None
        The checkpoint's hash, versions and types, where the header tells them.
    statistics : dict or None
        [-1, 0, +1, scale] of every matrix.
    answer : Answer or None
        The known answer.
    data : uint8 array
        The whole file (memory-mapped by ``load``). What has been read of a mapped one is given back, so that an
        image larger than the memory can be checked and used.
    """

    def __init__(self, data):
        self._mapping, self._label = data if isinstance(data, Mapping) else None, ""
        data = data.data if self._mapping else data
        self.data = data if isinstance(data, np.ndarray) else np.frombuffer(data, np.uint8)
        raw = bytes(self.data[:HEAD.size])
        if raw[:8] != MAGIC[:len(raw[:8])] or not raw:
            raise ImageError("not a Sterna image: make one with sterna convert")
        if len(raw) < HEAD.size:
            raise ImageError("truncated image: download or pack it again")
        _, version, numerics, length, crc = HEAD.unpack(raw)
        mixer = next((name for name, versions in VERSIONS.items() if versions == (version, numerics)), None)
        if mixer is None:
            read = ", or ".join(f"{ours} and {theirs}" for ours, theirs in VERSIONS.values())
            raise ImageError(f"image format {version}, numerics {numerics}: this version reads {read}; pack the "
                             "model again")
        if HEAD.size + length > len(self.data):
            raise ImageError("truncated image: download or pack it again")
        if length > HEADER_BYTES:
            raise ImageError(f"damaged section header: it has {length} bytes")
        text = bytes(self.data[HEAD.size:HEAD.size + length])
        if crc32c(text) != crc:
            raise ImageError("damaged section header: download or pack the image again")
        try:
            header = parse_header(text, HEAD.size + length, ALIGN, mixer)
        except HeaderError as error:
            raise ImageError(f"damaged section header: {error}") from None
        self.geometry, self.tiling, self.sections = header.geometry, header.tiling, header.sections
        self.name, self.eos, self.ends = header.name, header.eos, header.ends
        self.source, self.statistics, self.answer = header.source, header.statistics, header.answer
        self.layout = layout(self.tiling, self.geometry)
        wanted = {"embedding": self.layout.row_bytes * self.geometry.vocab_size, "stream": self.layout.stream_bytes,
                  "tree": self.layout.tree_bytes}
        for section, entry in self.sections.items():
            if entry["bytes"] != wanted.get(section, entry["bytes"]):
                raise ImageError(f"damaged section header: section {section} has {entry['bytes']} bytes, its "
                                 f"geometry takes {wanted[section]}")
            if entry["offset"] + entry["bytes"] > len(self.data):
                raise ImageError(f"truncated image in section {section}: download or pack it again")
            if self._checksum(section) != entry["crc32c"]:
                raise ImageError(f"damaged section {section}: download or pack the image again")
        self._check_padding(HEAD.size + length)
        try:
            check_statistics(header.statistics, header.geometry)
        except HeaderError as error:
            raise ImageError(f"damaged section header: {error}") from None

    def _checksum(self, name):
        data, crc = self.section(name), 0
        for at in range(0, len(data), PIECE_BYTES):
            crc = crc32c(data[at:at + PIECE_BYTES], crc)
            self._read(name, at, min(at + PIECE_BYTES, len(data)))
        return crc

    def _read(self, name, begin, end):
        """Gives back the pages of a mapped file that hold bytes of a section: they come again if they are read."""
        if self._mapping:
            at = self.sections[name]["offset"]
            self._mapping.release(at + begin, at + end)
        self.check_unchanged()

    def check_unchanged(self):
        """ImageError if the file has been written since it was opened: nothing that was read of it is sure then.

        Whoever reads ``data`` asks before, as pages behind the end of a file that was cut end the process, and
        afterwards.
        """
        if self._mapping and self._mapping.changed:
            raise ImageError(self._label + CHANGED)

    def _check_padding(self, header_end):
        """ImageError unless all that is no header, number or trit is zero, and the end is right."""
        try:
            padding.check_between(self.data, self.sections.values(), header_end, ALIGN)
            for name, check in CHECKS.items():
                if name not in self.sections:
                    continue
                check(self.layout, self.section(name), lambda begin, end, name=name: self._read(name, begin, end))
        except padding.PaddingError as error:
            raise ImageError(f"{error}: download or pack the image again") from None

    @classmethod
    def load(cls, path):
        """Image of a file, with every check. ImageError: one line starting with the path."""
        try:
            if Path(path).stat().st_size == 0:
                raise ImageError("not a Sterna image: the file is empty")
            with open(path, "rb") as file:
                image = cls(Mapping(file))
        except OSError as error:
            raise ImageError(f"{path}: {error.strerror}") from None
        except ValueError as error:  # an ImageError, or nothing that can be mapped
            raise ImageError(f"{path}: {error}") from None
        image._label = f"{path}: "
        return image

    def section(self, name):
        """uint8 view of a section's bytes."""
        entry = self.sections[name]
        return self.data[entry["offset"]:entry["offset"] + entry["bytes"]]

    @property
    def tokenizer_json(self):
        """Text of tokenizer.json; ImageError if it is damaged, or far longer than its compressed form lets expect."""
        try:
            self.check_unchanged()
            data = self.section("tokenizer").tobytes()
            self.check_unchanged()
        except ImageError:
            raise ImageError(CHANGED) from None  # the reader names the file, as for all that is wrong here
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
        """MemoryMap on a device. ImageError: other tiling, the memory is too small, or the file has changed."""
        self.check_unchanged()
        for key, value in self.tiling.items():
            if getattr(config, key) != value:
                raise ImageError(f"image for {key} {value} but the device has {getattr(config, key)}: "
                                 "pack the model for this device")
        return placed(config, self.geometry)

    def regions(self, config):
        """[(byte address, uint8 array)] to load into the device's memory: whole 32-bit words, as the link takes them.

        The last word of a part may reach into the zeros behind it, of the file as of the memory. For several engines
        the parts are made here, which takes as much memory as they are long.
        """
        where, target = self.check(config), layout(config, self.geometry)
        return [(getattr(where, f"{name}_address"), dealt(name, self._words(name), self.layout, target))
                for name in CHECKS if name in self.sections]

    def _words(self, name):
        """uint8 view of a section, up to the end of its last 32-bit word."""
        entry = self.sections[name]
        return self.data[entry["offset"]:entry["offset"] + up(entry["bytes"], LINK_BYTES)]

    def count(self):
        """{matrix: [-1, 0, +1, scale]}, counted in the sections."""
        self.check_unchanged()
        return counted(self.layout, self._parts(), self._read)

    def _parts(self):
        return {name: self.section(name) for name in CHECKS if name in self.sections}

    def unpack(self):
        """The PackedModel that was packed, exactly; of a large one the parts are made when they are asked for."""
        self.check_unchanged()
        return unpacked(self.layout, self._parts(), self._read, self.check_unchanged)
