"""Models on --device cpu, layer by layer, beside the golden model: bit for bit; and what they refuse."""

import ctypes
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from extremes import KINDS, extreme
from sterna.sim.cpu import build
from sterna.sim.cpu.evaluate import evaluate
from sterna.sim.cpu.model import BLOCK, CpuModel, ThreadsError, usable_threads
from sterna.sim.golden import gate, toplist
from sterna.sim.golden.fp24 import mul, round24
from sterna.sim.golden.model import GoldenModel, Rows
from sterna.sim.golden.packed import Geometry, PackError, random_model

# Code for other machines is left to the rest; tests/unit/test_cpu_kernels.py sees the plain one's functions.
PATHS = ("native", *(pytest.param(path, marks=pytest.mark.rest) for path in ("plain", "avx2")))
same = np.testing.assert_array_equal


@pytest.mark.parametrize("kind", KINDS)
def test_every_layer_equals_the_golden_model(rng, kind):
    packed = extreme(rng, kind)
    golden, found = GoldenModel(packed), CpuModel(packed, 2)
    x = golden.embed([3, 4, 32])
    same(found.embed([3, 4, 32]), x)
    state, other = golden.start(3), found.start(3)
    for _ in range(4):
        for number in range(2):
            before = x
            x = golden.layer(number, before, state[number])
            same(found.layer(number, before, other[number]), x)
            same(other[number], state[number])
    head, theirs = golden.step([1, 2, 3], state), found.step([1, 2, 3], other)
    same(theirs.rows, head.rows)
    same(theirs.scale, head.scale)
    same(other, state)
    assert not np.signbit(other[other == 0]).any()
    found.close()


@pytest.mark.parametrize("path", PATHS)
def test_odd_geometries_batches_blocks_and_threads(rng, path):
    for threads in (1, 2, 3):
        geometry = Geometry(*(int(n) for n in rng.integers(1, (200, 300, 4, 150))))
        packed = random_model(rng, geometry)
        golden, found = GoldenModel(packed), CpuModel(packed, threads, path)
        print(geometry, threads, found.path)
        batch = int(rng.integers(1, 20))
        ids = rng.integers(0, geometry.vocab_size, (4, batch))
        state, other, blocks = golden.start(batch), found.start(batch), found.start(batch)
        wanted = [golden.step(row, state) for row in ids]
        for row, head in zip(ids, wanted, strict=True):
            step = found.step(row, other)
            same(step.rows, head.rows)
            same(step.scale, head.scale)
        same(other, state)
        # The same tokens in any order that keeps that of every sequence.
        slots = rng.permutation(np.repeat(np.arange(batch), 4))
        tokens, heads = np.zeros(len(slots), np.int64), np.zeros(batch, np.int64)
        for slot in range(batch):
            at = np.flatnonzero(slots == slot)
            tokens[at], heads[slot] = ids[:, slot], at[-1]
        last = found.columns(tokens, slots, blocks, np.sort(heads))
        same(last.rows, wanted[-1].rows[np.argsort(heads)])
        same(last.scale, wanted[-1].scale[np.argsort(heads)])
        same(blocks, state)
        found.close()


def test_long_prompts_equal_single_tokens(rng):
    packed = random_model(rng, Geometry(20, 12, 1, 33))
    golden, found = GoldenModel(packed), CpuModel(packed, 2)
    ids = rng.integers(0, 33, 2 * BLOCK + 7)
    state, other = golden.start(3), found.start(3)
    wanted = np.array([golden.logits([token], state[:, 1:2])[0] for token in ids])
    same(found.block_logits(ids, other, slot=1), wanted)
    same(other, state)
    again = found.start(1)
    found.read(ids, again)
    same(again[:, 0], state[:, 1])
    assert state.any()
    found.close()


def test_states_of_any_layout(rng):
    packed = random_model(rng, Geometry(40, 24, 2, 33))
    golden, found = GoldenModel(packed), CpuModel(packed, 1)
    state = golden.start(2)
    golden.step([1, 2], state)
    for other in (np.zeros((2, 5, 40))[:, 1:3], np.zeros((2, 40, 2)).transpose(0, 2, 1), np.zeros((4, 2, 40))[::2]):
        found.step([1, 2], other)
        same(other, state)
    found.close()


