"""States that are kept: the longest beginning counts, bytes are bounded, and no file gives a wrong text."""

import errno
import os

import numpy as np
import pytest
import sterna
from faults import SEED
from small_model import DEVICE, SLOTS, GoldenDevice, write_folder
from sterna.host.device.driver import Device
from sterna.host.model.model import Model
from sterna.host.runtime.device import DeviceRuntime
from sterna.host.runtime.golden import GoldenRuntime
from sterna.host.runtime.sampling import Sampling
from sterna.host.runtime.state import State, StateError
from sterna.host.serving.engine import Engine
from sterna.host.serving.scheduler import Queue, Scheduler
from sterna.host.serving.states import PIECE, StateCache, prefix_hashes
from sterna.sim.golden import fp24


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("states") / "model")


@pytest.fixture(scope="module")
def model(folder):
    return Model(folder)


def state_of(tokens, value=1.5):
    return State(fp24.round24(np.full((2, 40), value) + len(tokens)), list(tokens))


def test_the_longest_beginning_is_found_whatever_else_is_there():
    cache, rng = StateCache(None, 1 << 20), np.random.default_rng(SEED)
    kept = {}
    for number in range(200):
        tokens = rng.integers(0, 2, int(rng.integers(1, 12))).tolist()
        cache.add(state_of(tokens, number))
        if len(tokens) > 1:
            kept[tuple(tokens[:-1])] = number
    for _ in range(300):
        tokens = rng.integers(0, 2, int(rng.integers(1, 14))).tolist()
        longest = next((k for k in range(len(tokens) - 1, 0, -1) if tuple(tokens[:k]) in kept), 0)
        found, _ = cache.begin(tokens)
        assert (found.position if found else 0) == longest
        if found:
            assert found.tokens == tokens[:longest + 1]
            wanted = state_of(tokens[:longest + 1], kept[tuple(tokens[:longest])])
            assert (found.values == wanted.values).all()


def test_equal_hashes_are_no_equal_texts(monkeypatch):
    from sterna.host.serving import states
    monkeypatch.setattr(states, "prefix_hashes", lambda tokens: [7] * (len(tokens) + 1))
    cache = StateCache(None, 1 << 20)
    cache.add(state_of([1, 2, 3]))
    assert cache.begin([1, 2, 9])[0].position == 2 and cache.begin([1, 3, 9])[0] is None
    assert cache.begin([1, 2])[0] is None  # nothing would be left to read


def test_bytes_are_bounded_and_the_longest_unused_goes():
    entry = 2 * 40 * 4 + 4 * 9
    cache = StateCache(None, 3 * entry)
    for k in range(3):
        cache.add(state_of([k] * 10))
    assert cache.begin([0] * 12)[0]
    cache.add(state_of([5] * 10))
    assert len(cache) == 3 and cache.size_bytes <= 3 * entry
    assert cache.begin([0] * 12)[0] and cache.begin([5] * 12)[0] and not cache.begin([1] * 12)[0]
    cache.add(State(np.zeros((2, 4000)), [1, 2]))  # alone too large
    assert len(cache) == 3
    off = StateCache(None, 0)
    off.add(state_of([1, 2]))
    assert off.begin([1, 2, 3]) == (None, 0) and not len(off)


def test_where_texts_part():
    cache, text = StateCache(None, 1 << 20), list(range(100))
    assert cache.begin(text)[1] == 0
    assert cache.begin(text)[1] == 96
    assert cache.begin(text[:70] + [7] * 50)[1] == 2 * PIECE
    assert cache.begin(text[:20] + [7] * 50)[1] == 0


