"""Runtimes: the device equals the golden model in every way of running; states move between them; statistics."""

import dataclasses
import itertools

import pytest
from small_model import CYCLES_PER_TOKEN, DEVICE, GEOMETRY, REFRESH_PER_TOKEN, SLOTS, GoldenDevice, write_folder
from sterna.host.device.driver import Device
from sterna.host.errors import DeviceError, UsageError
from sterna.host.model.image import Image, ImageError
from sterna.host.model.model import Model, ModelError
from sterna.host.runtime.device import DeviceRuntime
from sterna.host.runtime.golden import GoldenRuntime
from sterna.host.runtime.runtime import RunError
from sterna.host.runtime.sampling import Sampling
from sterna.host.runtime.session import Sequence
from sterna.host.runtime.state import StateError, load_state, model_hash, save_state
from sterna.host.runtime.statistics import Statistics, useful_bytes

SAMPLING = Sampling(0.8, 12345)
PROMPT = [0, *range(40, 80)]  # longer than the pieces that a device of 64 ring entries reads


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return Model(write_folder(tmp_path_factory.mktemp("runtime") / "model"))


def on_device(model, info=DEVICE, **options):
    fake = GoldenDevice(model.packed, info, **options)
    lines = []
    runtime = DeviceRuntime(model, Device(fake, retry_s=1.0, poll_s=0.005, timeout_s=2.0, stall_s=0.3), lines.append,
                            simulated=True)
    runtime.fake, runtime.lines = fake, lines
    return runtime


def on_slots(model, **options):
    return on_device(model, SLOTS, **options)


MAKES, NAMES = (GoldenRuntime, on_device, on_slots), ("golden", "device", "slots")
GREEDY = pytest.param(Sampling(), marks=pytest.mark.rest)


@pytest.mark.parametrize("sampling", [Sampling(), SAMPLING], ids=["greedy", "sampled"])
@pytest.mark.parametrize("length", [1, pytest.param(2, marks=pytest.mark.rest), 41])
@pytest.mark.parametrize("make", [on_device, on_slots], ids=["device", "slots"])
@pytest.mark.parametrize("tokens_per_call", [pytest.param(1, marks=pytest.mark.rest), 50])
def test_device_equals_golden(model, sampling, length, make, tokens_per_call):
    golden, device = GoldenRuntime(model), make(model, tokens_per_call=tokens_per_call)
    wanted = list(golden.generate(PROMPT[:length], 70, sampling))
    assert list(device.generate(PROMPT[:length], 70, sampling)) == wanted
    assert len(wanted) == 70 and len(set(wanted)) > 1
    assert device.tokens == golden.tokens == PROMPT[:length] + wanted
    assert (device.state().values == golden.state().values).all() and golden.state().values.any()


@pytest.mark.parametrize("limits", [(16, 0.95), *(
    pytest.param(limits, marks=pytest.mark.rest) for limits in ((1, 1.0), (16, 1.0), (5, 0.4), (0, 0.5)))])
def test_lists_on_device_equal_golden(model, limits):
    sampling, plain = Sampling(0.8, 7, *limits), list(GoldenRuntime(model).generate(PROMPT, 60, Sampling(0.8, 7)))
    k, p = limits
    wanted = list(GoldenRuntime(model).generate(PROMPT, 60, dataclasses.replace(sampling, top_k=k or 16)))
    assert wanted == GoldenRuntime(model)._golden.generate(PROMPT, 60, seed=7, temperature=0.8,
                                                           top_k=k or 16, top_p=p)
    assert wanted != plain
    device, drafted, several = on_slots(model), on_slots(model), [Sequence(PROMPT, 60, sampling) for _ in range(2)]
    assert list(device.generate(PROMPT, 60, sampling)) == wanted
    drafted.draft = 3
    assert list(drafted.generate(PROMPT, 60, sampling)) == wanted
    for _ in device.generate_all([*several, Sequence(PROMPT, 60, Sampling(0.8, 7))]):
        pass
    assert [sequence.tokens for sequence in several] == 2 * [wanted]
    if not k:
        whole = list(GoldenRuntime(model).generate(PROMPT, 60, sampling))
        assert whole == GoldenRuntime(model)._golden.generate(PROMPT, 60, seed=7, temperature=0.8, top_k=64, top_p=p)


