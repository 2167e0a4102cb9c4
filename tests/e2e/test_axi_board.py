"""A board with AXI ports and a DRAM behind them: texts bit for bit, whole tokens as `make full-size`
has them, faults.
"""

import dataclasses
import json
import re

import numpy as np
import pytest
from docs.figures import fullboard, sweep, ultra
from soc import Session, first_difference, play, random_image
from sterna.host import cli
from sterna.host.device.transport import open_transport
from sterna.host.doctor import line
from sterna.host.doctor.check import OK, verdict
from sterna.host.doctor.examine import examine
from sterna.host.errors import HostError
from sterna.host.model.image import build_image
from sterna.host.runtime.open import simulated_config
from sterna.sim.board import verilog
from sterna.sim.board.board import SimulatedBoard
from sterna.sim.board.dram import LINEAR, SETTINGS
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


def test_whole_tokens(small, tmp_path, monkeypatch):
    """A slower memory gives fewer tokens, and the vectors stay."""
    monkeypatch.setitem(SETTINGS, "slow", dataclasses.replace(SETTINGS["measured"], transfer=400_000))
    monkeypatch.setitem(LINEAR, "slow", 0.16)
    found = {name: fullboard.whole_tokens(small, DEVICE, name, 3, tmp_path) for name in SETTINGS}
    cycles = {name: f["cycles"] for name, f in found.items()}
    assert 1.2 * max(cycles[name] for name in SETTINGS if name != "slow") < cycles["slow"]
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


def test_an_error_on_a_write_is_told(tmp_path):
    """In the middle of an upload: the next request is refused, and says why."""
    image = random_image(np.random.default_rng(SEED), CONFIG, GEOMETRY)
    dram = dataclasses.replace(SETTINGS["ideal"], wrong_write=100)
    with (pytest.raises(HostError, match="refused to .*: its memory answered with an error; program the board again"),
          Session(CONFIG, image, tmp_path, trace=False, dram=dram)):
        pass


@pytest.mark.parametrize("wrong", [{}, {"wrong_write": 40}, {"wrong_burst": 100}])
def test_the_doctor_tells_an_error_of_the_memory(monkeypatch, wrong):
    """And goes on with what needs no memory, without a wait for answers that do not come."""
    monkeypatch.setattr(line, "LOAD_S", 0.02)
    with SimulatedBoard(CONFIG, dram=dataclasses.replace(SETTINGS["ideal"], **wrong)) as board:
        checks = list(examine(lambda: open_transport(board.url, 1_000_000), simulated=True, wanted=CONFIG))
    found = {check.name: check for check in checks}
    assert all("answer for" not in check.text and "does not answer" not in check.text for check in checks)
    if not wrong:
        assert verdict(checks)[0] and found["pattern"].verdict == OK
        return
    assert verdict(checks) == (False, "verdict: failed: memory, tokens")
    for name in ("memory", "tokens"):
        assert "its memory answered with an error; program the board again" in found[name].text


def test_the_dram_of_the_command_line(small, tmp_path):
    """bench --dram: a slower DRAM takes more cycles, and the rows name it; without the option it is the ideal one."""
    rows = {}
    for flags in ((), ("--dram", "ddr4"), ("--dram", "measured")):
        out = tmp_path / "bench.json"
        assert cli.main(["bench", "-m", str(small), "--device", DEVICE, "-p", "0", "-n", "4", "-r", "1",
                         "--no-warmup", "-o", str(out), *flags]) == 0
        row, = json.loads(out.read_text())
        rows[row["dram"]] = row["cycles_per_token"]
    assert set(rows) == set(SETTINGS) and len(set(rows.values())) == len(rows)


def test_a_sweep_of_all_slots(small, tmp_path, monkeypatch):
    """All slots make a token, and read a prompt together; a vector of one slot that is not the interpreter's is told.
    """
    device, timing = DEVICE + ",batch=2", {"dram": any_dram(np.random.default_rng(SEED))}
    found = sweep.sweep(small, device, timing, tmp_path, 1)
    assert found["slots"] == 2 and found["vectors"] > 50 and found["prompt_vectors"] > 40
    row = fullboard.tables({f"370m {device} ideal": found})["table.fullboard.slots"].splitlines()[-1]
    assert f"| {device} | ideal | 2 | {found['cycles']:,} |" in row
    right = sweep.read_trace

    def other(path, lanes):
        vectors = right(path, lanes)
        is_code, values = vectors[-20]
        vectors[-20] = is_code, values ^ (np.arange(len(values)) // CONFIG.lanes % 2).astype(values.dtype)
        return vectors
    monkeypatch.setattr(sweep, "read_trace", other)
    with pytest.raises(sweep.SweepDiffers, match="vector .*slot 1, element 0 .*expected"):
        sweep.sweep(small, device, timing, tmp_path, 1)


def test_a_token_with_ultra_ram(small, tmp_path):
    """Banks and FIFO as the bitstream has them: each bank of 96 bits is two blocks, and so is the FIFO of 128."""
    device = DEVICE.replace("vector_words=256", "vector_words=600").replace("fifo_words=256", "fifo_words=2048")
    text = verilog.board_verilog(simulated_config(device), ultra.OPTIONS["device"])
    assert len(re.findall(r"(?m)^  reg \[71:0\] .*\[4095:0\];", text)) == 3 * 2 + 2
    assert fullboard.whole_tokens(small, device + fullboard.ULTRA, "ideal", 2, tmp_path)["vectors"] > 50
