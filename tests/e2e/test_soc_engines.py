"""Several engines: vectors are the interpreter's, texts the golden model's, under random stalls; and their gain.

A build of one engine runs the same images to the same tokens, as test_soc_geometries has it.
"""

from dataclasses import replace

import numpy as np
import pytest
from conftest import seed
from docs.figures import perf
from small_model import byte_tokenizer
from soc import Session, first_difference, play, random_image, random_timing
from soc_slots import Both, random_text
from sterna.hw.presets import PRESETS
from sterna.sim.golden.geometry import Geometry
from sterna.sim.golden.packed import random_model
from sterna.sim.perf.memory import Timing

# Narrow, so that they compile soon: three rows before two lanes, so that a turn is two tiles and three beats.
TWO = replace(PRESETS["lanes40"], name="two", engines=2, rows=3, columns=10, lanes=2, port_bytes=4, strip=18,
              vector_words=512, activation_words=48, fifo_words=256, memory_bytes=1 << 20, top_k=0, tree_rows=0)
CONFIGS = {
    "two": TWO,
    # More lanes than rows, and a tile that is a word.
    "four": replace(TWO, name="four", engines=4, rows=2, lanes=4, columns=20, strip=16, weight_code="bit2",
                    activation_words=16, port_bytes=16, vector_words=256),
    "chips": replace(TWO, name="chips", sdram="AS4C32M16SB-7", memory_hz=100_000_000, memory_bytes=128 << 20),
}
# With lanes and a FIFO that let the stream set the pace.
STREAM = replace(TWO, name="stream", rows=2, columns=20, lanes=4, strip=32, row_words=32, activation_words=32,
                 fifo_words=2048)
SIZES = (60, 90)  # of hidden and intermediate size
MODEL_ERROR, LEAST_GAIN = 0.01, 1.8

pytestmark = [pytest.mark.rtl, pytest.mark.rest]


def geometry(rng):
    return (int(rng.integers(1, SIZES[0])), int(rng.integers(1, SIZES[1])), int(rng.integers(1, 4)),
            int(rng.integers(2, 70)))


def timing_of(rng, config):
    """Stalls of each engine's memory of its own."""
    timing = random_timing(rng)
    return {"seed": timing["seed"]} if config.sdram else timing | {"pauses": int(rng.integers(0, 200))}


@pytest.mark.parametrize("name", CONFIGS)
def test_random_geometries(name, tmp_path):
    config = CONFIGS[name]
    rng = np.random.default_rng([seed(), *name.encode()])
    timing = timing_of(rng, config)
    print(f"timing {timing}")
    images = [random_image(rng, config, geometry(rng)) for _ in range(3)]
    with Session(config, images[0], tmp_path, **timing) as session:
        expected = play(rng, session, images)
    assert first_difference(expected, session.trace()) is None


def test_slots(tmp_path):
    """Two engines, two slots: states of each slot come from and go to both memories."""
    config, rng = replace(TWO, name="slots", batch=2), np.random.default_rng([seed(), 2])
    timing = timing_of(rng, config)
    image = random_image(rng, config, geometry(rng))
    with Both(config, image, tmp_path, **timing) as both:
        for _ in range(3):
            texts = [random_text(rng, image.geometry.vocab_size, config) for _ in range(config.batch)]
            for slot, text in enumerate(texts):
                both.begin(slot, tokens=text["count"] + len(text["prompt"]), **text)
            found = both.start(list(range(config.batch)))
            for slot, text in enumerate(texts):
                assert ([token for _, token in found[slot]], both.state_of(slot)) == both.expected(**text)
    assert both.difference() is None


def test_two_engines_are_nearly_twice_as_fast(tmp_path):
    """Where the stream sets the pace; and the cycle model knows it."""
    shape, cycles = Geometry(240, 480, 1, 200), {}
    packed = random_model(np.random.default_rng(seed()), shape)
    for engines in (1, 2):
        config = replace(STREAM, engines=engines)
        found = perf.compare(config, packed, tmp_path / "image", byte_tokenizer(), Timing(20, 624, 23), ("greedy",))
        cycles[engines], _, predicted = found["greedy"]
        print(f"{engines} engines: {cycles[engines]} cycles, predicted {predicted.cycles_per_run}")
        assert predicted.cycles_per_run == pytest.approx(cycles[engines], rel=MODEL_ERROR)
    assert cycles[1] > LEAST_GAIN * cycles[2]
