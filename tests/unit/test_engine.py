"""The engine: pieces of text from the golden model, a device and a device with slots, with stops, ends and limits."""

import dataclasses

import pytest
from small_model import DEVICE, SLOTS, GoldenDevice, write_folder
from sterna.host.device.driver import Device
from sterna.host.model.model import Model
from sterna.host.runtime.device import DeviceRuntime
from sterna.host.runtime.engine import Engine, Request, room_for
from sterna.host.runtime.golden import GoldenRuntime
from sterna.host.runtime.runtime import RunError
from sterna.host.runtime.sampling import UNLIMITED, Sampling

SAMPLING = Sampling(0.8, 3)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return Model(write_folder(tmp_path_factory.mktemp("engine") / "model"))


def on_device(model, info=DEVICE):
    fake = GoldenDevice(model.packed, info, tokens_per_call=20)  # further than what has been read of it
    return DeviceRuntime(model, Device(fake, poll_s=0.005), lambda line: None)


def on_slots(model):
    return on_device(model, SLOTS)


MAKES = pytest.mark.parametrize("make", [GoldenRuntime, on_device, on_slots], ids=["golden", "device", "slots"])


def request(model, prompt="abc", n=40, **options):
    return Request(model.vocabulary.encode(prompt), n, SAMPLING, ignore_end=True, **options)


def plain(model, prompt="abc", n=40):
    """The text of a prompt, made token by token without the engine."""
    tokens = list(GoldenRuntime(model).generate(model.vocabulary.encode(prompt), n, SAMPLING))
    return b"".join(map(model.vocabulary.token_bytes, tokens)).decode(errors="replace")


@MAKES
def test_pieces_are_the_text(model, make):
    told = []
    pieces = list(Engine(make(model)).text(request(model), progress=lambda done, total: told.append((done, total))))
    assert "".join(pieces) == plain(model) and len(pieces) == 41
    assert told[-1] == (3, 3)  # the start mark and abc, but for the token that is read when its successor is made


@MAKES
@pytest.mark.parametrize("exact", [False, True])
def test_text_ends_before_a_stop_string(model, make, exact):
    whole = plain(model)
    stop = whole[10:13]
    runtime = make(model)
    engine = Engine(runtime)
    assert "".join(engine.text(request(model, stops=(stop,)), exact=exact)) == whole[:whole.index(stop)]
    made = runtime.tokens[4:]
    if exact:  # the state ends with the token that completes the stop string
        text = b"".join(map(model.vocabulary.token_bytes, made)).decode(errors="replace")
        assert stop in text
        assert stop not in b"".join(map(model.vocabulary.token_bytes, made[:-1])).decode(errors="replace")


@MAKES
def test_text_ends_at_an_end_of_the_model(model, make):
    tokens = list(GoldenRuntime(model).generate(model.vocabulary.encode("abc"), 40, SAMPLING))
    end = tokens[7]
    before = tokens[:tokens.index(end)]
    ended = Model(model.path)
    ended.ends = (end,)
    wanted = b"".join(map(model.vocabulary.token_bytes, before)).decode(errors="replace")
    asked = dataclasses.replace(request(ended), ignore_end=False)
    assert "".join(Engine(make(ended)).text(asked)) == wanted
    several = list(Engine(make(ended)).texts([asked, asked]))
    assert ["".join(piece or "" for k, piece in several if k == number) for number in (0, 1)] == [wanted] * 2


@MAKES
def test_closing_and_cancelling_leave_a_text_to_go_on_with(model, make):
    runtime = make(model)
    engine, seen = Engine(runtime), []
    pieces = engine.text(request(model))
    seen += [next(pieces) for _ in range(5)]
    pieces.close()
    stopped = len(runtime.tokens)
    assert "".join(seen) == plain(model)[:len("".join(seen))] and stopped >= 4 + 5
    list(engine.text(dataclasses.replace(request(model), ids=[], n=6), cancelled=lambda: True))
    assert len(runtime.tokens) == stopped
    list(engine.text(dataclasses.replace(request(model), ids=[], n=6)))
    assert runtime.tokens == [*model.vocabulary.encode("abc"), *GoldenRuntime(model).generate(
        model.vocabulary.encode("abc"), stopped + 6 - 4, SAMPLING)]


@MAKES
def test_closing_behind_a_cancel_keeps_what_the_device_has_made(model, make):
    ids, seen = model.vocabulary.encode("abc"), []
    wanted = list(GoldenRuntime(model).generate(ids, 60, SAMPLING))
    runtime = make(model)
    tokens = runtime.generate(ids, 40, SAMPLING, cancelled=lambda: len(seen) >= 3)
    for token in tokens:
        seen.append(token)
        if len(seen) == 5:  # a device has gone on behind the cancel
            break
    tokens.close()
    made = runtime.tokens[len(ids):]
    assert made == wanted[:len(made)] and made[:len(seen)] == seen
    assert list(runtime.generate([], 5, SAMPLING)) == wanted[len(made):len(made) + 5]


@MAKES
def test_several_texts_are_those_of_their_prompts(model, make):
    prompts, texts, over = ("abc", "b", "cab"), {}, []
    requests = [request(model, prompt, 12 + k) for k, prompt in enumerate(prompts)]
    for number, piece in Engine(make(model)).texts(requests):
        if piece is None:
            over.append(number)
        else:
            assert number not in over
            texts[number] = texts.get(number, "") + piece
    assert sorted(over) == [0, 1, 2]
    assert [texts[k] for k in range(3)] == [plain(model, prompt, 12 + k) for k, prompt in enumerate(prompts)]


def test_room_of_a_context():
    assert room_for(4, 10, 0) == 10 and room_for(4, -1, 0) == UNLIMITED
    assert room_for(4, 10, 9) == 5 and room_for(4, 3, 9) == 3 and room_for(9, 3, 9) == 0
    with pytest.raises(RunError, match="the text has 10 tokens already, more than --ctx-size 9: shorten it or raise"):
        room_for(10, 3, 9)
