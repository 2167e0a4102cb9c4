"""The engine in the caller's thread: texts from the golden model, a device and a device with slots."""

import pytest
from small_model import DEVICE, SLOTS, GoldenDevice, write_folder
from sterna.host.commands.generate import room_for
from sterna.host.device.driver import Device
from sterna.host.errors import UsageError
from sterna.host.model.model import Model
from sterna.host.model.text import TextError
from sterna.host.runtime.cpu import CpuRuntime
from sterna.host.runtime.device import DeviceRuntime
from sterna.host.runtime.golden import GoldenRuntime
from sterna.host.runtime.runtime import RunError
from sterna.host.runtime.sampling import UNLIMITED, Sampling
from sterna.host.serving.engine import Engine

SAMPLING = Sampling(0.8, 3)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return Model(write_folder(tmp_path_factory.mktemp("engine") / "model"))


def on_device(model, info=DEVICE):
    fake = GoldenDevice(model.packed, info, tokens_per_call=20)  # further than what has been read of it
    return DeviceRuntime(model, Device(fake, poll_s=0.005), lambda line: None)


def on_slots(model):
    return on_device(model, SLOTS)


def on_cpu(model):
    return CpuRuntime(model, 1)


MAKES = pytest.mark.parametrize("make", [GoldenRuntime, on_cpu, on_device, on_slots],
                                ids=["golden", "cpu", "device", "slots"])


def begin(engine, prompt="abc", n=40, **options):
    return engine.generate(prompt, n, 0.8, seed=3, **{"ignore_end": True} | options)


def tokens_of(model, prompt="abc", n=40):
    return list(GoldenRuntime(model).generate(model.vocabulary.encode(prompt), n, SAMPLING))


def plain(model, prompt="abc", n=40):
    """The text of a prompt, made token by token without the engine."""
    tokens = tokens_of(model, prompt, n)
    return b"".join(map(model.vocabulary.token_bytes, tokens)).decode(errors="replace")


@MAKES
def test_pieces_are_the_text(model, make):
    told = []
    with make(model) as runtime, Engine.over(runtime) as engine:
        generation = begin(engine, progress=lambda done, total: told.append((done, total)))
        assert generation.finish_reason is None
        pieces = list(generation)
    assert "".join(pieces) == generation.text == generation.result() == plain(model) and len(pieces) > 20
    assert generation.finish_reason == "length" and generation.tokens == tokens_of(model)
    assert told[-1] == (3, 3)  # the start mark and abc, but for the token that is read when its successor is made
    usage = generation.usage
    assert (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens) == (4, 0, 40)
    assert 0 <= usage.queued_s <= usage.first_token_s <= usage.total_s


@MAKES
@pytest.mark.parametrize("exact", [False, True])
def test_text_ends_before_a_stop_string(model, make, exact):
    whole = plain(model)
    stop = whole[10:13]
    with make(model) as runtime, Engine.over(runtime) as engine:
        generation = begin(engine, stop=stop, keep_state=exact)
        assert generation.result() == whole[:whole.index(stop)] and generation.finish_reason == "stop"
        made = generation.tokens
        text = b"".join(map(model.vocabulary.token_bytes, made)).decode(errors="replace")
        assert stop in text and made == tokens_of(model)[:len(made)]
        assert stop not in b"".join(map(model.vocabulary.token_bytes, made[:-1])).decode(errors="replace")
        state = generation.state()  # without ``keep_state`` the device has to read the text once more
        assert state.tokens == [*model.vocabulary.encode("abc"), *made]
        golden = GoldenRuntime(model)
        list(golden.generate(state.tokens, 0, SAMPLING))
        assert (golden.state().values == state.values).all() and state.values.any()


@MAKES
def test_text_ends_at_an_end_of_the_model(model, make):
    tokens = tokens_of(model)
    end = tokens[7]
    before = tokens[:tokens.index(end)]
    ended = Model(model.path)
    ended.ends = (end,)
    wanted = b"".join(map(model.vocabulary.token_bytes, before)).decode(errors="replace")
    with make(ended) as runtime, Engine.over(runtime) as engine:
        several = [begin(engine, ignore_end=False) for _ in range(3)]
        assert [generation.result() for generation in several] == 3 * [wanted]
        assert {generation.finish_reason for generation in several} == {"stop"}
        assert several[0].tokens == tokens[:tokens.index(end) + 1]


