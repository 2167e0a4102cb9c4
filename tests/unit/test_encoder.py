"""The encoder with fast feedforward layers: NumPy against PyTorch, the walk, checkpoints in the published layout."""

import json
import math
import os
import struct

import numpy as np
import pytest
from sterna.sim.golden.encoder import Encoder, erf
from sterna.sim.golden.encoder_checkpoint import EncoderGeometry, EncoderTensors, load_encoder, read_geometry
from sterna.sim.golden.geometry import PackError

SEED = int(os.environ.get("STERNA_SEED", "1"))
SMALL = {"vocab_size": 61, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "length": 40,
         "head_size": 20}
FEEDFORWARDS = {"1x4": {"trees": 1, "tree_depth": 4}, "5x2": {"trees": 5, "tree_depth": 2},
                "7x0": {"trees": 7, "tree_depth": 0}, "dense": {"feedforward": "dense", "intermediate_size": 30},
                "narrow": {"feedforward": "narrow", "trees": 3, "tree_depth": 3}, "none": {"feedforward": "none"}}
PUBLISHED = EncoderGeometry(vocab_size=32768, hidden_size=768, num_hidden_layers=16, num_attention_heads=12)


def geometry_of(name, **more):
    return EncoderGeometry(**SMALL | FEEDFORWARDS[name] | more)


def random_tensors(geometry, rng):
    """Random weights large enough that every layer matters, norms and biases too."""
    out = {}
    for name, shape in geometry.tensors():
        spread = 1 / math.sqrt(shape[-1]) if len(shape) > 1 else 0.3
        out[name] = (spread * rng.standard_normal(shape) + (name.endswith("norm.weight"))).astype(np.float32)
        if name.endswith("norm_factor"):
            out[name] = np.float32(geometry.head_width**-0.5)
    if not geometry.classes:
        out["decoder.weight"] = out["encoder.embedding.word_embedding.weight"]
    return out


def write_folder(folder, geometry, tensors, config=None):
    """A checkpoint folder with a safetensors file written here, byte by byte."""
    header, at = {}, 0
    for name, data in tensors.items():
        size = np.asarray(data).nbytes
        header[name] = {"dtype": "F32", "shape": list(np.shape(data)), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config or geometry.to_json()))
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text
                                               + b"".join(np.asarray(data).tobytes() for data in tensors.values()))
    return folder


def plain_walk(x, weight, bias, depth):
    """The published walk of one tree, level by level with places in a level, as its training code counts."""
    place, path = 0, []
    for level in range(depth + 1):
        node = 2**level - 1 + place
        path.append(node)
        place = 2 * place + (float(x @ weight[node] + bias[node]) > 0)
    return path


@pytest.mark.parametrize("name", ["1x4", "5x2", "7x0"])
def test_the_walk_is_the_published_one_and_an_exact_zero_goes_left(name):
    geometry = geometry_of(name)
    rng = np.random.default_rng(SEED)
    tensors = random_tensors(geometry, rng)
    at = "encoder.layers.1.ffn."
    # Whole numbers: sums are exact in any order, and some are zero.
    for part in ("linear_in.weight", "linear_in.bias"):
        tensors[f"{at}{part}"] = rng.integers(-1, 2, tensors[f"{at}{part}"].shape).astype(np.float32)
    encoder = Encoder(geometry, tensors)
    x = rng.integers(-1, 2, (200, geometry.hidden_size)).astype(np.float32)
    rows, sums = encoder.visit(1, x)
    assert rows.shape == sums.shape == (200, geometry.visits)
    for t in range(200):
        for k in range(geometry.trees):
            part = slice(k * geometry.nodes, (k + 1) * geometry.nodes)
            path = plain_walk(x[t], tensors[f"{at}linear_in.weight"][part], tensors[f"{at}linear_in.bias"][part],
                              geometry.tree_depth)
            assert (rows[t, k::geometry.trees] - k * geometry.nodes).tolist() == path
    assert geometry.tree_depth == 0 or (sums[:, :geometry.trees] == 0).any()


