"""Serving at its edges: closing from anywhere, texts nobody reads, callbacks that fail, many who wait."""

import asyncio
import gc
import threading

import numpy as np
import pytest
import sterna
from comings import alone_on
from small_model import DEVICE, GoldenDevice, write_folder
from sterna.host.device.driver import Device
from sterna.host.errors import DeviceError, HostError, UsageError
from sterna.host.model.model import Model
from sterna.host.model.text import TextStream
from sterna.host.runtime import cpu
from sterna.host.runtime.cpu import CpuRuntime
from sterna.host.runtime.device import DeviceRuntime
from sterna.host.runtime.golden import GoldenRuntime
from sterna.host.runtime.state import load_state, save_state
from sterna.host.serving.engine import Engine, EngineClosed

PATIENCE_S = 60  # of a test, for what must come


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return Model(write_folder(tmp_path_factory.mktemp("ends") / "model"))


@pytest.fixture(scope="module")
def alone(model):
    return alone_on(model)


@pytest.fixture
def engine(model):
    with sterna.load(model, threads=1) as engine:
        yield engine


def together(count, job):
    """Runs ``job(k)`` in so many threads at once; returns what they gave or raised, once all are there."""
    out, barrier = [None] * count, threading.Barrier(count)

    def run(k):
        barrier.wait()
        try:
            out[k] = job(k)
        except Exception as error:  # noqa: BLE001 (it is looked at)
            out[k] = error

    threads = [threading.Thread(target=run, args=(k,), daemon=True) for k in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert not any(thread.is_alive() for thread in threads), "somebody waits for ever"
    return out


@pytest.mark.parametrize("device", ["cpu", "golden"])
def test_closing_from_several_threads_returns_when_all_is_given_back(model, device):
    before = threading.active_count()
    engine = sterna.load(model, device, **{"threads": 1} if device == "cpu" else {})
    texts = [engine.generate("a", ignore_end=True, seed=k) for k in range(3)]
    next(texts[0])

    def close(k):
        if k < 3:
            return texts[k].result()
        engine.close()
        return [member.runtime for member in engine._pool.members]

    out = together(7, close)
    assert out[3:] == 4 * [[None]] and threading.active_count() == before
    assert all(isinstance(one, (str, EngineClosed)) for one in out[:3]) and isinstance(out[0], str)


def test_closing_inside_of_an_iteration(model):
    with sterna.load(model, threads=1) as engine:
        pieces = []
        for piece in engine.generate("a", ignore_end=True, seed=1):
            pieces.append(piece)
            engine.close()
        assert pieces

    async def main():
        async with sterna.load(model, threads=1).generate("a", ignore_end=True) as generation:
            async for _ in generation:
                generation._engine.close()
        return generation.finish_reason

    assert asyncio.run(main()) == "cancelled"


@pytest.mark.parametrize("over", [False, True])
def test_closing_inside_of_a_callback(model, over):
    runtime = CpuRuntime(model, 1)
    with Engine.over(runtime) if over else sterna.load(model, threads=1) as engine:
        generation = engine.generate("abc" * 50, seed=1, ignore_end=True, progress=lambda *_: engine.close())
        assert generation.result(PATIENCE_S) is not None and generation.finish_reason == "cancelled"
        with pytest.raises(EngineClosed):
            engine.generate("a")
    assert over or engine._pool.members[0].runtime is None
    runtime.close()


@pytest.mark.parametrize("over", [False, True])
def test_what_a_callback_raises_ends_its_text_alone(model, alone, over):
    runtime, called = CpuRuntime(model, 1), []

    def broken(done, total):
        called.append(done)
        raise ZeroDivisionError("of the caller")

    with Engine.over(runtime) if over else sterna.load(model, threads=1) as engine:
        bad = engine.generate("abc" * 50, progress=broken)
        with pytest.raises(ZeroDivisionError, match="of the caller"):
            bad.result(PATIENCE_S)
        waits = engine.generate("abc" * 50, progress=lambda *_: bad._engine.generate("b", 1).result())
        with pytest.raises(HostError, match="a callback cannot wait for a text"):
            waits.result(PATIENCE_S)
        options = {"max_tokens": 4, "seed": 1, "ignore_end": True}
        assert engine.generate("a", **options).result() == alone("a", **options)[0]
        assert len(called) == 1 and engine.devices[0].alive and bad.finish_reason is None
    runtime.close()


@pytest.mark.parametrize("form", ["forgotten", "cancelled", "closed"])
def test_a_prompt_that_nobody_wants_is_not_read_to_its_end(model, monkeypatch, form):
    """A device with one slot, which reads alone, sees it between two pieces."""
    read, begun, let = [], threading.Event(), threading.Event()
    of_golden = GoldenRuntime._read

    def reading(self, tokens, cancelled):
        for done in of_golden(self, tokens, cancelled):
            read.append(done)
            begun.set()
            assert let.wait(PATIENCE_S)
            yield done

    monkeypatch.setattr(GoldenRuntime, "_read", reading)
    with sterna.load(model, "golden") as engine:
        generation = engine.generate("abcd" * 100, 1)
        assert begun.wait(PATIENCE_S)
        if form == "cancelled":
            generation.cancel()
        elif form == "forgotten":
            del generation
            gc.collect()
        else:
            engine._pool.stop()
        let.set()
        if form != "closed":
            assert engine.drain(PATIENCE_S)
        else:
            assert generation.result(PATIENCE_S) == "" and generation.finish_reason == "cancelled"
        assert len(read) < 5


def test_texts_that_nobody_has_any_more_hold_no_slot(model, alone, monkeypatch):
    monkeypatch.setattr(cpu, "SLOTS", 2)
    with sterna.load(model, threads=1, queue=4) as engine:
        for k in range(3 * 6):  # as many as never fit, were they kept
            forgotten = engine.generate("ab", ignore_end=True, seed=k)
            if k % 2:
                next(forgotten)
            del forgotten
            gc.collect()
        options = {"max_tokens": 4, "seed": 1, "ignore_end": True}
        assert engine.generate("a", **options).result(PATIENCE_S) == alone("a", **options)[0]

        async def leaves():  # without ``async with``, as a task that is cancelled
            async for _ in engine.generate("b", ignore_end=True):
                arrived.set()

        async def main():
            task = asyncio.ensure_future(leaves())
            await arrived.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        arrived = asyncio.Event()
        asyncio.run(main())
        gc.collect()
        assert engine.drain(PATIENCE_S) and engine.devices[0].running == 0


def test_one_error_reaches_every_waiter(model, monkeypatch):
    """In threads, in two event loops, before and after; and its traceback does not grow."""
    let, make = threading.Event(), GoldenRuntime._make

    def broken(self, *options):
        yield next(make(self, *options))
        assert let.wait(PATIENCE_S)
        raise SystemExit("of the test")  # not even an Exception

    monkeypatch.setattr(GoldenRuntime, "_make", broken)
    with sterna.load(model, "golden") as engine:
        generation = engine.generate("a", ignore_end=True)
        next(generation)  # one reader takes the pieces

        async def pieces():
            async for _ in generation:
                pass

        def wait(k):
            if k == 0:
                let.set()
            if k % 2:
                return asyncio.run(pieces() if k == 1 else generation._awaited())
            return generation.result(PATIENCE_S)

        for _ in range(3):
            errors = together(6, wait)
            assert {type(error) for error in errors} == {HostError}
            assert {str(error) for error in errors} == {"golden: SystemExit: of the test"}
        traceback, depth = errors[0].__traceback__, 0
        while traceback:
            traceback, depth = traceback.tb_next, depth + 1
        assert depth < 20
        monkeypatch.setattr(GoldenRuntime, "_make", make)
        assert engine.generate("a", 3, seed=1).result(PATIENCE_S)


def test_what_fails_between_the_queue_and_a_slot_loses_no_text(model, alone, monkeypatch):
    with sterna.load(model, threads=1) as engine:
        begin, left = engine._states.begin, [2]

        def failing(tokens):
            if left[0]:
                left[0] -= 1
                raise DeviceError("of the test")
            return begin(tokens)

        monkeypatch.setattr(engine._states, "begin", failing)
        options = {"max_tokens": 4, "seed": 1, "ignore_end": True}
        assert engine.generate("a", **options).result(PATIENCE_S) == alone("a", **options)[0]


@pytest.mark.parametrize("make", [CpuRuntime, GoldenRuntime])
def test_an_engine_over_a_runtime_serves_threads_and_loops_too(model, alone, make):
    options = {"max_tokens": 20, "ignore_end": True}
    with make(model) as runtime, Engine.over(runtime) as engine:
        texts = [engine.generate("ab", seed=k, **options) for k in range(6)]

        async def pieces(generation):
            return "".join([piece async for piece in generation])

        out = together(6, lambda k: texts[k].result() if k % 2 else asyncio.run(pieces(texts[k])))
        assert out == [alone("ab", seed=k, **options)[0] for k in range(6)]
        endless = engine.generate("a", ignore_end=True)
        with pytest.raises(TimeoutError):
            endless.result(0.01)
        assert not engine.drain(0.01)


def test_states_of_another_model_are_refused(model, tmp_path):
    """Also of one with the same sizes; the same model from another place is the same."""
    again, other = Model(model.path), Model(write_folder(tmp_path / "other", variant=1))
    with sterna.load(model, threads=1) as engine, sterna.load(again, threads=1) as same, \
            sterna.load(other, threads=1) as foreign:
        text = engine.generate("One day", 6, seed=1)
        state = text.state()
        save_state(tmp_path / "state", state, model.packed)
        for one in (state, load_state(tmp_path / "state", model.packed)):
            assert same.generate([], 3, state=one, seed=1).result() is not None
            with pytest.raises(UsageError, match="state: use one of other"):
                foreign.generate([], 3, state=one, seed=1)


def test_a_prompt_that_is_too_long_says_so(model):
    fake = GoldenDevice(model.packed, DEVICE)
    with DeviceRuntime(model, Device(fake, poll_s=0.005), print) as runtime, Engine.over(runtime) as engine:
        engine._longest = 100
        with pytest.raises(UsageError, match="prompt of 101 tokens: .* texts of up to 100: shorten it"):
            engine.generate([1] * 101)
        with pytest.raises(UsageError, match="max_tokens 1 behind 100 others"):
            engine.generate([1] * 100, 1)
        text = engine.generate([1] * 100, ignore_end=True)
        assert (text.result(), text.finish_reason, text.tokens) == ("", "length", [])


def test_a_very_long_stop_string_costs_what_the_text_is_long(model):
    stream = TextStream(model.vocabulary, ["a" * (1 << 22), "ab" * (1 << 21)])
    assert [stream.push(1 + 64 + k) for k in range(3)] and "".join((stream.push(66), stream.finish()))


@pytest.mark.parametrize("seed", range(3))
def test_many_stop_strings_over_borders_of_tokens_and_characters(model, seed):
    """Bytes of several characters of one to four bytes arrive one by one; the earliest stop string counts."""
    rng = np.random.default_rng([17, seed])
    letters, vocabulary = list("aé€\U0001f600"), model.vocabulary
    for _ in range(40):
        text = "".join(rng.choice(letters, int(rng.integers(1, 24))))
        stops = ["".join(rng.choice(letters, int(rng.integers(1, 5)))) for _ in range(rng.integers(0, 60) ** 2 // 60)]
        stream, out, at = TextStream(vocabulary, stops), "", len(text)
        for token in vocabulary.encode(text)[1:]:
            out += stream.push(token)
            if stream.stopped:
                break
        out += stream.finish()
        ends = [(text.index(stop) + len(stop), text.index(stop)) for stop in stops if stop in text]
        if ends:  # of those that are whole first, the one that begins first
            first = min(ends)[0]
            at = min(begin for end, begin in ends if end == first)
        assert (out, stream.stopped) == (text[:at], bool(ends)), (text, stops)
