"""Tokens that end a text: where a checkpoint says them, in images, on golden and on a device."""

import json

import numpy as np
import pytest
from small_model import SLOTS, GoldenDevice, served, write_folder
from sterna.host.model.image import Image
from sterna.host.model.model import Model, ModelError
from sterna.host.runtime.golden import GoldenRuntime
from sterna.host.runtime.sampling import Sampling
from sterna.host.runtime.state import load_state

FLAGS = ("-n", 30, "-s", 4, "--no-display-prompt")


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "model")


def say(folder, config=0, generation=None):
    """Write the end tokens of a folder; ``generation`` is all of generation_config.json."""
    found = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(found | {"eos_token_id": config}))
    if generation is not None:
        (folder / "generation_config.json").write_text(
            generation if isinstance(generation, str) else json.dumps(generation))


@pytest.mark.parametrize("config, generation, ends", [
    (7, None, (7,)), ([7, 3, 7], None, (7, 3)), (7, {"eos_token_id": 5}, (5,)),
    (7, {"eos_token_id": [6, 5]}, (6, 5)),
    (7, {"eos_token_id": [5, 7, 9]}, (7, 5, 9)), ([7, 8], {"eos_token_id": [8, 5]}, (8, 5)),
    (7, {"temperature": 0.7}, (7,)), ([7, 8], {"eos_token_id": None}, (7, 8)),
    (None, {"eos_token_id": [2]}, (2,))])
def test_generation_config_goes_first(folder, config, generation, ends):
    say(folder, config, generation)
    model = Model(folder)
    # The first one of config.json ended the texts of the training, whatever ends one that is made.
    end = ends[0] if config is None else config[0] if isinstance(config, list) else config
    assert (model.ends, model.end, model.vocabulary.start) == (ends, end, [end])
    image = Image(model.build(SLOTS))
    assert (image.ends, image.eos) == (ends, end)


@pytest.mark.parametrize("config, generation, message", [
    (None, None, "config.json: there is no eos_token_id"),
    ([], {"eos_token_id": []}, "there is no eos_token_id"),
    ([0, 264], None, "config.json: eos_token_id is .*: must be token ids below 264"),
    (0, {"eos_token_id": [0, True]}, "generation_config.json: eos_token_id is "),
    (0, {"eos_token_id": "</s>"}, "generation_config.json: eos_token_id is '</s>'"),
    (0, {"eos_token_id": [*range(257)]}, "has 257 tokens: the most are 256"),
    (0, "[1]", "generation_config.json: must hold a JSON object"),
    (0, "{", "cannot read .*generation_config.json: not valid JSON")])
def test_bad_ends_are_refused(folder, config, generation, message):
    say(folder, config, generation)
    with pytest.raises(ModelError, match=message):
        Model(folder)


def test_every_command_stops_at_any(sterna, folder, tmp_path):
    model = Model(folder)
    prompt, sampling = model.vocabulary.encode("abc"), Sampling(0.8, 4)
    tokens = list(GoldenRuntime(model).generate(prompt, 30, sampling))
    at = 12
    first = next(k for k in range(at, 30) if tokens[k] not in tokens[:k])
    never = next(k for k in range(1, 264) if k not in tokens)
    data = b"".join(map(model.vocabulary.token_bytes, tokens[:first]))
    wanted = data.decode(errors="replace") + "\n"
    say(folder, 0, {"eos_token_id": [never, tokens[first]]})
    image = tmp_path / "m.sterna"
    assert sterna("convert", folder, "-o", image, "--preset", "lanes40")[0] == 0
    assert json.loads(sterna("inspect", image, "--json")[1])["ends"] == [never, tokens[first]]
    assert f"end of text {never}, {tokens[first]}" in " ".join(sterna("inspect", image)[1].split())
    states = []
    with served(GoldenDevice(model.packed, SLOTS)) as url:
        for flags in (("-m", folder), ("-m", image), ("-m", folder, "--device", url),
                      ("-m", folder, "--device", url, "--draft", 3)):
            flags += () if url in flags else ("--device", "golden")
            code, out, err = sterna("generate", *flags, "-p", "abc", *FLAGS, "--json",
                                    "--save-state", tmp_path / "s")
            made = json.loads(err.splitlines()[-1])["tokens"]
            assert (code, out, made) == (0, wanted, first + 1)
            states.append(load_state(tmp_path / "s", model.packed))
        for flags in (("--device", "golden"), ("--device", url)):
            code, out, _ = sterna("generate", "-m", folder, "-p", "abc", "-p", "abc", *flags,
                                  *FLAGS, "-q")
            assert (code, out) == (0, wanted + "\n" + wanted)
    assert all(state.tokens == states[0].tokens and np.array_equal(state.values, states[0].values)
               for state in states) and states[0].tokens[-1] == tokens[first]
    code, out, _ = sterna("generate", "-m", folder, "-p", "abc", *FLAGS, "--device", "golden", "-q",
                          "--ignore-eos")
    assert out.startswith(wanted[:-1]) and len(out) > len(wanted)