def test_only_visited_neurons_are_read():
    geometry = geometry_of("5x2")
    rng = np.random.default_rng(SEED)
    tensors = random_tensors(geometry, rng)
    encoder = Encoder(geometry, tensors, np.float64)
    ids = rng.integers(0, geometry.vocab_size, 3)
    seen = [set() for _ in range(geometry.num_hidden_layers)]
    visit = encoder.visit
    encoder.visit = lambda layer, x: (seen[layer].update(visit(layer, x)[0].ravel().tolist()), visit(layer, x))[1]
    expected = encoder.logits(ids)
    for layer, rows in enumerate(seen):
        others = sorted(set(range(geometry.neurons)) - rows)
        assert others
        at = f"encoder.layers.{layer}.ffn."
        tensors[f"{at}linear_in.weight"][others] = np.nan
        tensors[f"{at}linear_in.bias"][others] = np.nan
        tensors[f"{at}linear_out.weight"][:, others] = np.nan
    np.testing.assert_array_equal(Encoder(geometry, tensors, np.float64).logits(ids), expected)


def test_the_error_function():
    x = np.linspace(-6, 6, 4001)
    exact = np.array([math.erf(v) for v in x])
    np.testing.assert_array_equal(erf(x), exact)
    assert np.abs(erf(x.astype(np.float32)) - exact).max() < 1e-6


@pytest.mark.torch
@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("name", FEEDFORWARDS)
def test_numpy_equals_pytorch(tmp_path, name, classes):
    torch = pytest.importorskip("torch")
    from sterna.models.encoder.checkpoint import load
    geometry = geometry_of(name, classes=classes)
    rng = np.random.default_rng([SEED, classes])
    folder = write_folder(tmp_path / "model", geometry, random_tensors(geometry, rng))
    read, tensors = load_encoder(folder)
    assert read.neurons == geometry.neurons and read.visits == geometry.visits
    model = load(folder).double().eval()
    encoder = Encoder(read, tensors, np.float64)
    for count in (1, 17, geometry.length):
        ids = rng.integers(0, geometry.vocab_size, count)
        with torch.no_grad():
            # A longer row of the same batch, padded: what is not kept does not count.
            padded = torch.zeros(2, geometry.length, dtype=torch.long)
            padded[0, :count] = torch.from_numpy(ids)
            keep = torch.arange(geometry.length)[None] < torch.tensor([[count], [geometry.length]])
            theirs = model(padded, keep)[0]
        ours = encoder.logits(ids)
        theirs = theirs.numpy() if classes else theirs[:count].numpy()
        assert np.abs(ours).max() > 0.1
        # PyTorch has rounded positions and norm_factor to float32.
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.torch
@pytest.mark.parametrize("hidden, heads, layers, trees, depth", [
    (32, 4, 2, 1, 7), (64, 2, 3, 16, 3),
    pytest.param(256, 4, 4, 8, 6, marks=pytest.mark.rest), pytest.param(768, 12, 2, 1, 11, marks=pytest.mark.rest)])
def test_float32_logits_are_within_1e_4(tmp_path, hidden, heads, layers, trees, depth):
    """Both in float32. The seed is fixed: a sum within rounding of zero may go either way, and here are none."""
    torch = pytest.importorskip("torch")
    from sterna.models.encoder.checkpoint import load, save_encoder
    from sterna.models.encoder.network import Encoder as Network
    geometry = EncoderGeometry(vocab_size=300, hidden_size=hidden, num_hidden_layers=layers, length=64,
                               num_attention_heads=heads, trees=trees, tree_depth=depth)
    torch.manual_seed(1)
    model = Network(geometry).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # first weights of 0.02 would leave the feedforward without effect
            parameter.mul_(hidden**-0.5 / 0.02 if parameter.ndim == 2 else 1)
    save_encoder(tmp_path / "model", model)
    ids = torch.randint(0, 300, (64,))
    with torch.no_grad():
        theirs = load(tmp_path / "model").eval()(ids[None])[0].numpy()
        np.testing.assert_array_equal(theirs, model(ids[None])[0].numpy())
    encoder = Encoder(*load_encoder(tmp_path / "model"))
    ours = encoder.logits(ids.numpy())
    assert ours.dtype == np.float32 and np.abs(ours).max() > 1
    assert np.abs(ours - theirs).max() < 1e-4
    assert encoder.margin > 2e-6


