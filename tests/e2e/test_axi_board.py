"""A board with AXI ports and a DRAM behind them: texts bit for bit, whole tokens as `make full-size` runs them, faults."""

import dataclasses

import numpy as np
import pytest
from docs.figures import fullboard
from soc import Session, first_difference, play, random_image
from sterna.host.errors import HostError
from sterna.host.model.image import build_image
from sterna.host.runtime.open import simulated_config
from sterna.sim.board.dram import SETTINGS
from sterna.sim.golden.packed import Geometry, random_model

from bench import SEED

pytestmark = [pytest.mark.rtl, pytest.mark.rest]
DEVICE = ("sim:kv260,rows=2,columns=20,lanes=4,port_bytes=16,block_bytes=64,memory_bytes=1048576,vector_words=256,"
          "activation_words=32,strip=8,fifo_words=256,tree_rows=0,top_k=0")
CONFIG = simulated_config(DEVICE)
GEOMETRY = (48, 80, 2, 96, 1e-6)


def any_dram(rng):
    """A DRAM slower or faster than the ports, near or far, that takes few bursts or many."""
    return dataclasses.replace(SETTINGS["ideal"], transfer=int(rng.integers(1000, 40_000)),
                               path=int(rng.integers(4000, 400_000)), depth=int(rng.integers(1, 20)),
                               refi=int(rng.integers(1_000_000, 8_000_000)), turn=int(rng.integers(0, 50_000)))


@pytest.mark.parametrize("preload", [True, False])
def test_texts(tmp_path, preload):
    rng = np.random.default_rng([SEED, preload])
    image, dram = random_image(rng, CONFIG, GEOMETRY), any_dram(rng)
    print(dram)
    with Session(CONFIG, image, tmp_path, preload, dram=dram, seed=int(rng.integers(1, 1 << 31))) as session:
        vectors = play(rng, session, [image])
    assert (text := first_difference(vectors, session.trace())) is None, text
    assert session.board.counts["read_chunks"] and session.board.counts["write_chunks"]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Path of the image of a small model."""
    path = tmp_path_factory.mktemp("axi") / "small.sterna"
    packed = random_model(np.random.default_rng(SEED), Geometry(*GEOMETRY))
    path.write_bytes(build_image(packed, CONFIG, "{}", "test", 0))
    return path


def test_whole_tokens(small, tmp_path):
    """Slower memories give fewer tokens, and the vectors stay."""
    found = {name: fullboard.whole_tokens(small, DEVICE, name, 3, tmp_path) for name in SETTINGS}
    cycles = {name: f["cycles"] for name, f in found.items()}
    assert cycles["ddr4"] <= cycles["ideal"] < cycles["measured"]
    assert len({f["vectors"] for f in found.values()}) == 1 and found["ideal"]["vectors"] > 50
    text = fullboard.tables({f"370m {DEVICE} {name}": f for name, f in found.items()})["table.fullboard"]
    assert len(text.splitlines()) == 2 + len(SETTINGS) and fullboard.tables({}) == {}


@pytest.mark.parametrize("part", ["tokens", "state", "vectors"])
def test_a_difference_is_told(small, tmp_path, monkeypatch, part):
    right = fullboard.on_board, fullboard.read_trace

    def wrong(*arguments):
        tokens, state, *rest = right[0](*arguments)
        if part == "tokens":
            tokens = [tokens[0] ^ 1]
        if part == "state":
            state[-1, -1] += 1
        return tokens, state, *rest

    def other(path, lanes):
        found = right[1](path, lanes)
        if part == "vectors":
            is_code, values = found[-20]
            found[-20] = is_code, values ^ 1
        return found

    monkeypatch.setattr(fullboard, "on_board", wrong)
    monkeypatch.setattr(fullboard, "read_trace", other)
    with pytest.raises(fullboard.BoardDiffers, match={"tokens": "made the tokens", "state": "the state behind",
                                                      "vectors": "vector .*expected"}[part]):
        fullboard.whole_tokens(small, DEVICE, "ideal", 1, tmp_path)


def test_an_error_of_the_memory_is_told(tmp_path):
    """The board answers one burst with an error: no token comes of it, and the host says why."""
    image = random_image(np.random.default_rng(SEED), CONFIG, GEOMETRY)
    dram = dataclasses.replace(SETTINGS["ideal"], wrong_burst=600)
    with (pytest.raises(HostError, match="fault 'memory' .*its memory answered with an error"),
          Session(CONFIG, image, tmp_path, True, trace=False, dram=dram) as session):
        session.generate([1], 8)
