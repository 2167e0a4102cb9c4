"""sterna bench: what is measured, its three formats, and what is kept when something fails."""

import csv
import inspect
import io
import json
import re
import statistics

import pytest
from small_model import CYCLES_PER_TOKEN, DEVICE, GEOMETRY, SLOTS, GoldenDevice, served, write_folder
from sterna.host.bench import bench
from sterna.host.bench.bench import Sample, Workload
from sterna.host.commands.bench import names
from sterna.host.commands.options import TIMING
from sterna.host.device.driver import Device
from sterna.host.model.model import Model
from sterna.host.runtime.device import DeviceRuntime
from sterna.host.runtime.golden import GoldenRuntime
from sterna.host.runtime.sampling import Sampling
from sterna.host.runtime.statistics import useful_bytes
from sterna.sim.board.board import SimulatedBoard
from sterna.sim.golden.geometry import TreeGeometry

GREEDY = Sampling()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return Model(write_folder(tmp_path_factory.mktemp("bench") / "model"))


def on_device(model, **options):
    fake = GoldenDevice(model.packed, DEVICE, **options)
    return DeviceRuntime(model, Device(fake, retry_s=1.0, poll_s=0.005, timeout_s=2.0, stall_s=0.3), print)


@pytest.mark.parametrize("make", [GoldenRuntime, on_device], ids=["golden", "device"])
def test_repetitions_are_of_the_same_fresh_text(model, make):
    runtime, done = make(model), []
    texts = []
    for _ in range(2):
        sample = bench.repeat(runtime, Workload(40, 0), GREEDY, 1, done.append)
        assert sample.tokens == 40 and sample.seconds > 0 and done[-1] == 40
        texts.append((runtime.tokens, runtime.state().values.tolist()))
    assert texts[0] == texts[1] and len(texts[0][0]) == 41 and len(set(texts[0][0])) > 20
    made = []
    for _ in range(2):
        assert bench.repeat(runtime, Workload(0, 9), GREEDY, 1, done.append).tokens == 9 and done[-1] == 9
        made.append(runtime.tokens)
    assert made == 2 * [[0, *GoldenRuntime(model).generate([0], 9, GREEDY)]]


def test_prompts_follow_from_the_seed(model):
    assert bench.prompt_of(model, 50, 3) == bench.prompt_of(model, 50, 3) != bench.prompt_of(model, 50, 4)
    assert max(bench.prompt_of(model, 5000, 1)) == GEOMETRY.vocab_size - 1


def test_counters_of_a_prompt_are_its_own(model):
    runtime = on_device(model)
    list(runtime.generate(bench.prompt_of(model, 41, 1), 5, GREEDY))
    figures = runtime.statistics
    assert (figures.prompt_counters["runs"], figures.counters["runs"]) == (40, 5)
    assert figures.prompt_usage.cycles_per_token == figures.usage.cycles_per_token == CYCLES_PER_TOKEN
    # The head is not read inside a prompt: 264 x 40 trits, 2 x 40 + 1 numbers.
    without = useful_bytes(GEOMETRY, "trit5", output=False)
    assert useful_bytes(GEOMETRY, "trit5") - without == 264 * 40 / 5 + 3 * 81
    assert figures.prompt_usage.share == pytest.approx(without / (8 * 2400))
    assert figures.to_json()["prompt_cycles_per_token"] == CYCLES_PER_TOKEN


def test_row_has_mean_and_deviation(model):
    runtime = on_device(model)
    bench.repeat(runtime, Workload(0, 4), GREEDY, 1)
    usage = runtime.statistics.usage
    common = bench.setting(runtime, "port", {})
    samples = [Sample(4, seconds, usage) for seconds in (0.5, 1.0, 2.0)]
    row = bench.row(common, Workload(0, 4), samples, GREEDY, 1, 3)
    assert row["samples_ts"] == [8, 4, 2] and row["avg_ts"] == pytest.approx(14 / 3)
    assert row["stddev_ts"] == pytest.approx(statistics.stdev([8, 4, 2]))
    assert row["samples_ns"] == [500_000_000, 1_000_000_000, 2_000_000_000] and row["avg_ns"] == round(3.5e9 / 3)
    assert row["cycles_per_token"] == CYCLES_PER_TOKEN and row["stddev_cycles_per_token"] == 0
    assert row["clock_ts"] == 32000 and row["clock_ts_is"] == "device time" and row["cycles_are"] == "counted"
    assert row["stall_refresh"] == 0.04 and row["stall_stream"] == 0.02
    assert row["model_n_params"] == 2 * (4 * 40 * 40 + 3 * 40 * 48 + 9 * 40 + 48) + 2 * 264 * 40 + 2 * 40
    alone = bench.row(common, Workload(0, 4), samples[:1], GREEDY, 1, 3)
    assert alone["stddev_ts"] is None and (alone["repetitions"], alone["repetitions_wanted"]) == (1, 3)


