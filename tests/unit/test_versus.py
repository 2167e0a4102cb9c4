"""The comparison with llama.cpp: its file of random trits, turns and sums, the table, and refusals."""

import builtins
import json
import mmap
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
from sterna.host.errors import UsageError
from sterna.sim.golden.extras import install_hint
from sterna.sim.golden.packed import Geometry

from docs.figures.versus import machine, page, players, rounds, ternary
from docs.figures.versus.__main__ import main
from docs.figures.versus.packages import load
from docs.figures.versus.processes import PlayerError, started
from docs.figures.versus.randoms import SIZES, Layers, random_packed

SMALL = Geometry(256, 512, 2, 64)


@pytest.mark.parametrize("geometry", [SMALL, *SIZES.values()])
def test_file_has_as_many_ternary_weights_as_the_model(geometry):
    assert ternary.ternary_weights(geometry) == geometry.ternary_weights
    assert len({name for name, _, _ in ternary.tensors(geometry)}) == 3 + 9 * geometry.num_hidden_layers


def decoded(blocks):
    """Numbers [rows, columns] of TQ2_0 blocks (uint8 [rows, bytes]) by the format's definition: in each half of a
    block, byte m holds weights m, 32 + m, 64 + m and 96 + m from bit 0 up, as trit + 1; then comes a float16 scale.
    """
    blocks = blocks.reshape(len(blocks), -1, 66)
    halves = blocks[..., :64].reshape(*blocks.shape[:2], 2, 1, 32)
    trits = (halves >> np.array([0, 2, 4, 6], np.uint8)[:, None] & 3).astype(np.int8) - 1
    scale = np.ascontiguousarray(blocks[..., 64:]).view(np.float16).astype(np.float32)
    return (trits.reshape(*blocks.shape[:2], 256) * scale).reshape(len(blocks), -1)


@pytest.mark.rest
def test_blocks_of_the_file_decode_to_the_trits(tmp_path, monkeypatch):
    import gguf
    monkeypatch.setattr(ternary, "AT_ONCE", 1000)  # a matrix in several pieces
    path = tmp_path / "small.gguf"
    size = ternary.write(path, SMALL, seed=7)
    found = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    assert list(found) == [name for name, _, _ in ternary.tensors(SMALL)]
    assert [file.name for file in tmp_path.iterdir()] == ["small.gguf"]
    seen = 0
    for number, (name, shape, kind) in enumerate(ternary.tensors(SMALL)):
        tensor = found[name]
        assert tuple(reversed(tensor.shape.tolist())) == shape
        if kind == "ternary":
            trits = ternary.trits_of(7, number, shape)
            assert set(np.unique(trits)) == {-1, 0, 1} and trits.shape == shape
            wanted = trits * np.float32(ternary.scale_of(shape))
            np.testing.assert_array_equal(decoded(tensor.data), wanted)
            np.testing.assert_array_equal(gguf.dequantize(tensor.data, tensor.tensor_type), wanted)
            seen += tensor.data.nbytes
    assert seen == size == SMALL.ternary_weights * 66 // 256


@pytest.mark.rest
@pytest.mark.parametrize("hidden, inner", [(128, 512), (256, 384)])
def test_sizes_that_fill_no_blocks_are_refused(tmp_path, hidden, inner):
    with pytest.raises(UsageError, match=f"^hidden {hidden}, intermediate {inner}: TQ2_0 takes multiples of 256"):
        ternary.write(tmp_path / "x.gguf", Geometry(hidden, inner, 1, 64))
    assert not list(tmp_path.iterdir())


def test_a_large_head_is_made_too(monkeypatch):
    wanted = random_packed(SMALL)
    monkeypatch.setattr("sterna.sim.golden.packed.SMALL_WEIGHTS", 0)  # so that its model is made on demand
    found = random_packed(SMALL)
    assert np.array_equal(found.head, wanted.head) and found.geometry == SMALL



def test_random_layers_are_made_when_asked_for():
    packed = random_packed(SMALL)
    assert isinstance(packed.layers, Layers) and len(list(packed.layers)) == SMALL.num_hidden_layers
    first, second = packed.layers
    assert first.gate.shape == (1024, 256) and first.down.shape == (256, 512)
    np.testing.assert_array_equal(first.f, packed.layers[0].f)
    assert not np.array_equal(first.f, second.f)
    assert packed.head.shape == packed.embedding_codes.shape == (64, 256)
    share = np.mean(first.gate == 0)
    assert 0.2 < share < 0.5


class Fake:
    """Any program, at a speed of its own."""

    def __init__(self, kind, parameters):
        self.kind, self.parameters = kind, parameters

    def ask(self, method, count=None):
        if method == "about":
            return {"version": self.kind, "features": "AVX2", "kernels": "plain", "bytes": 10**6,
                    "parameters": self.parameters}
        return {"rates": (2e9, 3e9), "resident": 5}.get(method) or count / (20 if self.kind == "Llama" else 50)