def test_it_is_safe_to_ask_for_what_is_not_there(rng):
    found = CpuModel(random_model(rng, Geometry(40, 24, 2, 33)), 1)
    state = found.start(2)
    for ids in ([33, 0], [0, -1]):
        with pytest.raises(IndexError, match="token"):
            found.step(ids, state)
    with pytest.raises(IndexError, match="slot 2 is not among 2"):
        found.columns([1], [2], state, [0])
    for shape in ((1, 2, 40), (3, 2, 40), (2, 2, 39), (2, 2, 41), (2, 2), (2, 2, 40, 1)):
        with pytest.raises(ValueError, match=r"^a state of shape \(.*\): use \(2, sequences, 40\)$"):
            found.step([1, 2], np.zeros(shape))
    with pytest.raises(IndexError, match="slot 1 is not among 1"):
        found.step([1, 2], found.start(1))
    x = found.embed([1, 2])
    for number in (-1, 2):
        with pytest.raises(IndexError, match=f"^layer {number} is not among 2$"):
            found.layer(number, x, state[0])
    for h in (state, state[0, :1], state[0, :, :39], np.zeros((3, 40))):
        with pytest.raises(ValueError, match=r"^a state of shape .*: \(2, 40\) goes with x$"):
            found.layer(0, x, h)
    for call in (found.head, lambda x: found.layer(0, x, np.zeros(x.shape))):
        with pytest.raises(ValueError, match=r"^x of shape \(2, 39\): use \(2, 40\)$"):
            call(x[:, :39])
    for heads in ([1, 0], [2, 0, 1], [5], [3], [-1], [0, 0], [0, 1, 1, 2]):
        with pytest.raises(IndexError, match=r"^heads \[.*\]: use ascending numbers below 3$"):
            found.columns([1, 2, 3], [0, 0, 1], state, heads)
    for slots in ([0, 0, 1], [0]):
        with pytest.raises(ValueError, match=r"^slots of shape .*: \(2,\) goes with the tokens"):
            found.columns([1, 2], slots, state, [])
    assert not state.any()
    with pytest.raises(ValueError, match=r"^targets of shape \(1,\): \(2,\) goes with the rows$"):
        found.likelihood(found.step([1, 2], found.start(2)), [0])
    with pytest.raises(ValueError, match="^scales of shape"):
        found.sample(Rows(np.zeros((2, 33)), np.zeros(1)))
    with pytest.raises(IndexError, match="target 33 is not among 33"):
        found.likelihood(found.step([1, 2], state), [0, 33])
    assert found.columns([], [], state, []).rows.shape == (0, 33)
    found.close()
    found.close()
    with pytest.raises(ValueError, match="closed"):
        found.step([1, 2], state)


SAMPLINGS = ({}, {"temperature": 0.7}, {"temperature": 1.3, "top_k": 1}, {"temperature": 1.3, "top_k": 40},
             {"temperature": 0.9, "top_k": 64, "top_p": 0.8}, {"temperature": 2.0, "top_k": 5000, "top_p": 0.99},
             {"temperature": 1.1, "top_k": 1500}, {"temperature": 1.1, "top_k": 2500, "top_p": 0.9},
             {"temperature": 0.9, "top_k": 64, "top_p": 1e-5})  # the first alone: of equal ones the lowest row


@pytest.mark.parametrize("path", PATHS)
def test_samplers_equal_the_golden_models(rng, path):
    packed = random_model(rng, Geometry(8, 8, 1, 3000))
    found = CpuModel(packed, 2, path)
    for round_ in range(6):
        rows = np.rint(rng.standard_normal((5, 3000)) * (300 if round_ else 3))  # with ties, and with many
        rows[0, 7] = rows[0, 1500] = rows[0, 2999] = rows[0].max() + 1
        rows[1] = 5
        rows[2] = 60_000 + rng.integers(0, 50, 3000)  # near one another
        head = Rows(rows, round24(rng.uniform(0.001, 0.1, 5)))
        seeds, positions = rng.integers(0, 1 << 32, 5), rng.integers(0, 1 << 20, 5)
        for options in SAMPLINGS:
            wanted = GoldenModel.sample(head, seeds, positions, **options)
            same(found.sample(head, seeds, positions, **options), wanted, err_msg=str(options))
    same(found.sample(head, 3, 4, 0.5), GoldenModel.sample(head, 3, 4, 0.5))
    for options, message in (({"top_k": -1}, "top-k -1"), ({"temperature": 1, "top_p": 0.5}, "give top-k as well"),
                             ({"temperature": 1, "top_k": 3, "top_p": 2}, "top-p 2")):
        with pytest.raises(ValueError, match=message):
            found.sample(head, **options)
    found.close()


