"""Random checkpoints, the command line and the seed of the unit tests."""

import dataclasses
import json
import os
import struct

import numpy as np
import pytest
from sterna.host import cli
from sterna.sim.golden.packed import Geometry, random_tensors


@pytest.fixture
def rng():
    """A generator seeded by STERNA_SEED (default 1), which is printed."""
    seed = int(os.environ.get("STERNA_SEED", "1"))
    print(f"STERNA_SEED={seed}")
    return np.random.default_rng(seed)


@pytest.fixture
def sterna(capsys):
    """Runs a command line; gives (exit code, standard output, standard error)."""
    def run(*arguments):
        code = cli.main([str(a) for a in arguments])
        out = capsys.readouterr()
        return code, out.out, out.err
    return run


def write_safetensors(path, tensors, kind="F32"):
    """Write float arrays as F32, F16 or BF16 (which must hold them exactly or is truncated)."""
    header, blobs, at = {"__metadata__": {"format": "pt"}}, [], 0
    for name, value in tensors.items():
        value = np.ascontiguousarray(value, np.float32)
        data = {"F32": lambda v: v.astype("<f4"), "F16": lambda v: v.astype("<f2"),
                "BF16": lambda v: (v.view(np.uint32) >> 16).astype("<u2")}[kind](value).tobytes()
        header[name] = {"dtype": kind, "shape": list(value.shape), "data_offsets": [at, at + len(data)]}
        blobs.append(data)
        at += len(data)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))


@pytest.fixture
def write_checkpoint(tmp_path, rng):
    """Factory: write_checkpoint(geometry=..., tensors=None, kind="F32", shards=1, **config) -> (folder, tensors)."""
    made = 0

    def write(geometry=None, tensors=None, kind="F32", shards=1, **config):
        nonlocal made
        geometry = geometry or Geometry(40, 24, 2, 31)
        tensors = tensors if tensors is not None else random_tensors(rng, geometry)
        folder = tmp_path / f"checkpoint{made}"
        made += 1
        folder.mkdir()
        raw = {"model_type": "hgrn_bit", "hidden_ratio": 4, "num_heads": 1, "expand_ratio": 1,
               "use_short_conv": False, "use_lower_bound": True, "hidden_act": "swish"} | dataclasses.asdict(geometry)
        raw |= ({"channel_mixer": geometry.mixer} if geometry.mixer != "glu" else {}) | config
        (folder / "config.json").write_text(json.dumps(raw))
        if shards == 1:
            write_safetensors(folder / "model.safetensors", tensors, kind)
        else:
            names, index = list(tensors), {}
            for k in range(shards):
                file = f"model-{k + 1:05}-of-{shards:05}.safetensors"
                write_safetensors(folder / file, {n: tensors[n] for n in names[k::shards]}, kind)
                index |= dict.fromkeys(names[k::shards], file)
            (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
        return folder, tensors

    return write
