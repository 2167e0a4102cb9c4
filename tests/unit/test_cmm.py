"""sterna bench-cmm: the kernel and every other way beside float64, what is refused, states, faults, reports."""

import importlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sterna.sim.cmm import check, faults, measure, report, run, ways, weights, worker
from sterna.sim.cmm.kernel import Kernel
from sterna.sim.cmm.shape import HIDDEN, LARGEST, CmmError, Tree, parse
from sterna.sim.golden import compiler

from docs.figures import cmm

pytestmark = pytest.mark.rest  # a benchmark by itself, of nothing that others need

PATHS = ("native", *(pytest.param(path, marks=pytest.mark.rest) for path in ("plain", "avx2")))


@pytest.fixture(scope="module")
def layers():
    return weights.Layers(np.random.default_rng(5), 1, 3)


def bench_of(layers, tree, torch=False):
    module = importlib.import_module("torch") if torch else None
    if module:
        module.set_num_threads(1)
    return ways.Bench(tree, layers, Kernel(2), module, None)


def inputs(x, batch):
    return measure.Inputs(x, (weights.rounded(x).view(np.uint32) >> 16).astype(np.uint16), batch)


@pytest.mark.parametrize("path", PATHS)
def test_the_kernel_equals_float64(rng, layers, path):
    for name in ("1x11", "5x3"):
        tree = parse(name)
        for threads, half in ((1, False), (3, True)):
            kernel = Kernel(threads, path)
            tables = [layers.table(0, which, half) for which in (0, 1)]
            true = [weights.widened(kernel.unpacked(table)) for table in tables] if half else tables
            x, _ = weights.clear_inputs(rng, tree, true[:1], 530)
            wanted = weights.walk(tree, *true, x)[0]
            for batch in (1, 2, 3, 64, 530):  # alone, alone by threads, together, in two parts
                y = weights.aligned((batch, HIDDEN))
                y[:] = np.nan
                kernel.prepare(tree, *tables, x, y)()
                print(name, threads, half, batch, kernel.path)
                assert np.abs(y - wanted[:batch]).max() < 1e-5 * np.abs(wanted).max()


def test_a_sum_of_zero_goes_left():
    table_in, table_out = (weights.aligned((3, HIDDEN)) for _ in range(2))
    table_in[:], table_out[:] = 0, np.arange(3)[:, None]
    table_in[1:, 0] = 1
    for batch in (1, 4):
        x, y = weights.aligned((batch, HIDDEN)), weights.aligned((batch, HIDDEN))
        x[:] = 1
        Kernel().prepare(Tree(1, 1), table_in, table_out, x, y)()
        np.testing.assert_allclose(y, weights.silu(1.0), rtol=1e-6)
        np.testing.assert_allclose(weights.walk(Tree(1, 1), table_in, table_out, x)[0], y, rtol=1e-6)


def test_every_copy_is_initialised(layers):
    for copy in range(3):
        for half in (False, True):
            values = layers.table(copy, 1, half)
            values = weights.widened(values) if half else values
            assert values.shape == (LARGEST, HIDDEN) and np.isfinite(values).all()
            assert values.std() == pytest.approx(HIDDEN**-0.5, rel=0.01) and (values != 0).mean() > 0.999
            np.testing.assert_array_equal(layers.table(copy, 1, half), layers.table(0, 1, half))
    assert not np.shares_memory(layers.table(0, 0), layers.table(1, 0))


def test_inputs_that_float32_cannot_decide_are_drawn_again(rng, layers, monkeypatch):
    tree, table = Tree(1, 3), layers.table(0, 0)
    monkeypatch.setattr(weights, "CLEAR", 0.05)
    x, again = weights.clear_inputs(rng, tree, [table], 100)
    assert again > 0 and weights.walk(tree, table, table, x)[2].min() >= 0.05


@pytest.mark.parametrize("torch", [False, pytest.param(True, marks=(pytest.mark.torch, pytest.mark.rest))])
def test_every_way_equals_float64(rng, layers, torch):
    tree = Tree(3, 2)
    bench, seen = bench_of(layers, tree, torch), set()
    tables = [layers.table(0, 0), weights.widened(bench.kernel.unpacked(layers.table(0, 0, True)))]
    x, _ = weights.clear_inputs(rng, tree, tables, 5)
    truth = check.Truth(bench, x)
    for batch in (1, 5):
        contest = measure.Contest(bench, inputs(x, batch), 1, None)
        for way in ways.every(bench, batch):
            contest.check(way, truth)
            seen.add(way.name)
    wanted = {"C", "NumPy", "NumPy gather"}
    assert seen == wanted | ({"torch Linear", "torch mm", "torch packed", "torch gather"} if torch else set())


