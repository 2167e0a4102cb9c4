"""Images: exact round trips for every tiling, and one line for every damage."""

import json
import os
import struct
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st
from sterna.firmware.layout import layout, memory_map
from sterna.host.model.image import Image, ImageError, build_image
from sterna.host.model.model import Model
from sterna.hw.boards import preset
from sterna.hw.config import Config
from sterna.sim.cpu.model import CpuModel
from sterna.sim.golden.files import write_file
from sterna.sim.golden.packed import Geometry, PackedLayer, random_model
from sterna.sim.golden.trits import encode_trits, pack_matrix, unpack_matrix

SEED = int(os.environ.get("STERNA_SEED", "1"))
TOKENIZER = '{"model": "né"}'


def config_of(rows=2, columns=10, lanes=2, port=8, strip=16, code="trit5", memory=1 << 20):
    return Config(name="test", rows=rows, columns=columns, lanes=lanes, port_bytes=port, memory_bytes=memory,
                  vector_words=512, activation_words=64, strip=strip, clock_hz=1, weight_code=code)


def equal(a, b):
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    return a == b


@pytest.fixture(scope="module")
def small():
    packed = random_model(np.random.default_rng(SEED), Geometry(13, 21, 2, 7))
    return packed, build_image(packed, config_of(), TOKENIZER, "small", 5)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([(1, 10, 1, 2, 16), (2, 20, 4, 8, 32), (8, 20, 4, 32, 32), (3, 5, 1, 4, 6),
                        (2, 40, 8, 64, 8), (5, 8, 4, 16, 20), (5, 32, 32, 128, 160)]),
       st.sampled_from(["trit5", "bit2"]), st.integers(1, 70), st.integers(1, 90), st.integers(1, 2),
       st.integers(3, 40), st.integers(0, 99))
def test_round_trip(shape, code, hidden, inner, layers, vocab, seed):
    packed = random_model(np.random.default_rng(seed), Geometry(hidden, inner, layers, vocab))
    image = Image(build_image(packed, config_of(*shape, code), TOKENIZER, "x", 1))
    back = image.unpack()
    assert back.geometry == packed.geometry and image.tokenizer_json == TOKENIZER
    for f in fields(packed):
        if f.name != "layers":
            assert equal(getattr(packed, f.name), getattr(back, f.name)), f.name
    for one, other in zip(packed.layers, back.layers, strict=True):
        for f in fields(PackedLayer):
            assert equal(getattr(one, f.name), getattr(other, f.name)), f.name


@given(st.integers(1, 20), st.integers(1, 30), st.integers(1, 5), st.sampled_from([5, 10, 15]),
       st.sampled_from(["trit5", "bit2"]), st.integers(0, 999))
