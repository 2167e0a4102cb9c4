"""The shipped story model on the simulated board, against the golden model and the instruction interpreter."""

from pathlib import Path

import pytest
from soc import Expected, Session, first_difference
from sterna.host.model.image import Image
from sterna.hw.presets import PRESETS
from sterna.sim.golden.model import GoldenModel

CONFIG = PRESETS["sim"]
STORY = Path(__file__).resolve().parents[2] / "models" / "story" / "story.sterna"
TOKENS = 200
START = 0  # the end of text also begins one

pytestmark = pytest.mark.rtl


@pytest.fixture(scope="module")
def story():
    return Image.load(STORY)


@pytest.mark.rest
def test_two_hundred_tokens(story, tmp_path):
    """The best ones; sampled ones are the text of `make demo`, which is compared to the letter."""
    wanted = GoldenModel(story.unpack()).generate([START], TOKENS)
    with Session(CONFIG, story, tmp_path, preload=True, trace=False, seed=9) as session:
        got = session.generate([START], TOKENS)
        counters = session.device.counters()
    assert got == wanted
    cycles = counters["cycles"] / counters["runs"]
    print(f"{cycles:.0f} cycles per token, memory busy {counters['port_busy'] / counters['cycles']:.1%}")
    assert counters["runs"] == TOKENS
    # The weight stream is read once per token; the state is read and written besides.
    assert counters["port_busy"] / TOKENS >= story.sections["stream"]["bytes"] / CONFIG.port_bytes


@pytest.mark.rest
def test_every_vector_of_one_token(story, tmp_path):
    golden = Expected(CONFIG, story)
    wanted = golden.generate([START, 300], 1, temperature=0.8, seed=1)
    with Session(CONFIG, story, tmp_path, preload=True, latency_cycles=60, refresh_cycles=40, seed=9) as session:
        got = session.generate([START, 300], 1, temperature=0.8, seed=1)
    assert got == wanted
    assert len(golden.vectors) > 1000
    assert first_difference(golden.vectors, session.trace()) is None