def test_files_outlive_the_cache_and_damaged_ones_are_none(model, tmp_path):
    told = []
    runtime = GoldenRuntime(model)
    list(runtime.generate(model.vocabulary.encode("abc"), 6, Sampling(0.8, 1)))
    state = runtime.state()
    cache = StateCache(model.packed, 1 << 20, tmp_path / "s", told.append)
    cache.add(state)
    cache.close()
    (file,) = (tmp_path / "s").iterdir()
    whole = file.read_bytes()

    def found():
        return StateCache(model.packed, 1 << 20, tmp_path / "s", told.append).begin([*state.tokens, 5])[0]

    again = found()
    assert (again.values == state.values).all() and again.tokens[:-1] == state.tokens[:-1] and not told
    rng = np.random.default_rng(SEED)
    for at in (*rng.integers(8, len(whole), 40), len(whole) - 1, 0):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << int(rng.integers(8))
        file.write_bytes(damaged)
        again = found()
        assert again is None or (again.values == state.values).all(), at  # of a name in the header
        file.write_bytes(whole)
    for size in (0, 7, len(whole) - 1):
        file.write_bytes(whole[:size])
        assert found() is None and not file.exists()
    assert told and all("a state is read anew" in line and "\n" not in line for line in told)
    file.write_bytes(whole)
    file.rename(file.with_name(file.name.replace("-", "-0000", 1).replace(".state", "")[:-4] + ".state"))
    assert found() is None  # of another text
    other = StateCache(Model(write_folder(tmp_path / "other", variant=1)).packed, 1 << 20, tmp_path / "s")
    assert other.begin([*state.tokens, 5])[0] is None
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="cannot use the folder of states"):
        StateCache(model.packed, 1 << 20, tmp_path / "file")


def test_the_folder_is_bounded(model, tmp_path):
    from sterna.host.serving import states
    cache = StateCache(model.packed, 700, tmp_path / "s")
    for k in range(60):
        cache.add(state_of([k] * 5))
    cache.close()
    size = sum(path.stat().st_size for path in (tmp_path / "s").iterdir())
    assert 0 < size <= states.ON_DISK * 700 and cache.size_bytes == 0


@pytest.mark.parametrize("device", ["cpu", pytest.param("golden", marks=pytest.mark.rest)])
def test_a_conversation_reads_only_what_is_new(folder, model, tmp_path, device):
    """Of every turn the text is the one that it is without states; with them its beginning is not read."""
    texts = {}
    for name, options in (("without", {"state_cache_bytes": 0}), ("with", {}), ("small", {"state_cache_bytes": 900}),
                          ("disk", {"state_cache_dir": tmp_path / "s", "state_cache_bytes": 900}),
                          ("disk again", {"state_cache_dir": tmp_path / "s", "state_cache_bytes": 900})):
        with sterna.load(folder, device, **options) as engine:
            ids, out, read = model.vocabulary.encode("A long beginning of all conversations."), [], []
            for turn in range(4):
                ids = ids + list(f"<{turn}>".encode())
                generation = engine.generate(ids, 7, seed=turn, ignore_end=True)
                generation.result()
                out.append(generation.tokens)
                read.append(generation.usage.prompt_tokens - generation.usage.cached_tokens)
                ids = ids + generation.tokens
            texts[name] = out
            if name == "without":
                assert read == [42, 52, 62, 72]
            elif name == "with":
                assert read == [42, 4, 4, 4]
            elif name == "disk again":
                assert read[0] == 1
    assert all(text == texts["without"] for text in texts.values())


def test_a_common_beginning_is_kept_when_it_comes_again(folder):
    with sterna.load(folder) as engine:
        read = []
        for tail in ("one", "two", "three"):
            generation = engine.generate("x" * 100 + tail, 3, seed=1)
            generation.result()
            read.append(generation.usage.prompt_tokens - generation.usage.cached_tokens)
    assert read == [104, 104, 106 - 96]


def test_hashes_of_beginnings():
    assert len(set(prefix_hashes([0, 0, 0]))) == 4 and prefix_hashes([1, 2, 3])[:3] == prefix_hashes([1, 2])


@pytest.mark.parametrize("info, beside", [(SLOTS, False), *(pytest.param(*case, marks=pytest.mark.rest)
                                                            for case in ((DEVICE, False), (SLOTS, True)))])
