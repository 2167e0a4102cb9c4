"""Checkpoint folders in the published layout: config.json, model.safetensors, tokenizer.json."""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file

from sterna.models import layers
from sterna.models.model import LanguageModel, ModelConfig
from sterna.sim.golden import packed


def save_checkpoint(folder, model, tokenizer, dtype=torch.bfloat16):
    """Write the three files; each is completed under another name first, so that no half file is left behind."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().to("cpu", dtype).contiguous() for k, v in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors.part", metadata={"format": "pt"})
    (folder / "config.json.part").write_text(json.dumps(model.config.to_json(), indent=2) + "\n")
    (folder / "tokenizer.json.part").write_text(tokenizer.to_str(pretty=True))
    for part in folder.glob("*.part"):
        part.replace(part.with_suffix(""))


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
    model = LanguageModel(ModelConfig(**asdict(geometry)))
    model.load_state_dict({name: torch.from_numpy(tensors[name]) for name in geometry.shapes()})
    if to_train:
        for module in model.modules():
            if isinstance(module, layers.BitLinear):
                module.weight.data = layers.latent(module.weight.data)
    return model
