"""Between the sections of an image, inside them, and at its end there are zeros, all of them checked."""

import json
import struct
from dataclasses import fields, replace
from functools import cache

import numpy as np
import pytest
from crc32c import crc32c
from faults import SEED
from sterna.host.model.image import Image, ImageError, build_image
from sterna.hw.config import Config
from sterna.sim.golden import fp24
from sterna.sim.golden.packed import Geometry, random_model
from sterna.sim.golden.trits import decode_trits

# No size divides the tile: padded rows and columns in every matrix, padded neurons, a last byte of unused bit pairs.
GEOMETRY = Geometry(13, 21, 2, 7)
TOKENIZER = '{"words": ["one", "two"]}'
SHAPES = {"trit5": (2, 10, 2, 8, 16), "bit2": (3, 5, 1, 4, 6), "chunk": (8, 20, 4, 32, 32)}


def config_of(name):
    rows, columns, lanes, port, strip = SHAPES[name]
    return Config(name="test", rows=rows, columns=columns, lanes=lanes, port_bytes=port, memory_bytes=1 << 20,
                  vector_words=512, activation_words=64, strip=strip, clock_hz=1,
                  weight_code="bit2" if name == "bit2" else "trit5")


@cache
def image_of(name):
    packed = random_model(np.random.default_rng(SEED), GEOMETRY)
    return Image(build_image(packed, config_of(name), TOKENIZER, "x", 5))


def head(header, first):
    """Everything in front of the sections."""
    text = json.dumps(header).encode().ljust(first - 24)
    return struct.pack("<8s4I", b"STERNA\r\n", 1, 1, len(text), crc32c(text)) + text


def remade(image, body=None, **offsets):
    """The image with other bytes behind the header, or other offsets of sections; its checksums are right."""
    data = bytearray(image.data.tobytes())
    header = json.loads(data[24:24 + struct.unpack_from("<I", data, 16)[0]])
    first = header["sections"][0]["offset"]
    body = bytes(data[first:] if body is None else body)
    for section in header["sections"]:
        section["offset"] = offsets.get(section["name"], section["offset"])
        at = section["offset"] - first
        section["crc32c"] = crc32c(body[at:at + section["bytes"]])
    return head(header, first) + body


def refused(data, message):
    with pytest.raises(ImageError, match=message) as caught:
        Image(data)
    assert "\n" not in str(caught.value)


def test_sections_lie_one_behind_the_other():
    image = image_of("trit5")
    at = {name: entry["offset"] for name, entry in image.sections.items()}
    first = at["embedding"]
    body = image.data[first:].tobytes()
    middle = at["stream"] - first
    assert Image(remade(image)).name == "x"
    refused(remade(image, stream=first), f"section stream at byte {first} overlaps what is before it: must be at "
                                         f"{at['stream']}")
    gap = body[:middle] + bytes(64) + body[middle:]
    refused(remade(image, gap, stream=at["stream"] + 64, tokenizer=at["tokenizer"] + 64),
            f"section stream at byte {at['stream'] + 64} leaves a gap: must be at {at['stream']}")
    moved = {name: offset + 64 for name, offset in at.items()}
    refused(remade(image, bytes(64) + body, **moved), "section embedding at byte .* leaves a gap")


@pytest.mark.parametrize("behind, message", [
    (bytes(64), "64 bytes behind its end at"), (b"\0", "1 bytes behind its end at"), (b"junk", "4 bytes behind")],
    ids=["zeros", "one", "junk"])
def test_nothing_is_behind_the_end(behind, message):
    refused(remade(image_of("trit5")) + behind, message)


