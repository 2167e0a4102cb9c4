"""--device cpu: the texts, states and figures of the golden model, alone and side by side."""

import json
import re

import numpy as np
import pytest
from small_model import SLOTS, GoldenDevice, write_folder
from sterna.host.device.driver import Device
from sterna.host.model.model import Model
from sterna.host.runtime import cpu
from sterna.host.runtime.cpu import CpuRuntime
from sterna.host.runtime.device import DeviceRuntime
from sterna.host.runtime.golden import GoldenRuntime
from sterna.host.runtime.runtime import RunError
from sterna.host.runtime.session import Sequence
from sterna.host.runtime.sampling import Sampling
from sterna.sim.cpu import build
from sterna.sim.cpu.model import BLOCK, CpuModel
from sterna.sim.golden import gate as levels

SAMPLING = Sampling(0.8, 12345)
SAMPLINGS = (Sampling(), SAMPLING, Sampling(1.1, 5, 7), Sampling(1.1, 6, 0, 0.9), Sampling(0.8, 9))
PROMPT = [0, *(k % 250 + 1 for k in range(2 * BLOCK + 20))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("cpu") / "model")


@pytest.fixture(scope="module")
def model(folder):
    return Model(folder)


@pytest.mark.parametrize("sampling", SAMPLINGS[:4], ids=["greedy", "sampled", "top-k", "top-p"])
def test_texts_and_states_equal_golden(model, sampling):
    for length in (1, 2, len(PROMPT)):
        with GoldenRuntime(model) as golden, CpuRuntime(model, 2) as runtime:
            wanted = list(golden.generate(PROMPT[:length], 20, sampling))
            assert list(runtime.generate(PROMPT[:length], 20, sampling)) == wanted
            assert runtime.tokens == golden.tokens
            assert (runtime.state().values == golden.state().values).all() and golden.state().values.any()
            more = list(golden.generate([5, 6], 5, sampling))
            assert list(runtime.generate([5, 6], 5, sampling)) == more


def test_states_move_to_other_devices_and_back(model):
    device = DeviceRuntime(model, Device(GoldenDevice(model.packed, SLOTS), poll_s=0.005), lambda line: None)
    runtimes = [CpuRuntime(model, 1), GoldenRuntime(model), CpuRuntime(model, 2), device, CpuRuntime(model, 1)]
    wanted = list(GoldenRuntime(model).generate([0, 3, 4], 25, SAMPLING))
    made, state = [], None
    for runtime in runtimes:
        if state:
            runtime.restore(state)
        made += runtime.generate([] if state else [0, 3, 4], 5, SAMPLING)
        state = runtime.state()
        runtime.close()
    assert made == wanted


def test_texts_side_by_side_equal_those_alone(model, rng, monkeypatch):
    monkeypatch.setattr(cpu, "SLOTS", 3)
    monkeypatch.setattr(cpu, "PIECE", 7)
    runtime = CpuRuntime(model, 2)
    sequences, wanted = [], []
    for number in range(11):
        ids, n = rng.integers(0, 264, int(rng.integers(1, 40))).tolist(), int(rng.integers(0, 25))
        sampling = SAMPLINGS[number % len(SAMPLINGS)]
        stop = (int(rng.integers(0, 264)), 3) if number % 2 else None
        sequences.append(Sequence(ids, n, sampling, stop))
        wanted.append(list(GoldenRuntime(model).generate(ids, n, sampling, stop)))
    ended = []
    for sequence, token in runtime.generate_all(sequences):
        if token is None:
            ended.append(sequence)
    assert [sequence.tokens for sequence in sequences] == wanted and any(wanted)
    assert len(ended) == len(set(ended)) == 11 and not runtime.tokens
    figures = runtime.statistics
    assert figures.together == 11 and figures.tokens == sum(map(len, wanted)) and figures.passes > 0
    assert "11 texts in 3 slots" in "\n".join(figures.lines())
    runtime.close()


def test_texts_side_by_side_end_when_nobody_wants_them(model):
    runtime = CpuRuntime(model, 1)
    sequences = [Sequence([0, k], 30, SAMPLING) for k in (1, 2, 3)]
    for sequence, token in runtime.generate_all(sequences):
        if token is not None and len(sequence.tokens) == 5 and sequence is sequences[1]:
            sequence.closed = True
    assert [len(sequence.tokens) for sequence in sequences] == [30, 5, 30]
    sequences, asked = [Sequence([0, k], 30, SAMPLING) for k in (1, 2, 3)], []
    made = list(runtime.generate_all(sequences, lambda: asked.append(1) or len(asked) > 20))
    assert sum(token is None for _, token in made) == 3 and len(made) < 30
    assert list(runtime.generate([0, 5], 4, SAMPLING)) == list(GoldenRuntime(model).generate([0, 5], 4, SAMPLING))
    with pytest.raises(RunError, match="no text to go on with"):
        list(runtime.generate_all([Sequence([0], 1, SAMPLING), Sequence([], 1, SAMPLING)]))
    with pytest.raises(RunError, match="token 264 is not among the model's 264"):
        list(runtime.generate_all([Sequence([0], 1, SAMPLING), Sequence([264], 1, SAMPLING)]))
    runtime.close()