@pytest.mark.parametrize("lost", [0, 1])
def test_a_whole_measurement(tmp_path, monkeypatch, lost):
    asked = []

    @contextmanager
    def started(kind, *arguments):
        asked.append((kind, arguments))
        yield Fake(kind, ternary.parameters(SMALL) - lost)

    def write(path, geometry):
        path.write_text("file")
        return 1000

    monkeypatch.setattr(rounds, "started", started)
    monkeypatch.setattr(ternary, "write", write)
    monkeypatch.setattr(machine, "busy", lambda: 0)
    run = partial(rounds.measure, SMALL, SMALL, 3, tmp_path / "new", rounds=2, tell=lambda line: None)
    if lost:
        with pytest.raises(PlayerError, match=f"llama.cpp finds {ternary.parameters(SMALL) - 1} parameters, not"):
            run()
    else:
        found = run()
        assert found["make.ratio"] == 2.5 and found["make.result"] == "met" and found["llama.bytes"] == 1000
        assert "threads of each: 3; taken by others: 0%" in found["how"] and "built with AVX2" in found["how"]
        assert page.tables({"versus.370m": found})["table.versus"].count("met") == 2
        path = str(tmp_path / "new" / "random-tq2_0.gguf")
        assert asked == [("Llama", (path, 3, 512)), ("Sterna", (SMALL, 3)), ("Memory", (1 << 30, 10**6, 3))]
    assert not list((tmp_path / "new").iterdir())


def test_sterna_and_the_memory_answer_as_programs():
    with started("Sterna", Geometry(64, 128, 2, 96), 1) as player:
        about = player.ask("about")
        weights = Geometry(64, 128, 2, 96).ternary_weights
        assert about["threads"] == 1 and about["bytes"] >= weights / 4 and about["kernels"]
        assert player.ask("make", 3) > 0 and player.ask("read", 5) > 0 and player.ask("resident") > 1 << 20
    with started("Memory", 1 << 20, 1 << 16, 1) as player:
        assert min(player.ask("rates")) > 0


class Counting:
    """A program of so many tokens/s, eight times as many of a prompt; and a memory that gets faster."""

    def __init__(self, log, name, speed):
        self.log, self.name, self.speed, self.rounds = log, name, speed, 0

    def ask(self, method, count=None):
        self.log.append((self.name, method))
        if method == "rates":
            self.rounds += 1
            return 10e9 * self.rounds, 40e9
        return count / self.speed / {"make": 1, "read": 8}[method]


def test_programs_take_turns_and_are_summed_up(monkeypatch):
    monkeypatch.setattr(machine, "busy", lambda: 0.02)
    log, lines = [], []
    programs = {name: Counting(log, name, speed) for name, speed in (("llama", 20), ("sterna", 50))}
    found = rounds.in_turns(programs, Counting(log, "memory", 1), 3, lines.append)
    assert log[:5] == [("memory", "rates"), ("llama", "make"), ("sterna", "make"), ("llama", "read"),
                       ("sterna", "read")]
    assert log[5:8] == [("memory", "rates"), ("sterna", "make"), ("llama", "make")]
    assert lines[0] == ("round 1 of 3, tokens/s: llama make 20.0, sterna make 50.0, llama read 160.0, "
                        "sterna read 400.0; busy before: 2%")
    found["sterna", "make"][0] *= 100  # a disturbed round
    found["llama", "read"][0] /= 2
    body = 1 - 64 * 256 / SMALL.ternary_weights
    sizes = {name: {"make": size, "read": size * body} for name, size in (("llama", 10**8), ("sterna", 9 * 10**7))}
    out = rounds.summary(found, sizes)
    assert out["memory.far.gb_per_second"] == 30 and out["memory.near.gb_per_second"] == 40
    assert out["sterna.make.tokens_per_second"] == pytest.approx(50)
    assert out["llama.read.best"] == pytest.approx(320) and out["llama.make.gb_per_second"] == pytest.approx(2)
    assert out["sterna.make.share"] == pytest.approx(50 * 0.09 / 30)
    assert out["llama.read.gb_per_second"] == pytest.approx(16 * body)
    assert out["make.ratio"] == pytest.approx(2.5) and out["make.result"] == out["read.result"] == "met"
    slower = rounds.summary(found | {("sterna", "read"): [512 / 150] * 3}, sizes)
    assert slower["read.result"] == "missed" and slower["read.ratio"] == pytest.approx(150 / 160)
    assert "not judged" in rounds.summary(found | {"busy": [0, 0.5, 0.5]}, sizes)["make.result"]