def test_turns_that_end_at_a_stop_string_on_a_device_that_runs_ahead(model, info, beside):
    """The next turn reads the answer and what is new; no state is taken of what the device had made beyond."""
    fake = GoldenDevice(model.packed, info, tokens_per_call=8)
    runtime = DeviceRuntime(model, Device(fake, poll_s=0.005), print)
    queue, states = Queue(100), StateCache(None, 1 << 20)
    with Engine(model, None, Scheduler(runtime, queue, states), queue, states) as engine, runtime:
        other = engine.generate("z", ignore_end=True, seed=9) if beside else None
        ids, read, answers = model.vocabulary.encode("A long beginning"), [], []
        golden = GoldenRuntime(model)
        for turn in range(3):
            ids = ids + list(f"<{turn} and more, so that it is long>".encode())
            golden.clear()
            made = list(golden.generate(ids, 12, Sampling(0.8, turn)))
            stop = b"".join(map(model.vocabulary.token_bytes, made[4:6])).decode(errors="replace")
            if "\ufffd" in stop:  # half of a character: a stop string of whole ones
                stop = next(c for c in b"".join(map(model.vocabulary.token_bytes, made)).decode(errors="replace")
                            if c != "\ufffd")
            generation = engine.generate(ids, 30, seed=turn, ignore_end=True, stop=stop)
            generation.result()
            assert generation.finish_reason == "stop" and generation.tokens == made[:len(generation.tokens)]
            read.append(generation.usage.prompt_tokens - generation.usage.cached_tokens)
            answers.append(len(generation.tokens))
            ids = ids + generation.tokens
        new = len("<0 and more, so that it is long>")
        assert read[0] == len("A long beginning") + 1 + new
        assert read[1:] == [answer + new + 1 for answer in answers[:-1]]
        assert all(len(entry.tokens) < len(ids) for entry in states._entries.values()) and len(states) == 3
        if other:
            other.cancel()


def full(path, *rest):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def test_a_full_disk_is_a_line_and_leaves_nothing(model, tmp_path, monkeypatch):
    told = []
    cache = StateCache(model.packed, 900, tmp_path / "s", told.append)
    monkeypatch.setattr("os.fsync", full)
    for k in range(9):
        cache.add(state_of([k + 1] * 5))
    assert cache.begin([9] * 8)[0] and cache.size_bytes <= 900
    cache.close()
    assert len(told) == 9 and all("No space left on device" in line and "\n" not in line for line in told)
    assert list((tmp_path / "s").iterdir()) == []
    monkeypatch.undo()
    cache.add(state_of([3] * 5))
    cache.close()
    assert len(list((tmp_path / "s").iterdir())) == 1


def test_what_else_lies_in_the_folder_is_left_alone(model, tmp_path):
    folder, told = tmp_path / "s", []
    cache = StateCache(model.packed, 1 << 16, folder, told.append)
    cache.add(state_of([1, 2, 3]))
    cache.close()
    (file,) = folder.iterdir()
    assert folder.stat().st_mode & 0o077 == 0  # texts can be read out of it
    names = [f"{file.name[:17]}{k:016x}.state" for k in range(4)]
    os.mkfifo(folder / names[0])  # whoever opened it would wait for ever
    (folder / names[1]).mkdir()
    (folder / names[2]).symlink_to("/nowhere")
    (folder / names[3].upper()).write_text("other")
    (folder / "..state").write_text("other")
    with (folder / f"{file.name[:17]}{7:016x}.state").open("wb") as large:
        large.truncate(1 << 40)  # nobody has the memory for it
    before = sorted(path.name for path in folder.iterdir())
    again = StateCache(model.packed, 1 << 50, folder, told.append)
    assert set(again._files) == {prefix_hashes([1, 2])[-1], 7}
    assert again.begin([1, 2, 9])[0] is not None
    again.close()
    assert sorted(path.name for path in folder.iterdir()) == before and not told


def test_two_processes_share_a_folder(model, tmp_path, monkeypatch):
    told = []
    first = StateCache(model.packed, 1 << 16, tmp_path / "s", told.append)
    first.add(state_of([1, 2, 3]))
    first.close()
    second, third = (StateCache(model.packed, 1 << 16, tmp_path / "s", told.append) for _ in range(2))
    (file,) = (tmp_path / "s").iterdir()
    assert second.begin([1, 2, 4])[0] is not None
    file.unlink()  # by the other one
    assert third.begin([1, 2, 4])[0] is None and len(told) == 1
    second.close()  # has it in memory, and writes it again
    assert file.exists()

    scandir = os.scandir

    def removed_meanwhile(folder):
        entries = list(scandir(folder))
        file.unlink()
        return entries

    monkeypatch.setattr(os, "scandir", removed_meanwhile)
    assert not StateCache(model.packed, 1 << 16, tmp_path / "s", told.append)._files and len(told) == 1