def test_golden_equals_the_model_s_own_loop(model):
    runtime = GoldenRuntime(model)
    wanted = runtime._golden.generate(PROMPT, 20, seed=SAMPLING.seed, temperature=SAMPLING.temperature)
    assert list(runtime.generate(PROMPT, 20, SAMPLING)) == wanted


@pytest.mark.parametrize("make", MAKES, ids=NAMES)
def test_text_in_parts_equals_text_at_once(model, make):
    whole = list(make(model).generate(PROMPT, 12, SAMPLING))
    parts = make(model)
    out = list(parts.generate(PROMPT[:5], 0, SAMPLING))
    out += parts.generate(PROMPT[5:], 1, SAMPLING)
    out += parts.generate([], 4, SAMPLING)
    out += parts.generate([], 7, SAMPLING)
    assert out == whole


@pytest.mark.parametrize("make", MAKES, ids=NAMES)
def test_prompt_added_to_a_text(model, make):
    runtime = make(model)
    first = list(runtime.generate([0, 50], 3, SAMPLING))
    more = list(runtime.generate([60, 61], 4, SAMPLING))
    again = list(make(model).generate([0, 50, *first, 60, 61], 4, SAMPLING))
    assert more == again


def test_stop_token_ends_device_and_golden_alike(model):
    tokens = list(GoldenRuntime(model).generate(PROMPT, 40, SAMPLING))
    stop = next(t for t in tokens[5:] if t not in tokens[:5])
    wanted = tokens[:tokens.index(stop) + 1]
    for runtime in (GoldenRuntime(model), on_device(model, tokens_per_call=50), on_slots(model)):
        assert list(runtime.generate(PROMPT, 40, SAMPLING, stop)) == wanted
        assert runtime.tokens == PROMPT + wanted


def drafted(model, **options):
    runtime = on_slots(model, **options)
    runtime.draft = 3
    return runtime


@pytest.mark.parametrize("make", [*MAKES, drafted], ids=[*NAMES, "drafts"])
@pytest.mark.parametrize("sampling", [GREEDY, SAMPLING], ids=["greedy", "sampled"])
def test_any_of_several_stop_tokens_ends_a_text_as_a_single_one(model, make, sampling):
    prompt = [0, 40, 41, 42, 40, 41, 42, 40]  # so that there are drafts
    tokens = list(GoldenRuntime(model).generate(prompt, 14, sampling))
    never = [k for k in range(1, 264) if k not in tokens][:2]
    new = [k for k, token in enumerate(tokens) if token not in tokens[:k]]
    for at in (0, new[-1]):
        ends = []
        for stop in (tokens[at], (tokens[at], *never), (*never, tokens[at])):
            runtime = make(model) if make is GoldenRuntime else make(model, tokens_per_call=50)
            assert list(runtime.generate(prompt, 14, sampling, stop)) == tokens[:at + 1]
            assert runtime.tokens == prompt + tokens[:at + 1]
            figures = runtime.statistics
            counted = figures.counters if make is not drafted else figures.counters["tokens"]
            ends.append((runtime.state().values.tolist(), figures.tokens, figures.prompt_tokens,
                         counted, figures.prompt_counters,
                         list(runtime.generate([], 2, sampling))))
        assert ends == 3 * ends[:1]


@pytest.mark.parametrize("make", MAKES, ids=NAMES)
def test_any_of_several_stop_tokens_ends_texts_side_by_side(model, make):
    alone = [list(GoldenRuntime(model).generate([k], 30, SAMPLING)) for k in range(40, 46)]
    ends = tuple({tokens[7 + k] for k, tokens in enumerate(alone)})
    wanted = [tokens[:next(k for k, token in enumerate(tokens) if token in ends) + 1]
              for tokens in alone]
    sequences = [Sequence([k], 30, SAMPLING, ends) for k in range(40, 46)]
    runtime = make(model) if make is GoldenRuntime else make(model, tokens_per_call=50)
    for _ in runtime.generate_all(sequences):
        pass
    assert [sequence.tokens for sequence in sequences] == wanted
    assert runtime.statistics.tokens == sum(map(len, wanted))
    assert make is not on_slots or runtime.statistics.counters["tokens"] == sum(map(len, wanted))


