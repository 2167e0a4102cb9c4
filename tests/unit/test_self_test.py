"""Known answers on devices: run first where that is asked for, and a wrong token ends it with one line."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from small_model import DEVICE, SLOTS, GoldenDevice, served, write_folder
from sterna.host.doctor import line, memory
from sterna.host.doctor.answer import GEOMETRY
from sterna.host.doctor.examine import guarded
from sterna.host.model.image import Image, build_image
from sterna.host.model.model import Model
from sterna.host.runtime.known import difference
from sterna.sim.golden.model import GoldenModel
from sterna.sim.golden.packed import PackError, random_model

BOARD = {"memory_bytes": 1 << 18, "credits": 4}
ROOM = {"memory_bytes": 1 << 18, "batch": 1, "register_bits": 32, "engines": 1}


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


@pytest.fixture(scope="module")
def listed(image, tmp_path_factory):
    """The image with one run alone, whose list no device holds."""
    old = Image.load(image)
    answer = dataclasses.replace(old.answer, runs=(dataclasses.replace(old.answer.runs[2], top_k=255),))
    path = tmp_path_factory.mktemp("listed") / "m.sterna"
    path.write_bytes(build_image(Model(image).packed, SimpleNamespace(**old.tiling, **ROOM), old.tokenizer_json,
                                 old.name, old.eos, answer=answer))
    return path


def test_a_test_that_compares_nothing_fails(sterna, listed, monkeypatch):
    code, out, err = sterna("generate", "-m", listed, "-p", "a", "-n", 3, "--device", "golden", "--self-test")
    assert code == 1 and not out and "none of the 8 tokens of the image's known answer can be compared" in err
    assert "takes a list of 255 rows and this device has 64" in err and err.count("\n") == 1
    code, out = examined(sterna, monkeypatch, SLOTS, Model(listed).packed, listed)
    assert code == 1 and "skipped  answer, top-k/p    it takes a list of 255 rows and this device has 16" in out
    assert "failed   known answer       the device can make none of its runs" in out


@pytest.mark.parametrize("info, tokens", [
    (DEVICE, "16 of 24 tokens compared: they are the image's known answer; not compared: top-k/p: it takes a list of "
     "8 rows and this device has none"), (SLOTS, "24 tokens as the image's known answer")], ids=["no list", "slots"])
def test_devices_behind_a_port(sterna, image, info, tokens):
    packed = Model(image).packed
    with served(GoldenDevice(packed, info)) as url:
        code, _, err = sterna("upload", "-m", image, "--device", url, "--self-test")
    assert code == 0 and f"self-test: {tokens}\n" in err
    for command in (["upload"], ["generate", "-p", "a", "-n", 3]):
        with served(GoldenDevice(other(packed), info)) as url:
            code, out, err = sterna(*command, "-m", image, "--device", url, "--self-test")
        assert code == 1 and not out and "(position 4) is " in err and "greedy, token 1 of 8" in err


def examined(sterna, monkeypatch, info, packed, path, sizes=BOARD, *flags):
    """(exit code, text) of the doctor on a device that computes with a PackedModel, with the answer of an image."""
    from test_doctor import Board
    monkeypatch.setattr(line, "LOAD_S", 0.0)
    monkeypatch.setattr(memory, "QUICK_BLOCKS", 6)
    monkeypatch.setattr("test_doctor.SIZES", sizes)
    with served(Board(info, packed)) as url:
        return sterna("doctor", "--device", url, "-m", path, "--memory", "none", *flags)[:2]


def test_the_doctor_runs_it_too(sterna, image, monkeypatch):
    model = Model(image)
    found = [examined(sterna, monkeypatch, SLOTS, packed, image)[1] for packed in (model.packed, other(model.packed))]
    # What the doctor's own model should give fails here in both, as the device computes with another one.
    good, bad = (text.partition("answer, greedy")[2].strip() for text in found)
    assert good.startswith("8 tokens as the image's known answer\nok       answer, sampled    8 tokens as")
    assert bad.startswith("token 1 of 8 is ") and ", the image's known answer is " in bad


def test_a_model_without_room_is_a_failed_check_in_front(sterna, image, monkeypatch):
    small, packed = BOARD | {"memory_bytes": 1 << 14}, random_model(np.random.default_rng(1), GEOMETRY)
    code, out = examined(sterna, monkeypatch, SLOTS, packed, image, small, "--json")
    found = json.loads(out)
    assert code == 1 and found["verdict"] == "failed"
    assert [check["check"] for check in found["checks"]][:3] == ["port", "known answer", "versions"]
    assert "memory" in found["checks"][1]["text"] and found["checks"][1]["verdict"] == "failed"


def test_errors_of_the_other_rooms_are_failed_checks():
    def fails():
        raise PackError("too many columns")
        yield

    check, = guarded("known answer", fails())
    assert (check.name, check.verdict, check.text) == ("known answer", "failed", "too many columns")


def test_no_answer_to_run(sterna, image, tmp_path):
    code, _, err = sterna("doctor", "--device", "sim", "-m", image.parent / "model")
    assert code == 2 and "--model: " in err and "is no image: make one that has it with sterna convert" in err


@pytest.mark.parametrize("name", ["tiny", "story", "stories37m"])
def test_shipped_images_answer(sterna, name):
    path = Path(__file__).resolve().parents[2] / "models" / name / f"{name}.sterna"
    code, _, err = sterna("generate", "-m", path, "-p", "One", "-n", 1, "--device", "cpu", "--self-test", "-s", 1)
    assert code == 0 and "self-test: 24 tokens as the image's known answer" in err