def published_keys():
    """The keys and shapes of the published model.safetensors, written down without the code."""
    out = {"encoder.embedding.word_embedding.weight": [32768, 768],
           "encoder.embedding.pos_embedding.scale_factor": [1],
           "encoder.embedding.norm.weight": [768], "encoder.embedding.norm.bias": [768]}
    for i in range(16):
        out |= {f"encoder.layers.{i}.{key}": shape for key, shape in {
            "norm1.weight": [768], "norm1.bias": [768], "norm2.weight": [768], "norm2.bias": [768],
            "attn.self_attention.query_key_value.weight": [2304, 768], "attn.self_attention.norm_factor": [],
            "attn.dense.weight": [768, 768], "ffn.linear_in.weight": [4095, 768], "ffn.linear_in.bias": [4095],
            "ffn.linear_out.weight": [768, 4095]}.items()}
    return out | {"encoder.final_norm.weight": [768], "encoder.final_norm.bias": [768],
                  "decoder.weight": [32768, 768]}


# The published config.json's entries, as the configuration in the training code writes them.
PUBLISHED_CONFIG = {"model_type": "crammedBERT", "architectures": ["ScriptableLMForPreTraining"], "arch": {
    "architectures": ["ScriptableCrammedBERT"], "num_transformer_layers": 16, "intermed_type": "fff",
    "hidden_size": 768, "intermed_size": 1, "intermed_depth": 11, "hidden_dropout_prob": 0.1, "norm": "LayerNorm",
    "norm_eps": 1e-12, "norm_scheme": "pre", "nonlin": "GELU", "tie_weights": True, "decoder_bias": False,
    "sparse_prediction": 0.25, "loss": "cross-entropy", "objective_layout": "MLM",
    "embedding": {"vocab_size": 32768, "pos_embedding": "scaled-sinusoidal", "dropout_prob": 0.1, "pad_token_id": 0,
                  "max_seq_length": 128, "embedding_dim": 768, "normalization": True, "stable_low_precision": False},
    "attention": {"type": "self-attention", "causal_attention": False, "num_attention_heads": 12, "dropout_prob": 0.1,
                  "skip_output_projection": False, "qkv_bias": False, "rotary_embedding": False,
                  "seq_op_in_fp32": False, "sequence_op": "torch-softmax"},
    "init": {"type": "normal", "std": 0.02}, "ffn_layer_frequency": 1, "skip_head_transform": True, "use_bias": False,
    "final_norm": True, "num_labels": None,
    "classification_head": {"pooler": "avg", "include_ff_layer": True, "head_dim": 1024, "nonlin": "Tanh",
                            "classifier_dropout": 0.1}}}


def test_the_published_layout_at_full_width(tmp_path):
    """655 MB of zeros that take no room on the disk: names and shapes, then one layer, streamed."""
    header, at = {}, 0
    for name, shape in published_keys().items():
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + 4 * math.prod(shape)]}
        at += 4 * math.prod(shape)
    text = json.dumps(header).encode()
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED_CONFIG))
    geometry, tensors = load_encoder(tmp_path)
    assert geometry == PUBLISHED and geometry.neurons == 4095 and geometry.visits == 12
    assert {name: list(shape) for name, shape in geometry.tensors()} == published_keys()
    assert round(at / 4 / 10**6) == 189  # a page about the published model counts 189M
    assert tensors["encoder.layers.15.ffn.linear_out.weight"].shape == (768, 4095)
    wrong = PUBLISHED_CONFIG | {"arch": PUBLISHED_CONFIG["arch"] | {"intermed_depth": 10}}
    (tmp_path / "config.json").write_text(json.dumps(wrong))
    with pytest.raises(PackError, match=r"layers.0.ffn.linear_in.weight' has shape \[4095, 768\]: config.json asks "
                                        r"for \[2047, 768\]"):
        load_encoder(tmp_path)