def test_nothing_wrong_is_timed(monkeypatch):
    right = ways.numpy_dense

    def wrong(width):
        def prepare(bench, copy, buffers):
            function = right(width)(bench, copy, buffers)

            def run_():
                function()
                buffers.y[-1, -1] += 0.01
            return run_
        return prepare

    told, settings = [], worker.Settings("2x1", [1, 3], ["warm"], 1, 1, 0, True, False, ["torch", "numba"])
    monkeypatch.setattr(ways, "numpy_dense", wrong)
    with pytest.raises(CmmError, match=r"^dense 3072, fp32, NumPy, batch 1: 0\.\d+ of the largest output off from "
                       "float64, more than 1e-05: nothing wrong is timed; leave it out with --without 'NumPy'$"):
        worker.work(settings, lambda **found: told.append(found))
    assert told and not any("row" in found for found in told)
    told.clear()
    worker.work(replace(settings, without=["torch", "numba", "NumPy"]), lambda **found: told.append(found))
    assert any("row" in found for found in told)


class Fake:
    """Layers that note what is read."""

    count, copy_bytes = 6, 10

    def __init__(self):
        self.read_ = []

    def read(self, copy):
        self.read_.append(copy)


def test_copies_are_cold_when_they_come_again():
    layers = Fake()
    cold, last = measure.Copies(layers, 40), {}
    for _ in range(20):
        copy = cold.current
        assert copy and len(layers.read_) - last.get(copy, -9) > 4  # forty bytes behind its own reading
        last[copy] = len(layers.read_)
        cold.read()
        cold.used(copy)
    before = len(layers.read_)
    cold.make_cold("new")
    assert len(layers.read_) == before
    cold.used("new")
    cold.make_cold("new")
    assert len(layers.read_) == before + 4
    with pytest.raises(ValueError, match="too few"):
        measure.Copies(layers, 41)
    count, distance = run.copies(parse("1x11"), 480 << 20, None)
    assert distance == 1440 << 20 and (count - 2) * 8 * HIDDEN * LARGEST >= distance
    assert run.copies(parse("1x11"), 480 << 20, 2 << 30) == (1, 0)


def test_faults_are_what_they_are_called(rng, layers):
    bench = bench_of(layers, Tree(1, 4))
    contest = measure.Contest(bench, inputs(rng.standard_normal((4, HIDDEN), np.float32), 4), 1, None)
    found = {}
    for way in faults.ways(bench):
        contest._inputs.load(way, 0)
        buffers = contest._inputs.buffers
        buffers.y[:] = np.nan
        contest.function(way, 0)()
        found[way.group, way.name] = buffers.y.copy()
    x = contest._inputs.buffers.x
    wanted = weights.walk(bench.tree, layers.table(0, 0), layers.table(0, 1), x)[0]
    np.testing.assert_allclose(found[faults.GROUP, faults.NONE], wanted, atol=1e-5)
    one = found[faults.GROUP, faults.POINTER]  # only the first output is written, from the first input
    np.testing.assert_allclose(one[0], wanted[0], atol=1e-5)
    assert np.isnan(one[1:]).all()
    assert not found[faults.GROUP, faults.FRESH].any() and not found[faults.DENSE, faults.FRESH].any()
    assert np.isnan(found[faults.GROUP, faults.OUTPUTS]).all()  # its outputs are elsewhere
    dense = weights.dense(3072, layers.table(0, 0), layers.table(0, 1)[:3072], x)
    np.testing.assert_allclose(found[faults.DENSE, faults.NONE], dense, atol=1e-3)


def test_caches_are_read_by_level(tmp_path):
    for k, (kind, level, size) in enumerate((("Data", 1, "48K"), ("Instruction", 1, "64K"), ("Unified", 3, "480M"))):
        (tmp_path / f"index{k}").mkdir()
        for name, value in (("type", kind), ("level", level), ("size", size)):
            (tmp_path / f"index{k}" / name).write_text(f"{value}\n")
    (tmp_path / "index9").mkdir()
    assert weights.caches(tmp_path) == {1: 48 << 10, 3: 480 << 20}


@pytest.mark.parametrize("options, message", [
    (("--tree", "11"), "'11' is no KxD: give the number of trees and their depth, as 1x11 or 32x6"),
    (("--tree", "0x3"), "'0x3' is no KxD"),
    (("--tree", "1x14"), "1x14: 1 trees of depth 14 have more than 16,384 neurons: use fewer or flatter ones"),
    (("--tree", "999999x999999"), "have more than 16,384 neurons"),
    (("--batch", "0"), "--batch 0: '0': use 1 to 4096"),
    (("--batch", "1,,2"), "--batch 1,,2: 'nothing': use 1 to 4096"),
    (("--threads", "5000"), "--threads 5000: '5000': use 1 to "),
    (("--states", "hot"), "--states hot: 'hot' is none: use same, warm, cold"),
    (("--without", "fortran"), "--without fortran: no such way: use one of C, torch, numba, ")])
