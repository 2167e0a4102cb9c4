"""Hostile files: every reader gives a valid object or one of our errors, in bounded memory."""

import json
import lzma
import struct
import warnings
import zlib

import numpy as np
import pytest
from crc32c import crc32c
from faults import SEED
from hostile import ERRORS, Memory, damaged_bytes, damaged_json, examples, outcome, text_of
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save
from small_model import DEVICE, byte_tokenizer
from sterna.host.model.image import Image, build_image
from sterna.host.model.model import Model
from sterna.host.model.text import TextError, TextStream, Vocabulary
from sterna.host.runtime.golden import GoldenRuntime
from sterna.host.runtime.sampling import Sampling
from sterna.host.runtime.state import State, load_state, save_state
from sterna.sim.golden.files import write_file
from sterna.sim.golden.model import GoldenModel
from sterna.sim.golden.packed import Geometry, pack, random_tensors

GEOMETRY = Geometry(16, 24, 2, 264)
TENSORS = random_tensors(np.random.default_rng(SEED), GEOMETRY)
PACKED = pack(GEOMETRY, TENSORS)
TOKENIZER = json.loads(byte_tokenizer())
IMAGE = build_image(PACKED, DEVICE, byte_tokenizer(), "small", 0)
HEADER_BYTES = struct.unpack_from("<I", IMAGE, 16)[0]
HEADER = json.loads(IMAGE[24:24 + HEADER_BYTES])
BODY_OFFSET = HEADER["sections"][0]["offset"]
CONFIG = vars(GEOMETRY) | {"model_type": "hgrn_bit", "eos_token_id": 0}
WEIGHTS = save(TENSORS)
WEIGHT_HEADER_BYTES = struct.unpack_from("<Q", WEIGHTS)[0]
WEIGHT_HEADER = json.loads(WEIGHTS[8:8 + WEIGHT_HEADER_BYTES])
PEAK_BYTES = 16 << 20  # the files here have 60 to 100 KB


def image_with(header, body=IMAGE[BODY_OFFSET:], body_offset=BODY_OFFSET):
    """An image with this header text, its checksum right; blanks behind the header leave the sections in place."""
    header = header.ljust(body_offset - 24)
    return struct.pack("<8s4I", b"STERNA\r\n", 1, 1, len(header), crc32c(header)) + header + body


def resealed(data):
    """An image after bytes of its sections were changed: the checksums are right again."""
    header = json.loads(data[24:24 + struct.unpack_from("<I", data, 16)[0]])
    for section in header["sections"]:
        section["crc32c"] = crc32c(data[section["offset"]:section["offset"] + section["bytes"]])
    first = header["sections"][0]["offset"]
    return image_with(json.dumps(header).encode(), data[first:], first)


@pytest.fixture(scope="module", autouse=True)
def tables():
    """The golden model makes its tables once; that is not the memory of a file."""
    GoldenModel(PACKED).generate([1], 2, temperature=0.7)


