"""Pools: devices that are unplugged, wedged or restarted in mid-answer; every text is the one that it is alone."""

import dataclasses
import random
import socket
import threading

import pytest
import sterna
from cable import Cable
from comings import alone_on
from faults import SEED
from small_model import DEVICE, SLOTS, GoldenDevice, served, write_folder
from sterna.host.errors import HostError, UsageError
from sterna.host.model.model import Model
from sterna.host.runtime import cpu
from sterna.host.runtime.cpu import CpuRuntime
from sterna.host.runtime.golden import GoldenRuntime
from sterna.host.runtime.sampling import Sampling

FORMS = ("unplugged", "silent", "wedged", "restarted")
PROMPTS = tuple("abcdefghij" * k + "x" for k in (0, 1, 3, 6))
MADE, SEEDS = 12, 5


class Board(GoldenDevice):
    """A board that can be killed. Once it was restarted it makes nonsense until it has been given a program again."""

    def __init__(self, packed, info):
        super().__init__(packed, info)
        self.wedged = False

    def restart(self):
        for slot, block in enumerate(self.blocks):
            block.update(dict.fromkeys(block, 0))
            self.scalars_of[slot].clear()
            self.rings[slot][:] = [(None, 7)] * self.info.ring
        self.memory, self.program, self.replies = {}, {}, bytearray()

    def load_state(self, slot):
        for at in (at for layer in self._layers(slot) for at in layer):
            self.memory.setdefault(at, 0x123456)
        return super().load_state(slot)

    def sample(self, head, position, slot):
        return super().sample(head, position, slot) if self.program else 77

    def _token(self):
        if not self.wedged:
            super()._token()


class Plug:
    """A board behind a socket whose address stays, unplugged or not."""

    def __init__(self, board):
        self.board, self.port, self._lock, self._ended = board, None, threading.Lock(), threading.Event()
        self.killed = 0
        self.revive()

    @property
    def url(self):
        return f"socket://127.0.0.1:{self.port}"

    def kill(self, form):
        self.killed += 1
        with self._lock:
            if form == "unplugged":
                self._ended.set()
            elif form == "restarted":
                self.board.restart()
            else:
                setattr(self.board, form, True)

    def revive(self):
        """Plugs it in again, out of a reset."""
        if self._ended.is_set():
            self._thread.join()
        if self.port is None or self._ended.is_set():
            self._ended.clear()
            self._listener = socket.create_server(("127.0.0.1", self.port or 0))
            self.port = self._listener.getsockname()[1]
            self._thread = threading.Thread(target=self._serve, daemon=True)
            self._thread.start()
        with self._lock:
            self.board.silent = self.board.wedged = False
            if self.killed:
                self.board.restart()

    def end(self):
        self._ended.set()
        self._thread.join()

    def _serve(self):
        self._listener.settimeout(0.02)
        while not self._ended.is_set():
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            with connection:
                connection.settimeout(0.002)
                self._connected(connection)
        self._listener.close()

    def _connected(self, connection):
        while not self._ended.is_set():
            try:
                data = connection.recv(4096)
                if not data:
                    return
            except TimeoutError:
                data = b""
            except OSError:
                return
            with self._lock:
                self.board.write(data)
                answer = self.board.read(0)
            try:
                connection.sendall(answer)
            except OSError:
                return


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return Model(write_folder(tmp_path_factory.mktemp("pool") / "model"))


@pytest.fixture(scope="module")
def wanted(model):
    """Tokens by prompt and seed."""
    def tokens(prompt, seed):
        with CpuRuntime(model, 1) as runtime:
            return list(runtime.generate(model.vocabulary.encode(prompt), MADE, Sampling(0.8, seed)))

    return {(prompt, seed): tokens(prompt, seed) for prompt in PROMPTS for seed in range(SEEDS)}


def begin(engine, number):
    prompt, seed = PROMPTS[number % len(PROMPTS)], number // len(PROMPTS) % SEEDS
    return (prompt, seed), engine.generate(prompt, MADE, seed=seed, ignore_end=True)


@pytest.fixture
def plugs(model):
    made = [Plug(Board(model.packed, info)) for info in (SLOTS, SLOTS, DEVICE)]
    yield made
    for plug in made:
        plug.end()


@pytest.mark.parametrize("form, count", [("restarted", 12), *(
    pytest.param(form, 200 if form in ("unplugged", "restarted") else 60, marks=pytest.mark.rest) for form in FORMS)])
def test_devices_that_die_in_turn_lose_no_text(model, wanted, plugs, form, count):
    rand = random.Random(SEED)
    with sterna.load(model, [plug.url for plug in plugs], stall_s=1.5, lost_s=600, queue=count) as engine:
        texts = [begin(engine, number) for number in range(count)]
        over, turn = threading.Event(), 0

        def kill():
            nonlocal turn
            while not over.wait(rand.random() * 0.6):
                plug = plugs[turn % 3]
                turn += 1
                plug.kill(form)
                over.wait(0.5 + rand.random() * (3 if form in ("silent", "wedged") else 0.5))
                plug.revive()

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            for key, generation in texts:
                generation.result()
                assert generation.tokens == wanted[key], key
                assert generation.finish_reason == "length"
        finally:
            over.set()
            killer.join()
        assert all(plug.killed for plug in plugs) or count < 200


