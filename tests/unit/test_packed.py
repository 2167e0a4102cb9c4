"""Checkpoint folders to packed models: types, trits, shards, and every refusal."""

import json
import math
import struct

import numpy as np
import pytest
from sterna.sim.golden import packed
from sterna.sim.golden.fp24 import round24
from sterna.sim.golden.packed import Geometry, PackError, pack_checkpoint, ternarise
from sterna.sim.golden.ternary import NotFiniteError, float32_of


def same(a, b):
    """Whether two packed models are equal in every array."""
    assert a.geometry == b.geometry and len(a.layers) == len(b.layers)
    for left, right in [(a, b), *zip(a.layers, b.layers, strict=True)]:
        for name, value in vars(left).items():
            if name not in ("layers", "geometry"):
                np.testing.assert_array_equal(value, getattr(right, name), err_msg=name)
    return True


def test_packs_what_the_arrays_say(write_checkpoint):
    folder, tensors = write_checkpoint()
    model = pack_checkpoint(folder)
    layer = model.layers[1]
    name = "model.layers.1.attn.f_proj"
    weight = tensors[name + ".weight"]
    mean = np.abs(weight).mean(dtype=np.float64)
    np.testing.assert_array_equal(layer.f, np.clip(np.rint(weight / mean), -1, 1))
    assert layer.f.dtype == np.int8 and layer.ws_f == round24(mean / 127)
    outer = tensors["model.layers.1.attn_norm.weight"].astype(float)
    np.testing.assert_array_equal(layer.attn_outer, round24(outer))
    np.testing.assert_array_equal(layer.w_f, round24(outer * tensors[name + ".norm.weight"].astype(float)))
    assert layer.gate.shape == (48, 40) and layer.down.shape == (40, 24) and layer.w_down.shape == (24,)
    np.testing.assert_array_equal(model.layers[0].keep, 1.0)
    share = np.exp(tensors["model.lower_bounds"].astype(float))
    np.testing.assert_allclose(layer.keep, 1 - share[1] / share.sum(0), rtol=2e-5)
    rows = tensors["model.embeddings.weight"]
    back = model.embedding_codes * model.embedding_scale[:, None]
    assert np.abs(back - rows).max() <= np.abs(rows).max() / 127 * 0.51
    assert np.abs(model.embedding_codes).max() == 127
    assert model.head.shape == (31, 40) and model.ws_head > 0


@pytest.mark.parametrize("kind", ["F16", "BF16"])
def test_half_precision_files(write_checkpoint, kind):
    folder, tensors = write_checkpoint(kind=kind)
    if kind == "F16":
        held = {k: v.astype(np.float16).astype(np.float32) for k, v in tensors.items()}
    else:
        held = {k: (v.view(np.uint32) & 0xFFFF0000).view(np.float32) for k, v in tensors.items()}
    assert same(pack_checkpoint(folder), packed.pack(packed.read_config(folder), held))


def test_shards_are_one_model(write_checkpoint):
    whole, tensors = write_checkpoint()
    parts, _ = write_checkpoint(tensors=tensors, shards=3)
    assert same(pack_checkpoint(whole), pack_checkpoint(parts))


def test_ternarise_ties_to_even_and_floor():
    weight = np.array([1.0, 0.5, -0.5, 1.5, -1.5, 1.0], np.float32)  # mean 1: the halves are ties
    trits, mean = ternarise(weight)
    assert mean == 1 and trits.tolist() == [1, 0, 0, 1, -1, 1]
    trits, mean = ternarise(np.array([4e-6, -6e-6, 2e-6], np.float32))
    assert mean == 1e-5 and trits.tolist() == [0, -1, 0]
    assert not ternarise(np.zeros((2, 2), np.float32))[0].any()


def test_ternary_weights_are_kept(rng, write_checkpoint):
    folder, tensors = write_checkpoint(kind="BF16")
    first = pack_checkpoint(folder)
    name = "model.layers.0.mlp.down_proj.weight"
    scale = np.float32(0.34375)
    tensors[name] = (first.layers[0].down * scale).astype(np.float32)
    assert np.abs(tensors[name]).mean() < 0.9 * scale  # what a second derivation would take for the scale
    again = pack_checkpoint(write_checkpoint(tensors=tensors)[0])
    np.testing.assert_array_equal(again.layers[0].down, first.layers[0].down)
    assert again.layers[0].ws_down == round24(float(scale) / 127)