def test_simulated_cycles_are_called_projected(model):
    runtime = on_device(model)
    runtime.statistics.simulated = True
    sample = bench.repeat(runtime, Workload(3, 0), GREEDY, 1)  # restarting keeps what kind of device it is
    common = bench.setting(runtime, "sim", TIMING)
    row = bench.row(common, Workload(3, 0), [sample], GREEDY, 1, 1)
    assert row["kind"] == "simulated" and row["clock_ts_is"] == "projected" and row["cycles_are"] == "simulated"
    assert "of the simulation" in row["ts_is"] and row["latency_cycles"] == 20


def test_timing_of_the_rows_is_the_board_s_own():
    defaults = {k: p.default for k, p in inspect.signature(SimulatedBoard.__init__).parameters.items()}
    assert {k: defaults[k] for k in TIMING} == TIMING


def test_every_combination_is_a_row_and_all_formats_agree(sterna, model):
    with served(GoldenDevice(model.packed)) as url:
        flags = ("bench", "-m", model.path, "--device", f"golden,{url}", "-p", "3,5", "-n", "0,4", "-r", 2)
        found = {style: sterna(*flags, "-o", style) for style in ("json", "csv", "md")}
    assert all(code == 0 and "\x1b" not in out + err for code, out, err in found.values()), found
    rows = json.loads(found["json"][1])
    assert [(r["device"], r["test"]) for r in rows] == [
        (d, t) for d in ("golden", url) for t in ("pp3", "pp5", "tg4")]
    assert all(r["repetitions"] == 2 == len(r["samples_ts"]) and r["avg_ts"] > 0 and r["seed"] == 1 for r in rows)
    assert [r["cycles_per_token"] for r in rows] == 3 * [None] + 3 * [CYCLES_PER_TOKEN]
    assert rows[0]["kind"] == "golden" and rows[3]["kind"] == "hardware" and rows[3]["build"] == "12345678"
    for row, line in zip(rows, csv.DictReader(io.StringIO(found["csv"][1])), strict=True):
        assert set(line) == set(row) - {"samples_ns", "samples_ts"}
        same = ("device", "test", "n_prompt", "cycles_per_token", "clock_ts_is", "model_size", "weight_code")
        assert [line[k] for k in same] == ["" if row[k] is None else str(row[k]) for k in same]
    table = [line for line in found["md"][1].splitlines() if line.startswith("|")]
    assert len(table) == 8 and len({line.count("|") for line in table}) == 1 and set(table[1]) <= set("|-: ")
    assert re.search(r"\| golden +\| tg4 +\| +[\d.]+ ± [\d.]+ \| +- \|", table[4])
    assert re.search(r"build 12345678, 80 MHz\) \| tg4 .* 2500 counted \| +32000.0 device time \| "
                     r".* 2.0% 0.0% 0.0% 4.0%", table[7])
    assert "random token ids, seed 1; generation: greedy" in found["md"][1]


def test_sequences_side_by_side_are_rows_of_their_own(sterna, model):
    with served(GoldenDevice(model.packed, SLOTS)) as url:
        flags = ("bench", "-m", model.path, "--device", url, "-p", 8, "-n", 6, "-np", "1,2,4", "-r", 1, "--no-warmup")
        code, out, err = sterna(*flags, "-o", "json")
        rows = json.loads(out)
        assert code == 0 and [(r["test"], r["pl"], r["n_gen"]) for r in rows] == [
            ("pp8", 1, 0), ("tg6", 1, 6), ("tg6 B2", 2, 6), ("tg6 B4", 4, 6)]
        assert rows[0]["tokens_per_run"] == 4 and rows[1]["tokens_per_run"] == 1
        assert rows[0]["cycles_per_token"] == CYCLES_PER_TOKEN / 4 and rows[1]["cycles_per_token"] == CYCLES_PER_TOKEN
        for row in rows[2:]:
            assert 1 < row["tokens_per_run"] <= row["pl"]
            assert row["cycles_per_token"] == pytest.approx(CYCLES_PER_TOKEN / row["tokens_per_run"])
            useful = useful_bytes(GEOMETRY, "trit5", tokens=row["tokens_per_run"])
            assert row["memory_share"] == pytest.approx(useful / (8 * 2400))
        assert rows[3]["samples_ts"][0] == pytest.approx(24e9 / rows[3]["samples_ns"][0], rel=0.01)
        assert "| tg6 B4 |" in sterna(*flags)[1]
        code, out, err = sterna(*flags[:-1], "-np", "8")
        assert (code, out) == (2, "") and "--batch 8: this build has 4 slots: use 1 to 4" in err


