"""sterna bench on the simulated board: its cycles are those of a run by hand, and golden stands beside it."""

import json

import pytest
from small_model import GEOMETRY, write_folder
from sterna.host import cli
from sterna.host.bench.bench import prompt_of
from sterna.host.model.model import Model
from sterna.host.runtime.open import open_runtime
from sterna.host.runtime.sampling import Sampling
from sterna.host.runtime.statistics import useful_bytes
from sterna.hw.presets import PRESETS

pytestmark = [pytest.mark.rtl, pytest.mark.rest]
TIMING = {"latency_cycles": 30, "refresh_interval_cycles": 400, "refresh_cycles": 40}


def test_bench_of_a_simulated_board(tmp_path, capsys):
    model = Model(write_folder(tmp_path / "model"))
    out = tmp_path / "bench.json"
    assert cli.main(["bench", "-m", str(model.path), "--device", "golden,sim", "-p", "6", "-n", "5", "-r", "2", "-o",
                     str(out), "--latency", "30", "--refresh-interval", "400", "--refresh", "40"]) == 0
    assert "bench.json: 4 rows" in capsys.readouterr().err
    rows = json.loads(out.read_text())
    assert [(r["device"], r["test"]) for r in rows] == [("golden", "pp6"), ("golden", "tg5"), ("sim", "pp6"),
                                                        ("sim", "tg5")]
    assert all(r["cycles_per_token"] is None and r["latency_cycles"] is None for r in rows[:2])
    with open_runtime("sim", model, tell=print, preload=True, timing=TIMING) as runtime:
        list(runtime.generate(prompt_of(model, 7, 1), 0, Sampling()))
        prompt = runtime.statistics.prompt_usage
        runtime.restart()
        list(runtime.generate([model.end], 5, Sampling()))
        made = runtime.statistics.usage
    for row, usage, output in ((rows[2], prompt, False), (rows[3], made, True)):
        # The refresh comes at another moment of every run, so cycles agree to a refresh or two per token only.
        assert row["cycles_per_token"] == pytest.approx(usage.cycles_per_token, abs=100)
        assert row["clock_ts"] == pytest.approx(PRESETS["sim"].clock_hz / row["cycles_per_token"])
        assert (row["clock_ts_is"], row["cycles_are"], row["preset"]) == ("projected", "simulated", "sim")
        assert {k: row[k] for k in TIMING} == TIMING
        refreshed = row["stall_refresh"]
        assert refreshed == pytest.approx(0.1, abs=0.05)
        useful = useful_bytes(GEOMETRY, "trit5", output) / (32 * row["cycles_per_token"] * (1 - refreshed))
        assert row["memory_share"] == pytest.approx(useful, rel=0.02)
    # A prompt's token does without the head.
    assert rows[2]["cycles_per_token"] < rows[3]["cycles_per_token"]