def test_likelihoods_of_stories(rng):
    packed = random_model(rng, Geometry(20, 12, 1, 1100))
    found = CpuModel(packed, 2)
    stories = [np.array([0, *rng.integers(1, 1100, n), 0]) for n in (3, 90, 1, 5, 2 * BLOCK - 1, 7, 40)]
    wanted, count = gate.evaluate(GoldenModel(packed), stories)
    nats, tokens = evaluate(found, stories)
    assert tokens == count and abs(nats - wanted) < 1e-12 * wanted
    assert evaluate(found, []) == (0.0, 0)
    with pytest.raises(ValueError, match="fewer than two tokens"):
        evaluate(found, [np.array([0])])
    # Logits far from one another, the largest in the first rows.
    head, targets = Rows(np.arange(2200.0)[::-1].reshape(2, 1100) * 20, np.array([1.0, 0.5])), np.array([30, 1099])
    logs = gate.log_softmax(mul(head.rows, head.scale[:, None]))
    np.testing.assert_allclose(found.likelihood(head, targets), logs[[0, 1], targets], rtol=1e-14)
    # The gate's own walk, whose states are parts of larger ones.
    assert gate.evaluate(found, stories[:4], batch=3) == gate.evaluate(GoldenModel(packed), stories[:4], batch=3)
    found.close()


def test_generate_equals_the_golden_models(rng):
    packed = random_model(rng, Geometry(20, 24, 2, 17))
    golden, found = GoldenModel(packed), CpuModel(packed, 2)
    for options in ({}, {"seed": 4, "temperature": 1.0}, {"seed": 5, "temperature": 0.8, "top_k": 5, "top_p": 0.9}):
        wanted = golden.generate([0, 3, 5], 12, **options)
        assert found.generate([0, 3, 5], 12, **options) == wanted
        state = found.start(1)
        first = found.generate([0, 3, 5], 5, start_state=state, **options)
        assert first + found.generate(first[-1:], 7, start_state=state, start_position=7, **options) == wanted
        assert found.generate([0, 3, 5], 12, stop=wanted[4], **options) == wanted[:wanted.index(wanted[4]) + 1]
    theirs, state = golden.start(1), found.start(1)
    assert found.generate([0, 3], 0, start_state=state) == golden.generate([0, 3], 0, start_state=theirs) == []
    same(state, theirs)
    with pytest.raises(ValueError, match="prompt is empty"):
        found.generate([], 1)
    found.close()


def test_lists_of_the_best_rows_are_sorted_as_golden_sorts_them(rng):
    """Of noise that cannot be seen in what is drawn: the lists themselves, many of their values equal."""
    found = CpuModel(random_model(rng, Geometry(8, 8, 1, 3000)), 1)
    rows = np.rint(rng.standard_normal((1, 3000)) * 40)
    lists = []
    draw = found._library.sterna_draw
    kind = ctypes.POINTER(ctypes.c_int64)

    def kept(call):
        draw(call)
        lists.append(np.ctypeslib.as_array(ctypes.cast(call._obj.list_row, kind), (call._obj.top,)).copy())

    found._library = type("Library", (), {"sterna_draw": staticmethod(kept)})
    for top in (1, 40, 1024, 1025, 2100, 2999, 3000):
        found.sample(Rows(rows, np.ones(1)), 1, 2, 1.0, top)
        same(lists.pop(), toplist.best_rows(rows[0], top))
    found.close()


def test_two_threads_of_python_wait_for_one_another(rng):
    packed = random_model(rng, Geometry(72, 96, 2, 33))
    found = CpuModel(packed, 2)
    options = [{"seed": seed, "temperature": 1.0, "top_k": 5} for seed in range(2)]
    wanted = [GoldenModel(packed).generate([0, 3], 16, **each) for each in options]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda each: found.generate([0, 3], 16, **each), options)) == wanted
    found.close()