@pytest.mark.parametrize("sides", [
    pytest.param(sides, marks=() if MAKES.index(sides[1]) == (MAKES.index(sides[0]) + 1) % 3 else pytest.mark.rest)
    for sides in itertools.product(MAKES, repeat=2)])
def test_saved_state_goes_on_anywhere(model, tmp_path, sides):
    whole = list(GoldenRuntime(model).generate(PROMPT, 10, SAMPLING))
    first, second = (make(model) for make in sides)
    part = list(first.generate(PROMPT, 6, SAMPLING))
    save_state(tmp_path / "state", first.state(), model.packed)
    second.restore(load_state(tmp_path / "state", model.packed))
    assert part + list(second.generate([], 4, SAMPLING)) == whole


@pytest.mark.parametrize("make", [on_device, on_slots], ids=["device", "slots"])
@pytest.mark.parametrize("draft", [0, 3])
@pytest.mark.parametrize("tokens_per_call", [pytest.param(1, marks=pytest.mark.rest), 50])
def test_closing_early_keeps_tokens_and_state_together(model, make, draft, tokens_per_call):
    runtime = make(model, tokens_per_call=tokens_per_call)
    runtime.draft = draft
    run = runtime.generate(PROMPT, 50, SAMPLING)
    next(run), next(run)
    run.close()
    assert runtime.device.status()[3] == runtime.position
    wanted = list(GoldenRuntime(model).generate(PROMPT, 60, SAMPLING))
    made = runtime.tokens[len(PROMPT):]
    assert len(made) >= 2 and made + list(runtime.generate([], 60 - len(made), SAMPLING)) == wanted


def test_cancelling_gives_everything_that_the_device_made(model):
    runtime = on_device(model, tokens_per_call=50)
    seen = []
    for token in runtime.generate(PROMPT, 50, SAMPLING, cancelled=lambda: len(seen) >= 1):
        seen.append(token)
    assert 1 <= len(seen) and runtime.tokens == PROMPT + seen and runtime.device.status()[3] == runtime.position
    assert seen == list(GoldenRuntime(model).generate(PROMPT, len(seen), SAMPLING))


def test_cancelling_while_reading(model):
    for runtime in (GoldenRuntime(model), on_device(model), on_slots(model)):
        assert list(runtime.generate(PROMPT, 50, SAMPLING, cancelled=lambda: True)) == []
        assert list(runtime.generate(PROMPT[len(runtime.tokens):], 3, SAMPLING)) == \
            list(GoldenRuntime(model).generate(PROMPT, 3, SAMPLING))


def test_statistics_of_a_device(model):
    runtime = on_device(model)
    runtime.fake.block[0x80] = 0xFFFFFFFF - 3 * CYCLES_PER_TOKEN  # wraps in the run
    list(runtime.generate(PROMPT, 10, SAMPLING))
    figures = runtime.statistics
    assert (figures.prompt_tokens, figures.tokens) == (len(PROMPT) - 1, 10)
    assert figures.counters["tokens"] == figures.counters["runs"] == 10
    assert figures.cycles_per_token == CYCLES_PER_TOKEN
    useful = useful_bytes(GEOMETRY, "trit5")
    assert figures.share == pytest.approx(useful / (8 * (CYCLES_PER_TOKEN - REFRESH_PER_TOKEN)))
    report = "\n".join(figures.lines())
    assert "2500 per token; 32000.0 tokens/s projected at 80 MHz from simulated cycles" in report
    assert "stream 2.0%" in report and "refresh 4.0%" in report
    figures.simulated = False
    assert "device time at 80 MHz" in "\n".join(figures.lines())
    assert figures.to_json()["counters"]["cycles"] == 10 * CYCLES_PER_TOKEN