@pytest.mark.parametrize("weight, kept", [
    ([[0.5, -0.5], [0.0, 0.5]], True),
    ([[0.5, -0.5], [-0.0, 0.5]], True),
    ([[3e-6, 0.0]], True),
    ([[2.0, -2.0]], True),
    ([[0.0, 0.0]], False),
    ([[0.5, -0.5], [0.25, 0.0]], False),
    ([[0.5, np.nextafter(np.float32(0.5), 1), 0.0]], False),
])
def test_what_is_ternary_already(weight, kept):
    weight = np.array(weight, np.float32)
    scale, found = packed.ternary_already(np.abs(weight))
    assert bool(found) == kept and scale == np.abs(weight).max()
    trits, mean = ternarise(weight)
    if kept:
        np.testing.assert_array_equal((trits * mean).astype(np.float32), weight)


@pytest.mark.parametrize("kind", [np.float32, np.float16, "bfloat16"])
def test_the_mean_is_that_of_the_exact_sum_in_any_order(rng, kind, monkeypatch):
    weight = (rng.standard_normal(4000) * 10.0 ** rng.integers(-12, 5, 4000)).clip(-6e4, 6e4).astype(np.float32)
    weight = (weight.view(np.uint32) >> 16).astype(np.uint16) if kind == "bfloat16" else weight.astype(kind)
    values = float32_of(weight)
    wanted = math.fsum(np.abs(values).astype(float)) / 4000
    trits = np.clip(np.rint(values * (np.float32(1) / np.float32(wanted))), -1, 1)
    for block in (1 << 20, 7):  # sums of sums, in pieces of any length
        monkeypatch.setattr("sterna.sim.golden.ternary.BLOCK", block)
        for order in (slice(None), slice(None, None, -1)):
            found, s = ternarise(weight[order])
            assert s == wanted
            np.testing.assert_array_equal(found, trits[order])
    with pytest.raises(NotFiniteError):
        ternarise(np.append(weight, weight.dtype.type(0x7F80 if kind == "bfloat16" else np.inf)))


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_a_large_model_is_made_on_demand_and_read_once(write_checkpoint, monkeypatch, kind):
    folder, _ = write_checkpoint(kind=kind)
    whole = pack_checkpoint(folder)
    monkeypatch.setattr("sterna.sim.golden.packed.SMALL_WEIGHTS", 0)
    monkeypatch.setattr("sterna.sim.golden.packed.EMBEDDING_ROWS", 7)
    geometry, tensors = packed.load_checkpoint(folder)
    read = []
    demand = packed.pack(geometry, tensors.watched(lambda name, entry, data: read.append(name)))
    assert isinstance(demand, packed.OnDemand) and len(read) < 5
    assert demand.ws_head == whole.ws_head and len(demand.embedding_scale) == 31
    assert same(whole, packed.eager(demand))
    assert sorted(read) == sorted(geometry.shapes())


def test_zero_embedding_row(write_checkpoint):
    folder, tensors = write_checkpoint()
    tensors["model.embeddings.weight"][3] = 0
    model = pack_checkpoint(write_checkpoint(tensors=tensors)[0])
    assert model.embedding_scale[3] == 1 and not model.embedding_codes[3].any()


@pytest.mark.parametrize("hidden, inner", [(1024, 2816), (2048, 5632), (2560, 6912), (96, 256)])
def test_intermediate_size_null(tmp_path, hidden, inner):
    (tmp_path / "config.json").write_text(json.dumps(
        {"model_type": "hgrn_bit", "hidden_size": hidden, "hidden_ratio": 4, "intermediate_size": None,
         "num_hidden_layers": 2, "vocab_size": 32000}))
    assert packed.read_config(tmp_path) == Geometry(hidden, inner, 2, 32000, 1e-6)


@pytest.mark.parametrize("config, text", [
    ({"model_type": "llama"}, "model_type is 'llama'"), ({"use_short_conv": True}, "use_short_conv is True"),
    ({"num_heads": 2}, "num_heads is 2"), ({"use_lower_bound": False}, "use_lower_bound is False"),
    ({"hidden_act": "relu"}, "hidden_act is 'relu'"), ({"tie_word_embeddings": True}, "tie_word_embeddings is True"),
    ({"hidden_size": "40"}, "hidden_size is '40'"), ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
    ({"vocab_size": True}, "vocab_size is True"), ({"rms_norm_eps": -1}, "rms_norm_eps is -1"),
    ({"vocab_size": 32}, "has shape [31, 40]: config.json asks for [32, 40]"),
    ({"num_hidden_layers": 3}, "has shape [2, 40]"),
])
def test_refused_configurations(write_checkpoint, config, text):
    folder, _ = write_checkpoint(**config)
    with pytest.raises(PackError) as error:
        pack_checkpoint(folder)
    assert text in str(error.value) and "\n" not in str(error.value)


