"""Serving: texts that come, go and are cancelled at any time are those of ``sterna generate`` alone."""

import asyncio
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import sterna
from comings import alone_on, come_and_go
from faults import SEED
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_model import SLOTS, GoldenDevice, write_folder
from sterna.host.errors import UsageError
from sterna.host.model.model import Model
from sterna.host.runtime import cpu
from sterna.host.runtime.cpu import CpuRuntime
from sterna.host.runtime.golden import GoldenRuntime
from sterna.host.serving.engine import Engine, EngineClosed, QueueFull
from sterna.host.serving.scheduler import Queue, Scheduler
from sterna.host.serving.states import StateCache

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("serving") / "model")


@pytest.fixture(scope="module")
def model(folder):
    return Model(folder)


@pytest.fixture(scope="module")
def alone(model):
    return alone_on(model)


class Stepped(Engine):
    """An engine whose scheduler a test turns by hand."""

    @classmethod
    def on(cls, runtime, limit_bytes=1 << 16, share=9):
        queue, states = Queue(1000), StateCache(None, limit_bytes)
        return cls(runtime.model, None, Scheduler(runtime, queue, states, share), queue, states)

    def turn(self):
        self._driven.turn()


@pytest.mark.parametrize("make", ["cpu", *(pytest.param(make, marks=pytest.mark.rest)
                                           for make in ("golden", "slots"))])
def test_texts_that_come_and_go_are_those_alone(model, alone, monkeypatch, make):
    monkeypatch.setattr(cpu, "SLOTS", 3)
    monkeypatch.setattr(cpu, "PIECE", 7)

    @settings(max_examples=1 if make == "slots" else 4, deadline=None, derandomize=True,
              suppress_health_check=list(HealthCheck))
    @given(st.integers(0, 1 << 30))
    def check(number):
        rng = np.random.default_rng([SEED, number])
        with runtime_of(model, make) as runtime, Stepped.on(runtime) as engine:
            assert come_and_go(engine, alone, rng, 40 if make == "slots" else 80, engine.turn)
            assert not len(engine._queue) and not engine._queue.running

    check()


def runtime_of(model, make):
    if make == "slots":
        from sterna.host.device.driver import Device
        from sterna.host.runtime.device import DeviceRuntime
        return DeviceRuntime(model, Device(GoldenDevice(model.packed, SLOTS), poll_s=0.005), lambda line: None)
    return CpuRuntime(model, 1) if make == "cpu" else GoldenRuntime(model)


def test_no_text_waits_for_more_than_the_shares_before_it(model, monkeypatch):
    """Two slots, six texts without end: each goes on again after at most its turn of shares."""
    monkeypatch.setattr(cpu, "SLOTS", 2)
    share = 5
    with CpuRuntime(model, 1) as runtime, Stepped.on(runtime, share=share) as engine:
        texts = [engine.generate("ab", seed=k, ignore_end=True) for k in range(6)]
        most, before = 0, [0] * 6
        idle = [0] * 6
        for _ in range(200):
            engine.turn()
            for k, text in enumerate(texts):
                idle[k] = 0 if len(text.tokens) > before[k] else idle[k] + 1
                before[k] = len(text.tokens)
            most = max(most, *idle)
        assert most <= 2 * (share + 3), most  # four others before it in two slots
        assert max(before) - min(before) <= 2 * (share + 2)
        for text in texts:
            text.cancel()
        engine.drain()
        for k, text in enumerate(texts):
            assert text.tokens == tokens_alone(model, "ab", k, len(text.tokens))


def tokens_alone(model, prompt, seed, n):
    from sterna.host.runtime.sampling import Sampling
    with CpuRuntime(model, 1) as runtime:
        return list(runtime.generate(model.vocabulary.encode(prompt), n, Sampling(0.8, seed)))


def test_first_come_first_served(model, monkeypatch):
    monkeypatch.setattr(cpu, "SLOTS", 2)
    with CpuRuntime(model, 1) as runtime, Stepped.on(runtime, share=None) as engine:
        texts = [engine.generate("ab", 3 + k % 3, seed=k, ignore_end=True) for k in range(9)]
        begun = []
        while engine.waiting or engine._queue.running:
            engine.turn()
            begun += [text for text in texts if text._begun_at and text not in begun]
        assert begun == texts


@pytest.fixture
def engine(folder):
    with sterna.load(folder, threads=1) as engine:
        yield engine


