"""Sessions: sequences enter, leave and go on from states, alone and side by side, and their states are right."""

from functools import lru_cache

import pytest
from small_model import DEVICE, SLOTS, GoldenDevice, write_folder
from sterna.host.device.driver import Device
from sterna.host.model.model import Model
from sterna.host.runtime.cpu import CpuRuntime
from sterna.host.runtime.device import DeviceRuntime
from sterna.host.runtime.golden import GoldenRuntime
from sterna.host.runtime.runtime import RunError
from sterna.host.runtime.sampling import Sampling
from sterna.host.runtime.session import Sequence

SAMPLING = Sampling(0.8, 12345)
PROMPT = [0, *range(40, 65)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return Model(write_folder(tmp_path_factory.mktemp("session") / "model"))


def on_device(model, info=DEVICE):
    return DeviceRuntime(model, Device(GoldenDevice(model.packed, info, tokens_per_call=6), poll_s=0.005), print)


def on_slots(model):
    return on_device(model, SLOTS)


def on_cpu(model):
    return CpuRuntime(model, 1)


MAKES = pytest.mark.parametrize("make", [on_cpu, on_slots, *(
    pytest.param(make, marks=pytest.mark.rest) for make in (GoldenRuntime, on_device))])


def state_of(model, tokens):
    with on_cpu(model) as runtime:
        list(runtime.generate(tokens, 0, SAMPLING))
        return runtime.state()


@lru_cache
def tokens_of(model, ids, n, sampling):
    with on_cpu(model) as runtime:
        return list(runtime.generate(list(ids), n, sampling))


def made(model, ids, n, sampling=SAMPLING):
    """The tokens that a cpu makes alone."""
    return tokens_of(model, tuple(ids), n, sampling)


def step(session):
    """A step; tokens are kept with their sequences."""
    out = session.step()
    for sequence, token in out:
        if token is not None:
            sequence.tokens.append(token)
    return out


def run(session):
    while session.sequences:
        step(session)


@MAKES
@pytest.mark.parametrize("beside", [2, pytest.param(0, marks=pytest.mark.rest)])
def test_states_of_marks_and_ends(model, make, beside):
    with make(model) as runtime:
        session, kept = runtime.session(), []
        asked = Sequence(PROMPT, 5, SAMPLING, marks=(1, 7, 20, 25), keep=kept.append, final=True, exact=True)
        session.enter(asked)
        for number in range(min(beside, runtime.slots - 1)):
            session.enter(Sequence(PROMPT[:9 + number], 30, SAMPLING))
        run(session)
        assert asked.tokens == made(model, PROMPT, 5)
        assert [state.position for state in kept] == [1, 7, 20, 25, 30]
        for state in kept:
            wanted = state_of(model, state.tokens)
            assert state.tokens == [*PROMPT, *asked.tokens][:state.position + 1]
            assert (state.values == wanted.values).all()
        session.close()


@MAKES
@pytest.mark.parametrize("beside", [0, 1])
def test_reading_alone_makes_a_state(model, make, beside):
    with make(model) as runtime:
        session, kept = runtime.session(), []
        session.enter(Sequence(PROMPT, 0, SAMPLING, marks=(9,), keep=kept.append, final=True))
        if beside and runtime.slots > 1:
            session.enter(Sequence(PROMPT[:3], 40, SAMPLING))
        run(session)
        assert [state.position for state in kept] == [9, 25]
        assert (kept[1].values == state_of(model, PROMPT).values).all()
        session.close()


@MAKES
@pytest.mark.parametrize("second", [3, *(pytest.param(k, marks=pytest.mark.rest) for k in (0, 30))])
def test_one_that_comes_later_leaves_the_first_as_it_was(model, make, second):
    """Whether the first has been reading, making, or has not begun."""
    with make(model) as runtime:
        session = runtime.session(lambda: True)  # whoever is alone gives way all the time
        first, other = Sequence(PROMPT, 40, SAMPLING), Sequence(PROMPT[:4], 12, Sampling(1.1, 7))
        session.enter(first)
        for _ in range(second):
            step(session)
        while not session.free:
            step(session)
        session.enter(other)
        run(session)
        session.close()
        assert first.tokens == made(model, PROMPT, 40)
        assert other.tokens == made(model, PROMPT[:4], 12, other.sampling)
        assert not runtime.tokens and list(runtime.generate(PROMPT, 4, SAMPLING)) == first.tokens[:4]


@pytest.mark.parametrize("make", [on_cpu, *(
    pytest.param(make, marks=pytest.mark.rest) for make in (on_slots, GoldenRuntime, on_device))])
@pytest.mark.parametrize("beside", [0, 1])
@pytest.mark.parametrize("after", [8, *(pytest.param(k, marks=pytest.mark.rest) for k in (0, 1))])
def test_one_that_leaves_goes_on_from_its_state(model, make, beside, after):
    with make(model) as runtime, on_cpu(model) as elsewhere:
        session = runtime.session()
        first = Sequence(PROMPT, 60, SAMPLING)
        session.enter(first)
        if beside and runtime.slots > 1:
            session.enter(Sequence(PROMPT[:2], 60, SAMPLING))
        for _ in range(after):
            step(session)
        tokens, state = session.leave(first)
        first.tokens += tokens
        assert first not in session.sequences and first.tokens == made(model, PROMPT, 60)[:len(first.tokens)]
        text = [*PROMPT, *first.tokens]
        again = Sequence(text[len(state.tokens) if state else 0:], 60 - len(first.tokens), SAMPLING, state=state)
        if state is not None:
            assert state.tokens == text[:state.position + 1]
            assert (state.values == state_of(model, state.tokens).values).all()
        for other in (elsewhere.session(), session):
            again.tokens = []
            other.enter(again)
            run(other)
            assert first.tokens + again.tokens == made(model, PROMPT, 60)
        session.close()


def test_nothing_enters_that_cannot_run(model):
    with on_cpu(model) as runtime:
        session = runtime.session()
        for ids, message in (([], "no text to go on with"), ([264], "token 264 is not among")):
            with pytest.raises(RunError, match=message):
                session.enter(Sequence(ids, 3, SAMPLING))
        assert session.free == runtime.slots and session.step() == []
