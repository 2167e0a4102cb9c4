"""Checkpoint folders in the published layout: config.json, model.safetensors, tokenizer.json."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from sterna.models.model import LanguageModel, ModelConfig


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


def load_checkpoint(folder):
    """The float32 LanguageModel of a folder written by ``save_checkpoint`` or published in that layout."""
    folder = Path(folder)
    raw = json.loads((folder / "config.json").read_text())
    model = LanguageModel(ModelConfig(
        vocab_size=raw["vocab_size"], hidden_size=raw["hidden_size"], num_hidden_layers=raw["num_hidden_layers"],
        intermediate_size=raw["intermediate_size"], rms_norm_eps=raw["rms_norm_eps"]))
    model.load_state_dict({k: v.float() for k, v in load_file(folder / "model.safetensors").items()})
    return model
