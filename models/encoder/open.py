"""The run that a configuration asks for."""

from sterna.models.encoder.finetune import FineTuning
from sterna.models.encoder.pretrain import Pretraining
from sterna.models.encoder.settings import PretrainConfig, load_config, place_of


def open_run(path, folder, tell=lambda line: None):
    """The run that a configuration file asks for; TrainError or PackError, one line, if it cannot start."""
    config = load_config(path)
    if isinstance(config, PretrainConfig):
        tokenizer = place_of(path, config.tokenizer) if config.tokenizer else None
        return Pretraining(config, place_of(path, config.text), folder, tokenizer, tell)
    return FineTuning(config, place_of(path, config.model), place_of(path, config.data), folder, tell)