def test_wrong_options_are_refused_in_one_line(sterna, options, message):
    code, out, err = sterna("bench-cmm", *options)
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1 and err.startswith("error: ")


def test_without_a_compiler_the_rest_is_measured(sterna, monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "no-such-compiler")
    compiler.compiler.cache_clear()
    options = ("--tree", "2x1", "--batch", "2", "-t", "1", "--states", "same", "--quick", "--without", "torch")
    try:
        code, out, err = sterna("bench-cmm", *options, "--json")
        assert code == 0, err
    finally:
        compiler.compiler.cache_clear()
    found = json.loads(out)
    assert "left out: C: sterna bench-cmm compiles its kernels once: C++ compiler 'no-such-compiler'" in err
    assert found["kernel"] is None and {row["name"] for row in found["rows"]} == {"NumPy", "NumPy gather"}
    assert "| 1 | 2 | same input |" in report.ratios(found) and not report.fault_table(found)


@pytest.fixture(scope="module")
def found():
    """A benchmark's findings, made up: conditional 2 us, dense layers 100 us and more."""
    rows = []
    for threads, batch, state in ((1, 1, "look"), (1, 1, "warm"), (1, 64, "cold"), (2, 1, "warm")):
        for group, us in (("conditional", 2.0), ("dense 3072", 300.0), ("dense 4095", 400.0), ("dense 12", 1.0)):
            for kind, name, factor in (("fp32", "C", 1), ("fp32", "NumPy", 3), ("bf16", "C", 0.5)):
                way = ways.Way(group, kind, name, None)
                rows.append(measure.row(threads, batch, state, way, np.array([0.5, 1, 4]) * us * factor * 1e3))
    for group, name in ((faults.DENSE, faults.NONE), *((faults.GROUP, name) for name in faults.MEANING),
                        (faults.DENSE, faults.FRESH)):
        us = {faults.DENSE: 300, faults.GROUP: 1 if name == faults.ALL else 2}[group]
        us = 150 if (group, name) == (faults.DENSE, faults.FRESH) else us
        rows.append(measure.row(1, 64, "same", ways.Way(group, "fp32", name, None), [us * 1e3]))
    machine = {"processor": "Example", "clock_mhz": 2600.0, "sets": ["avx2"], "cores": 2, "caches": {"3": 1 << 20},
               "others": 0.5, "versions": {"numpy": "2"}}
    return {"plan": {"tree": "1x11", "quick": False}, "machine": machine, "kernel": "AVX2", "left_out": [],
            "touched": [{"batch": 64, "rows": 390.0, "share": 0.095}], "rows": measure.as_dicts(rows), "seconds": 9.0}


def test_reports_say_what_was_found(found):
    text = report.text(found)
    assert "| 1 | 1 | warm, new inputs | 150 (150) | 150 (150) | 150 (150) | 200 (200) | 0.5 (0.5) |" in text
    assert "| 1 | 64 | cold | fp32 | 2 (1 to 6.8) C | 300 (150 to 1,020) C | 400 " in text
    assert "| the kernel as it is | 2 | 150 | 150 |" in text and "| all three together | 1 | 300 | 150 |" in text
    assert "9.5% at batch 64 (390 rows)" in text and "others used 50% of the processors" in text
    assert "a busy machine, whose medians are not for quoting" in text and "these ratios are too high" in text
    assert report.warning(found | {"machine": found["machine"] | {"others": None}}) == ""
    assert "150 (150) against 183 (222) at batch 1, warm; 150 (150) against 27 (15) at batch 64, cold." in text
    assert report.busy(found | {"machine": found["machine"] | {"others": 0.02}}) is False
    assert "| dense 12 | bf16 | C | 0.25 |" in report.looks(found)


def test_the_page_has_every_table_and_the_picture(found, tmp_path):
    pytest.importorskip("matplotlib")
    values = {"cmm": {"found": found, "how": ""}}
    text = (Path(cmm.__file__).parents[1] / "fff-cpu.md").read_text()
    made = cmm.tables(values) | cmm.draw(values, tmp_path)
    assert list(made) == cmm.names() and all(f"<!-- figure:{name} -->" in text for name in made)
    assert (tmp_path / cmm.FILE).stat().st_size > 5000
    assert cmm.tables({}) == {}
