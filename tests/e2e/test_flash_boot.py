"""A board that starts from its flash: the model comes from there, and the host sends prompts only."""

from pathlib import Path

import numpy as np
import pytest
from conftest import seed
from soc import golden_outcome, random_image
from sterna.firmware.program import inverse_temperature
from sterna.host import cli
from sterna.host.device.driver import Device
from sterna.host.device.flash import flash_image
from sterna.host.device.transport import open_transport
from sterna.host.model.image import Image
from sterna.hw.boards import preset
from sterna.hw.protocol import FLASH_HEADER_BYTES
from sterna.sim.board.board import Line, SimulatedBoard
from sterna.sim.golden.model import GoldenModel

pytestmark = pytest.mark.rtl

MODELS = Path(__file__).resolve().parents[2] / "models"
TINY = MODELS / "tiny" / "tiny.sterna"
CONFIG = preset("up5k")
NOTHING_LOST = {"frames_bad": 0, "frames_lost": 0, "line_errors": 0}


@pytest.fixture(scope="module")
def flash(tmp_path_factory):
    path = tmp_path_factory.mktemp("flash") / "tiny.flash"
    assert cli.main(["flash", "-m", str(TINY), "-o", str(path)]) == 0
    return path


def lost(device):
    counters = device.counters()
    return {name: counters[name] for name in NOTHING_LOST}


@pytest.mark.rest
def test_nothing_is_uploaded(flash, capsys):
    """`sterna upload` and `generate` find the model that came from the flash, 128 KB of it, and no frame was lost."""
    with SimulatedBoard(CONFIG, flash=flash, seed=seed()) as board:
        with Device(open_transport(board.url), timeout_s=300) as device:
            assert lost(device) == NOTHING_LOST
        assert cli.main(["upload", "-m", str(TINY), "--device", board.url, "--verify"]) == 0
        text = capsys.readouterr().err
        assert "nothing to send: the memory holds all" in text and "verified: every block is as in the image" in text
        command = ["generate", "-m", str(TINY), "-p", "Once upon", "--temp", "0", "-n", "12", "--ignore-eos"]
        assert cli.main([*command, "--device", board.url]) == 0
        made = capsys.readouterr().out
        assert cli.main([*command, "--device", "golden"]) == 0
        assert made == capsys.readouterr().out


@pytest.mark.rest
def test_stands_alone(flash):
    """The program and the constants came from the flash too:
    a host that loads nothing at all gets golden's tokens.
    """
    prompt, count = [1, 5, 2], 10
    image = Image.load(TINY)
    with SimulatedBoard(CONFIG, flash=flash, seed=seed(), line=Line(baud=1_000_000)) as board:
        with Device(open_transport(board.url), timeout_s=300) as device:
            tokens = [token for _, token in device.run(prompt, count, seed=3, sample=True,
                                                       inverse_temperature_bits=inverse_temperature(0.7))]
            assert lost(device) == NOTHING_LOST
    golden = GoldenModel(image.unpack())
    assert tokens == golden.generate(prompt, count, start_state=golden.start(1), temperature=0.7, seed=3)


@pytest.mark.rest
@pytest.mark.parametrize("contents", ["empty", "other", "cut"])
def test_flash_without_a_model(contents, flash, tmp_path):
    """Nothing in the flash, something else, or a file that was not written to the end: the host has the device."""
    image = random_image(np.random.default_rng([seed(), 5]), CONFIG, (12, 14, 1, 17))
    assert len(image.section("stream")) % 4 == 2  # words of the port, and no whole ones of the link
    data = {"empty": b"", "other": b"STAR" + bytes(range(200)) * 3, "cut": flash.read_bytes()[:1500]}[contents]
    (tmp_path / "flash").write_bytes(data)
    with SimulatedBoard(CONFIG, flash=tmp_path / "flash", seed=seed()) as board:
        (tmp_path / "image.sterna").write_bytes(image.data.tobytes())
        Device(open_transport(board.url), timeout_s=300).close()
        assert cli.main(["upload", "-m", str(tmp_path / "image.sterna"), "--device", board.url]) == 0
        with Device(open_transport(board.url), timeout_s=300) as device:
            assert device.counters()["frames_lost"] == 0
            assert device.counters()["frames_bad"] <= (contents == "cut")
            tokens = [token for _, token in device.run([1, 5], 6)]
    assert tokens == golden_outcome(image, [1, 5], 6)[0]


@pytest.mark.rest
def test_a_damaged_frame_is_found(flash, tmp_path, capsys):
    """A wrong bit in the flash: its frame is dropped, and the host sends that block."""
    data = bytearray(flash.read_bytes())
    data[FLASH_HEADER_BYTES + 50_000] ^= 0x10
    (tmp_path / "flash").write_bytes(data)
    with SimulatedBoard(CONFIG, flash=tmp_path / "flash", seed=seed()) as board:
        with Device(open_transport(board.url), timeout_s=300) as device:
            assert lost(device) == NOTHING_LOST | {"frames_bad": 1}
        assert cli.main(["upload", "-m", str(TINY), "--device", board.url]) == 0
    assert "the others were in the memory already" in capsys.readouterr().err


def test_frames_of_the_file():
    """What the file holds is what the device takes: magic, length, frames and an empty one."""
    image = random_image(np.random.default_rng([seed(), 6]), CONFIG, (12, 14, 1, 19))
    data = flash_image(image, CONFIG)
    length, body = int.from_bytes(data[4:8], "little"), data[8:]
    assert data[:4] == b"STFL" and length == len(body) and body.endswith(b"\0\0") and b"\0\0" not in body[:-1]


def test_a_model_that_is_too_large(capsys, tmp_path):
    story = MODELS / "story" / "story.sterna"
    assert cli.main(["flash", "-m", str(story), "-o", str(tmp_path / "file")]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: memory: the model needs") and "use a larger memory or a smaller model" in error
    assert not (tmp_path / "file").exists()