def test_threads_and_asyncio_at_once(engine, alone):
    options = {"max_tokens": 30, "seed": 5, "ignore_end": True}
    prompts, got = [f"p{k}" for k in range(12)], {}

    def threaded(prompt):
        got[prompt] = "".join(engine.generate(prompt, **options))

    async def awaited():
        async def pieces(prompt):
            out = []
            async with engine.generate(prompt, **options) as generation:
                async for piece in generation:
                    out.append(piece)
            got[prompt] = "".join(out)
        await asyncio.gather(*map(pieces, prompts[6:]))
        assert await engine.generate("p0", **options) == alone("p0", **options)[0]

    threads = [threading.Thread(target=threaded, args=(prompt,)) for prompt in prompts[:6]]
    for thread in threads:
        thread.start()
    asyncio.run(awaited())
    for thread in threads:
        thread.join()
    assert got == {prompt: alone(prompt, **options)[0] for prompt in prompts}
    assert engine.drain() and all(status.running == 0 for status in engine.devices)


def test_a_reader_that_is_cancelled_leaves_the_text_and_aclose_ends_it(engine):
    async def main():
        generation = engine.generate("a", ignore_end=True, seed=1)
        task = asyncio.ensure_future(anext(generation))
        await task
        waiting = asyncio.ensure_future(generation._awaited())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert generation.finish_reason is None
        await generation.aclose()
        await generation
        return generation

    assert asyncio.run(main()).finish_reason == "cancelled"


def test_the_queue_is_bounded_and_cancelling_frees_places(folder, monkeypatch):
    monkeypatch.setattr(cpu, "SLOTS", 2)
    with sterna.load(folder, queue=3, threads=1) as engine:
        running = [engine.generate("a", ignore_end=True, seed=k) for k in range(2)]
        for generation in running:
            next(generation)
        waiting = [engine.generate("b", 4, seed=k) for k in range(3)]
        with pytest.raises(QueueFull, match="3 texts wait already: try again"):
            engine.generate("c")
        assert engine.waiting == 3
        waiting[1].cancel()
        assert waiting[1].result(10) == "" and waiting[1].usage.completion_tokens == 0
        later = engine.generate("c", 3, seed=1)
        running[0].cancel()
        running[1].cancel()
        assert [one.result() is not None for one in (*waiting, later)] == 4 * [True]
        with pytest.raises(TimeoutError, match="not ended within 0 s"):
            engine.generate("a", ignore_end=True).result(0)


def test_closing_ends_all_and_the_threads(folder):
    before = threading.active_count()
    engine = sterna.load(folder, threads=1)
    texts = [engine.generate("a", ignore_end=True) for _ in range(40)]
    next(texts[0])
    assert not engine.drain(0.01)
    with pytest.raises(EngineClosed):
        engine.generate("a")
    engine.close()
    engine.close()
    assert texts[0].finish_reason == "cancelled" and threading.active_count() == before
    with pytest.raises(EngineClosed, match="closed before this text began"):
        texts[-1].result()
    with pytest.raises(EngineClosed):
        texts[0].state()


def test_interpreter_ends_with_an_engine_that_was_not_closed(folder):
    code = f"import sterna; g = sterna.load({str(folder)!r}).generate('a', ignore_end=True); print(len(next(g)) > 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


def test_interrupt_in_the_caller_leaves_the_engine(engine):
    generation = engine.generate("a", ignore_end=True)
    timer = threading.Timer(0.2, __import__("_thread").interrupt_main)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        generation.result()
    generation.cancel()
    assert generation.result() and engine.generate("a", 3, seed=1).result()


def test_a_state_goes_on_anywhere(folder, engine, alone):
    options = {"temperature": 0.9, "seed": 4, "ignore_end": True}
    whole = alone("One day", max_tokens=20, **options)[2]
    first = engine.generate("One day", max_tokens=8, **options)
    state = first.state()
    assert first.tokens == whole[:8] and state.tokens[-8:] == whole[:8]
    with sterna.load(folder, "golden") as other:
        rest = other.generate([], max_tokens=12, state=state, **options)
        assert rest.result() is not None and rest.tokens == whole[8:]
        assert rest.usage.prompt_tokens == 16 and rest.usage.cached_tokens == 15


def test_a_failed_load_names_what_is_not_there(folder):
    with pytest.raises(UsageError, match="did you mean golden"):
        sterna.load(folder, ["cpu", "goldn"])
    for options, message in (({"queue": 0}, "queue 0"), ({"state_cache_bytes": -1}, "state_cache_bytes -1"),
                             ({"device": []}, "device: name one")):
        with pytest.raises(UsageError, match=message):
            sterna.load(folder, **options)


@pytest.mark.parametrize("page", ["docs/engine.md", "README.md"])
def test_examples_of_the_pages_run_as_they_stand(page):
    examples = re.findall(r"```python\n(import sterna\n.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert examples
    for code in examples:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, cwd=ROOT)
        assert done.returncode == 0 and not done.stderr and len(done.stdout) > 100, done.stderr
