"""Images of models with trees, version 2: tables as docs/image-format.md has them, and one line for every damage."""

import json
import struct
from dataclasses import fields, replace
from itertools import accumulate

import numpy as np
import pytest
from crc32c import crc32c
from hypothesis import given, settings
from hypothesis import strategies as st
from sterna.firmware.layout import LayoutError, layout, memory_map
from sterna.host.model import writing
from sterna.host.model.header import matrix_names
from sterna.host.model.image import Image, ImageError, build_image
from sterna.host.model.model import Model
from sterna.hw.presets import PRESETS
from sterna.sim.golden import trits as coding
from sterna.sim.golden.packed import Geometry, PackedTreeLayer, TreeGeometry, pack, random_model, random_tensors
from test_convert import Memory
from test_image import SEED, TOKENIZER, config_of, equal, with_header

# 13 trits to a row: a tile of 20 is not full, and neither is the word that ends a record of 3.
GEOMETRY = TreeGeometry(13, 3, 2, 4, 2, 7)
CODES = {"trit5": (2, 10, 2, 8, 16, "trit5"), "bit2": (3, 5, 1, 4, 6, "bit2"), "tiles": (1, 5, 1, 2, 16, "trit5")}


def build(**changes):
    return replace(config_of(*CODES["trit5"]), tree_rows=64, **changes)


@pytest.fixture(scope="module", params=CODES)
def one(request):
    """(PackedModel, bytes of its image)"""
    packed = random_model(np.random.default_rng(SEED), GEOMETRY)
    config = replace(config_of(*CODES[request.param]), tree_rows=64)
    return packed, build_image(packed, config, TOKENIZER, "trees", 5)


