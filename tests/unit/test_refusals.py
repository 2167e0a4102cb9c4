"""Checkpoints that sterna convert refuses: one line with the name and the reason, and nothing left behind."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from small_model import write_folder
from sterna.models.synthetic import checkpoint as synthetic
from sterna.sim.golden.checkpoint import read_config
from sterna.sim.golden.geometry import Geometry, PackError

ROOT = Path(__file__).resolve().parents[2]

LLAMA = {"model_type": "llama", "hidden_size": 40, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 264,
         "num_attention_heads": 4, "num_key_value_heads": 4, "hidden_act": "silu", "rms_norm_eps": 1e-6}
REASON = "a model with attention layers, which this hardware has not: it runs MatMul-free models of model_type hgrn"


@pytest.fixture
def refused(sterna, tmp_path):
    """Makes a folder, changes it, converts it; gives the error."""
    def convert(change, given=""):
        folder = write_folder(tmp_path / "model")
        change(folder)
        (tmp_path / "out").mkdir()
        code, out, err = sterna("convert", folder / given, "-o", tmp_path / "out" / "m.sterna")
        assert code == 1 and not out and err.startswith("error: ") and err.count("\n") == 1
        assert not list((tmp_path / "out").iterdir())
        return err
    return convert


def config(**changes):
    def change(folder):
        raw = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(raw | changes))
    return change


def tensors(make):
    def change(folder):
        held = load_file(folder / "model.safetensors")
        save_file(make(held) or held, folder / "model.safetensors")
    return change


def sharded(folder):
    """Two shards in place of one file; gives the second."""
    held = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    index, paths = {}, [folder / f"model-0000{k + 1}-of-00002.safetensors" for k in (0, 1)]
    for k, path in enumerate(paths):
        part = {name: held[name] for name in sorted(held)[k::2]}
        save_file(part, path)
        index |= dict.fromkeys(part, path.name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return paths[1]


NAME = "model.layers.1.attn.g_proj.weight"


@pytest.mark.parametrize("change, message", [
    (tensors(lambda t: {k: v for k, v in t.items() if k != NAME}), f"tensor '{NAME}' is missing"),
    (tensors(lambda t: t.update({"lm_head.bias": np.zeros(264, np.float32)})), "tensor 'lm_head.bias' is not part"),
    (tensors(lambda t: t.update({NAME: t[NAME][:39].copy()})), f"tensor '{NAME}' has shape [39, 40]"),
    (tensors(lambda t: t[NAME].__setitem__((3, 4), np.nan)), f"tensor '{NAME}' holds infinities or NaN"),
    (tensors(lambda t: t["lm_head.weight"].__setitem__((263, 39), -np.inf)), "tensor 'lm_head.weight' holds infini"),
    (tensors(lambda t: t["model.embeddings.weight"].__setitem__((0, 0), np.nan)), "'model.embeddings.weight' holds"),
    (tensors(lambda t: t["lm_head.norm.weight"].__setitem__(0, np.nan)), "tensor 'lm_head.norm.weight' holds infini"),
    (config(attn_mode="softmax"), "attn_mode is 'softmax': only 'fused_recurrent' or"),
    (config(quantization_config={"bits": 2}), "quantization_config is {'bits': 2}: only None is supported"),
    (config(use_short_conv=True), "use_short_conv is True: only False"),
    (config(model_type="mamba"), "model_type is 'mamba': only 'hgrn_bit' is supported"),
    (config(**LLAMA), f"model_type is 'llama': {REASON}"),
    (config(**LLAMA | {"model_type": "bitnet"}), f"model_type is 'bitnet': {REASON}"),
    (config(**LLAMA | {"model_type": "qwen3"}), f"model_type is 'qwen3': {REASON}"),  # as Bonsai is
    (tensors(lambda t: t.update({"model.layers.0.self_attn.q_proj.weight": np.zeros((40, 40), np.float32)})),
     f"tensor 'model.layers.0.self_attn.q_proj.weight' belongs to {REASON}"),
    (config(vocab_size=200), "has shape [264, 40]: config.json asks for [200, 40]"),
    (lambda folder: (folder / "tokenizer.json").unlink(), "holds no tokenizer.json and no tokenizer.model"),
], ids=range(17))
def test_what_is_no_model_of_this_hardware(refused, change, message):
    assert message in refused(change)


def longer_tokenizer(folder):
    raw = json.loads((folder / "tokenizer.json").read_text())
    raw["model"]["vocab"]["more"] = 264
    (folder / "tokenizer.json").write_text(json.dumps(raw))


def cut(path, size=100):
    path.write_bytes(path.read_bytes()[:-size])


def loading(folder):
    """What a download leaves that has not ended."""
    path = sharded(folder)
    path.rename(path.with_name(path.name + ".incomplete"))


def only_loading(folder):
    (folder / ".cache").mkdir()
    (folder / "model.safetensors").rename(folder / ".cache" / "abc.incomplete")


def only_gguf(folder):
    (folder / "model.safetensors").rename(folder / "q2.gguf")


@pytest.mark.parametrize("change, given, message", [
    (longer_tokenizer, "", "the tokenizer has a token 264 and the model 264 tokens: they do not belong together"),
    (lambda folder: cut(folder / "model.safetensors"), "", "model.safetensors: damaged or not loaded to its end: 100 "
                                                           "bytes are missing"),
    (lambda folder: cut(sharded(folder)), "", "model-00002-of-00002.safetensors: damaged or not loaded to its end"),
    (lambda folder: sharded(folder).unlink(), "", "model-00002-of-00002.safetensors is not there, which "
                                                  "model.safetensors.index.json names: download it"),
    (loading, "", "names: model-00002-of-00002.safetensors.incomplete has not been loaded to its end: download it"),
    (only_loading, "", "holds no model.safetensors yet: abc.incomplete has not been loaded to its end: go on"),
    (only_gguf, "", "holds 'q2.gguf' and no model.safetensors: a GGUF file has no weights that can be packed"),
    (lambda folder: (folder / "m.gguf").write_bytes(b"GGUF" + bytes(60)), "m.gguf", "m.gguf is a GGUF file, whose"),
    (lambda folder: None, "model.safetensors", "model.safetensors holds weights alone: give its folder"),
], ids=range(9))
def test_folders_that_are_not_whole(refused, change, given, message):
    assert message in refused(change, given)


@pytest.fixture
def alarm():
    """Ends a test that waits for ever."""
    def ring(*arguments):
        raise AssertionError("waits")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def fifo(name):
    def change(folder):
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)
    return change


def fifo_shard(folder):
    fifo(sharded(folder).name)(folder)


def outside(folder):
    sharded(folder)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": ".."}}))


@pytest.mark.parametrize("change, given, message", [
    *((fifo(name), "", f"{name}: no regular file") for name in ("config.json", "model.safetensors",
                                                                "generation_config.json")),
    (fifo("tokenizer.json"), "", "tokenizer.json: no regular file"),
    (fifo_shard, "", "model-00002-of-00002.safetensors: no regular file"),
    (fifo("pipe"), "pipe", "pipe is no regular file: give a .sterna file or a checkpoint folder"),
    (outside, "", "names a file outside the folder")], ids=range(7))
def test_what_could_be_read_for_ever(refused, alarm, change, given, message):
    assert message in refused(change, given)


def test_a_header_that_would_take_much_memory(refused):
    def change(folder):
        data = (folder / "model.safetensors").read_bytes()
        text = data[8:8 + int.from_bytes(data[:8], "little")].ljust((1 << 23) + 1)
        (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data[-1:])

    assert "its header has 8,388,609 bytes, and at most 8,388,608 are read" in refused(change)


@pytest.mark.parametrize("key, value", [
    ("output_gate", False), ("elementwise_affine", False), ("feature_map", "relu"), ("num_experts", 8),
    ("sliding_window", 64), ("attention_bias", True), ("mlp_bias", True), ("rope_scaling", {"factor": 2.0}),
    ("architectures", ["LlamaForCausalLM"]), ("num_attention_heads", 4), ("norm_eps", 1e-5)])
def test_a_key_that_changes_the_computation(tmp_path, key, value):
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED | {key: value}))
    with pytest.raises(PackError, match=key) as error:
        read_config(tmp_path)
    assert repr(value) in str(error.value) and "\n" not in str(error.value)
    if key == "num_experts":
        assert str(error.value).endswith("'num_experts' is 8: this key is not known, and what it changes would be "
                                         "lost: remove it if it has no effect")


PUBLISHED = json.loads((ROOT / "tests" / "data" / "reference_b" / "config.json").read_text())
MORE = {"elementwise_affine": True, "fuse_norm": True, "norm_eps": 1e-6, "pad_token_id": None, "dtype": "bfloat16",
        "_name_or_path": "x/y", "_attn_implementation_autoset": True, "temperature": 0.7, "rope_scaling": None,
        "attention_bias": False, "pruned_heads": {}, "hidden_dropout": 0.1, "is_encoder_decoder": False,
        "auto_map": {"AutoConfig": "configuration_hgrn_bit.HGRNBitConfig"}}


@pytest.mark.parametrize("raw", [
    PUBLISHED | MORE, synthetic.config(Geometry(40, 48, 2, 264)),
    *(json.loads(path.read_text()) for path in sorted(ROOT.glob("models/*/checkpoint/config.json")))])
def test_keys_that_published_models_have(tmp_path, raw):
    (tmp_path / "config.json").write_text(json.dumps(raw))
    assert read_config(tmp_path).hidden_size == raw["hidden_size"]
    del raw["rms_norm_eps"]
    (tmp_path / "config.json").write_text(json.dumps(raw | {"norm_eps": 1e-5}))
    assert read_config(tmp_path).rms_norm_eps == 1e-5
