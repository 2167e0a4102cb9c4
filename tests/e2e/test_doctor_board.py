"""sterna doctor on simulated boards: good ones, lines of several rates, and a memory with a stuck data line."""

import json
from pathlib import Path

import pytest
import stuck_memory
from conftest import seed
from sterna.host import cli
from sterna.host.doctor import answer, line
from sterna.hw.boards import preset
from sterna.sim.board.board import SimulatedBoard

pytestmark = pytest.mark.rtl


@pytest.fixture
def doctor(capsys, monkeypatch):
    """Runs the doctor; gives (exit code, {check: its JSON})."""
    monkeypatch.setattr(line, "LOAD_S", 0.02)

    def run(*flags):
        code = cli.main(["doctor", "--json", *flags])
        report = json.loads(capsys.readouterr().out)
        assert (code, report["verdict"]) in ((0, "ok"), (1, "failed"))
        return code, {check["check"]: check for check in report["checks"]}
    return run


@pytest.mark.rest
def test_up5k_with_a_line(doctor):
    code, found = doctor("--device", "sim:up5k", "--baud", "1500000")
    assert code == 0, found
    assert found["build"]["names"] == ["icebreaker", "up5k"] and found["pattern"]["bytes"] == 1 << 16
    assert {name for name, check in found.items() if check["verdict"] == "skipped"} == {
        "other rates", "byte masks", "counters", "clock"}
    # The share of the simulated line, by its own clock: a WRITE of 224 bytes takes 237.
    assert found["write 224 bytes"]["window"] == [1, 2]
    assert found["write 224 bytes"]["share"][1] == pytest.approx(224 / 237, abs=0.02)
    assert 0.5 < found["write 224 bytes"]["share"][0] < 0.9
    assert found["read 4 bytes"]["share"][1] > 1.5 * found["read 4 bytes"]["share"][0]


@pytest.mark.rest
def test_ulx3s_with_its_sdram(doctor):
    code, found = doctor("--device", "sim:ulx3s-85f")
    assert code == 0, found
    assert "ulx3s-85f" in found["build"]["names"] and found["clock"]["verdict"] == "skipped"
    assert found["counters"]["cycles_per_token"] > 1000
    assert {"tokens, greedy", "tokens, sampled", "tokens, top-k/p"} <= set(found)
    assert len(set(found["tokens, sampled"]["tokens"])) > 1 < answer.TOKENS


@pytest.mark.rest
def test_a_stuck_data_line_is_found(doctor):
    config = preset("lanes10")
    with SimulatedBoard(config, device="stuck_memory:StuckMemory", device_sources=[Path(stuck_memory.__file__)],
                        seed=seed()) as board:
        code, found = doctor("--device", board.url)
        again, without = doctor("--device", board.url, "--memory", "none")
    assert (code, again) == (1, 1)
    failed, later = ({name for name, check in checks.items() if check["verdict"] == "failed"}
                     for checks in (found, without))
    assert {"data lines", "pattern"} <= failed and not failed & {"versions", "build", "rest", "losses", "counters"}
    # The port has 2 bytes, two words of it a word of the link.
    bit = stuck_memory.STUCK_BIT
    assert found["data lines"]["bits"] == [bit, bit + 16] and f"(bit {bit})" in found["pattern"]["text"]
    # A wrong token, or one that the model does not even have.
    assert later and all(name.startswith("tokens") for name in later) and "pattern" not in without