def slow_row(record, shape, hidden):
    """The trits of a record, by the words of the document."""
    out = [0] * hidden
    size = shape.rows * shape.columns
    for tile in range(-(-hidden // size)):
        data = record[tile * shape.tile_bytes:(tile + 1) * shape.tile_bytes]
        for r in range(shape.rows):
            for c in range(shape.columns):
                k, element = r * shape.columns + c, (tile * shape.rows + r) * shape.columns + c
                if shape.weight_code == "bit2":
                    trit = (0, 1, None, -1)[data[k // 4] >> 2 * (k % 4) & 3]
                else:
                    byte = int(data[k // 5])
                    for _ in range(k % 5 + 1):
                        product = 3 * byte
                        trit, byte = (product >> 8) - 1, product & 255
                if element < hidden:
                    out[element] = trit
                else:
                    assert trit == 0
    return out


def test_a_table_is_what_the_document_says(one):
    packed, data = one
    image = Image(data)
    shape = image.layout
    config = replace(config_of(*image.tiling.values()), tree_rows=64)
    where = memory_map(config, GEOMETRY)
    memory = np.zeros(where.end, np.uint8)
    for address, part in image.regions(config):
        memory[address:address + len(part)] = part
    assert where.tree_address % 64 == 0 and where.tree_address >= where.stream_address + where.stream_bytes
    assert where.tree_bytes == 2 * 2 * GEOMETRY.neurons * shape.record_bytes == len(image.section("tree"))
    assert where.state_address >= where.tree_address + where.tree_bytes and shape.record_bytes % shape.port_bytes == 0
    for number, layer in enumerate(packed.layers):
        for t, table in enumerate((layer.tree_in, layer.tree_out)):
            for row in range(GEOMETRY.neurons):
                at = where.tree_address + (2 * number + t) * shape.table_bytes + row * shape.record_bytes
                record = memory[at:at + shape.record_bytes]
                assert slow_row(record, shape, 13) == table[row].tolist()
                assert not record[-(-13 // (shape.rows * shape.columns)) * shape.tile_bytes:].any()
    assert struct.unpack_from("<II", data, 8) == (2, 4)


def test_order_of_the_stream():
    shape = layout(PRESETS["lanes40"], TreeGeometry(40, 3, 2, 4, 2, 7))
    assert list(shape.order()) == [
        ("norm", 0), ("gates", 0), ("mixer", 0), ("out", 0), ("tree", 0), ("norm", 1),
        ("gates", 1), ("mixer", 1), ("out", 1), ("tree", 1), ("end", 2), ("head", 2)]
    assert shape.sections("out") == [("vector", "ws_o", 1), ("vector", "mlp_outer", 40), ("vector", "w_tree", 40),
                                     ("matrix", "o", 40, 40)]
    assert shape.sections("tree") == [("vector", "ws_tree_in", 1), ("vector", "ws_tree_out", 1)]
    assert shape.stream_bytes == sum(shape.part_bytes(part) for part, _ in shape.order())
    gated = layout(PRESETS["lanes40"], Geometry(40, 24, 2, 7))
    assert gated.tree_bytes == 0 and [part for part, _ in gated.order()][-4:] == ["glu", "end", "down", "head"]
    where = memory_map(PRESETS["lanes40"], Geometry(40, 24, 2, 7))
    assert where.tree_address == where.state_address and where.tree_bytes == 0


def check_same(packed, back):
    for one, other, kind in ((packed, back, type(back)), *((a, b, PackedTreeLayer) for a, b in zip(
            packed.layers, back.layers, strict=True))):
        for field in fields(kind):
            if field.name != "layers":
                assert equal(getattr(one, field.name), getattr(other, field.name)), field.name


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([(1, 10, 1, 2, 16), (2, 20, 4, 8, 32), (8, 20, 4, 32, 32), (3, 5, 1, 4, 6),
                        (2, 40, 8, 64, 8), (5, 8, 4, 16, 20), (5, 32, 32, 128, 160)]),
       st.sampled_from(["trit5", "bit2"]), st.integers(1, 70), st.integers(1, 9), st.integers(0, 4),
       st.integers(0, 5), st.integers(1, 2), st.integers(3, 40), st.integers(0, 99))
def test_round_trip(shape, code, hidden, trees, depth, always, layers, vocab, seed):
    geometry = TreeGeometry(hidden, trees, depth, always, layers, vocab)
    packed = random_model(np.random.default_rng(seed), geometry)
    image = Image(build_image(packed, replace(config_of(*shape, code), tree_rows=50), TOKENIZER, "x", 1))
    assert image.geometry == geometry
    check_same(packed, image.unpack())
    assert {name: list(told) for name, told in image.statistics.items()} == image.count()


def test_small_blocks_give_the_same_bytes(one, monkeypatch):
    packed, data = one
    image = Image(data)
    config = replace(config_of(*image.tiling.values()), tree_rows=64)
    for module, name, value in ((coding, "_BLOCK_BYTES", 50), (writing, "TABLE_BYTES", 9)):
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr("sterna.host.model.counting.PIECE_BYTES", 7)
    monkeypatch.setattr("sterna.host.model.padding.TABLE_BYTES", 9)
    assert build_image(packed, config, TOKENIZER, "trees", 5) == data
    check_same(packed, Image(data).unpack())
    assert Image(data).count() == image.statistics


def test_layers_are_made_once_and_few_are_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("sterna.sim.golden.packed.SMALL_WEIGHTS", 0)
    monkeypatch.setattr("lzma.compress", bytes)  # takes 97 MB for any text
    geometry = TreeGeometry(128, 4, 6, 4, 20, 64)  # of 3.9 million trits, 131,072 of them in a layer's tables
    tensors, made = random_tensors(np.random.default_rng(1), geometry), []
    packed = pack(geometry, tensors)
    monkeypatch.setattr(packed.layers, "_make", lambda number, make=packed.layers._make: made.append(number) or
                        make(number))
    with open(tmp_path / "m.sterna", "w+b") as file, Memory() as memory:
        writing.write_image(file, packed, PRESETS["sim"], "{}", "m", 0)
    assert memory.peak_bytes < 2_500_000 and made == list(range(20))
    with Memory() as memory:
        back = Image.load(tmp_path / "m.sterna").unpack()
        sums = [int(layer.tree_out.sum()) for layer in back.layers]
    assert memory.peak_bytes < 2_200_000 and sums[-1] == packed.layers[19].tree_out.sum()


def test_a_file_that_cannot_seek_gets_the_same_bytes(one, tmp_path):
    packed, data = one
    config = replace(config_of(*Image(data).tiling.values()), tree_rows=64)
    with open(tmp_path / "m.sterna", "wb") as file:  # that cannot be read
        writing.write_image(file, packed, config, TOKENIZER, "trees", 5)
    assert (tmp_path / "m.sterna").read_bytes() == data


@pytest.mark.parametrize("name", ["tiny/tiny", "story/story"])
def test_images_of_version_1_are_what_they_were(name):
    model = Model(f"models/{name}.sterna")
    config = next(c for c in PRESETS.values() if all(getattr(c, k) == v for k, v in model.image.tiling.items()))
    assert model.build(config) == model.image.data.tobytes()


# ---- Refusals ----


def changed_section(data, at, change):
    """The image with byte ``at`` of the section "tree" changed, and its checksum right."""
    image = Image(data)
    place = image.sections["tree"]["offset"]
    data = bytearray(data)
    data[place + at] = change(data[place + at])
    crc = crc32c(bytes(data[place:place + image.sections["tree"]["bytes"]]))
    return with_header(bytes(data), lambda header: next(
        section for section in header["sections"] if section["name"] == "tree").update(crc32c=crc))


def padding_of(shape, hidden):
    """(byte, change) of a record, each of which makes something else than zero of what is no trit."""
    tiles, size = shape.record_tiles, shape.rows * shape.columns
    yield from ((at, lambda byte: 1) for at in range(tiles * shape.tile_bytes, shape.record_bytes))
    for k in range(hidden, tiles * size):  # trits behind the row
        tile, k = divmod(k, size)
        if shape.weight_code == "bit2":
            yield tile * shape.tile_bytes + k // 4, lambda byte, k=k: byte | 1 << 2 * (k % 4)
            continue

        def plus(byte, k=k):
            trits = coding.decode_trits(np.array([[byte]], np.uint8), 5, "trit5")
            trits[0, k % 5] = 1
            return int(coding.encode_trits(trits, "trit5")[0, 0])
        yield tile * shape.tile_bytes + k // 5, plus
    for tile in range(tiles if shape.weight_code == "bit2" else 0):  # bits behind a tile
        yield from ((at // 4 + tile * shape.tile_bytes, lambda byte, at=at: byte | 1 << 2 * (at % 4))
                    for at in range(size, 4 * shape.tile_bytes))


def test_all_of_a_table_that_is_no_trit_is_checked(one):
    _, data = one
    shape = Image(data).layout
    for row in (0, GEOMETRY.neurons - 1, 3 * GEOMETRY.neurons + 5):
        places = list(padding_of(shape, 13))
        assert len(places) >= 2
        for at, change in places:
            with pytest.raises(ImageError) as error:
                Image(changed_section(data, row * shape.record_bytes + at, change))
            table = f"{('tree_in', 'tree_out')[row // GEOMETRY.neurons % 2]}, layer {row // GEOMETRY.neurons // 2}"
            assert str(error.value) == (f"damaged section tree: row {row % GEOMETRY.neurons} of {table}, has padding "
                                        "that is not zero: download or pack the image again")


def test_bits_that_are_no_trit():
    packed = random_model(np.random.default_rng(SEED), GEOMETRY)
    data = build_image(packed, replace(config_of(*CODES["bit2"]), tree_rows=64), TOKENIZER, "trees", 5)
    at = 7 * Image(data).layout.record_bytes
    with pytest.raises(ImageError, match="section tree: row 7 of tree_in, layer 0, holds the bits 10, which are no"):
        Image(changed_section(data, at, lambda byte: byte & ~3 | 2))


def test_a_damaged_table_and_a_wrong_length(one):
    data = bytearray(one[1])
    entry = Image(one[1]).sections["tree"]
    data[entry["offset"] + 3] ^= 1
    with pytest.raises(ImageError, match="damaged section tree: download or pack the image again"):
        Image(bytes(data))

    def longer(header):
        entries = {section["name"]: section for section in header["sections"]}
        entries["tree"]["bytes"] -= 1
    with pytest.raises(ImageError, match=f"section tree has {entry['bytes'] - 1} bytes, its geometry takes "):
        Image(with_header(one[1], longer))


@pytest.mark.parametrize("version, numerics, message", [
    (1, 1, "geometry must have exactly hidden_size, intermediate_size,"),
    (2, 1, "image format 2, numerics 1: this version reads 1 and 1, or 2 and 4; pack the model again"),
    (3, 4, "image format 3, numerics 4: this version reads")])
def test_versions(one, version, numerics, message):
    data = one[1][:8] + struct.pack("<II", version, numerics) + one[1][16:]
    with pytest.raises(ImageError, match=message):
        Image(data)


def test_a_geometry_without_trees_in_version_2():
    packed = random_model(np.random.default_rng(SEED), Geometry(13, 21, 2, 7))
    data = build_image(packed, config_of(), TOKENIZER, "x", 5)
    with pytest.raises(ImageError, match="geometry must have exactly hidden_size, trees, tree_depth, tree_always"):
        Image(data[:8] + struct.pack("<II", 2, 4) + data[16:])


@pytest.mark.parametrize("change, message", [
    (lambda h: h["geometry"].update(trees=0), "trees is 0: must be a whole number from 1 to 4095"),
    (lambda h: h["geometry"].update(tree_depth=1), "section tree has .* bytes, its geometry takes"),
    (lambda h: h["geometry"].update(tree_always=5000), "tree_always is 5000: must be"),
    (lambda h: h["sections"].pop(2), "sections must be embedding, stream, tree, tokenizer"),
    (lambda h: h["statistics"].pop("1.tree_in"), "statistics is .* must have 13 matrices"),
    (lambda h: h["statistics"]["1.tree_out"].__setitem__(0, 1), "statistics of 1.tree_out is")])
def test_headers_that_are_none(one, change, message):
    with pytest.raises(ImageError, match=message) as error:
        Image(with_header(one[1], change))
    assert "\n" not in str(error.value)


def test_names_of_matrices():
    assert list(matrix_names(GEOMETRY))[4:7] == [("0.tree_in", 25 * 13), ("0.tree_out", 25 * 13), ("1.f", 169)]
    header = json.loads(json.dumps(dict(matrix_names(GEOMETRY))))
    assert list(accumulate(header.values()))[-1] == GEOMETRY.ternary_weights


def test_a_build_with_too_few_rows_for_trees():
    packed = random_model(np.random.default_rng(SEED), GEOMETRY)  # visits 4 + 3 * 3
    assert Image(build_image(packed, build(), TOKENIZER, "x", 5))
    for rows in (12, 0):
        config = replace(build(), tree_rows=rows)
        text = f"trees: the model visits 13 neurons in a layer and this build {rows}: use a build with more tree_rows"
        with pytest.raises(LayoutError, match=text):
            memory_map(config, GEOMETRY)
        with pytest.raises(ImageError, match=text):
            build_image(packed, config, TOKENIZER, "x", 5)
    with pytest.raises(LayoutError, match="this build 10: use"):
        memory_map(replace(build(), tree_rows=10, activation_words=1), GEOMETRY)