def test_a_text_goes_on_elsewhere_from_its_last_token(model, wanted, plugs):
    with sterna.load(model, [plugs[0].url, "cpu"], stall_s=2, threads=1) as engine:
        assert [status.alive for status in engine.devices] == [True, True]
        texts = [begin(engine, number) for number in range(40)]
        while not engine.devices[0].tokens and not all(generation.finish_reason for _, generation in texts):
            threading.Event().wait(0.001)  # on a slow machine the other one may have made all of them by now
        plugs[0].kill("unplugged")
        for key, generation in texts:
            generation.result()
            assert generation.tokens == wanted[key]
        key, generation = begin(engine, 7)
        assert generation.result() is not None and generation.tokens == wanted[key]


def test_without_any_device_texts_wait_and_then_fail_with_the_reason(model, wanted, plugs, monkeypatch):
    with sterna.load(model, plugs[2].url, stall_s=2, lost_s=0.3) as engine:
        key, first = begin(engine, 0)
        first.result()
        plugs[2].kill("unplugged")
        failed, cancelled = begin(engine, 1)[1], begin(engine, 2)[1]
        cancelled.cancel()
        with pytest.raises(HostError, match="no device has been there for 0.3 s: socket://.*: .* broke"):
            failed.result(60)
        assert failed.finish_reason is None and cancelled.result() == "" and not engine.devices[0].alive
        with pytest.raises(HostError, match="no device has been there"):
            "".join(begin(engine, 3)[1])
        plugs[2].revive()
        while not engine.devices[0].alive:
            threading.Event().wait(0.05)
        key, last = begin(engine, 0)
        assert last.result() is not None and last.tokens == wanted[key] and engine.devices[0].tokens >= MADE


def test_a_fault_that_nobody_foresaw_ends_the_text_that_brings_it(model, monkeypatch):
    make = GoldenRuntime._make

    def broken(self, token, n, sampling, *rest):
        if sampling.seed == 13:
            raise ZeroDivisionError("of the test")
        yield from make(self, token, n, sampling, *rest)

    monkeypatch.setattr(GoldenRuntime, "_make", broken)
    with sterna.load(model, ["golden", "golden"]) as engine:
        bad = engine.generate("a", 4, seed=13)
        good = [engine.generate("a", 4, seed=k, ignore_end=True) for k in range(6)]
        with pytest.raises(HostError, match="golden: ZeroDivisionError: of the test"):
            bad.result(60)
        assert all(len(one.tokens) == 4 for one in good if one.result(60) is not None)


def until(there):
    """Waits for what must come."""
    for _ in range(60_000):
        if there():
            return
        threading.Event().wait(0.002)
    raise AssertionError("it did not come")


def test_a_serial_cable_that_is_pulled_and_put_in_again(model, plugs, tmp_path, monkeypatch):
    """By a name that stays; the text goes on elsewhere from its last token, and the board is there again later."""
    monkeypatch.setattr(cpu, "SLOTS", 1)
    alone, options = alone_on(model), {"max_tokens": 300, "ignore_end": True}
    cable = Cable(tmp_path / "board", plugs[2].url)
    with sterna.load(model, [str(cable.path), "cpu"], stall_s=5, threads=1) as engine:
        for turn in range(2):
            before = engine.devices[0].tokens
            endless = engine.generate("a", ignore_end=True, seed=1)
            texts = [engine.generate("abc", seed=k, **options) for k in range(2)]
            until(lambda before=before: engine.devices[0].tokens > before + 5)
            cable.pull()
            until(lambda: not engine.devices[0].alive)
            if turn:  # the endless one is on the board or on the cpu: both must be able to go on without the other
                endless.cancel()
            assert [text.result() for text in texts] == [alone("abc", seed=k, **options)[0] for k in range(2)]
            endless.cancel()
            endless.result()
            cable.put_in()
            until(lambda: engine.devices[0].alive)
    cable.pull()


@pytest.mark.parametrize("rows, message", [(16, "have 16 to 64 tokens, and .*: give top_k too, 1 to 16"),
                                           (0, "one of the devices has no list")])
def test_lists_of_other_lengths_give_no_other_text(model, rows, message):
    """What would depend on the length of a device's list is refused; all else is the same on either."""
    options = {"max_tokens": 12, "seed": 3, "ignore_end": True, "temperature": 1.5}
    with served(GoldenDevice(model.packed, dataclasses.replace(DEVICE, top_k=rows))) as url:
        with sterna.load(model, ["cpu", url], threads=1) as engine:
            with pytest.raises(UsageError, match=message):
                engine.generate("a", top_p=0.9, **options)
        with sterna.load(model, url) as board, sterna.load(model, threads=1) as other:
            for limits in ({}, *([{"top_k": 16, "top_p": 0.9}, {"top_k": 7}] if rows else ())):
                assert board.generate("a", **limits, **options).result() \
                    == other.generate("a", **limits, **options).result()
            if rows:  # which is why: each device alone takes its own list, as `sterna generate` does
                made = [one.generate("a", top_p=1 - 1e-4, **options) for one in (board, other)]
                assert made[0].result() != made[1].result()


def test_a_device_that_comes_back_as_another_build_is_not_taken(model, plugs):
    with sterna.load(model, [plugs[0].url, "cpu"], stall_s=2, lost_s=600, threads=1) as engine:
        member = engine._pool.members[0]
        source, changed = member.source, {"rows": 40}

        def opened(progress):
            runtime = source.open(progress)
            vars(runtime).update(changed)
            return runtime

        member.source = dataclasses.replace(source, open=opened)
        plugs[0].kill("unplugged")
        while member.alive:  # until it has tried
            begin(engine, 0)[1].result()
        plugs[0].revive()
        until(lambda: "another build than before, with a list of 40 tokens" in str(member.error))
        assert not member.alive
        changed.clear()
        until(lambda: member.alive)