@MAKES
def test_cancelling_leaves_a_text_to_go_on_with(model, make):
    with make(model) as runtime, Engine.over(runtime) as engine:
        with begin(engine, keep_state=True) as generation:
            seen = "".join(next(generation) for _ in range(5))
        assert generation.cancelled and generation.result().startswith(seen)
        assert generation.finish_reason == "cancelled" and len(generation.tokens) < 40
        assert plain(model).startswith(generation.text.rstrip("\ufffd"))
        state = generation.state()
        made = state.tokens[4:]  # a device may have gone further
        assert made == tokens_of(model)[:len(made)] and len(made) >= len(generation.tokens)
        rest = begin(engine, "", 6, state=state)
        assert (rest.result(), rest.tokens) == (rest.text, tokens_of(model, n=len(made) + 6)[len(made):])
        never = begin(engine)
        never.cancel()
        assert (never.result(), never.finish_reason, never.tokens) == ("", "cancelled", [])


@MAKES
def test_several_texts_are_those_of_their_prompts(model, make):
    prompts = ("abc", "b", "cab", "ccc", "a")
    with make(model) as runtime, Engine.over(runtime) as engine:
        generations = [begin(engine, prompt, 12 + k) for k, prompt in enumerate(prompts)]
        assert engine.waiting == 5 and next(generations[1])
        assert engine.devices[0].running <= runtime.slots == engine.devices[0].slots
        assert [generation.result() for generation in generations] == \
            [plain(model, prompt, 12 + k) for k, prompt in enumerate(prompts)]
        assert engine.drain() and engine.devices[0].tokens == sum(len(one.tokens) for one in generations)


def test_what_cannot_be_is_refused_by_name(model):
    with GoldenRuntime(model) as runtime, Engine.over(runtime) as engine:
        for options, message in (
                ({"temperature": -1}, "temperature -1: use 0"), ({"temperature": 1e-9}, "temperature 1e-09"),
                ({"temperature": float("nan")}, "temperature nan"), ({"temperature": "warm"}, "temperature 'warm'"),
                ({"temperature": True}, "temperature True"),
                ({"top_k": -1}, "top_k -1: use 0"), ({"top_k": 65}, "top_k 65: the list of the devices has 64"),
                ({"top_k": 1.5}, "top_k 1.5"), ({"top_p": 0}, "top_p 0: use more"), ({"top_p": 1.1}, "top_p 1.1"),
                ({"seed": -1}, "seed -1: use 0 to"), ({"seed": 1 << 32}, "seed 4294967296"),
                ({"max_tokens": -1}, "max_tokens -1"), ({"max_tokens": 1 << 32}, "max_tokens 4294967296 behind 2"),
                ({"stop": 7}, "stop 7: use a text"), ({"stop": [b"x"]}, "stop \\[b'x'\\]"),
                ({"state": 3}, "state: use one of model"), ({"prompt": 3}, "prompt of int"),
                ({"prompt": [1.0]}, "prompt of list")):
            with pytest.raises(UsageError, match=message):
                engine.generate(**{"prompt": "a"} | options)
        with pytest.raises(TextError, match="empty stop string"):
            engine.generate("a", stop=["b", ""])
        with pytest.raises(TextError, match="U\\+D800"):
            engine.generate("a\ud800")
        with pytest.raises(RunError, match="token 264 is not among the model's 264"):
            engine.generate([264])
        with pytest.raises(RunError, match="no text to go on with"):
            engine.generate([])
        assert engine.generate("", max_tokens=2, seed=1).result()  # from the start mark alone


def test_room_of_a_context():
    assert room_for(4, 10, 0) == 10 and room_for(4, -1, 0) == UNLIMITED
    assert room_for(4, 10, 9) == 5 and room_for(4, 3, 9) == 3 and room_for(9, 3, 9) == 0
    with pytest.raises(RunError, match="the text has 10 tokens already, more than --ctx-size 9: shorten it or raise"):
        room_for(10, 3, 9)
