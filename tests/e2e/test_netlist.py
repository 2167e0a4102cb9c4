"""The netlist after synthesis generates the tokens of the golden model.

Here that of the small board, a minute; those of all boards, with trained models:
`make results` (`docs.figures.netlists`).
"""

import numpy as np
import pytest
from conftest import seed
from soc import Session, random_image
from sterna.hw.boards import preset
from sterna.sim.board.board import BoardError
from sterna.sim.golden.model import GoldenModel

from docs.figures.netlists import family_of

pytestmark = [pytest.mark.rtl, pytest.mark.synth]

GEOMETRY = (37, 53, 2, 61)


@pytest.mark.parametrize("name", ["up5k"])
def test_first_tokens(name, tmp_path):
    config = preset(name)
    rng = np.random.default_rng([seed(), *name.encode()])
    image = random_image(rng, config, GEOMETRY)
    golden, external = GoldenModel(image.unpack()), config.memory == "external"
    with Session(config, image, tmp_path, preload=external, trace=False, seed=int(rng.integers(1, 1 << 31)),
                 netlist=family_of(config)) as session:
        for options in ({}, {"temperature": 0.8, "seed": int(rng.integers(1 << 32))}):
            prompt = rng.integers(0, GEOMETRY[3], 3).tolist()
            assert session.generate(prompt, 5, **options) == golden.generate(prompt, 5, **options)
    print(f"{session.board.cycles} cycles")
    with pytest.raises(BoardError, match="a netlist has no trace"):
        with Session(config, image, tmp_path, preload=external, netlist=family_of(config)):
            pass