def test_devices_with_parameters(sterna, model):
    code, out, err = sterna("bench", "-m", model.path, "--device", "sim", "--batch", "2")
    assert (code, out) == (2, "") and "--batch 2: this build has one slot: use 1, or a device with slots" in err
    assert names(["golden,sim:lanes40,batch=4,top_k=16,sim", "sim:sim,batch=2", "/dev/tty=1,batch=4"]) == [
        "golden", "sim:lanes40,batch=4,top_k=16", "sim", "sim:sim,batch=2", "/dev/tty=1", "batch=4"]


def test_temperature_and_single_repetition(sterna, model):
    code, out, _ = sterna("bench", "-m", model.path, "--device", "golden", "-p", 0, "-n", 3, "-r", 1, "--temp", 0.7,
                          "--no-warmup", "--seed", 9)
    assert code == 0 and "±" not in out and "seed 9; generation: temperature 0.7" in out and "1 repetition," in out


def test_warm_up_is_not_measured(sterna, model, monkeypatch):
    ran = []
    repeat = bench.repeat
    monkeypatch.setattr(bench, "repeat", lambda r, t, *rest: ran.append(t.tokens) or repeat(r, t, *rest))
    flags = ("bench", "-m", model.path, "--device", "golden", "-p", 4, "-n", 1, "-r", 2, "-o", "json")
    assert [r["repetitions"] for r in json.loads(sterna(*flags)[1])] == [2, 2] and ran == [2, 4, 4, 1, 1, 1]


def test_file_instead_of_standard_output(sterna, model, tmp_path):
    for name in ("b.json", "b.csv", "b.md"):
        code, out, err = sterna("bench", "-m", model.path, "--device", "golden", "-p", 2, "-n", 2, "-r", 1, "-o",
                                tmp_path / name)
        assert (code, out) == (0, "") and f"{name}: 2 rows" in err
    assert [r["test"] for r in json.loads((tmp_path / "b.json").read_text())] == ["pp2", "tg2"]
    assert (tmp_path / "b.csv").read_text().count("\n") == 3 and (tmp_path / "b.md").read_text().count("\n|") == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.csv", "b.json", "b.md"]


@pytest.mark.parametrize("to_file", [False, True])
def test_what_was_measured_is_kept_when_the_device_is_lost(sterna, model, tmp_path, to_file):
    class Dying(GoldenDevice):
        made = 0

        def _token(self):
            before = self.block[0x48]
            super()._token()
            self.made += self.block[0x48] != before
            if self.made >= 3 + 3 + 4 + 2:  # the second repetition of tg4
                self.block[0x44] = 1 << 8

    path = tmp_path / "b.json"
    with served(Dying(model.packed)) as url:
        code, out, err = sterna("bench", "-m", model.path, "--device", f"{url},golden", "-p", 3, "-n", 4, "-r", 2,
                                "--no-warmup", "-o", path if to_file else "json")
    assert code == 1 and "fault 'instruction'" in err and err.count("error: ") == 1
    rows = json.loads(path.read_text() if to_file else out)
    assert [(r["test"], r["repetitions"]) for r in rows] == [("pp3", 2), ("tg4", 1)]


def test_nothing_is_written_when_nothing_was_measured(sterna, model, tmp_path):
    path = tmp_path / "b.md"
    path.write_text("old")
    code, out, err = sterna("bench", "-m", model.path, "--device", "socket://127.0.0.1:9", "-o", path)
    assert (code, out) == (1, "") and "connection refused" in err and path.read_text() == "old"
    for style in ("md", "json"):
        code, out, err = sterna("bench", "-m", model.path, "--device", "socket://127.0.0.1:9", "-o", style)
        assert (code, out) == (1, "") and "connection refused" in err


