"""The header of an image: every field checked before anything is read by it (docs/image-format.md)."""

import re
from dataclasses import dataclass, fields

from sterna.firmware.layout import check_tiling
from sterna.host.model.answer import Answer, AnswerError, parse_answer
from sterna.hw.config import TILING
from sterna.sim.golden import strictjson
from sterna.sim.golden.errors import SternaError
from sterna.sim.golden.geometry import GEOMETRIES, ModelGeometry, PackError
from sterna.sim.golden.strictjson import short

HEADER_BYTES = 1 << 24  # the largest that is read; a layer takes some 800 bytes
MOST_ENDS = 256
# By the mixer of a geometry.
SECTIONS = {"glu": ("embedding", "stream", "tokenizer"), "tree": ("embedding", "stream", "tree", "tokenizer")}
_HASH = re.compile("[0-9a-f]{64}")
_SCALE = 1 << 128  # beyond all fp24 numbers
_WORDS = 200  # characters of a text in ``source``


class ImageError(SternaError, ValueError):
    """An image that cannot be written, read or used; one line."""


class HeaderError(SternaError, ValueError):
    """A header that describes no image; one line without the file's name."""


@dataclass(frozen=True)
class Header:
    """``sections`` maps the names to their entries {name, offset, bytes, crc32c}; ``eos`` is
    a token id, ``ends`` are one or more. ``source``, ``statistics`` (dicts) and ``answer`` are None
    where an image has none.
    """

    geometry: ModelGeometry
    tiling: dict
    name: str
    eos: int
    ends: tuple
    sections: dict
    source: dict | None
    statistics: dict | None
    answer: Answer | None


def _natural(value, below):
    return type(value) is int and 0 <= value < below


def _section(entry, start, align):
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise HeaderError("a section is not described")
    good = _natural(entry.get("offset"), 1 << 62) and _natural(entry.get("bytes"), 1 << 62) \
        and _natural(entry.get("crc32c"), 1 << 32) and entry["offset"] >= start and not entry["offset"] % align
    if not good:
        raise HeaderError(f"section {short(entry['name'])} has no place in a file")
    return entry


def _in_a_row(sections, at, align):
    """HeaderError unless each section begins at the first multiple of ``align`` behind the one before."""
    for entry in sorted(sections, key=lambda entry: (entry["offset"], entry["bytes"])):
        begin = -(-at // align) * align
        if entry["offset"] != begin:
            what = "overlaps what is before it" if entry["offset"] < begin else "leaves a gap"
            raise HeaderError(f"section {entry['name']} at byte {entry['offset']} {what}: must be at {begin}")
        at = begin + entry["bytes"]


def _ends(raw, eos, vocabulary):
    ends = raw.get("ends", [eos])
    good = isinstance(ends, list) and 0 < len(ends) <= MOST_ENDS and all(_natural(end, vocabulary) for end in ends)
    if not good or len(set(ends)) != len(ends):
        raise HeaderError(f"ends is {short(ends)}: must be different tokens below {vocabulary}, 1 to {MOST_ENDS}")
    return tuple(ends)


def _source(raw):
    def text(value):
        return isinstance(value, str) and len(value) <= _WORDS
    good = isinstance(raw, dict) and set(raw) == {"sha256", "sterna", "numerics", "weights"} \
        and text(raw["sha256"]) and _HASH.fullmatch(raw["sha256"]) and text(raw["sterna"]) and text(raw["weights"]) \
        and _natural(raw["numerics"], 1 << 16)
    if not good:
        raise HeaderError(f"source is {short(raw)}: must have sha256, sterna, numerics and weights")
    return raw


def matrix_names(geometry):
    """Yields (name, trits) of the matrices as ``statistics`` has them."""
    sizes = {name: rows * columns for name, (rows, columns) in geometry.layer_matrices().items()}
    for layer in range(geometry.num_hidden_layers):
        yield from ((f"{layer}.{name}", size) for name, size in sizes.items())
    yield "head", geometry.vocab_size * geometry.hidden_size


def check_statistics(raw, geometry):
    """HeaderError unless ``statistics``, if there are any, are those of a geometry, whose sections are there."""
    if raw is None:
        return
    if not isinstance(raw, dict) or len(raw) != geometry.matrices:
        raise HeaderError(f"statistics is {short(raw)}: must have {geometry.matrices} matrices")
    for name, trits in matrix_names(geometry):
        entry = raw.get(name)
        good = isinstance(entry, list) and len(entry) == 4 and all(_natural(n, trits + 1) for n in entry[:3]) \
            and sum(entry[:3]) == trits and type(entry[3]) in (int, float) and 0 < entry[3] < _SCALE
        if not good:
            raise HeaderError(f"statistics of {name} is {short(entry)}: must be three numbers of trits, {trits} "
                              "together, and a scale")


def _parsed(raw, start, align, mixer):
    if not isinstance(raw, dict):
        raise HeaderError("it holds no JSON object")
    geometry, tiling = raw.get("geometry"), raw.get("tiling")
    kind = GEOMETRIES[mixer]
    names = [field.name for field in fields(kind)]
    if not isinstance(geometry, dict) or set(geometry) != set(names):
        raise HeaderError(f"geometry must have exactly {', '.join(names)}")
    if not isinstance(tiling, dict) or not set(TILING) <= set(tiling):
        raise HeaderError(f"tiling must have {', '.join(TILING)}")
    geometry, tiling = kind(**geometry), {key: tiling[key] for key in TILING}
    check_tiling(tiling)
    name, eos, listed = raw.get("name"), raw.get("eos"), raw.get("sections")
    if not isinstance(name, str):
        raise HeaderError(f"name is {short(name)}: must be a text")
    if not _natural(eos, geometry.vocab_size):
        raise HeaderError(f"eos is {short(eos)}: must be a token below {geometry.vocab_size}")
    ends = _ends(raw, eos, geometry.vocab_size)
    sections = [_section(entry, start, align) for entry in listed] if isinstance(listed, list) else []
    if sorted(s["name"] for s in sections) != sorted(SECTIONS[mixer]):
        raise HeaderError(f"sections must be {', '.join(SECTIONS[mixer])}")
    _in_a_row(sections, start, align)
    source = _source(raw["source"]) if "source" in raw else None
    answer = parse_answer(raw["answer"], geometry.vocab_size) if "answer" in raw else None
    return Header(geometry, tiling, name, eos, ends, {s["name"]: s for s in sections}, source, raw.get("statistics"),
                  answer)


def parse_header(text, start, align, mixer="glu"):
    """The Header in ``text`` (bytes), in front of sections from byte ``start`` on at multiples of ``align``.

    ``mixer`` is that of the geometry, which the version of the format tells.

    The sections lie one behind the other. Sizes and statistics are not compared with the geometry here,
    and nothing takes more time or memory than the text is long.

    Raises
    ------
    HeaderError
    """
    try:
        return _parsed(strictjson.parse(text), start, align, mixer)
    except HeaderError:
        raise
    except AnswerError as error:
        raise HeaderError(f"the known answer is none: {error}") from None
    except (strictjson.JsonError, PackError) as error:
        raise HeaderError(str(error)) from None
    except ValueError as error:  # of the tiling
        raise HeaderError(str(error)) from None
