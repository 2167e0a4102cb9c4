"""A long text over a link with faults: every token and the state in the end are those of the golden model.

STERNA_SOAK=20000 makes it as long as a release asks for (docs/performance.md says what a run of that length gave).
"""

import os

import numpy as np
import pytest
from conftest import seed
from faults import FaultyTransport
from soc import Session, golden_outcome, random_image, random_timing
from sterna.host.device.driver import Device
from sterna.host.device.transport import open_transport
from sterna.hw.presets import PRESETS

CONFIG = PRESETS["lanes40"]
TOKENS = int(os.environ.get("STERNA_SOAK", "300"))
FAULTS = {"corrupt": 1e-3, "drop": 1e-3, "duplicate": 1e-3, "burst": 1e-5, "drop_frame": 0.01,
          "duplicate_frame": 0.01, "truncate_frame": 0.01, "reorder_frame": 0.01}
TEXT = {"temperature": 0.9, "seed": 3}


@pytest.mark.rtl
@pytest.mark.rest
def test_long_text_over_a_bad_link(tmp_path):
    rng = np.random.default_rng([seed(), 12])
    image = random_image(rng, CONFIG, (33, 50, 2, 41))
    with Session(CONFIG, image, tmp_path, trace=False, **random_timing(rng)) as session:
        session.device.close()
        faulty = FaultyTransport(open_transport(session.board.url), seed(), **FAULTS)
        session.device = Device(faulty, retry_s=0.1, poll_s=0.1, timeout_s=30, stall_s=60)
        got = session.outcome([1, 30, 2], TOKENS, **TEXT)
        counters = session.device.counters()
    tokens, state = golden_outcome(image, [1, 30, 2], TOKENS, **TEXT)
    assert len(tokens) == TOKENS
    first = next((k for k, (a, b) in enumerate(zip(got[0], tokens, strict=True)) if a != b), None)
    assert first is None, f"token {first} differs"
    assert got[1] == state
    print(f"{TOKENS} tokens, {faulty.faults} faults, {session.device.requests_repeated} requests repeated, "
          f"{counters}")
    assert faulty.faults >= TOKENS // 50
