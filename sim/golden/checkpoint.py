"""Checkpoint folders in the published layout: config.json, and tensors read one at a time."""

from copy import copy
from pathlib import Path

import numpy as np

from sterna.sim.golden import strictjson, tensorfile
from sterna.sim.golden.geometry import GEOMETRIES, Geometry, PackError, TreeGeometry
from sterna.sim.golden.strictjson import short
from sterna.sim.golden.ternary import float32_of

CONFIG_BYTES, INDEX_BYTES = 1 << 20, 1 << 26  # the largest config.json and index that are read
ATTENTION = ("a model with attention layers, which this hardware has not: it runs MatMul-free models of model_type "
             "hgrn_bit alone")
_HEADS = ("num_attention_heads", "num_key_value_heads", "n_head", "n_heads")  # in the configurations of those
_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "qkv_proj", "query_key_value", "c_attn", "wqkv")
# What of config.json changes the arithmetic: its key, what it is where it is left out, what it may be.
_VALUES = (
    ("model_type", None, ("hgrn_bit",)), ("num_heads", 1, (1,)), ("expand_ratio", 1, (1, 1.0)),
    ("use_short_conv", False, (False,)), ("use_lower_bound", True, (True,)),
    ("hidden_act", "swish", ("swish", "silu")), ("tie_word_embeddings", False, (False,)),
    ("attn_mode", "fused_recurrent", ("fused_recurrent", "fused_chunk", "chunk")),
    ("quantization_config", None, (None,)), ("architectures", None, (None, ["HGRNBitForCausalLM"])),
    *((key, True, (True,)) for key in ("elementwise_affine", "output_gate", "use_output_gate", "use_output_norm")),
)
# The other keys of published and of our own configurations, and those that transformers writes for every model: none
# of them changes the arithmetic.
_HARMLESS = frozenset("""
    hidden_size intermediate_size num_hidden_layers vocab_size rms_norm_eps norm_eps hidden_ratio
    conv_size share_conv_kernel max_position_embeddings initializer_range rescale_prenorm_residual
    fuse_cross_entropy fuse_linear_cross_entropy fuse_norm fuse_swiglu use_l2warp use_cache
    bos_token_id eos_token_id pad_token_id sep_token_id decoder_start_token_id
    torch_dtype dtype torchscript use_bfloat16 tf_legacy_loss transformers_version auto_map name_or_path
    tokenizer_class model_max_length gradient_checkpointing is_decoder chunk_size_feed_forward finetuning_task
    id2label label2id num_labels
    prefix problem_type task_specific_params output_attentions output_hidden_states return_dict
    max_length min_length max_new_tokens do_sample early_stopping num_beams num_beam_groups diversity_penalty
    temperature top_k top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size
    encoder_no_repeat_ngram_size bad_words_ids num_return_sequences output_scores return_dict_in_generate
    forced_bos_token_id forced_eos_token_id remove_invalid_values exponential_decay_length_penalty suppress_tokens
    begin_suppress_tokens
""".split())
_TREE_KEYS = ("trees", "tree_depth", "tree_always")  # of a channel_mixer "tree"; the last is 0 if it is left out
_OFF = (None, False, "", [], {})  # what a key may be that is not known: it says that there is no such thing


def read_json(folder):
    """The object in a checkpoint folder's config.json (dict); PackError if there is none."""
    path = Path(folder) / "config.json"
    try:
        raw = strictjson.read(path, CONFIG_BYTES)
    except OSError as error:
        raise PackError(f"cannot read {path}: {error.strerror}: give a folder with config.json and "
                        "model.safetensors") from None
    except strictjson.JsonError as error:
        raise PackError(f"{path}: {error}") from None
    if not isinstance(raw, dict):
        raise PackError(f"{path}: must hold a JSON object")
    return raw


def _check_keys(path, raw):
    """PackError for a key that is not known, and may change what the model computes."""
    known = _HARMLESS | {key for key, *_ in _VALUES} | {"channel_mixer", *_TREE_KEYS}
    for key, value in raw.items():
        off = any(type(value) is type(one) and value == one for one in _OFF)
        if not (key in known or off or key.startswith("_") or "dropout" in key or key.endswith("pdrop")):
            raise PackError(f"{path}: {short(key)} is {short(value)}: this key is not known, and what it changes "
                            "would be lost: remove it if it has no effect")


