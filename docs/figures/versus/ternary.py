"""A Llama of random trits as a GGUF file: as many ternary weights as a model of Sterna's, for llama.cpp.

A layer of either has four square matrices and three between H and I, and either has a head, so that the same sizes
give the same number of weights exactly. All of these are TQ2_0: blocks of 256 weights, 64 bytes of codes and one
float16 scale. The embedding is float16; a token reads one row of it.
"""

import math
import os

import numpy as np

from docs.figures.versus.packages import load
from sterna.host.errors import UsageError

HEAD = 64  # dimensions of an attention head
CONTEXT = 2048  # tokens that the file claims; a measurement takes far fewer
AT_ONCE = 1 << 22  # weights that are in memory as floats
EPS = 1e-6


def tensors(geometry):
    """Yields (name, shape, kind) in the order of the file; kind is "ternary", "norm" or "embedding"."""
    hidden, inner, vocab = geometry.hidden_size, geometry.intermediate_size, geometry.vocab_size
    yield "token_embd.weight", (vocab, hidden), "embedding"
    for layer in range(geometry.num_hidden_layers):
        at = f"blk.{layer}."
        yield f"{at}attn_norm.weight", (hidden,), "norm"
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            yield f"{at}{name}.weight", (hidden, hidden), "ternary"
        yield f"{at}ffn_norm.weight", (hidden,), "norm"
        yield f"{at}ffn_gate.weight", (inner, hidden), "ternary"
        yield f"{at}ffn_up.weight", (inner, hidden), "ternary"
        yield f"{at}ffn_down.weight", (hidden, inner), "ternary"
    yield "output_norm.weight", (hidden,), "norm"
    yield "output.weight", (vocab, hidden), "ternary"


def ternary_weights(geometry):
    """Number of the file's ternary weights (int)."""
    return sum(math.prod(shape) for _, shape, kind in tensors(geometry) if kind == "ternary")


def parameters(geometry):
    """Number of all the file's numbers (int), as llama.cpp counts them."""
    return sum(math.prod(shape) for _, shape, _ in tensors(geometry))


def trits_of(seed, number, shape):
    """The trits of tensor ``number`` in a file of a seed: int8 [rows, columns], a third of each value."""
    return np.random.default_rng([seed, number]).integers(-1, 2, shape, np.int8)


def scale_of(shape):
    """The scale of a matrix (float16): outputs are about as large as inputs."""
    return np.float16(math.sqrt(1.5 / shape[1]))


def encode(trits, scale):
    """TQ2_0 blocks (uint8 [rows, bytes]) of trits [rows, columns]."""
    gguf = load("gguf")
    rows = max(1, AT_ONCE // trits.shape[1])
    pieces = (trits[at:at + rows] * np.float32(scale) for at in range(0, len(trits), rows))
    return np.concatenate([gguf.quantize(piece, gguf.GGMLQuantizationType.TQ2_0) for piece in pieces])


def write(path, geometry, seed=1):
    """Writes the file a tensor at a time, under another name until it is whole.

    Parameters
    ----------
    path : Path
    geometry : sterna.sim.golden.packed.Geometry
        H and I are multiples of 256.
    seed : int

    Returns
    -------
    int
        Bytes of the ternary weights.

    Raises
    ------
    UsageError
        The package gguf is missing, or sizes do not fill blocks.
    """
    gguf = load("gguf")
    kinds = {"ternary": gguf.GGMLQuantizationType.TQ2_0, "norm": gguf.GGMLQuantizationType.F32,
             "embedding": gguf.GGMLQuantizationType.F16}
    if geometry.mixer != "glu":
        raise UsageError("a model with trees: a Llama has none, so no file of it has as many weights: use another")
    block = gguf.GGML_QUANT_SIZES[kinds["ternary"]][0]
    if geometry.hidden_size % block or geometry.intermediate_size % block:
        raise UsageError(f"hidden {geometry.hidden_size}, intermediate {geometry.intermediate_size}: TQ2_0 takes "
                         f"multiples of {block}: use another model")
    part = path.with_name(f".{path.name}.part")
    writer = gguf.GGUFWriter(part, "llama")
    try:
        _describe(writer, geometry)
        size = dict.fromkeys(kinds, 0)
        for name, shape, kind in tensors(geometry):
            weights, per = gguf.GGML_QUANT_SIZES[kinds[kind]]
            count = math.prod(shape) // weights * per
            writer.add_tensor_info(name, shape, np.dtype(np.float32), count, kinds[kind])
            size[kind] += count
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for number, (_, shape, kind) in enumerate(tensors(geometry)):
            writer.write_tensor_data(_data(seed, number, shape, kind))
        writer.close()
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return size["ternary"]


def _describe(writer, geometry):
    """The keys that llama.cpp asks for; there is no tokenizer."""
    heads = geometry.hidden_size // HEAD
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(geometry.hidden_size)
    writer.add_block_count(geometry.num_hidden_layers)
    writer.add_feed_forward_length(geometry.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_rope_dimension_count(HEAD)
    writer.add_layer_norm_rms_eps(EPS)
    writer.add_vocab_size(geometry.vocab_size)
    writer.add_tokenizer_model("no_vocab")


def _data(seed, number, shape, kind):
    if kind == "ternary":
        return encode(trits_of(seed, number, shape), scale_of(shape))
    if kind == "norm":
        return np.ones(shape, np.float32)
    return np.random.default_rng([seed, number]).standard_normal(shape, np.float32).astype(np.float16)