def run(model):
    """Use everything of a model: tokenizer, weights, some tokens, text; numpy's warnings count as failures."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ids = model.vocabulary.encode("a b")
        stream = TextStream(model.vocabulary)
        for token in GoldenRuntime(model).generate(ids, 2, Sampling(0.7, 1)):
            stream.push(token)
    return stream.finish()


def use_file(path, data):
    path.write_bytes(data)
    return outcome(lambda: run(Model(path)), path)


@examples(60)
@given(damaged_bytes(IMAGE))
def test_image_bytes(tmp_path, data):
    use_file(tmp_path / "m.sterna", data)


@examples(60)
@given(damaged_json(HEADER), st.booleans())
def test_image_header(tmp_path, header, twice):
    with Memory() as memory:
        use_file(tmp_path / "m.sterna", image_with(text_of(header, twice)))
    assert memory.peak_bytes < PEAK_BYTES


def filled():
    """An image whose matrices need no padding, and bool per byte of it: not a byte of padding."""
    geometry = Geometry(40, 40, 1, 264)
    image = Image(build_image(pack(geometry, random_tensors(np.random.default_rng(SEED), geometry)), DEVICE,
                              byte_tokenizer(), "small", 0))
    free, shape = np.zeros(len(image.data), bool), image.layout
    rows = image.sections["embedding"]["offset"] + shape.row_bytes * np.arange(geometry.vocab_size)[:, None]
    free[rows + np.r_[0:3, shape.vector_bytes(1):shape.vector_bytes(1) + 40]] = True
    at = image.sections["stream"]["offset"]
    for part, _ in shape.order():
        for kind, name, *size in shape.sections(part):
            if kind == "vector":
                free[at + (4 * np.arange(size[0])[:, None] + np.arange(3))] = True
                at += shape.vector_bytes(*size)
            else:
                free[at:at + size[0] * size[1] // 5] = True
                at += shape.matrix_bytes(*size)
    return image, free


@examples(25)
@given(st.data())
def test_image_content_with_right_checksums(tmp_path, data):
    """Any weights are a model: it computes without an error or a warning."""
    image, free = filled()
    body = image.data.copy()
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    for section in (image.sections["embedding"], image.sections["stream"]):
        count = data.draw(st.sampled_from([1, 30, section["bytes"]]))
        first = data.draw(st.integers(section["offset"], section["offset"] + section["bytes"] - count))
        style = data.draw(st.sampled_from(["random", "ones", "zeros"]))
        new = {"random": rng.bytes(count), "ones": b"\xff" * count, "zeros": bytes(count)}[style]
        np.copyto(body[first:first + count], np.frombuffer(new, np.uint8), where=free[first:first + count])
    path = tmp_path / "m.sterna"
    path.write_bytes(resealed(body.tobytes()))
    assert Image.load(path).name == "small"
    run(Model(path))


@pytest.mark.parametrize("change, message", [
    ({"num_hidden_layers": 2**31 - 1}, "its geometry takes"), ({"vocab_size": 2**31 - 1}, "its geometry takes"),
    ({"hidden_size": 10**30}, "hidden_size is 1000000"), ({"hidden_size": 16.0}, "hidden_size is 16.0"),
    ({"rms_norm_eps": float("nan")}, "NaN is no number"), ({"rms_norm_eps": 0}, "rms_norm_eps is 0"),
])
def test_image_with_a_wrong_geometry(tmp_path, change, message):
    path = tmp_path / "m.sterna"
    path.write_bytes(image_with(text_of(HEADER | {"geometry": HEADER["geometry"] | change})))
    with Memory() as memory, pytest.raises(ERRORS, match=message):
        Image.load(path)
    assert memory.peak_bytes < 1 << 20


@pytest.mark.parametrize("change", [{"columns": 1}, {"rows": 0}, {"lanes": 3}, {"strip": 0}, {"strip": -2},
                                    {"weight_code": "bit3"}, {"rows": 2**40}, {"port_bytes": 12}, {"rows": "2"}])
def test_image_with_an_array_that_cannot_be(tmp_path, change):
    path = tmp_path / "m.sterna"
    path.write_bytes(image_with(text_of(HEADER | {"tiling": HEADER["tiling"] | change})))
    with pytest.raises(ERRORS, match=f"{path}: damaged section header: "):
        Image.load(path)


@pytest.mark.parametrize("data, message", [
    (lambda: lzma.compress(bytes(1 << 27), preset=0), "more than [0-9,]+ bytes when unpacked"),
    (lzma.compress(b"{}" * 99)[:-20], "it ends too early"), (b"", "it ends too early"),
    (b"\xfd7zXZ", "ends too early"),
    (b"junk" * 9, "download or pack the image again"), (lzma.compress(b"\xff{}"), "download or pack the image again"),
    # 1.5 GB to unpack, by a filter's own word: one byte of the block header, its checksum made right.
    (None, "download or pack the image again"),
], ids=["bomb", "cut", "empty", "start", "junk", "latin", "greedy"])
def test_compressed_tokenizer(tmp_path, data, message):
    if callable(data):  # made here, as it takes its time
        data = data()
    if data is None:
        data = bytearray(lzma.compress(b"{}" * 99, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20}]))
        at, size = 12, 4 * (data[12] + 1)
        assert data[at + 2:at + 4] == b"\x21\x01"  # LZMA2, one byte of properties: the size of its dictionary
        data[at + 4] = 37
        data[at + size - 4:at + size] = struct.pack("<I", zlib.crc32(data[at:at + size - 4]))
    header = json.loads(text_of(HEADER))
    header["sections"][2] |= {"bytes": len(data), "crc32c": crc32c(bytes(data))}
    path = tmp_path / "m.sterna"
    path.write_bytes(image_with(json.dumps(header).encode(),
                                IMAGE[BODY_OFFSET:HEADER["sections"][2]["offset"]] + data + bytes(-len(data) % 64)))
    with Memory() as memory, pytest.raises(ERRORS, match=f"{path}: damaged section tokenizer: .*{message}"):
        Model(path).vocabulary
    assert memory.peak_bytes < 16 << 20


def folder_of(path, config=None, weights=WEIGHTS, tokenizer=None):
    """A checkpoint folder with these bytes."""
    path.mkdir(exist_ok=True)
    (path / "config.json").write_bytes(text_of(CONFIG) if config is None else config)
    (path / "model.safetensors").write_bytes(weights)
    (path / "tokenizer.json").write_bytes(byte_tokenizer().encode() if tokenizer is None else tokenizer)
    return path


def use_folder(path):
    with Memory() as memory:
        found = outcome(lambda: run(Model(path)), path)
    assert memory.peak_bytes < PEAK_BYTES
    return found


@examples(60)
@given(st.one_of(damaged_json(CONFIG).map(text_of), damaged_bytes(text_of(CONFIG)),
                 damaged_json(CONFIG).map(lambda d: text_of(d, twice=True))))
def test_config(tmp_path, config):
    use_folder(folder_of(tmp_path / "model", config))


def test_config_that_asks_for_endless_layers(tmp_path):
    path = folder_of(tmp_path / "model", text_of(CONFIG | {"num_hidden_layers": 2**31 - 1}))
    with Memory() as memory, pytest.raises(ERRORS, match=r"'model.lower_bounds' has shape \[2, 16\]"):
        Model(path)
    assert memory.peak_bytes < 1 << 20


@examples(60)
@given(st.one_of(
    damaged_json(WEIGHT_HEADER).map(text_of),
    damaged_json({k: WEIGHT_HEADER[k] for k in list(WEIGHT_HEADER)[:4]}).map(text_of)), st.booleans(),
    st.sampled_from([0, 0, 0, 1, -1, 2**63, 2**64 - 1 - 8, 1 << 33]))
def test_safetensors_header(tmp_path, header, whole, longer):
    if not whole:
        header = header.ljust(WEIGHT_HEADER_BYTES)[:WEIGHT_HEADER_BYTES]
    length = (len(header) + longer) % (1 << 64)
    use_folder(folder_of(tmp_path / "model",
                         weights=struct.pack("<Q", length) + header + WEIGHTS[8 + WEIGHT_HEADER_BYTES:]))


@examples(60)
@given(damaged_bytes(WEIGHTS))
def test_safetensors_bytes(tmp_path, data):
    use_folder(folder_of(tmp_path / "model", weights=data))


@pytest.mark.parametrize("change", [
    {"shape": [-1, -16]}, {"shape": [16.0]}, {"shape": [True] * 4}, {"shape": [2**62, 2**62]}, {"shape": "16"},
    {"data_offsets": [0.0, 64.0]}, {"data_offsets": [-64, 0]}, {"data_offsets": [64, 0]}, {"data_offsets": [0]},
    {"data_offsets": [10**30, 10**30 + 64]}, {"dtype": ["F32"]}, {"dtype": "f32"}, {"dtype": "X" * 9999}])
def test_safetensors_entries(tmp_path, change):
    header = WEIGHT_HEADER | {"model.norm.weight": WEIGHT_HEADER["model.norm.weight"] | change}
    text = text_of(header)
    path = folder_of(tmp_path / "model", weights=struct.pack("<Q", len(text)) + text
                     + WEIGHTS[8 + WEIGHT_HEADER_BYTES:])
    assert use_folder(path) is None


def test_tensors_that_share_bytes_are_refused(tmp_path):
    """Otherwise a small file could ask for any amount of memory."""
    shared = WEIGHT_HEADER["model.norm.weight"]
    text = text_of(WEIGHT_HEADER | {"another": shared})
    path = folder_of(tmp_path / "model", weights=struct.pack("<Q", len(text)) + text
                     + WEIGHTS[8 + WEIGHT_HEADER_BYTES:])
    with pytest.raises(ERRORS, match="tensor 'another' at byte [0-9]+ shares bytes with tensor 'model.norm.weight'"):
        Model(path)


@examples(60)
@given(st.one_of(damaged_json({"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}).map(text_of),
                 damaged_bytes(b'{"weight_map": {"a": "one.safetensors"}}')))
def test_index(tmp_path, index):
    path = folder_of(tmp_path / "model")
    (path / "model.safetensors").unlink()
    (path / "model.safetensors.index.json").write_bytes(index)
    assert use_folder(path) is None


def test_file_names_of_an_index_are_one_line(tmp_path):
    path = folder_of(tmp_path / "model")
    (path / "model.safetensors").unlink()
    (path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "x\\n\\u001b[2J"}}')
    with pytest.raises(ERRORS, match="names a file outside the folder"):
        Model(path)


def test_folders_where_files_should_be(tmp_path):
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        path = folder_of(tmp_path / name)
        (path / name).unlink()
        (path / name).mkdir()
        assert use_folder(path) is None
    path = folder_of(tmp_path / "index")
    (path / "model.safetensors").unlink()
    (path / "model.safetensors.index.json").mkdir()
    assert use_folder(path) is None


MERGED = json.loads(json.dumps(TOKENIZER))
MERGED["model"]["vocab"] |= {"ab": 257, "abc": 258}
MERGED["model"]["merges"] = [["a", "b"], ["ab", "c"]]
MERGED["normalizer"] = {"type": "Sequence", "normalizers": [
    {"type": "NFC"}, {"type": "Replace", "pattern": {"String": "x"}, "content": "yy"}]}
MERGED["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [
    {"type": "Split", "pattern": {"Regex": "\\s+"}, "behavior": "Isolated", "invert": False},
    MERGED["pre_tokenizer"]]}
MERGED["post_processor"] = {"type": "TemplateProcessing", "single": [
    {"SpecialToken": {"id": "s", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}], "pair": [],
    "special_tokens": {"s": {"id": "s", "ids": [0], "tokens": ["<|endoftext|>"]}}}
# The long parts last, so that most of the damage hits the others.
MERGED = {k: MERGED[k] for k in sorted(MERGED, key=lambda k: k == "model")}


@examples(300)
@given(st.one_of(damaged_json(MERGED).map(text_of), damaged_json(MERGED).map(text_of),
                 damaged_bytes(text_of(MERGED))))
def test_tokenizer(capfd, data):
    text = data.decode(errors="replace")

    def use():
        vocabulary = Vocabulary(text, 0)
        stream = TextStream(vocabulary, ["b"])
        for token in (*vocabulary.encode("abc x\u00e9  d"), vocabulary.largest, 2**31 - 1, 2**40):
            stream.push(token)
        return stream.finish() is not None

    with Memory() as memory:
        outcome(use, None, TextError)
    assert memory.peak_bytes < PEAK_BYTES
    assert "panicked" not in capfd.readouterr().err


@pytest.mark.parametrize("change, message", [
    ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "/////w=="}}, "normalizer 'Precompiled' is not"),
    ({"normalizer": {"type": "Replace", "pattern": {"String": ""}, "content": "x"}}, "Replace: pattern is"),
    ({"normalizer": {"type": "Sequence", "normalizers": 12 * [
        {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}]}}, "thousand times longer"),
    ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": 2 * [{"type": "ByteLevel"}]}}, "ByteLevel twice"),
    ({"model": TOKENIZER["model"] | {"continuing_subword_prefix": "\u00e9" * 4}}, "continuing_subword_prefix"),
    ({"model": TOKENIZER["model"] | {"vocab": {"a": 1, "b": 1}}}, "two pieces of its vocab have the same id"),
    ({"model": TOKENIZER["model"] | {"vocab": {"a": 2**32 - 1}}}, "piece 'a' has the id 4294967295"),
    ({"model": {"type": "Unigram", "vocab": []}}, "its model is no BPE"),
    ({"decoder": None}, "neither byte-level"),
    # The package's own message repeats the pieces: it is cut.
    ({"model": TOKENIZER["model"] | {"vocab": {"x" * 5000: 0, "a": 1}, "merges": [["x" * 5000, "a"]]}}, "^.{,300}$"),
])
def test_tokenizers_that_are_refused(change, message):
    with pytest.raises(TextError, match=message):
        Vocabulary(json.dumps(TOKENIZER | change), 0)


def test_pieces_that_are_no_bytes_are_their_text():
    odd = json.loads(json.dumps(TOKENIZER))
    odd["model"]["vocab"] |= {"\u65e5": 300, "<0xZZ>": 301, "<0x-1>": 302, "<0x41>": 303}
    level = Vocabulary(json.dumps(odd), 0)
    assert [level.token_bytes(k) for k in (300, 301)] == ["\u65e5".encode(), b"<0xZZ>"]
    fallback = Vocabulary(json.dumps(odd | {"decoder": {"type": "ByteFallback"}}), 0)
    assert [fallback.token_bytes(k) for k in (301, 302, 303)] == [b"<0xZZ>", b"<0x-1>", b"A"]


def test_padding_truncation_and_marks_behind_a_text_are_left_out():
    plain = Vocabulary(json.dumps(TOKENIZER), 0)
    post = {"type": "TemplateProcessing", "pair": [], "single": [
        {"SpecialToken": {"id": "s", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "e", "type_id": 0}}],
        "special_tokens": {k: {"id": k, "ids": [n], "tokens": [k]} for k, n in (("s", 7), ("e", 8))}}
    other = Vocabulary(json.dumps(TOKENIZER | {
        "padding": {"strategy": {"Fixed": 4_000_000_000}, "direction": "Right", "pad_to_multiple_of": None,
                    "pad_id": 0, "pad_type_id": 0, "pad_token": "x"},
        "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 2},
        "post_processor": post}), 0)
    assert other.encode("some text", start=False) == plain.encode("some text", start=False)
    assert other.start == [7]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("state") / "s"
    state = State(np.ones((2, 16)), [0, 5, 6])
    save_state(path, state, PACKED)
    assert load_state(path, PACKED).tokens == state.tokens
    return path.read_bytes()


@examples(120)
@given(data=st.data())
def test_state_file(tmp_path, saved, data):
    length = struct.unpack_from("<Q", saved)[0]
    header = json.loads(saved[8:8 + length])
    text = data.draw(st.one_of(st.none(), damaged_json(header).map(text_of)))
    content = data.draw(damaged_bytes(saved)) if text is None else \
        struct.pack("<Q", len(text)) + text + saved[8 + length:]
    path = tmp_path / "s"
    path.write_bytes(content)
    with Memory() as memory:
        outcome(lambda: load_state(path, PACKED), path)
    assert memory.peak_bytes < 8 << 20


@pytest.mark.parametrize("kind", ["BF16", "F8_E4M3", "I64", "F64", "BOOL"])
def test_state_file_of_other_numbers(tmp_path, saved, kind):
    path = tmp_path / "s"
    path.write_bytes(saved.replace(b'"U32"', json.dumps(kind).encode()))
    assert outcome(lambda: load_state(path, PACKED), path) is None


def test_file_that_cannot_be_written_keeps_its_name(tmp_path):
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "absent" / "f", tmp_path / "folder"):
        with pytest.raises(OSError) as error:
            write_file(path, b"x")
        assert error.value.filename == str(path) and error.value.strerror
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_state_file_that_cannot_be_written_is_named(tmp_path):
    state = State(np.ones((2, 16)), [0, 5, 6])
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "absent" / "s", tmp_path / "folder"):
        with pytest.raises(ERRORS) as error:
            save_state(path, state, PACKED)
        assert str(path) in str(error.value) and str(error.value).count(str(tmp_path)) == 1
        assert ".part" not in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]
