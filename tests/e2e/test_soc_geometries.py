"""Random geometries on every preset: tokens and every vector equal those of the instruction interpreter."""

import dataclasses

import numpy as np
import pytest
from conftest import seed
from soc import LANES320, Session, first_difference, play, random_image, random_timing
from sterna.hw.boards import BOARDS
from sterna.hw.presets import PRESETS

GEOMETRIES = 3  # per board process
# Upper ends of hidden and intermediate size: a few tiles of the array, and what up5k's banks hold.
SIZES = {"up5k": (40, 60), "lanes10": (40, 60), "lanes40": (70, 90), "sim": (90, 130), "lanes320": (130, 200),
         "bit2": (40, 60), "ulx3s-85f": (60, 80), "same-clock": (40, 60), "ecpix5-85": (80, 110)}
# lanes160 is lanes320 with half the rows: its board is not built here. Weights of 2 bits, in tiles of 5 bytes that
# the gearbox makes of words of 4. An SDRAM with a clock of its own, and one with that of the accelerator.
CONFIGS = PRESETS | {
    "lanes320": LANES320,
    "bit2": dataclasses.replace(PRESETS["lanes10"], name="bit2", weight_code="bit2", rows=2, columns=10, lanes=2,
                                port_bytes=4),
    "ulx3s-85f": BOARDS["ulx3s-85f"].config,
    "same-clock": dataclasses.replace(PRESETS["lanes10"], name="same-clock", sdram="AS4C32M16SB-7",
                                      memory_hz=PRESETS["lanes10"].clock_hz, memory_bytes=64 << 20)}
# One of each kind of memory: on the chip, behind the port, SDRAM. DDR3 takes a second more for its start.
FIRST = {("up5k", 0), ("lanes40", 0), ("ulx3s-85f", 0)}
RUNS = [pytest.param(name, part, marks=[pytest.mark.rest] * ((name, part) not in FIRST)) for name in SIZES
        for part in range(2 if name in ("up5k", "lanes40", "ulx3s-85f") else 1)]

pytestmark = pytest.mark.rtl


def geometries(rng, name):
    """(H, I, L, V): the first has one layer and three tokens, and no size divides the tile."""
    config, (hidden, inner) = CONFIGS[name], SIZES[name]
    for number in range(GEOMETRIES):
        h, i = int(rng.integers(1, hidden)), int(rng.integers(1, inner))
        h += h % config.columns == 0
        i += i % config.columns == 0
        yield (h, i, 1, 3) if number == 0 else (h, i, int(rng.integers(1, 4)), int(rng.integers(2, 70)))


@pytest.mark.parametrize("name, part", RUNS)
def test_random_geometries(name, part, tmp_path):
    config = CONFIGS[name]
    rng = np.random.default_rng([seed(), part, *name.encode()])
    timing = random_timing(rng)
    if config.memory == "onchip" or config.sdram or config.ddr3:
        timing = {"seed": timing["seed"]}
    print(f"timing {timing}")
    images = [random_image(rng, config, geometry) for geometry in geometries(rng, name)]
    with Session(config, images[0], tmp_path, **timing) as session:
        expected = play(rng, session, images)
    assert first_difference(expected, session.trace()) is None
