"""The engine on the simulated board with slots: texts that come, go and are cancelled are those of the cpu alone."""

import time

import numpy as np
import pytest
import sterna
from comings import alone_on, come_and_go
from faults import SEED
from small_model import write_folder
from sterna.host.model.model import Model

pytestmark = [pytest.mark.rtl, pytest.mark.rest]


def test_texts_come_and_go_in_the_slots_of_a_board(tmp_path):
    model = Model(write_folder(tmp_path / "model"))
    with sterna.load(model, "sim:lanes40,batch=2,top_k=8") as engine:
        rng = np.random.default_rng([SEED, 7])
        assert come_and_go(engine, alone_on(model), rng, 40, lambda: time.sleep(0.02), most=3)
        (status,) = engine.devices
        assert (status.slots, status.running, status.alive) == (2, 0, True) and status.tokens
        read = []
        for _ in range(3):  # the second time its state is taken from the board, the third time it is given back
            generation = engine.generate("abcdefgh" * 5, 3, seed=1)
            generation.result()
            read.append(generation.usage.prompt_tokens - generation.usage.cached_tokens)
        assert read == [41, 41, 41 - 32]