def test_table_of_fixed_results():
    values = {"weights": 341_049_344, "llama.bytes": 87_926_784, "sterna.bytes": 85_262_336,
              "llama.resident_bytes": 210_000_000, "sterna.resident_bytes": 199_600_000,
              "memory.far.gb_per_second": 28.0, "memory.near.gb_per_second": 50.0}
    for name, test, rate, best in (("llama", "make", 30, 31), ("llama", "read", 100, 101), ("sterna", "make", 60, 66),
                                   ("sterna", "read", 90, 95)):
        values |= {f"{name}.{test}.tokens_per_second": rate, f"{name}.{test}.best": best,
                   f"{name}.{test}.gb_per_second": rate * 0.085, f"{name}.{test}.share": rate * 0.085 / 28}
    values |= {"make.ratio": 2.0, "make.bar": 1.5, "make.result": "met",
               "read.ratio": 0.9, "read.bar": 1.0, "read.result": "missed", "how": "measured " + "well " * 30}
    out = page.tables({"versus.370m": values, "lines": {}})
    assert out["table.versus"].splitlines()[2:] == [
        "| 341 M | generation | 30.0 (31.0) | 2.6 | 9.1% | 60.0 (66.0) | 5.1 | 18.2% | 2.00 | 1.5: met |",
        "| 341 M | prompt | 100.0 (101.0) | 8.5 | 30.4% | 90.0 (95.0) | 7.7 | 27.3% | 0.90 | 1.0: missed |"]
    memory = out["table.versus.memory"].splitlines()[2]
    assert memory == "| 341 M | 87.9 MB | 85.3 MB | 210 MB | 200 MB | 28.0 | 50.0 |"
    assert out["how.versus"].startswith("- 341 M: measured well ") and "\n  well " in out["how.versus"]
    assert page.tables({"lines": {}}) == {}


def test_name_of_a_cpu():
    text = ("processor : 0\ncpu family\t: 6\nmodel\t\t: 143\nmodel name\t: Some CPU\nflags\t\t: fpu avx2 avx512f\n\n"
            "processor : 1\nmodel name : Other\n")
    assert machine.cpu_name(text) == "Some CPU (family 6, model 143: avx2, avx512f)"
    assert machine.cpu_name("") and "Some" not in machine.cpu_name("")


def test_what_others_take_of_the_processors(monkeypatch):
    texts = ["cpu  100 10 20 700 30 5 5 30 8 8\ncpu0 1\n", "cpu  150 10 20 730 40 5 5 40 58 8\n"]
    assert machine.ticks(texts[0]) == (900, 730) and machine.ticks("") is None
    read = iter([machine.ticks(text) for text in texts])
    monkeypatch.setattr(machine, "ticks", lambda: next(read))
    assert machine.busy(0) == pytest.approx(0.6)


def test_memory_of_a_process_is_that_of_its_pages():
    with mmap.mmap(-1, 1 << 24) as held:  # pages that this process has not had before
        before = machine.resident_bytes()
        held[::mmap.PAGESIZE] = bytes(len(held) // mmap.PAGESIZE)
        grown = machine.resident_bytes() - before
    assert (1 << 23) < grown < (1 << 27)


def without(monkeypatch, *names):
    real = builtins.__import__

    def refused(name, *rest):
        if name.partition(".")[0] in names:
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, *rest)
    monkeypatch.setattr("importlib.import_module", lambda name: refused(name))


def test_missing_extra_is_named_with_its_command(monkeypatch, capsys, tmp_path):
    without(monkeypatch, "gguf", "cyllama")
    monkeypatch.setenv("STERNA_BUILD", str(tmp_path))
    for name in ("gguf", "cyllama"):
        with pytest.raises(UsageError, match=f"^cannot import {name} .*: run ") as found:
            load(name)
        assert install_hint("versus") in str(found.value)
    assert main(["--threads", "1"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: cannot import gguf") and last.endswith(install_hint("versus"))
    assert not list((tmp_path / "versus").iterdir())


@pytest.mark.parametrize("flags, code, message", [
    (["--threads", "0"], 2, "--threads 0: use 1 to"), (["--rounds", "0"], 2, "--rounds 0: use 1 to"),
    (["--model", "nowhere"], 1, "no such model 'nowhere'")])
def test_wrong_use_is_one_line(flags, code, message, capsys):
    assert main(flags) == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1 and message in err


def test_a_program_that_fails_ends_the_run_with_its_message(tmp_path):
    with started("Llama", str(tmp_path / "none.gguf"), 1, 8) as player:
        with pytest.raises(PlayerError, match="^Llama: "):
            player.ask("about")


def test_random_prompts_are_the_same_for_both():
    ids = players.random_ids(512, 100)
    assert ids == players.random_ids(512, 100) and len(ids) == 512 and 0 <= min(ids) and max(ids) < 100
    assert json.dumps(ids)
