"""The header of a .sterna file: its JSON, with every field checked for type and range (docs/image-format.md)."""

from dataclasses import dataclass

from sterna.hw.config import TILING, check_tiling
from sterna.sim.golden import strictjson
from sterna.sim.golden.errors import SternaError
from sterna.sim.golden.packed import Geometry, PackError

HEADER_BYTES = 1 << 24  # the largest that is read; a layer takes some 300 bytes
MOST_ENDS = 256
SECTIONS = ("embedding", "stream", "tokenizer")


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
