"""Checkpoint folders in the published layout: config.json, model.safetensors, tokenizer.json."""

import json
from pathlib import Path

import torch
from safetensors.torch import save

from sterna.models import layers
from sterna.models.model import LanguageModel, ModelConfig
from sterna.models.tree import Tree
from sterna.sim.golden import packed
from sterna.sim.golden.files import write_files


def save_checkpoint(folder, model, tokenizer, dtype=torch.bfloat16):
    """Write the three files, all or none; a folder that was made for them goes too.

    Raises
    ------
    OSError
        One cannot be written.
    """
    folder = Path(folder)
    tensors = {k: v.detach().to("cpu", dtype).contiguous() for k, v in model.state_dict().items()}
    contents = {folder / "config.json": json.dumps(model.config.to_json(), indent=2) + "\n",
                folder / "tokenizer.json": tokenizer.to_str(pretty=True),
                folder / "model.safetensors": save(tensors, metadata={"format": "pt"})}
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        write_files(contents)
    except BaseException:
        if new:
            folder.rmdir()
        raise


def load_checkpoint(folder, to_train=False):
    """The float32 LanguageModel of a folder written by ``save_checkpoint`` or published in that layout.

    Parameters
    ----------
    folder : path
    to_train : bool
        Matrices that are ternary already become latent weights of the same trits and scales, from
        which training can go on (``layers.latent``); otherwise every tensor is as in the folder.

    Raises
    ------
    PackError
        A file is missing or damaged, or this is no model that Sterna runs.
    """
    geometry, tensors = packed.load_checkpoint(folder)
    model = LanguageModel(ModelConfig.of(geometry))
    model.load_state_dict({name: torch.from_numpy(tensors[name]) for name in geometry.shapes()})
    if to_train:
        for module in model.modules():
            tables = [module] if isinstance(module, layers.BitLinear) else [module.tree_out] \
                if isinstance(module, Tree) else []
            for table in tables:
                table.weight.data = layers.latent(table.weight.data)
    return model
