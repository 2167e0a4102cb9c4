"""The command behind `make full-size`, at a small geometry: every step as users run it."""

import numpy as np
import pytest

from docs.figures import fullsize
from safetensors.numpy import load_file, save_file

GEOMETRY = "64,96,2,320"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder, figures) of a small model."""
    folder = tmp_path_factory.mktemp("full") / "size"
    return folder, fullsize.full_size(GEOMETRY, folder)


def test_every_step_ran(made):
    folder, figures = made
    for step in fullsize.STEPS:
        assert figures[f"{step}.seconds"] > 0
        assert figures[f"{step}.peak_bytes"] > 1 << 20
    assert figures["image_bytes"] == next(folder.glob("*.sterna")).stat().st_size
    assert figures["checkpoint_bytes"] > (folder / "checkpoint" / "model.safetensors").stat().st_size
    text = fullsize.tables({"fullsize.370m": figures})["table.fullsize"]
    assert text.splitlines()[0] == "| step: seconds, peak memory | 370m |"
    assert fullsize.tables({}) == {}


@pytest.mark.parametrize("part", ["tokens", "state"])
def test_a_difference_is_told(made, tmp_path, part):
    folder, _ = made
    truth, other = folder / "golden.state", tmp_path / "other.state"
    fullsize.compare(folder / "cpu.state", truth)
    tensors = load_file(truth)
    tensors[part] = tensors[part] ^ np.ones(1, tensors[part].dtype)
    save_file(tensors, other)
    with pytest.raises(fullsize.FullSizeError, match="the CPU"):
        fullsize.compare(other, truth)


def test_a_step_that_fails_is_told(tmp_path):
    with pytest.raises(fullsize.FullSizeError, match="make the checkpoint ended with [12]: .*no-size"):
        fullsize.full_size("no-size", tmp_path / "size")


def test_the_command_takes_a_size(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("STERNA_BUILD", str(tmp_path))
    monkeypatch.setattr(fullsize, "full_size", lambda size, folder: {"tokens_per_second": len(size) + 0.5})
    assert fullsize.main(["1.3b"]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path}/full-size/1.3b: 4.5 tokens/s on the CPU; the first 3 ")
    assert fullsize.main(["3b"]) == 2
    assert capsys.readouterr().err == "error: 3b: give one of 370m, 1.3b, 2.7b\n"
