"""Who gets a slot when: no text starves, whatever floods in; counted in turns of a device, never in seconds."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from faults import SEED
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_model import write_folder
from sterna.host.model.model import Model
from sterna.host.runtime import cpu
from sterna.host.runtime.cpu import CpuRuntime
from sterna.host.runtime.runtime import Runtime
from sterna.host.serving.engine import Engine
from sterna.host.serving.scheduler import Queue, Scheduler
from sterna.host.serving.states import StateCache

SHARE = 6
LETTER = 66  # every text is made of it
FLOOD = 60  # texts that wait at most


class Nothing(CpuRuntime):
    """A cpu whose kernels compute nothing, so that many turns cost little; it counts what it would have read."""

    def __init__(self, model):
        Runtime.__init__(self, model)
        self.read, shape = [], (model.geometry.num_hidden_layers, 1, model.geometry.hidden_size)
        self._cpu = SimpleNamespace(
            start=lambda columns: np.zeros((shape[0], columns, shape[2])), close=lambda: None,
            read=lambda tokens, state: self.read.append(len(tokens)), step=lambda tokens, state: self.read.append(1),
            columns=lambda tokens, *rest: self.read.append(len(tokens)))
        self.label, self._state = "nothing", self._cpu.start(1)

    def _sampled(self, head, samplings, positions):
        return np.full(len(samplings), LETTER)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return Model(write_folder(tmp_path_factory.mktemp("order") / "model"))


def on_nothing(model, limit=1 << 20, share=SHARE):
    runtime, queue, states = Nothing(model), Queue(limit), StateCache(None, 1 << 14)
    return Engine(model, None, Scheduler(runtime, queue, states, share), queue, states)


class Watch:
    """Turns of an engine; says of each text how many it has been without a token, and may be."""

    def __init__(self, engine, slots):
        self.engine, self.slots, self.texts = engine, slots, {}

    def begin(self, prompt, n):
        """A text; those that wait before it now are all that may go before it."""
        text = self.engine.generate(prompt, n, ignore_end=True)
        again = (len(prompt) + 1) // SHARE * self._most(FLOOD + 2 * self.slots)  # a share of a prompt each
        self.texts[text] = SimpleNamespace(made=0, idle=0, most=self._most(self.engine.waiting) + again)
        return text

    def _most(self, before):
        # Slots become free one after the other, each within a share and the turns of entering and leaving.
        return (before // self.slots + 2) * (SHARE + 3)

    def turn(self):
        self.engine._driven.turn()
        for text, seen in list(self.texts.items()):
            seen.idle += 1
            if len(text.tokens) > seen.made or text.finish_reason:
                # It may have to go to the end of the queue behind this token.
                seen.made, seen.idle, seen.most = len(text.tokens), 0, self._most(self.engine.waiting + self.slots)
            assert seen.idle <= seen.most, (seen, self.engine.waiting)
            if text.finish_reason:
                del self.texts[text]


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_a_long_text_goes_on_in_a_flood_of_short_ones(model, monkeypatch, slots):
    """There are always twenty short ones that wait; each of them, and the long one, gets its share."""
    monkeypatch.setattr(cpu, "SLOTS", slots)
    with on_nothing(model) as engine:
        watch = Watch(engine, slots)
        long = watch.begin("a", 120)
        for turn in range(4000):
            while engine.waiting < 20:
                watch.begin("b", 1 + turn % 7)
            watch.turn()
            if long.finish_reason:
                break
        assert long.finish_reason == "length" and len(long.tokens) == 120


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_short_texts_go_through_a_flood_of_long_ones(model, monkeypatch, slots):
    monkeypatch.setattr(cpu, "SLOTS", slots)
    with on_nothing(model) as engine:
        watch = Watch(engine, slots)
        endless = [watch.begin("a", None) for _ in range(15)]
        for _ in range(12):
            short = watch.begin("b", 3)
            for _ in range((15 // slots + 3) * (SHARE + 3)):
                watch.turn()
            assert short.finish_reason == "length"
        made = [len(text.tokens) for text in endless]
        assert min(made) > 0 and max(made) - min(made) <= 3 * SHARE


@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 1 << 30))
def test_no_text_starves_whatever_comes(model, number):
    rng = np.random.default_rng([SEED, number])
    slots = int(rng.integers(1, 6))
    with pytest.MonkeyPatch.context() as patch, on_nothing(model) as engine:
        patch.setattr(cpu, "SLOTS", slots)
        watch, rate = Watch(engine, slots), rng.random()
        for _ in range(300):
            for _ in range(int(rng.poisson(rate)) if engine.waiting < FLOOD - 9 else 0):
                watch.begin("a" * int(rng.integers(1, 20)), [None, 1, 4, 50][rng.integers(4)])
            if watch.texts and rng.random() < 0.1:
                list(watch.texts)[rng.integers(len(watch.texts))].cancel()
            watch.turn()


@pytest.mark.parametrize("slots", [1, 2])
def test_a_long_prompt_counts_as_tokens_of_its_text(model, monkeypatch, slots):
    """It makes room for those that wait, and goes on from where it was."""
    monkeypatch.setattr(cpu, "SLOTS", slots)
    with on_nothing(model, share=200) as engine:
        runtime, order, early = engine._driven.runtime, [], []
        long = engine.generate([1] * 5000, 5, ignore_end=True)
        if slots > 1:
            other = engine.generate([2] * 5000, 5, ignore_end=True)
        short = [engine.generate("b", 3, ignore_end=True) for _ in range(3)]
        while not long.finish_reason:
            engine._driven.turn()
            if short[0].finish_reason and not early:
                early.append(sum(runtime.read))
            order += [text for text in (*short, long) if text.finish_reason and text not in order]
        assert order[-1] is long and len(order) == 4 and early[0] < 1000
        if slots > 1:
            other.result()
        assert sum(runtime.read) <= slots * (5000 + 5) + 3 * 5, "the prompt was read again"
        assert long.tokens == [LETTER] * 5


@pytest.mark.rest
def test_ten_thousand_wait_and_are_cancelled(model, monkeypatch):
    """Looking through the queue is done once for all that have gone."""
    monkeypatch.setattr(cpu, "SLOTS", 2)
    with on_nothing(model) as engine:
        texts = [engine.generate("a", 1, ignore_end=True) for _ in range(10_000)]
        looked = itertools.count()
        from sterna.host.serving.generation import Generation
        of_generation = Generation.cancelled.fget
        monkeypatch.setattr(Generation, "cancelled",
                            property(lambda self: next(looked) >= 0 and of_generation(self)))
        for text in texts[::2]:
            text.cancel()
        engine._driven.turn()
        assert engine.waiting <= 5_000 and next(looked) < 30_000
        assert {text.finish_reason for text in texts[::2]} == {"cancelled"}
        assert engine.drain() and {text.finish_reason for text in texts[1::2]} == {"length"}
        assert engine.devices[0].tokens == 5_000