def refused(folder):
    """The one line with which a folder is refused."""
    with pytest.raises(PackError) as error:
        load_encoder(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("classes", [0, 2])
def test_every_missing_extra_and_misshapen_key_is_refused_by_its_name(tmp_path, classes):
    geometry = geometry_of("5x2", num_hidden_layers=1, classes=classes)
    tensors = random_tensors(geometry, np.random.default_rng(SEED))
    load_encoder(write_folder(tmp_path, geometry, tensors))
    for name, data in tensors.items():
        write_folder(tmp_path, geometry, {k: v for k, v in tensors.items() if k != name})
        assert f"tensor {name!r} is missing" in refused(tmp_path)
        write_folder(tmp_path, geometry, tensors | {name: np.zeros(np.shape(data) + (1,), np.float32)})
        assert f"tensor {name!r} has shape" in refused(tmp_path)
    for name in ("encoder.layers.1.norm1.weight", "encoder.layers.0.ffn.linear_out.bias", "decoder.bias",
                 "encoder.layers.0.ffn.dense_in.weight"):
        write_folder(tmp_path, geometry, tensors | {name: np.zeros(3, np.float32)})
        assert f"tensor {name!r} is not part of this encoder" in refused(tmp_path)


def test_a_decoder_that_is_not_the_embedding_is_refused(tmp_path):
    geometry = geometry_of("1x4")
    tensors = random_tensors(geometry, np.random.default_rng(SEED))
    tensors["decoder.weight"] = tensors["decoder.weight"] + np.float32(1)
    write_folder(tmp_path, geometry, tensors)
    with pytest.raises(PackError, match="tensor 'decoder.weight' differs from"):
        Encoder(*load_encoder(tmp_path))
    pytest.importorskip("torch")
    from sterna.models.encoder.checkpoint import load
    with pytest.raises(PackError, match="tensor 'decoder.weight' differs from"):
        load(tmp_path)


@pytest.mark.parametrize("entry, value, words", [
    ("nonlin", "ReLU", "nonlin is 'ReLU'"), ("norm_eps", 1e-6, "norm_eps is 1e-06"), ("use_bias", True, "use_bias"),
    ("intermed_type", "moe", "intermed_type is 'moe'"), ("intermed_depth", -1, "tree_depth is -1"),
    ("intermed_depth", 40, "tree_depth is 40: at most"), ("intermed_size", None, "trees is None"),
    ("embedding", None, "'embedding' is missing"), ("attention.rotary_embedding", True, "attention.rotary_embedding"),
    ("embedding.embedding_dim", 5, "embedding.embedding_dim is 5"), ("attention.num_attention_heads", 5, "heads"),
    ("embedding.vocab_size", 0, "vocab_size is 0"),
    ("attention.num_attention_heads", "4", "num_attention_heads is '4'"),
    ("embedding.max_seq_length", 1.5, "length is 1.5"), ("num_labels", -2, "classes is -2"),
])
def test_a_configuration_of_another_architecture_is_refused(tmp_path, entry, value, words):
    raw = json.loads(json.dumps(PUBLISHED_CONFIG))
    part, _, key = entry.rpartition(".")
    (raw["arch"][part] if part else raw["arch"])[key] = value
    if entry == "num_labels":
        raw["arch"]["classification_head"]["pooler"] = "zero_index"
    (tmp_path / "config.json").write_text(json.dumps(raw))
    with pytest.raises(PackError) as error:
        read_geometry(tmp_path)
    assert words in str(error.value) and str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_other_folders_are_refused_in_one_line(tmp_path):
    assert "config.json" in refused(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "hgrn_bit"}')
    assert "model_type is 'hgrn_bit'" in refused(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED_CONFIG))
    assert "no model.safetensors" in refused(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"x" * 100)
    assert "damaged" in refused(tmp_path)


def test_wrong_tokens_are_refused():
    geometry = geometry_of("none")
    encoder = Encoder(geometry, random_tensors(geometry, np.random.default_rng(SEED)))
    for ids, words in (([], "0 tokens"), ([1] * 41, "41 tokens"), ([61], "token 61"), ([-1], "token -1")):
        with pytest.raises(PackError, match=words):
            encoder.logits(ids)


def test_tensors_are_read_one_at_a_time(tmp_path):
    geometry = geometry_of("1x4")
    folder = write_folder(tmp_path / "m", geometry, random_tensors(geometry, np.random.default_rng(SEED)))
    names = []
    Encoder(geometry, EncoderTensors(folder).watched(lambda name, entry, data: names.append(name)))
    assert set(names) == dict(geometry.tensors()).keys()