def test_trits_round_trip(rows, columns, tile_rows, tile_columns, code, seed):
    trits = np.random.default_rng(seed).integers(-1, 2, (rows, columns)).astype(np.int8)
    data = pack_matrix(trits, tile_rows, tile_columns, code)
    size = tile_rows * tile_columns
    tiles = -(-rows // tile_rows) * -(-columns // tile_columns)
    assert len(data) == tiles * (size // 5 if code == "trit5" else -(-size // 4))
    assert np.array_equal(unpack_matrix(data, rows, columns, tile_rows, tile_columns, code), trits)


def test_trit5_byte_of_the_document():
    trits = np.array([[1, 0, -1, 1, 0]], np.int8)
    value = 2 * 81 + 1 * 27 + 0 * 9 + 2 * 3 + 1
    assert encode_trits(trits, "trit5").tolist() == [[-(-256 * value // 243)]]
    assert encode_trits(trits, "bit2").tolist() == [[0b01_11_00_01, 0]]


def test_small_blocks_give_the_same_bytes(monkeypatch):
    trits = np.random.default_rng(SEED).integers(-1, 2, (37, 29)).astype(np.int8)
    whole = pack_matrix(trits, 4, 10, "trit5")
    monkeypatch.setattr("sterna.sim.golden.trits._BLOCK_BYTES", 250)
    assert np.array_equal(pack_matrix(trits, 4, 10, "trit5"), whole)
    assert np.array_equal(unpack_matrix(whole, 37, 29, 4, 10, "trit5"), trits)


def test_columns_that_no_five_divides_need_no_neurons_of_padding():
    """I is padded to V alone there, and a row of the second half begins within a tile."""
    geometry = Geometry(16, 36, 1, 7)
    assert [layout(config_of(5, columns, 4, 16, 20), geometry).inner for columns in (20, 8)] == [40, 36]
    packed = random_model(np.random.default_rng(SEED), geometry)
    image = Image(build_image(packed, config_of(5, 8, 4, 16, 20), TOKENIZER, "x", 1))
    shape, at = image.layout, 0
    for part in ("norm", "gates", "mixer", "out"):
        at += shape.part_bytes(part)
    at += 2 * shape.vector_bytes(1) + shape.vector_bytes(36)
    rows = unpack_matrix(image.section("stream")[at:], 72, 16, 5, 8, "trit5")
    order = [*range(20), *range(36, 56), *range(20, 36), *range(56, 72)]
    assert np.array_equal(rows, packed.layers[0].gate[order])


def test_gate_rows_are_interleaved_by_strips(small):
    packed, data = small
    image = Image(data)
    shape = image.layout
    before = sum(shape.part_bytes(p) for p in ("norm", "gates", "mixer", "out")) + 2 * shape.vector_bytes(1) \
        + shape.vector_bytes(shape.inner)
    assert shape.inner == 22
    rows = unpack_matrix(image.section("stream")[before:], 44, 13, 2, 10, "trit5")
    gate = packed.layers[0].gate
    assert np.array_equal(rows[:16], gate[:16]) and np.array_equal(rows[16:32], gate[21:37])
    assert np.array_equal(rows[32:37], gate[16:21]) and not rows[37].any()
    assert np.array_equal(rows[38:43], gate[37:42]) and not rows[43].any()


def test_written_file_is_loaded(small, tmp_path):
    packed, data = small
    path = tmp_path / "a.sterna"
    write_file(path, data)
    image = Image.load(path)
    assert (image.name, image.eos) == ("small", 5)
    assert equal(image.unpack().layers[1].gate, packed.layers[1].gate)
    assert [p.name for p in tmp_path.iterdir()] == ["a.sterna"]
    assert all(entry["offset"] % 64 == 0 for entry in image.sections.values())
    assert sum(e["bytes"] for e in image.sections["stream"]["layers"]) == image.sections["stream"]["bytes"]


def test_several_tokens_may_end_a_text(small):
    packed, data = small
    several = Image(build_image(packed, config_of(), TOKENIZER, "small", 5, (0, 2)))
    assert (several.eos, several.ends) == (5, (0, 2))
    assert Image(data).ends == (5,)
    assert build_image(packed, config_of(), TOKENIZER, "small", 5, (5,)) == data
    assert b'"ends"' not in data  # as ever where there is one


def with_header(data, change):
    """An image whose header was changed by ``change(header)``, its length and checksum right."""
    header = json.loads(data[24:24 + struct.unpack_from("<I", data, 16)[0]])
    first = header["sections"][0]["offset"]
    change(header)
    text = json.dumps(header, separators=(",", ":")).encode().ljust(first - 24)
    assert len(text) == first - 24
    return data[:16] + struct.pack("<2I", len(text), crc32c(text)) + text + data[first:]


@pytest.mark.parametrize("ends", [[], [5, 5], [5, 10**6], [5, -1], [5, True], 5, None, [5, [0]]])
def test_ends_that_are_no_tokens_are_refused(small, ends):
    packed, data = small
    with pytest.raises(ImageError, match="ends is .* must be different tokens below"):
        Image(with_header(data, lambda header: header.update(ends=ends)))


def damage(data, at, value=0xFF):
    out = bytearray(data)
    out[at] ^= value
    return bytes(out)


@pytest.mark.parametrize("change, message", [
    (lambda d, s: b"PK" + d[2:], "not a Sterna image"), (lambda d, s: b"", "file is empty"),
    (lambda d, s: d[:10], "truncated"), (lambda d, s: d[:100], "truncated"),
    (lambda d, s: d[:s["stream"]["offset"] + 9], "truncated image in section stream"),
    (lambda d, s: damage(d, 8, 3), "image format 2, numerics 1: this version reads 1 and 1"),
    (lambda d, s: damage(d, 40), "damaged section header"),
    (lambda d, s: damage(d, s["embedding"]["offset"] + 3), "damaged section embedding"),
    (lambda d, s: damage(d, s["stream"]["offset"] + 3), "damaged section stream"),
    (lambda d, s: damage(d, s["tokenizer"]["offset"] + 3), "damaged section tokenizer"),
])
def test_damage_is_named(small, tmp_path, change, message):
    data = small[1]
    path = tmp_path / "b.sterna"
    path.write_bytes(change(data, Image(data).sections))
    with pytest.raises(ImageError, match=message) as caught:
        Image.load(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(ImageError, match="No such file"):
        Image.load(tmp_path / "none.sterna")


def test_other_tiling_and_small_memory(small):
    packed, data = small
    image = Image(data)
    assert image.check(config_of()) == memory_map(config_of(), packed.geometry)
    with pytest.raises(ImageError, match="image for rows 2 but the device has 4"):
        image.check(replace(config_of(), rows=4))
    with pytest.raises(ImageError, match="memory: the model needs .* and the device has 1024"):
        image.check(config_of(memory=1024))
    with pytest.raises(ImageError, match="memory: the model needs"):
        build_image(packed, config_of(memory=1024), TOKENIZER, "x", 0)


def test_memory_map_of_the_largest_preset():
    config, geometry = preset("lanes320"), Geometry(2560, 6912, 32, 32000)
    where = memory_map(config, geometry)
    assert where.embedding_bytes == 32000 * (64 + 2560) and where.stream_address % 64 == 0
    assert where.state_address >= where.stream_address + where.stream_bytes
    assert where.end == where.state_address + 32 * 2560 * 4 <= config.memory_bytes
    matrices = 32 * (4 * 2560**2 + 3 * 2560 * 6920) + 32000 * 2560
    assert layout(config, geometry).inner == 6920 and where.stream_bytes < 1.02 * matrices / 5


def test_shipped_images_are_whole():
    paths = sorted((Path(__file__).resolve().parents[2] / "models").rglob("*.sterna"))
    assert {path.stem for path in paths} >= {"story", "tiny", "stories37m"}
    for path in paths:
        assert Image.load(path).name == path.stem


CHANGES = {"overwritten": lambda path: path.write_bytes(bytes(path.stat().st_size)),
           "cut": lambda path: os.truncate(path, 100)}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_behind_the_check(small, tmp_path, monkeypatch, change):
    monkeypatch.setattr("sterna.sim.golden.packed.SMALL_WEIGHTS", 0)
    path = tmp_path / "small.sterna"
    path.write_bytes(small[1])
    os.utime(path, (1, 1))
    model = Model(path)
    layers = iter(model.packed.layers)
    assert equal(next(layers).f, small[0].layers[0].f)
    config = SimpleNamespace(**model.image.tiling, memory_bytes=1 << 20, batch=1, engines=1, register_bits=32)
    regions = model.image.regions(config)
    assert model.image_for(config, None) is model.image and len(regions) == 2
    CHANGES[change](path)
    # Reading it would give other weights, or end the process by SIGBUS.
    for reads in (lambda: next(layers), lambda: model.packed.head, lambda: model.packed.embedding_codes,
                  lambda: model.image.regions(config), lambda: model.image_for(config, None),
                  lambda: model.tokenizer_json):
        with pytest.raises(ImageError, match="changed while it was read: start again") as error:
            reads()
        assert str(error.value).startswith(f"{path}: ") and str(error.value).count(str(path)) == 1
    with pytest.raises(ImageError, match="changed while it was read"):
        CpuModel(model.packed)


def test_a_file_that_is_replaced_stays_what_it_was(small, tmp_path, monkeypatch):
    monkeypatch.setattr("sterna.sim.golden.packed.SMALL_WEIGHTS", 0)
    path = tmp_path / "small.sterna"
    path.write_bytes(small[1])
    image = Image.load(path)
    write_file(path, b"another")
    assert equal(image.unpack().head, small[0].head)