def _epsilon(raw):
    """``rms_norm_eps``, which some call ``norm_eps``; PackError if they differ."""
    other = raw.get("norm_eps")
    epsilon = raw.get("rms_norm_eps", 1e-6 if other is None else other)
    if other is not None and other != epsilon:
        raise PackError(f"norm_eps is {short(other)} and rms_norm_eps {short(epsilon)}: must be the same")
    return epsilon


def _mixer(raw):
    """The kind of the channel mixer, "glu" where it is left out; PackError for keys that do not belong to it."""
    mixer = raw.get("channel_mixer")
    if not isinstance(mixer, (str, type(None))) or mixer not in (None, *GEOMETRIES):
        raise PackError(f"channel_mixer is {short(mixer)}: only {' or '.join(map(repr, GEOMETRIES))} is supported")
    given = [key for key in _TREE_KEYS if raw.get(key) is not None]
    if mixer != "tree":
        if given:
            raise PackError(f"{given[0]} is {short(raw[given[0]])} and channel_mixer is {short(mixer)}: must be "
                            f"'tree' for a model with trees, and no {given[0]} for any other")
        return "glu"
    for key in ("trees", "tree_depth"):
        if key not in given:
            raise PackError(f"channel_mixer is 'tree' and {key} is not there: must have trees and tree_depth, and "
                            "tree_always if neurons are always on")
    if raw.get("intermediate_size") is not None:
        raise PackError(f"intermediate_size is {short(raw['intermediate_size'])} and channel_mixer is 'tree': trees "
                        "have no such size: remove it")
    return mixer