def test_refused_tensors(write_checkpoint):
    _, tensors = write_checkpoint()
    for change, text in (
            ({"model.norm.weight": None}, "'model.norm.weight' is missing"),
            ({"model.layers.0.attn.f_proj.bias": np.zeros(40)}, "is not part of this model type"),
            ({"lm_head.norm.weight": np.full(40, np.nan)}, "infinities or NaN")):
        held = {k: v for k, v in (tensors | change).items() if v is not None}
        with pytest.raises(PackError, match=text):
            pack_checkpoint(write_checkpoint(tensors=held)[0])


def test_refused_files(write_checkpoint, tmp_path):
    with pytest.raises(PackError, match="cannot read"):
        pack_checkpoint(tmp_path)
    folder, _ = write_checkpoint()
    file = folder / "model.safetensors"
    good = file.read_bytes()
    for bad in (good[:-1], good[:5], b"\xff" * 64, good[:8] + b"[" + good[9:],
                good.replace(b'"shape"', b'"shope"', 1)):
        file.write_bytes(bad)
        with pytest.raises(PackError, match="damaged"):
            pack_checkpoint(folder)
    file.write_bytes(good.replace(b'"F32"', b'"I32"', 1))
    with pytest.raises(PackError, match="has type 'I32'"):
        pack_checkpoint(folder)
    file.unlink()
    with pytest.raises(PackError, match="holds no model.safetensors"):
        pack_checkpoint(folder)
    for index, text in (("{}", "no weight_map"), ('{"weight_map": {"a": "../x"}}', "outside the folder")):
        (folder / "model.safetensors.index.json").write_text(index)
        with pytest.raises(PackError, match=text):
            pack_checkpoint(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(PackError, match="not valid JSON"):
        pack_checkpoint(folder)


def with_data(file, change, shift=0, behind=None):
    """Changes the bytes behind a safetensors file's header; tensors from the one named ``behind`` on move by
    ``shift``.
    """
    raw = file.read_bytes()
    length = struct.unpack_from("<Q", raw)[0]
    header = json.loads(raw[8:8 + length])
    first = header[behind]["data_offsets"][0] if behind else 0
    for name, entry in header.items():
        if name != "__metadata__" and entry["data_offsets"][0] >= first:
            entry["data_offsets"] = [at + shift for at in entry["data_offsets"]]
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + change(raw[8 + length:], first))


@pytest.mark.parametrize("change, shift, behind, message", [
    (lambda d, at: d + bytes(64), 0, None, "64 bytes behind tensor '[^']+', which ends at [0-9]+: the file"),
    (lambda d, at: bytes(8) + d, 8, None, "tensor '[^']+' at byte [0-9]+ leaves 8 bytes behind the header"),
    (lambda d, at: d[:at] + bytes(8) + d[at:], 8, "model.norm.weight",
     "tensor 'model.norm.weight' at byte [0-9]+ leaves 8 bytes behind tensor '[^']+', which ends at [0-9]+"),
    (lambda d, at: d[:at - 4] + d[at:], -4, "model.norm.weight",
     "tensor 'model.norm.weight' at byte [0-9]+ shares bytes with tensor"),
    # Bytes put in or taken out while the header stays as it was: every tensor behind them would be another one.
    (lambda d, at: bytes(8) + d, 0, None, "8 bytes behind tensor"),
    (lambda d, at: d[4:], 0, None, "damaged or not loaded to its end: 4 bytes are missing")],
    ids=["behind", "in front", "between", "overlap", "put in", "taken out"])
def test_tensors_cover_the_file_exactly(write_checkpoint, change, shift, behind, message):
    folder, _ = write_checkpoint()
    assert pack_checkpoint(folder)
    with_data(folder / "model.safetensors", change, shift, behind)
    with pytest.raises(PackError, match=f"{folder / 'model.safetensors'}: .*{message}") as error:
        pack_checkpoint(folder)
    assert "\n" not in str(error.value)


def test_random_model_is_reproducible():
    geometry = Geometry(20, 24, 2, 17)
    a, b = (packed.random_model(np.random.default_rng(5), geometry) for _ in range(2))
    assert same(a, b) and len(a.layers) == 2