def test_prompt_is_read_with_all_slots(model):
    runtime = on_slots(model)
    list(runtime.generate(PROMPT[:15], 10, SAMPLING))
    assert runtime.fake.reads_per_run == [4, 4, 4, 2] + 10 * [1]
    figures = runtime.statistics
    assert figures.prompt_usage.tokens_per_run == 3.5 and figures.usage.tokens_per_run == 1
    assert figures.prompt_usage.cycles_per_token == CYCLES_PER_TOKEN / 3.5
    assert "slots:      3.50 tokens per run of the program, prompt" in figures.lines()
    # Weights once per run, an embedding row for each token.
    useful = 4 * useful_bytes(GEOMETRY, "trit5", output=False, tokens=0) + 14 * (40 + 3)
    assert figures.prompt_usage.share == pytest.approx(useful / (8 * 4 * (CYCLES_PER_TOKEN - REFRESH_PER_TOKEN)))


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLING, pytest.param(Sampling(0.1, 3), marks=pytest.mark.rest)],
                         ids=["greedy", "sampled", "cold"])
@pytest.mark.parametrize("draft", [pytest.param(1, marks=pytest.mark.rest), 3])
def test_drafts_give_the_same_text(model, sampling, draft):
    wanted = list(GoldenRuntime(model).generate(PROMPT, 120, sampling))
    runtime = on_slots(model)
    runtime.draft = draft
    parts = list(runtime.generate(PROMPT, 70, sampling)) + list(runtime.generate([], 50, sampling))
    assert parts == wanted
    figures, made = runtime.statistics, runtime.fake.reads_per_run[10:]
    assert max(made) == 1 + draft and figures.usage.tokens_per_run == 120 / len(made)
    if not sampling.temperature:  # greedy texts of random weights go round in circles
        assert figures.usage.tokens_per_run > 1
        assert any("tokens per run of the program, generation" in line for line in figures.lines())


def alone(model, sequence):
    return list(GoldenRuntime(model).generate(sequence.ids, sequence.n, sequence.sampling, sequence.stop))


def six_sequences(model):
    """Different lengths, samplings, one with a stop token, one that is only asked for nothing."""
    out = [Sequence(PROMPT[:length], n, sampling) for length, n, sampling in
           ((1, 20, SAMPLING), (41, 7, Sampling()), (3, 1, SAMPLING), (9, 33, Sampling(1.5, 2)), (2, 0, SAMPLING),
            (5, 12, Sampling(0.8, 99)))]
    tokens = alone(model, out[0])
    out[0].stop = next(t for t in tokens[5:] if t not in tokens[:5])
    return out


@pytest.mark.parametrize("make", MAKES, ids=NAMES)
@pytest.mark.parametrize("tokens_per_call", [pytest.param(1, marks=pytest.mark.rest), 50])
def test_several_texts_are_those_of_each_alone(model, make, tokens_per_call):
    runtime = make(model) if make is GoldenRuntime else make(model, tokens_per_call=tokens_per_call)
    sequences, over = six_sequences(model), []
    for sequence, token in runtime.generate_all(sequences):
        assert sequence not in over
        over += [sequence] if token is None else []
    for sequence in sequences:
        assert sequence.tokens == alone(model, sequence)
    assert sorted(map(sequences.index, over)) == list(range(6)) and sequences[0].tokens[-1] == sequences[0].stop
    assert len(sequences[0].tokens) < 20 and runtime.tokens == []
    made = sum(len(sequence.tokens) for sequence in sequences)
    figures = runtime.statistics
    assert figures.tokens == made and figures.prompt_tokens == 0 + 40 + 2 + 8 + 4
    if make is on_slots:
        assert figures.together == 5 and (tokens_per_call > 1 or max(runtime.fake.reads_per_run) == 4)
        assert figures.counters["tokens"] == sum(runtime.fake.reads_per_run) == made + 54
        assert figures.share is None and figures.cycles_per_token <= CYCLES_PER_TOKEN
        assert figures.lines()[0].startswith("together:   5 texts in 4 slots, 54 tokens read; "
                                             f"made: {made} tokens in ")
    again = list(runtime.generate(PROMPT, 9, SAMPLING))
    assert again == list(GoldenRuntime(model).generate(PROMPT, 9, SAMPLING))


@pytest.mark.parametrize("make", MAKES, ids=NAMES)
def test_all_texts_are_checked_before_the_first_begins(model, make):
    sequences = [Sequence(ids, 3, SAMPLING) for ids in (PROMPT, [GEOMETRY.vocab_size])]
    with pytest.raises(RunError, match=f"token {GEOMETRY.vocab_size} is not among"):
        list(make(model).generate_all(sequences))
    assert not sequences[0].tokens