def read_config(folder):
    """The ModelGeometry of a checkpoint folder's config.json; PackError if this is not a model that Sterna runs."""
    raw, path = read_json(folder), Path(folder) / "config.json"
    kind = raw.get("model_type")
    if kind != "hgrn_bit" and any(key in raw for key in _HEADS):
        raise PackError(f"{path}: model_type is {short(kind)}: {ATTENTION}")
    for key, default, allowed in _VALUES:
        value = raw.get(key, default)
        if not any(value is one or type(value) is type(one) and value == one for one in allowed):
            raise PackError(f"{path}: {key} is {short(raw.get(key))}: only {' or '.join(map(repr, allowed))} is "
                            "supported")
    _check_keys(path, raw)
    try:
        if _mixer(raw) == "tree":
            always = 0 if raw.get("tree_always") is None else raw["tree_always"]
            return TreeGeometry(*(raw.get(name) for name in ("hidden_size", "trees", "tree_depth")), always,
                                raw.get("num_hidden_layers"), raw.get("vocab_size"), _epsilon(raw))
        if raw.get("intermediate_size") is None:
            ratio = raw.get("hidden_ratio")
            ratio = 4 if ratio is None else ratio  # as the published code takes null
            if not isinstance(ratio, (int, float)) or isinstance(ratio, bool) or not 0 < ratio < 1 << 31:
                raise PackError(f"hidden_ratio is {short(ratio)}: must be a positive number")
            hidden = Geometry(raw.get("hidden_size"), 1, 1, 1).hidden_size
            raw["intermediate_size"] = -(-int(hidden * float(ratio) * 2 / 3) // 256) * 256
        return Geometry(*(raw.get(name) for name in ("hidden_size", "intermediate_size", "num_hidden_layers",
                                                     "vocab_size")), _epsilon(raw))
    except PackError as error:
        raise PackError(f"{path}: {error}") from None


class Tensors:
    """The tensors of a checkpoint folder as float32 arrays, read one at a time.

    Parameters
    ----------
    folder : path
        Holds model.safetensors, or the files that model.safetensors.index.json names.

    Raises
    ------
    PackError
        A missing or damaged file.
    """

    _KINDS = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}

    def __init__(self, folder):
        self.folder = Path(folder)
        self._entries, self.size_bytes, self._watch = {}, 0, None
        for path in self._files():
            try:
                entries, _, size = tensorfile.scan(path, {kind: int(code[-1]) for kind, code in self._KINDS.items()})
            except OSError as error:
                raise PackError(f"cannot read {path}: {error.strerror}") from None
            except ValueError as error:  # also a name that no file can have
                raise PackError(f"{path}: {error}") from None
            if twice := sorted(set(entries) & set(self._entries)):
                raise PackError(f"{path}: tensor {short(twice[0])} is in another file of the folder too")
            self._entries |= entries
            self.size_bytes += size

    def _files(self):
        index, single = self.folder / "model.safetensors.index.json", self.folder / "model.safetensors"
        if single.exists():
            return [single]
        if not index.exists():
            raise PackError(self._without_weights())
        try:
            raw = strictjson.read(index, INDEX_BYTES)
        except OSError as error:
            raise PackError(f"cannot read {index}: {error.strerror}") from None
        except strictjson.JsonError as error:
            raise PackError(f"{index}: {error}") from None
        names = raw.get("weight_map") if isinstance(raw, dict) else None
        if not isinstance(names, dict) or not names:
            raise PackError(f"{index}: no weight_map: download the folder again")
        if any(not isinstance(n, str) or not n.isprintable() or n in ("", "..") or Path(n).name != n
               for n in names.values()):
            raise PackError(f"{index}: names a file outside the folder")
        files = [self.folder / name for name in sorted(set(names.values()))]
        for path in files:
            if not path.exists():
                raise PackError(f"{path} is not there, which {index.name} names: {self._loading()}download it")
        return files

    def _loading(self):
        """Words about downloads into the folder that have not ended (str)."""
        left = sorted(path.name for path in self.folder.rglob("*.incomplete"))
        return f"{left[0]} has not been loaded to its end: " if left else ""

    def _without_weights(self):
        """What is wrong with a folder that has no safetensors."""
        if loading := self._loading():
            return f"{self.folder} holds no model.safetensors yet: {loading}go on with the download"
        if found := sorted(self.folder.glob("*.gguf")):
            return (f"{self.folder} holds {short(found[0].name)} and no model.safetensors: a GGUF file has no "
                    "weights that can be packed: use the checkpoint in safetensors that it was made from")
        for pattern in ("pytorch_model*.bin", "*.bin", "*.pt", "*.pth"):
            if other := sorted(self.folder.glob(pattern)):
                return (f"{self.folder} holds {short(other[0].name)} and no model.safetensors: load it with "
                        "transformers and save it by save_pretrained(FOLDER, safe_serialization=True)")
        return (f"{self.folder} holds no model.safetensors: download the folder's weights, or give a folder with "
                "config.json, model.safetensors and tokenizer.json")

    def check(self, geometry):
        """PackError unless names and shapes are exactly those of the geometry."""
        for name in self._entries:
            if any(part in _PROJECTIONS for part in name.split(".")):
                raise PackError(f"{self.folder}: tensor {short(name)} belongs to {ATTENTION}")
        self._check_exactly(geometry, "this model type")

    def _check_exactly(self, geometry, what):
        """PackError, one line that names it, for the first tensor that a geometry has and the folder not, that is too
        many for ``what`` it is, or of another shape.
        """
        wanted = set()
        # One after the other: a config.json may ask for more layers than there is memory for their names.
        for name, shape in geometry.tensors():
            wanted.add(name)
            if name not in self._entries:
                raise PackError(f"{self.folder}: tensor {name!r} is missing: config.json asks for "
                                f"shape {list(shape)}")
            if self._entries[name].shape != shape:
                raise PackError(f"{self.folder}: tensor {name!r} has shape {list(self._entries[name].shape)}: "
                                f"config.json asks for {list(shape)}")
        for name in self._entries:
            if name not in wanted:
                raise PackError(f"{self.folder}: tensor {short(name)} is not part of {what}: its effect "
                                "would be lost")

    def path_of(self, name):
        """The file that a tensor is in."""
        return self._entries[name].path

    def stored(self, name):
        """A tensor as it is stored: float32, float16, or uint16 with the bits of bfloat16. It may hold NaN.

        Raises
        ------
        PackError
            The file cannot be read, or has become shorter.
        """
        entry = self._entries[name]
        try:
            data = entry.read(self._KINDS[entry.kind])
        except (OSError, ValueError) as error:
            raise PackError(f"{entry.path}: tensor {short(name)}: {error}") from None
        if self._watch:
            self._watch(name, entry, data)
        return data.reshape(entry.shape)

    def __getitem__(self, name):
        """A tensor as float32; PackError as of ``stored``, or if it holds infinities or NaN."""
        data = float32_of(self.stored(name))
        if not np.isfinite(data).all():
            raise PackError(f"{self.path_of(name)}: tensor {name!r} holds infinities or NaN")
        return data

    def watched(self, watch):
        """These tensors, with ``watch(name, entry, data)`` called whenever one has been read."""
        other = copy(self)
        other._watch = watch
        return other


def load_checkpoint(folder):
    """(ModelGeometry, Tensors) of a folder, with every name and shape checked; PackError otherwise."""
    geometry = read_config(folder)
    tensors = Tensors(folder)
    tensors.check(geometry)
    return geometry, tensors