@pytest.mark.parametrize("flags, message", [
    (("-p", "3,x"), "--n-prompt '3,x': use numbers from 0 (leave out) to 1000000"), (("-n", "-4"), "--n-gen '-4'"),
    (("-n", "9999999"), "--n-gen '9999999'"), (("-p", ""), "--n-prompt ''"),
    (("-p", "0", "-n", "0"), "--n-prompt 0 and --n-gen 0 leave nothing"), (("-r", "0"), "--repetitions 0: use 1 to"),
    (("-o", "xml"), "--output 'xml': use md, csv, json, or a file that ends in one of them"),
    (("-o", "nowhere/b.csv"), "--output nowhere/b.csv: cannot be written there"),
    (("--device", "golden,sim:big"), "unknown preset 'big'"), (("--device", "golden,"), "one of the values is empty"),
    (("--device", "golden", "--latency", "3"), "--latency needs the simulated board"),
    (("--temp", "-1"), "--temp -1"),
    (("-np", "2"), "--batch 2: the golden model makes one token at a time: use 1, or"),
    (("--device", "golden,sim,batch=4", "-np", "2"), "--batch 2: the golden"), (("-np", "x"), "--batch 'x'"),
    (("--device", "sim", "--batch", "2"), "--batch 2: "),
    (("--seed", "-1"), "--seed -1: use 0 to"), (("-m", "nowhere"), "no such model 'nowhere'"),
])
def test_errors_are_one_line_before_anything_runs(sterna, model, flags, message):
    code, out, err = sterna("bench", "-m", model.path, "--device", "golden", *flags)
    assert code and out == "" and err.startswith("error: ") and err.count("\n") == 1 and message in err


def test_a_processor_s_rows_say_what_it_reads(sterna, model, monkeypatch):
    monkeypatch.setattr(bench, "STREAM_SECONDS", 0)
    weights = GEOMETRY.ternary_weights
    assert bench.used_bytes(GEOMETRY, weights) == weights
    assert bench.used_bytes(GEOMETRY, weights, head=False) == pytest.approx(weights - 264 * 40)
    trees = TreeGeometry(40, 3, 5, 0, 2, 264)  # of which a token reads 18 of 189 rows
    assert bench.used_bytes(trees, trees.read_weights, head=False) == pytest.approx(2 * (4 * 1600 + 2 * 18 * 40))
    flags = ("bench", "-m", model.path, "--device", "cpu,golden", "-p", 8, "-n", 4, "-r", 2, "-t", 1)
    code, out, err = sterna(*flags, "-o", "json")
    rows = json.loads(out)
    assert code == 0 and [(r["device"], r["kind"], r["test"], r["threads"]) for r in rows] == [
        ("cpu", "cpu", "pp8", 1), ("cpu", "cpu", "tg4", 1), ("golden", "golden", "pp8", None),
        ("golden", "golden", "tg4", None)]
    for row in rows[:2]:
        used = row["prompt_token_bytes" if row["n_prompt"] else "token_bytes"]
        assert weights / 4 < row["prompt_token_bytes"] < row["token_bytes"]
        assert row["effective_bytes_per_second"] == pytest.approx(row["avg_ts"] * used)
        assert row["stream_share"] == row["effective_bytes_per_second"] / row["stream_bytes_per_second"]
        assert row["stream_bytes"] == row["token_bytes"] < bench.MOST_STREAM_BYTES
    keys = ("token_bytes", "stream_bytes", "effective_bytes_per_second", "stream_bytes_per_second", "stream_share")
    assert all(row[key] is None for row in rows[2:] for key in keys)
    code, out, err = sterna(*flags)
    assert code == 0 and "| weights, GB/s | of the stream |" in out and "stream: " in out and "1 thread and" in out
    assert re.search(r"\| cpu +\| tg4 +\| +[\d.]+ ± [\d.]+ \| +[\d.]+ \| +[\d.]+% \|\n", out)
    assert re.search(r"\| golden +\| tg4 +\| +[\d.]+ ± [\d.]+ \| +- \| +- \|\n", out)
    monkeypatch.setattr(bench, "MOST_STREAM_BYTES", 1 << 13)
    row, = json.loads(sterna(*flags[:4], "cpu", "-p", 0, "-n", 2, "-r", 1, "-o", "json")[1])
    assert row["stream_bytes"] == 1 << 13 < row["token_bytes"]
    assert "stream" not in sterna("bench", "-m", model.path, "--device", "golden", "-p", 2, "-n", 2)[1]


@pytest.mark.parametrize("flags, message", [
    (("--device", "golden", "-t", "2"), "--threads 2: only --device cpu computes with threads"),
    (("--device", "cpu", "-t", "0"), "--threads 0: use 1 to")])
def test_threads_that_cannot_be(sterna, model, flags, message):
    code, out, err = sterna("bench", "-m", model.path, *flags)
    assert (code, out) == (2, "") and err.startswith(f"error: {message}") and err.count("\n") == 1
