"""Encoder folders in the published layout: config.json, model.safetensors, and tokenizer.json where there is one."""

import json
from pathlib import Path

import torch
from safetensors.torch import save

from sterna.models.encoder.network import Encoder
from sterna.sim.golden.encoder_checkpoint import load_encoder
from sterna.sim.golden.files import write_files
from sterna.sim.golden.geometry import PackError


def save_encoder(folder, model, tokenizer=None, labels=()):
    """Write an encoder's folder, all of its files or none.

    Parameters
    ----------
    folder : path
    model : Encoder
    tokenizer : tokenizers.Tokenizer or None
    labels : sequence of str
        Names of the classes.

    Raises
    ------
    OSError
        A file cannot be written.
    """
    folder = Path(folder)
    # The decoder is the embedding's own memory; the file holds both, as the published one does.
    tensors = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in model.state_dict().items()}
    config = model.geometry.to_json() | ({"id2label": dict(enumerate(labels))} if labels else {})
    contents = {folder / "config.json": json.dumps(config, indent=2) + "\n",
                folder / "model.safetensors": save(tensors, metadata={"format": "pt"})}
    if tokenizer is not None:
        contents[folder / "tokenizer.json"] = tokenizer.to_str(pretty=True)
    folder.mkdir(parents=True, exist_ok=True)
    write_files(contents)


def load(folder, dropout=0.0):
    """The float32 Encoder of a folder; one tensor is in memory beside it at a time.

    Raises
    ------
    PackError
        One line: a key is missing, too many or of a wrong shape, or the configuration asks for another architecture.
    """
    geometry, tensors = load_encoder(folder)
    with torch.device("meta"):
        model = Encoder(geometry, dropout)
    model.to_empty(device="cpu")
    model.positions.copy_(Encoder.sinusoids(geometry))
    if not geometry.classes:
        model.decoder.weight = model.encoder.embedding.word_embedding.weight  # to_empty has parted the two
    state = dict(model.state_dict())
    with torch.no_grad():
        for name, _ in geometry.tensors():
            tensor = torch.from_numpy(tensors[name])
            if name == "decoder.weight" and not torch.equal(tensor, state["encoder.embedding.word_embedding.weight"]):
                raise PackError(f"{folder}: tensor 'decoder.weight' differs from "
                                "'encoder.embedding.word_embedding.weight': the two are one matrix in this encoder")
            state[name].copy_(tensor)
    return model