def test_a_long_prompt_can_be_left_between_blocks(model):
    runtime, golden = CpuRuntime(model, 1), GoldenRuntime(model)
    told = []
    list(runtime.generate(PROMPT, 5, SAMPLING, cancelled=lambda: len(told) > 1,
                          progress=lambda done, total: told.append((done, total))))
    assert told == [(BLOCK, len(PROMPT) - 1), (2 * BLOCK, len(PROMPT) - 1)]
    assert runtime.tokens == PROMPT[:2 * BLOCK + 1]
    wanted = list(golden.generate(PROMPT, 5, SAMPLING))
    assert list(runtime.generate(PROMPT[2 * BLOCK + 1:], 5, SAMPLING)) == wanted
    runtime.close()


# ---- The command line ----


def test_cpu_is_what_runs_where_no_device_is_named(sterna, folder):
    flags = ("generate", "-m", folder, "-p", "One day", "-n", 12, "-s", 4, "--temp", 0.9)
    wanted = sterna(*flags, "--device", "golden")[1]
    code, out, err = sterna(*flags)
    assert (code, out) == (0, wanted) and re.search(r"weights: +\d\.\d MB read \d+ times, \d+\.\d\d GB/s", err)
    code, out, err = sterna(*flags, "--device", "cpu", "--threads", 1, "--json")
    found = json.loads(err.splitlines()[-1])
    assert (code, out) == (0, wanted)
    read = found["weight_bytes"] * found["passes"]
    assert found["weight_bytes_per_second"] == pytest.approx(read / found["seconds"])
    several = ("-p", "A cat", "-p", "x")
    code, out, err = sterna(*flags, *several)
    assert (code, out) == (0, sterna(*flags, *several, "--device", "golden")[1])
    assert "together:   3 texts in 32 slots" in err
    assert sterna("devices")[1].splitlines()[0].split()[0] == "cpu"
    code, out, _ = sterna("bench", "-m", folder, "-p", 4, "-n", 4, "-r", 1, "-o", "json")
    rows = json.loads(out)
    assert code == 0 and {(row["device"], row["kind"], row["ts_is"]) for row in rows} == {
        ("cpu", "cpu", "wall clock of this machine's processor")}


def test_evaluation_equals_golden(sterna, folder, tmp_path):
    path = tmp_path / "stories.txt"
    path.write_text("A cat sat.\n<|endoftext|>\nThe dog ran home.\n<|endoftext|>\nOne day.\n")
    found = [json.loads(sterna("eval", path, "-m", folder, "--json", *flags)[1])[0]
             for flags in ((), ("--device", "cpu", "-t", 2), ("--device", "golden"))]
    assert [row["device"] for row in found] == ["cpu", "cpu", "golden"]
    for row in found[:2]:
        assert row["bits_per_byte"] == pytest.approx(found[2]["bits_per_byte"], rel=1e-12)
        assert row["tokens"] == found[2]["tokens"]


def test_the_gate_finds_the_same(folder):
    stories = [np.array([0, *range(5, 5 + n), 0]) for n in (3, 9, 6)]
    assert levels.gate(folder, stories, 2, exact=CpuModel) == levels.gate(folder, stories, 2)


def test_without_a_compiler(sterna, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("STERNA_BUILD", str(tmp_path))
    monkeypatch.setattr(build, "compiler_version", lambda: (_ for _ in ()).throw(build.ToolError("none")))
    build.kernels.cache_clear()
    try:
        code, out, err = sterna("generate", "-m", folder, "-p", "x", "-n", 3)
        assert (code, out) == (1, "") and re.fullmatch(
            r"error: --device cpu compiles its kernels once, and there is no compiler: install g\+\+ or clang\+\+, "
            r"or run .*pip install .*, or use --device golden\n", err)
        (tmp_path / "stories.txt").write_text("A cat sat.\n<|endoftext|>\nThe dog ran home.\n")
        code, out, err = sterna("gate", folder, "--text", tmp_path / "stories.txt", "--json")
        assert "computing with the golden model, slowly" in err and json.loads(out)["tokens"] > 0
    finally:
        build.kernels.cache_clear()


def test_states_keep_their_values(model):
    runtime = CpuRuntime(model, 1)
    list(runtime.generate([0, 3], 3, SAMPLING))
    state = runtime.state()
    kept = state.values.copy()
    list(runtime.generate([], 3, SAMPLING))
    np.testing.assert_array_equal(state.values, kept)
    runtime.close()