@pytest.mark.parametrize("make", MAKES, ids=NAMES)
def test_a_text_of_several_is_closed_or_all_are_cancelled(model, make):
    runtime, sequences = make(model), [Sequence(PROMPT[:2 + k], 30, SAMPLING) for k in range(6)]
    seen = 0
    for sequence, token in runtime.generate_all(sequences, lambda: seen >= 60):
        seen += token is not None
        sequence.closed |= sequence is sequences[1] and len(sequence.tokens) == 3
    assert sequences[1].tokens == alone(model, sequences[1])[:3] and 60 <= seen < 150
    for sequence in sequences:
        assert sequence.tokens == alone(model, sequence)[:len(sequence.tokens)]
    run = runtime.generate_all(sequences := [Sequence(PROMPT[:2], 30, SAMPLING) for _ in range(6)])
    next(run)
    run.close()
    if make is not GoldenRuntime:
        assert not any(block[0x40] for block in runtime.fake.blocks)
    assert list(runtime.generate(PROMPT, 9, SAMPLING)) == list(GoldenRuntime(model).generate(PROMPT, 9, SAMPLING))


def test_state_in_a_slot_that_cannot_be(model):
    runtime = on_slots(model)
    load = runtime.fake._load
    runtime.fake._load = lambda address: 4 if address == 0x9000006C else load(address)
    with pytest.raises(DeviceError, match="reports the state in slot 4 of 4"):
        list(runtime.generate(PROMPT, 3, SAMPLING))


@pytest.mark.parametrize("sampling, rows, message", [
    (Sampling(0.8, 1, top_k=40), 16, "--top-k 40: the list of this build has 16 tokens: use 1 to 16, or a build"),
    (Sampling(0.8, 1, top_k=40), 0, "--top-k 40: this build has no list of the best tokens"),
    (Sampling(0.8, 1, top_p=0.9), 0, "--top-p 0.9: this build has no list"),
    (Sampling(0.8, 1, top_k=65), 64, "--top-k 65: the list of this build has 64 tokens: use 1 to 64$")])
def test_lists_that_a_build_does_not_have(model, sampling, rows, message):
    with pytest.raises(UsageError, match=message):
        sampling.within(rows)
    runtime = on_device(model, dataclasses.replace(SLOTS, top_k=rows))
    for run in (lambda: list(runtime.generate(PROMPT, 3, sampling)),
                lambda: list(runtime.generate_all([Sequence(PROMPT, 3, sampling) for _ in range(2)]))):
        with pytest.raises(UsageError, match=message):
            run()
    assert not runtime.fake.reads_per_run


def test_register_of_the_list():
    assert Sampling(0.8, 1, 16).top_bits == 16 and Sampling(0.8, 1, 16, 0.5).top_bits == 16 | 1 << 31
    assert Sampling(0.0, 1, 16, 0.5).top_bits == Sampling(0.8).top_bits == 0
    assert Sampling(0.8, 1, 3, 0.999999999).top_bits == 3 | 65535 << 16
    assert Sampling(1, 1, 3, 1e-9).top_bits == 3 | 1 << 16
    assert Sampling(0.8, 1, top_p=0.5).within(16) == Sampling(0.8, 1, 16, 0.5)
    assert Sampling(0.0, 1, 40, 0.5).within(0) == Sampling(0.0, 1)


def test_useful_bytes_by_hand():
    # H 40, I 48, L 2, V 264: 2 (4 40^2 + 3 40 48) + 264 40 trits; 2 (9 40 + 48 + 6) + 2 40 + 1 numbers; a row.
    assert useful_bytes(GEOMETRY, "bit2") == 34880 / 4 + 3 * 909 + 43
    assert useful_bytes(GEOMETRY, "trit5") == 34880 / 5 + 3 * 909 + 43
    assert useful_bytes(GEOMETRY, "trit5", tokens=4) == 34880 / 5 + 3 * 909 + 4 * 43


def test_statistics_without_a_device():
    lines = Statistics(prompt_tokens=4, prompt_seconds=2.0, tokens=1, seconds=0.5).lines()
    assert lines == ["prompt:     4 tokens in 2.00 s, 2.00 tokens/s (wall clock)",
                     "generation: 1 token in 0.50 s, 2.00 tokens/s (wall clock)"]


