"""Known answers on devices: run first where that is asked for, and a wrong token ends it with one line."""

import dataclasses
from pathlib import Path

import pytest
from small_model import DEVICE, SLOTS, GoldenDevice, served, write_folder
from sterna.host.doctor import line, memory
from sterna.host.model.image import Image
from sterna.host.model.model import Model
from sterna.host.runtime.known import difference
from sterna.sim.golden.model import GoldenModel

BOARD = {"memory_bytes": 1 << 18, "credits": 4}


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    from sterna.host import cli
    folder = tmp_path_factory.mktemp("answer")
    assert cli.main(["convert", str(write_folder(folder / "model")), "-o", str(folder / "m.sterna")]) == 0
    return folder / "m.sterna"


def other(packed):
    """A model whose last layer has another sign."""
    layer = dataclasses.replace(packed.layers[1], down=-packed.layers[1].down)
    return dataclasses.replace(packed, layers=(packed.layers[0], layer))


def test_the_first_difference():
    assert difference([1, 2], [1, 2]) is None
    assert difference([1, 2], [1, 3]) == (1, 2, 3)
    assert difference([1, 2], [1]) == (1, 2, None) and difference([1], [1, 2]) == (1, None, 2)


@pytest.mark.parametrize("device", ["golden", "cpu"])
def test_models_of_this_process(sterna, image, device):
    code, out, err = sterna("generate", "-m", image, "-p", "a", "-n", 3, "--device", device, "--self-test", "-s", 1)
    assert code == 0 and "self-test: 24 tokens as the image's known answer" in err
    # The text is that of a run without the test, and so are its figures.
    plain = sterna("generate", "-m", image, "-p", "a", "-n", 3, "--device", device, "-s", 1)
    assert plain[1] == out and "3 tokens" in err and "self-test" not in plain[2]


def test_a_wrong_token_is_named(sterna, image, monkeypatch):
    sample = GoldenModel.sample

    def wrong(head, seed=0, position=0, temperature=0.0, *more):
        token = sample(head, seed, position, temperature, *more)
        return token + (position == 5 and temperature > 0)

    monkeypatch.setattr(GoldenModel, "sample", staticmethod(wrong))
    code, out, err = sterna("generate", "-m", image, "-p", "a", "-n", 3, "--device", "golden", "--self-test")
    wanted = Image.load(image).answer.runs[1].tokens[2]
    # The prompt has four tokens: the third that is made stands at position 6.
    assert code == 1 and not out and (f"self-test: golden model: sampled, token 3 of 8 (position 6) is {wanted + 1}, "
                                      f"the image's known answer has {wanted}: what this device") in err
    assert sterna("generate", "-m", image, "-p", "a", "-n", 3, "--device", "golden")[0] == 0


@pytest.mark.parametrize("info, tokens", [(DEVICE, 16), (SLOTS, 24)], ids=["no list", "slots"])
def test_devices_behind_a_port(sterna, image, info, tokens):
    packed = Model(image).packed
    with served(GoldenDevice(packed, info)) as url:
        code, _, err = sterna("upload", "-m", image, "--device", url, "--self-test")
    assert code == 0 and f"self-test: {tokens} tokens as the image's known answer" in err
    for command in (["upload"], ["generate", "-p", "a", "-n", 3]):
        with served(GoldenDevice(other(packed), info)) as url:
            code, out, err = sterna(*command, "-m", image, "--device", url, "--self-test")
        assert code == 1 and not out and "(position 4) is " in err and "greedy, token 1 of 8" in err


def test_the_doctor_runs_it_too(sterna, image, monkeypatch):
    from test_doctor import Board
    monkeypatch.setattr(line, "LOAD_S", 0.0)
    monkeypatch.setattr(memory, "QUICK_BLOCKS", 6)
    monkeypatch.setattr("test_doctor.SIZES", BOARD)
    model, found = Model(image), []
    for packed in (model.packed, other(model.packed)):
        board = Board(SLOTS, packed)
        with served(board) as url:
            found.append(sterna("doctor", "--device", url, "-m", image, "--memory", "none")[1])
    # What the doctor's own model should give fails here in both, as the device computes with another one.
    good, bad = (text.partition("answer, greedy")[2].strip() for text in found)
    assert good.startswith("8 tokens as the image's known answer\nok       answer, sampled    8 tokens as")
    assert bad.startswith("token 1 of 8 is ") and ", the image's known answer is " in bad


def test_no_answer_to_run(sterna, image, tmp_path):
    code, _, err = sterna("doctor", "--device", "sim", "-m", image.parent / "model")
    assert code == 2 and "--model: " in err and "is no image: make one that has it with sterna convert" in err


@pytest.mark.parametrize("name", ["tiny", "story", "stories37m"])
def test_shipped_images_answer(sterna, name):
    path = Path(__file__).resolve().parents[2] / "models" / name / f"{name}.sterna"
    code, _, err = sterna("generate", "-m", path, "-p", "One", "-n", 1, "--device", "cpu", "--self-test", "-s", 1)
    assert code == 0 and "self-test: 24 tokens as the image's known answer" in err
