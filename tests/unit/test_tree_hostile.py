"""Hostile files of models with trees: every reader gives a valid object or one of our errors, in bounded memory."""

import json
import struct
from dataclasses import asdict, replace

import numpy as np
import pytest
from crc32c import crc32c
from faults import SEED
from hostile import Memory, damaged_bytes, damaged_json, examples, outcome, text_of
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save
from small_model import DEVICE, byte_tokenizer
from sterna.host.model.image import Image, ImageError, build_image
from sterna.host.model.model import Model
from sterna.sim.golden.geometry import PackError, TreeGeometry
from sterna.sim.golden.model import GoldenModel
from sterna.sim.golden.packed import pack, random_tensors
from test_hostile import PEAK_BYTES, run

GEOMETRY = TreeGeometry(40, 2, 2, 1, 1, 264)  # a row is one whole tile: all bytes of records are trits
TENSORS = random_tensors(np.random.default_rng(SEED), GEOMETRY)
BUILD = replace(DEVICE, tree_rows=64)
IMAGE = build_image(pack(GEOMETRY, TENSORS), BUILD, byte_tokenizer(), "small", 0)
HEADER = json.loads(IMAGE[24:24 + struct.unpack_from("<I", IMAGE, 16)[0]])
FIRST = HEADER["sections"][0]["offset"]
CONFIG = asdict(GEOMETRY) | {"model_type": "hgrn_bit", "channel_mixer": "tree", "eos_token_id": 0}
WEIGHTS = save(TENSORS)


@pytest.fixture(scope="module", autouse=True)
def tables():
    """The golden model makes its tables once; that is not the memory of a file."""
    GoldenModel(pack(GEOMETRY, TENSORS)).generate([1], 2, temperature=0.7)


def with_text(header, body=IMAGE[FIRST:]):
    """The image with this header text, its checksum right."""
    header = header.ljust(FIRST - 24)
    return struct.pack("<8s4I", b"STERNA\r\n", 2, 4, len(header), crc32c(header)) + header + body


def use_file(path, data):
    path.write_bytes(data)
    return outcome(lambda: run(Model(path)), path)


@pytest.mark.rest
@examples(40)
@given(damaged_bytes(IMAGE))
def test_image_bytes(tmp_path, data):
    use_file(tmp_path / "m.sterna", data)


@examples(30)
@given(damaged_json({key: HEADER[key] for key in ("geometry", "tiling", "sections", "statistics")}))
def test_image_header(tmp_path, header):
    header = HEADER | header if isinstance(header, dict) else header
    with Memory() as memory:
        use_file(tmp_path / "m.sterna", with_text(text_of(header)))
    assert memory.peak_bytes < PEAK_BYTES


@examples(20)
@given(st.integers(0, 999), st.sampled_from(["random", "ones", "zeros"]), st.data())
def test_any_trits_are_a_model(tmp_path, seed, style, data):
    """It computes without an error or a warning, whatever the tables hold."""
    image = Image(IMAGE)
    entry, shape = image.sections["tree"], image.layout
    assert shape.record_tiles * shape.rows * shape.columns == 40 and shape.tile_bytes == shape.record_bytes
    body, count = bytearray(IMAGE[FIRST:]), data.draw(st.integers(1, entry["bytes"]))
    at = entry["offset"] - FIRST + data.draw(st.integers(0, entry["bytes"] - count))
    new = {"random": np.random.default_rng(seed).bytes(count), "ones": b"\xff" * count, "zeros": bytes(count)}[style]
    body[at:at + count] = new
    sections = [section | {"crc32c": crc32c(bytes(body[section["offset"] - FIRST:][:section["bytes"]]))}
                for section in HEADER["sections"]]
    header = {key: value for key, value in HEADER.items() if key != "statistics"} | {"sections": sections}
    path = tmp_path / "m.sterna"
    path.write_bytes(with_text(json.dumps(header).encode(), bytes(body)))
    run(Model(path))


@pytest.mark.rest
@examples(60)
@given(st.one_of(damaged_json(CONFIG).map(text_of), damaged_bytes(text_of(CONFIG))))
def test_config(tmp_path, config):
    folder = tmp_path / "model"
    folder.mkdir(exist_ok=True)
    for name, data in (("config.json", config), ("model.safetensors", WEIGHTS),
                       ("tokenizer.json", byte_tokenizer().encode())):
        (folder / name).write_bytes(data)
    with Memory() as memory:
        outcome(lambda: run(Model(folder)), folder)
    assert memory.peak_bytes < PEAK_BYTES


@pytest.mark.parametrize("change", [{"trees": 4095, "tree_depth": 18}, {"tree_depth": 29, "trees": 1},
                                    {"num_hidden_layers": 2**31 - 1}, {"hidden_size": 2**31 - 1}])
def test_what_would_take_all_memory_is_refused_first(tmp_path, change):
    """By the header's and the configuration's word alone."""
    header = json.loads(json.dumps(HEADER))
    header["geometry"] |= change
    (tmp_path / "m.sterna").write_bytes(with_text(text_of(header)))
    with Memory() as memory, pytest.raises(ImageError, match=" bytes, its geometry takes "):
        Model(tmp_path / "m.sterna")
    assert memory.peak_bytes < PEAK_BYTES
    folder = tmp_path / "model"
    folder.mkdir()
    for name, data in (("config.json", text_of(CONFIG | change)), ("model.safetensors", WEIGHTS)):
        (folder / name).write_bytes(data)
    with Memory() as memory, pytest.raises(PackError, match="config.json asks for"):
        Model(folder)
    assert memory.peak_bytes < PEAK_BYTES