def test_bytes_between_the_sections_are_zero():
    image = image_of("trit5")
    data, places = remade(image), []
    ends = [(24 + struct.unpack_from("<I", data, 16)[0], "the header")]
    ends += [(entry["offset"] + entry["bytes"], f"section {name}") for name, entry in image.sections.items()]
    for end, name in ends:
        for at in range(end, end + -end % 64):
            changed = bytearray(data)
            changed[at] = 1
            refused(bytes(changed), f"byte {at} behind {name} must be 0")
            places.append(name)
    assert set(places) >= {"section embedding", "section stream", "section tokenizer"}
    refused(data[:-1], "truncated image behind section tokenizer")


def stream_of(image):
    """(name, begin, end, end of its whole tiles, None for a vector) of the stream, by bytes of the file."""
    at, shape = image.sections["stream"]["offset"], image.layout
    for part, _ in shape.order():
        for kind, name, *size in shape.sections(part):
            length = shape.vector_bytes(*size) if kind == "vector" else shape.matrix_bytes(*size)
            tiles = None if kind == "vector" else -(-size[0] // shape.rows) * -(-size[1] // shape.columns)
            yield name, at, at + length, tiles and at + tiles * shape.tile_bytes
            at += length


def full(packed):
    """The model with values whose every byte, or trit, is not zero."""
    value = float(fp24.from_bits(0x418181))

    def filled(part):
        return {field.name: filled_value(getattr(part, field.name)) for field in fields(part)
                if field.name not in ("geometry", "layers")}

    def filled_value(old):
        return value if isinstance(old, float) else np.full_like(old, 1 if old.dtype == np.int8 else value)

    layers = tuple(replace(layer, **filled(layer)) for layer in packed.layers)
    return replace(packed, layers=layers, **filled(packed))


@pytest.mark.parametrize("name", SHAPES)
def test_every_bit_that_is_no_value_is_checked(name):
    """An image of a model without zeros tells where values lie: a changed bit is refused if it is elsewhere."""
    image = image_of(name)
    shape = image.layout
    used = Image(build_image(full(image.unpack()), config_of(name), TOKENIZER, "x", 5)).data
    first, refusals, accepted = image.sections["embedding"]["offset"], set(), set()
    rng = np.random.default_rng(SEED)
    row = ("embedding", first, first + shape.row_bytes, None)
    for what, begin, end, tiles_end in [row, *stream_of(image)]:
        for _ in range(15):
            at = int(rng.integers(begin, end))
            body = image.data[first:].copy()
            body[at - first] ^= 1 << int(rng.integers(8))
            new, mask = body[begin - first:end - first], used[begin:end]
            if tiles_end is None:
                bad = new[mask == 0].any()
            else:
                size = tiles_end - begin
                bad = new[size:].any() or trits(shape, new[:size])[trits(shape, mask[:size]) == 0].any()
                if shape.weight_code == "bit2":
                    pairs = (new[:size, None] >> np.arange(0, 8, 2) & 3).reshape(-1, shape.tile_bytes * 4)
                    bad |= (pairs == 2).any() or pairs[:, shape.rows * shape.columns:].any()
            if bad:
                refused(remade(image, body.tobytes()), "padding of|bits 10, which are no trit")
                refusals.add(what)
            else:
                Image(remade(image, body.tobytes()))
                accepted.add(what)
    assert refusals >= {"embedding", "ws_f", "w_down", "gate", "down", "head", "f"} and accepted >= {"gate", "w_f"}


def trits(shape, data):
    """int8 [tiles, R C] of whole tiles."""
    return decode_trits(data.reshape(-1, shape.tile_bytes), shape.rows * shape.columns, shape.weight_code)


def test_padding_is_named():
    image = image_of("trit5")
    first, stream = image.sections["embedding"]["offset"], image.sections["stream"]["offset"]
    begin = [begin for what, begin, _, _ in stream_of(image) if what == "w_down"][1]
    body = image.data[first:].copy()
    body[begin + 4 * GEOMETRY.intermediate_size - first] = 1
    refused(remade(image, body.tobytes()), f"damaged section stream: the padding of w_down, layer 1, at byte "
                                           f"{begin - stream} is not zero: download or pack the image again")