def test_image_of_another_tiling_is_tiled_anew(model, tmp_path):
    other = dataclasses.replace(DEVICE, rows=1, columns=10, lanes=1, port_bytes=2, strip=16)
    path = tmp_path / "other.sterna"
    path.write_bytes(model.build(other))
    loaded = Model(path)
    runtime = on_device(loaded)
    assert "tiled for 1 x 10 with 1 lanes, the device is 2 x 20 with 4" in runtime.lines[0]
    assert list(runtime.generate(PROMPT, 9, SAMPLING)) == list(GoldenRuntime(model).generate(PROMPT, 9, SAMPLING))
    runtime.verify()
    path.write_bytes(model.build(DEVICE))
    assert on_device(Model(path)).lines == []


def test_verify_finds_a_wrong_byte(model):
    runtime = on_device(model)
    runtime.verify()
    runtime.fake.memory[runtime._map.stream_address + 8] ^= 0x100
    with pytest.raises(DeviceError, match=f"byte 0x{runtime._map.stream_address + 9:08x}"):
        runtime.verify()


def test_model_too_large_for_the_memory(model):
    with pytest.raises(ImageError, match="the model needs .* bytes and the device has 8192"):
        on_device(model, dataclasses.replace(DEVICE, memory_bytes=8192))


def test_device_that_hangs_in_a_prompt(model):
    runtime = on_device(model)
    runtime.fake.hang_at = 3
    with pytest.raises(DeviceError, match="no progress for 0.3 s at position 3"):
        list(runtime.generate(PROMPT, 5, SAMPLING))


def test_misuse(model, tmp_path):
    runtime = GoldenRuntime(model)
    with pytest.raises(RunError, match="no text to go on with"):
        list(runtime.generate([], 3, SAMPLING))
    with pytest.raises(RunError, match="token 264 is not among"):
        list(runtime.generate([264], 3, SAMPLING))
    with pytest.raises(RunError, match="no text yet"):
        runtime.state()
    with pytest.raises(ModelError, match="no such model"):
        Model(tmp_path / "absent")


def test_state_files_that_cannot_be_used(model, tmp_path):
    runtime = GoldenRuntime(model)
    list(runtime.generate([0], 2, SAMPLING))
    path = tmp_path / "state"
    save_state(path, runtime.state(), model.packed)
    other = Model(write_folder(tmp_path / "other", variant=1))
    with pytest.raises(StateError, match="belongs to another model"):
        load_state(path, other.packed)
    with pytest.raises(StateError, match="is no state file"):
        load_state(other.path / "model.safetensors", model.packed)
    good = path.read_bytes()
    for bad in (good[:40], good[:-1], good + bytes(4), good.replace(b'[0,', b'[4,', 1) + bytes(4)):
        path.write_bytes(bad)
        with pytest.raises(StateError, match="is no state file, or a damaged one"):
            load_state(path, model.packed)
    with pytest.raises(StateError, match="cannot write the state file"):
        save_state(tmp_path / "absent" / "state", runtime.state(), model.packed)


def test_the_hash_of_a_large_model_is_made_once(model, tmp_path, monkeypatch):
    (tmp_path / "m").write_bytes(model.build(DEVICE))
    monkeypatch.setattr("sterna.sim.golden.packed.SMALL_WEIGHTS", 0)
    large, made = Model(tmp_path / "m"), []
    make = large.packed.layers._make
    monkeypatch.setattr(large.packed.layers, "_make", lambda number: made.append(number) or make(number))
    assert model_hash(large.packed) == model_hash(model.packed) == model_hash(large.packed)
    assert made == list(range(GEOMETRY.num_hidden_layers))


def test_state_survives_another_tiling(model, tmp_path):
    path = tmp_path / "m.sterna"
    path.write_bytes(model.build(DEVICE))
    runtime = GoldenRuntime(model)
    list(runtime.generate([0], 2, SAMPLING))
    save_state(tmp_path / "state", runtime.state(), model.packed)
    assert load_state(tmp_path / "state", Image.load(path).unpack()).tokens == runtime.tokens