def test_two_models_at_once(rng):
    packed = [random_model(rng, Geometry(*size)) for size in ((72, 96, 2, 33), (40, 24, 1, 50))]
    models = [CpuModel(each, 2) for each in packed]
    wanted = [GoldenModel(each).generate([0, 3], 16) for each in packed]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda model: model.generate([0, 3], 16), models)) == wanted
    models[0].close()
    assert models[1].generate([0, 3], 16) == wanted[1]
    models[1].close()


def test_signals_are_left_to_the_threads_of_python(rng):
    def threads():
        return {path.name for path in Path("/proc/self/task").iterdir()}

    before, own = threads(), signal.pthread_sigmask(signal.SIG_BLOCK, ())
    found = CpuModel(random_model(rng, Geometry(8, 8, 1, 9)), 3)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == own
    new = threads() - before
    assert len(new) == 2
    for name in new:
        blocked, end = -1, time.monotonic() + 20
        while blocked >> signal.SIGSEGV - 1 & 1 and time.monotonic() < end:  # it begins with all blocked
            status = Path("/proc/self/task", name, "status").read_text()
            blocked = int(re.search(r"SigBlk:\s*(\w+)", status)[1], 16)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGCHLD):
            assert blocked >> number - 1 & 1
        assert not blocked >> signal.SIGSEGV - 1 & 1  # for faulthandler
    found.close()


def test_a_process_that_forks_goes_on_alone():
    """Its copy of the model has no other threads; it computes and ends."""
    script = (
        "import os, numpy as np\n"
        "from sterna.sim.cpu.model import CpuModel\n"
        "from sterna.sim.golden.packed import Geometry, random_model\n"
        "found = CpuModel(random_model(np.random.default_rng(1), Geometry(20, 24, 2, 17)), 3)\n"
        "wanted = found.generate([0], 9)\n"
        "child = os.fork()\n"
        "assert found.generate([0], 9) == wanted\n"
        "if child:\n"
        "    assert os.waitpid(child, 0)[1] == 0\n")
    build.kernels()  # which says so when it compiles
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_process_ends_while_a_daemon_thread_computes():
    script = (
        "import threading, numpy as np\n"
        "from sterna.sim.cpu.model import CpuModel\n"
        "from sterna.sim.golden.packed import Geometry, random_model\n"
        "found = CpuModel(random_model(np.random.default_rng(1), Geometry(512, 512, 4, 900)), 2)\n"
        "begun = threading.Event()\n"
        "def work():\n"
        "    state = found.start(64)\n"
        "    while True:\n"
        "        found.step([1] * 64, state)\n"
        "        begun.set()\n"
        "threading.Thread(target=work, daemon=True).start()\n"
        "begun.wait()\n")
    build.kernels()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


# ---- Building and limits ----


def test_layers_are_taken_in_order_and_once(rng):
    packed = random_model(rng, Geometry(20, 24, 3, 17))
    taken = []

    class Once:
        def __iter__(self):
            for number, layer in enumerate(packed.layers):
                taken.append(number)
                yield layer

    lazy = type(packed)(**{name: getattr(packed, name) for name in packed.__dataclass_fields__} | {"layers": Once()})
    told = []
    found = CpuModel(lazy, 1, progress=lambda done, total: told.append((done, total)))
    assert taken == [0, 1, 2] and told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert found.generate([0], 9) == GoldenModel(packed).generate([0], 9)
    size = 3 * (4 * 64 * 64 + 3 * 64 * 64) // 4 + 64 * 64 // 4
    assert found.weight_bytes == size + 3 * 8 * 10 * 64 + 16 * 64 + 20
    found.close()


def test_columns_that_golden_refuses():
    geometry = Geometry(8, 132_105, 1, 4)
    with pytest.raises(PackError, match="132105 columns: at most 132104 keep the sums exact"):
        CpuModel(type("Packed", (), {"geometry": geometry})(), 1)


def test_threads(monkeypatch):
    monkeypatch.setenv("STERNA_THREADS", "3")
    assert usable_threads() == 3
    for value in ("0", "x", "-1", "257"):
        monkeypatch.setenv("STERNA_THREADS", value)
        with pytest.raises(ThreadsError, match=f"STERNA_THREADS={value}: use 1 to 256"):
            usable_threads()
    monkeypatch.delenv("STERNA_THREADS")
    assert usable_threads() >= 1
    for threads in (0, 257):
        with pytest.raises(ThreadsError, match=f"{threads} threads"):
            CpuModel(None, threads)
