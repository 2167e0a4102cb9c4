"""Whole sessions over a link that damages bytes and frames: the tokens are those of a clean link."""

import numpy as np
import pytest
from conftest import seed
from faults import FaultyTransport
from soc import Session, golden_outcome, random_image
from sterna.host.driver import Device
from sterna.host.transport import open_transport
from sterna.hw.config import PRESETS

CONFIG = PRESETS["lanes40"]
FAULTS = {
    "corrupt": {"corrupt": 1e-3}, "drop": {"drop": 1e-3}, "duplicate": {"duplicate": 1e-3},
    "drop_frame": {"drop_frame": 0.05}, "duplicate_frame": {"duplicate_frame": 0.05},
    "truncate_frame": {"truncate_frame": 0.05},
    "all": {"corrupt": 1e-3, "drop": 1e-3, "duplicate": 1e-3, "drop_frame": 1e-2, "duplicate_frame": 1e-2,
            "truncate_frame": 1e-2},
}

pytestmark = pytest.mark.rtl


@pytest.mark.parametrize("name", FAULTS)
def test_upload_and_generation_over_a_bad_link(name, tmp_path):
    rng = np.random.default_rng([seed(), *name.encode()])
    image = random_image(rng, CONFIG, (33, 50, 1, 41))
    text = {"temperature": 0.8, "seed": 5}
    prompt, count = [1, 30, 2], 40
    with Session(CONFIG, image, tmp_path, seed=int(rng.integers(1, 1 << 31))) as session:
        session.device.write(0, bytes(1 << 12))  # what the clean upload has left must not help
        session.device.close()
        faulty = FaultyTransport(open_transport(session.board.url), seed(), **FAULTS[name])
        session.device = device = Device(faulty, retry_s=0.1, poll_s=0.1, timeout_s=30)
        session.load(image)
        for address, data in image.regions(CONFIG):
            assert device.read(address, len(data)) == data.tobytes()
        got = session.outcome(prompt, count, **text)
        counters = device.counters()
    assert got == golden_outcome(image, prompt, count, **text)
    assert faulty.faults >= 5
    print(f"{faulty.faults} faults, {device.requests_repeated} requests repeated, counters {counters}")
    if name != "duplicate_frame":  # a frame that comes twice does no harm
        assert device.requests_repeated
    if name in ("corrupt", "drop", "duplicate", "truncate_frame", "all"):
        assert counters["frames_bad"]
