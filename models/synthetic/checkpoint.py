"""A made-up checkpoint as a folder: whole under its name, or not there."""

import errno
import json
import os
import secrets
import shutil
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path

from sterna.models.synthetic import tensorwriter, vocabulary
from sterna.models.synthetic.statistics import Statistics
from sterna.sim.golden.errors import SternaError
from sterna.sim.golden.geometry import Geometry, PackError, with_trees
from sterna.sim.golden.strictjson import short

SIZES = {"370m": Geometry(1024, 2816, 24, 32000), "1.3b": Geometry(2048, 5632, 24, 32000),
         "2.7b": Geometry(2560, 6912, 32, 32000)}
MOST_SHARDS = 99_999  # the numbers in their names have five digits
SEEDS = 1 << 32


class SyntheticError(SternaError, ValueError):
    """A checkpoint that cannot be made; one line."""


def geometry_of(size, trees=""):
    """The Geometry of a published size, or of "hidden,inner,layers,vocabulary"; SyntheticError otherwise.

    With ``trees``, "KxD" or "KxD+A", the TreeGeometry that has them in place of the gated linear units, whose size
    does not count then.
    """
    geometry = _published_or_made(size)
    try:
        return with_trees(geometry, trees) if trees else geometry
    except PackError as error:
        raise SyntheticError(f"--tree {trees}: {error}") from None


def _published_or_made(size):
    if size.lower() in SIZES:
        return SIZES[size.lower()]
    numbers = size.split(",")
    if len(numbers) != 4 or not all(n.isascii() and n.isdigit() and len(n) < 12 for n in numbers):
        raise SyntheticError(f"unknown size {short(size)}: use {', '.join(SIZES)}, or hidden,inner,layers,vocabulary "
                             "such as 256,640,4,4096")
    try:
        return Geometry(*map(int, numbers))
    except PackError as error:
        raise SyntheticError(f"size {size}: {error}") from None


def config(geometry):
    """config.json (dict) of a geometry, with the keys of the published ones."""
    mixer = {"channel_mixer": geometry.mixer} if geometry.mixer != "glu" else {}
    keys = asdict(geometry) | mixer | {
        "architectures": ["HGRNBitForCausalLM"], "attn_mode": "fused_recurrent",
        "bos_token_id": vocabulary.MARKS.index(vocabulary.START), "conv_size": 4,
        "eos_token_id": vocabulary.MARKS.index(vocabulary.END), "expand_ratio": 1, "fuse_cross_entropy": True,
        "hidden_act": "swish", "hidden_ratio": 4, "initializer_range": 0.02, "max_position_embeddings": 2048,
        "model_type": "hgrn_bit", "num_heads": 1, "share_conv_kernel": True, "tie_word_embeddings": False,
        "torch_dtype": "bfloat16", "transformers_version": "4.44.2", "use_cache": True, "use_lower_bound": True,
        "use_short_conv": False}
    return dict(sorted(keys.items()))


def weight_bytes(geometry):
    """Bytes of the tensors (int)."""
    hidden, layers = geometry.hidden_size, geometry.num_hidden_layers
    norms = sum(shape[0] for _, shape in geometry.mixer_tensors() if len(shape) == 1)
    vectors = layers * (8 * hidden + norms) + 2 * hidden
    return 2 * (geometry.ternary_weights + geometry.vocab_size * hidden + vectors)


@contextmanager
def _whole(folder):
    """Gives a folder beside ``folder``, which gets its name at the end of the block and is gone after an error."""
    if folder.is_symlink() or folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SyntheticError(f"{folder} is there already: name a new folder, or remove it")
    if not folder.name:
        raise SyntheticError(f"{folder} has no name: name a new folder")
    made = [place for place in (folder.parent, *folder.parent.parents) if not place.exists()]
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.parent / f".{folder.name[:40]}.{secrets.token_hex(4)}.part"
    try:
        part.mkdir()
        yield part
        os.replace(part, folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        for place in made:
            with suppress(OSError):
                place.rmdir()
        raise


def make_checkpoint(geometry, folder, shards=1, seed=0, moving=None):
    """Write a checkpoint folder; nothing is there under its name before all of it is.

    Parameters
    ----------
    geometry : ModelGeometry
    folder : path
        A new one, or an empty one.
    shards : int
        Files that the tensors are spread over.
    seed : int
        From 0 to 2^32 - 1. The same numbers whatever ``shards`` is.
    moving : context manager(what, total bytes), optional
        ``sterna.sim.golden.progress.moving``, or one like it.

    Returns
    -------
    int
        Bytes of the tensors.

    Raises
    ------
    SyntheticError, VocabularyError
        A wrong value, a folder that is there already, or no room for it.
    """
    folder, total = Path(folder), weight_bytes(geometry)
    each = sum(1 for _ in replace(geometry, num_hidden_layers=1).tensors()) - 5  # of a layer
    most = min(MOST_SHARDS, 5 + each * geometry.num_hidden_layers)
    if not 1 <= shards <= most:
        raise SyntheticError(f"{shards} shards: use 1 to {most}")
    if not 0 <= seed < SEEDS:
        raise SyntheticError(f"seed {seed}: use 0 to {SEEDS - 1}")
    try:
        with _whole(folder) as part:
            free = shutil.disk_usage(part).free
            if free < total:
                raise SyntheticError(f"{folder} needs {total / 1e9:.2f} GB and its disk has {free / 1e9:.2f} GB "
                                     "left: make room, or name a folder elsewhere")
            texts = vocabulary.make_tokenizer(geometry.vocab_size)
            texts["config.json"] = json.dumps(config(geometry), indent=2) + "\n"
            for name, text in texts.items():
                (part / name).write_text(text, encoding="utf-8")
            tensors = list(geometry.tensors())
            blocks = Statistics(geometry, seed).blocks
            if moving is None:
                tensorwriter.write_tensors(part, tensors, blocks, shards)
            else:
                with moving(f"writing {folder}", total) as advance:
                    tensorwriter.write_tensors(part, tensors, blocks, shards, advance)
    except OSError as error:
        why = "its disk is full: make room, or name a folder elsewhere" if error.errno == errno.ENOSPC \
            else error.strerror or error
        raise SyntheticError(f"cannot write {folder}: {why}") from None
    return total
