"""The driver against a device in plain Python, on good and bad lines."""

import itertools
import random
import socket
import threading
import time

import pytest
from fake_device import FakeDevice, expected
from faults import SEED, FaultyTransport
from sterna.host.device import link as window
from sterna.host.device.driver import Device
from sterna.host.device.frames import Frame, FrameDecoder
from sterna.host.device.info import ProtocolError
from sterna.host.device.transport import TransportError, open_transport
from sterna.host.errors import DeviceError
from sterna.hw.protocol import Register

FAST = {"retry_s": 0.005, "poll_s": 0.005, "timeout_s": 5.0, "stall_s": 5.0}
PROMPT = [5, 900, 17]


def connect(fake=None, **options):
    fake = fake or FakeDevice()
    return fake, Device(fake, **FAST | options)


def check(items, start, tokens):
    assert items == list(enumerate(tokens, start))


FAULTS = {
    "corrupted": {"corrupt": 1e-3},
    "corrupted often": {"corrupt": 5e-3},
    "dropped bytes": {"drop": 1e-3},
    "doubled bytes": {"duplicate": 3e-3},
    "dropped frames": {"drop_frame": 0.1},
    "doubled frames": {"duplicate_frame": 0.2},
    "truncated frames": {"truncate_frame": 0.1},
    "all": {"corrupt": 1e-3, "drop": 1e-3, "duplicate": 1e-3, "drop_frame": 0.05, "duplicate_frame": 0.05,
            "truncate_frame": 0.05},
}


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
def test_same_tokens_on_a_bad_line(faults):
    print("seed", SEED)
    fake = FakeDevice()
    line = FaultyTransport(fake, SEED, **faults)
    device = Device(line, **FAST)
    prompt = [random.Random(SEED).randrange(1024) for _ in range(40)]  # longer than the ring
    check(list(device.run(prompt, 60, seed=3)), 40, expected(prompt, 60, 3))
    assert line.faults > 0 and fake.max_position == 99


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
def test_bulk_transfer_on_a_bad_line(faults):
    fake = FakeDevice()
    device = Device(FaultyTransport(fake, SEED, **faults), **FAST)
    data = random.Random(SEED).randbytes(4096)
    calls = []
    device.write(0, data, lambda done, total: calls.append((done, total)))
    assert b"".join(fake.memory[k].to_bytes(4, "little") for k in range(0, 4096, 4)) == data
    assert calls[-1] == (4096, 4096) and calls == sorted(calls)
    assert device.read(0, 4096) == data


def test_window_is_filled_and_never_exceeded():
    fake, device = connect()
    held = []
    answer, most = fake._answer, 0

    def hold(frame):
        nonlocal most
        held.append(frame)
        most = max(most, len(held))

    read = fake.read

    def reply_one(timeout_s):
        if held:
            answer(held.pop(0))
        return read(timeout_s)

    fake._answer, fake.read = hold, reply_one
    device._window.fixed_retry_s = 5.0
    device.write(0, bytes(224 * 10))
    assert most == fake.info.credits and device.requests_repeated == 0


def test_overtaken_request_is_repeated_at_once():
    fake, device = connect(retry_s=5.0)
    lost = iter([True])
    write = fake.write
    fake.write = lambda data: None if next(lost, False) else write(data)
    begin = time.monotonic()
    device.write(0, bytes(224 * 4))
    assert device.requests_repeated == 1 and time.monotonic() - begin < 4.0  # far below retry_s


@pytest.mark.parametrize("n_prompt, n, start", [(1, 1, 0), (1, 15, 0), (3, 16, 0), (16, 1, 0), (15, 50, 9),
                                                (17, 1, 3), (100, 100, 5), (1, 200, 31)])
@pytest.mark.parametrize("tokens_per_call", [1, 100])
def test_runs_of_any_length(n_prompt, n, start, tokens_per_call):
    fake, device = connect(FakeDevice(tokens_per_call=tokens_per_call))
    prompt = [(7 * k + 1) % 1024 for k in range(n_prompt)]
    check(list(device.run(prompt, n, start_position=start, seed=11)), start + n_prompt, expected(prompt, n, 11))
    assert fake.block[Register.CONTROL] == 0 and fake.max_position == start + n_prompt + n - 1


def test_tokens_without_any_event():
    fake, device = connect()
    fake._send_all, send = fake._send, fake._send
    fake._send = lambda kind, *rest: None if kind == 0x90 else send(kind, *rest)
    check(list(device.run(PROMPT, 40)), 3, expected(PROMPT, 40))


@pytest.mark.parametrize("n", [12, 60])
@pytest.mark.parametrize("tokens_per_call", [1, 100])
def test_stop_token(n, tokens_per_call):
    tokens = expected(PROMPT, 60)
    end = 10 if n == 12 else 40
    stop = tokens[end]
    assert stop not in tokens[:end]
    fake, device = connect(FakeDevice(tokens_per_call=tokens_per_call))
    check(list(device.run(PROMPT, n, stop=stop)), 3, tokens[:end + 1])
    assert fake.max_position == 3 + end  # the device ended the run itself and was not pushed on
    # A stop token that only the host knows leaves the device in the same place.
    fake, device = connect(FakeDevice(tokens_per_call=tokens_per_call))
    check(list(device.run(PROMPT, n, stop=(1024, stop))), 3, tokens[:end + 1])
    assert fake.max_position == 3 + end and fake.block[Register.STOP] == 1024


def test_sequence_goes_on():
    fake, device = connect()
    first = list(device.run(PROMPT, 5))
    position, token = first[-1]
    more = list(device.run([token, 8, 9], 4, start_position=position, reset_state=False))
    tokens = expected(PROMPT, 5)
    state_tokens = PROMPT + tokens[:-1]
    assert [t for _, t in first] == tokens
    check(more, position + 3, expected(state_tokens + [token, 8, 9], 4))


def test_closing_leaves_the_device_usable():
    fake, device = connect()
    for taken in (0, 1, 5):
        run = device.run(PROMPT, 1000)
        list(itertools.islice(run, taken))
        run.close()
        assert fake.block[Register.CONTROL] == 0
    check(list(device.run(PROMPT, 30)), 3, expected(PROMPT, 30))


def test_interrupt_in_the_run():
    fake, device = connect()
    read = fake.read
    calls = itertools.count()

    def interrupted(timeout_s):
        if next(calls) == 60:
            raise KeyboardInterrupt
        return read(timeout_s)

    fake.read = interrupted
    with pytest.raises(KeyboardInterrupt):
        list(device.run(PROMPT, 1000))
    assert fake.block[Register.CONTROL] == 0
    check(list(device.run(PROMPT, 30)), 3, expected(PROMPT, 30))


def test_vanished_device_ends_in_bounded_time():
    fake, device = connect(timeout_s=0.2)
    run = device.run(PROMPT, 100)
    next(run)
    fake.silent = True
    with pytest.raises(DeviceError, match="fake: no answer for 0.2 s") as error:
        list(run)
    assert "\n" not in str(error.value)
    with pytest.raises(DeviceError, match="no answer"):
        connect(fake, timeout_s=0.1)


class Port:
    """A line of a clock of its own, with somebody on it who ``answers(bytes, frames)`` with bytes.

    Every ``read`` takes 10 ms; after 1000 of them whoever reads is taken to read for ever.
    """

    name, baud = "tty7", None

    def __init__(self, answers, monkeypatch):
        self._answers, self._decoder, self._back = answers, FrameDecoder(), bytearray()
        self.reads, self.closed = 0, False
        monkeypatch.setattr(window, "time", self)

    def monotonic(self):
        return self.reads / 100

    def write(self, data):
        self._back += self._answers(bytes(data), self._decoder.feed(data))

    def read(self, timeout_s):
        self.reads += 1
        assert self.reads < 1000, "it reads for ever"
        data, self._back = bytes(self._back), bytearray()
        return data

    def close(self):
        self.closed = True


def test_a_port_that_echoes_is_named(monkeypatch):
    """What comes back undamaged is no sign of life; the port is given back."""
    port = Port(lambda data, frames: data, monkeypatch)
    with pytest.raises(DeviceError, match="tty7: the port echoes: what is sent comes back.*take the loop") as error:
        Device(port, timeout_s=3.0, retry_s=0.1)
    assert "\n" not in str(error.value) and port.closed


def test_frames_that_answer_nothing_are_no_life(monkeypatch):
    def late(data, frames):
        return b"".join(Frame(0x81, f.sequence + 7 & 0xFF, f.address, 4, b"late").encode() for f in frames)

    with pytest.raises(DeviceError, match="tty7: no answer for 3 s: check the cable"):
        Device(Port(late, monkeypatch), timeout_s=3.0, retry_s=0.1)


def test_an_echo_beside_a_device_does_no_harm():
    """Two wires for both directions, for instance: the replies count, the echo does not."""
    fake = FakeDevice()
    write = fake.write

    def both(data):
        fake.replies += data
        write(data)

    fake.write = both
    check(list(Device(fake, **FAST).run(PROMPT, 20, seed=3)), 3, expected(PROMPT, 20, 3))


def test_tokens_are_a_sign_of_life(monkeypatch):
    """A reply may take its time while TOKEN frames show that the device runs."""
    fake = FakeDevice()

    def answers(data, frames):
        if 100 < port.reads < 800:
            return Frame(0x90, 0, 1, 4, bytes(4)).encode()
        fake.write(data)
        reply, fake.replies = bytes(fake.replies), bytearray()
        return reply

    port = Port(answers, monkeypatch)
    device = Device(port, timeout_s=3.0, retry_s=0.1)
    port.reads = 101
    assert device.read(0, 4) == bytes(4) and port.reads >= 800


def test_hanging_token_ends_in_bounded_time():
    fake, device = connect(stall_s=0.2)
    fake.hang_at = 8
    with pytest.raises(DeviceError, match="no progress for 0.2 s at position 8"):
        list(device.run(PROMPT, 100))


def test_fault_and_reset():
    fake, device = connect()
    fake.fault_at = 6
    with pytest.raises(DeviceError, match="fault 'instruction' at position 6"):
        list(device.run(PROMPT, 100))
    fake.fault_at = None
    device.reset()
    check(list(device.run(PROMPT, 10)), 3, expected(PROMPT, 10))


def test_wrong_version_and_magic():
    fake = FakeDevice()
    fake.hello[4] = 1
    with pytest.raises(ProtocolError, match="fake has protocol version 1 and this software has 8: rebuild the bitst"):
        connect(fake)
    fake = FakeDevice()
    fake.hello[0] = 0
    with pytest.raises(ProtocolError, match="no Sterna device"):
        connect(fake)


def test_program_scalars_registers_and_counters():
    fake, device = connect()
    device.load_program([1 << 95 | 3, 5])
    assert [fake.program[k] for k in range(0, 32, 4)] == [3, 0, 1 << 31, 0, 5, 0, 0, 0]
    with pytest.raises(DeviceError, match="65 instructions and the device holds 64"):
        device.load_program([0] * 65)
    device.write_scalars({2: 0x3F8000, 31: 1})
    assert fake.scalars == {2: 0x3F8000, 31: 1}
    device.write_register(Register.SEED, 77)
    assert device.read_register(Register.SEED) == 77
    list(device.run(PROMPT, 4, inverse_temperature_bits=0x400000, sample=True, seed=5))
    assert fake.scalars[2] == 0x400000 and fake.block[Register.FLAGS] == 1 and fake.block[Register.SEED] == 5
    assert device.counters()["runs"] == 6 and len(device.counters()) == 13


def test_state_returns():
    fake, device = connect()
    state = random.Random(SEED).randbytes(512)
    device.write_state(1024, state)
    assert device.read_state(1024, 512) == state


def test_refused_and_misused_requests():
    fake, device = connect()
    with pytest.raises(DeviceError, match="refused to write to 0x00001000 .4 bytes.: address"):
        device.write(4096, bytes(4))
    assert device.read(0, 4) == bytes(4)
    with pytest.raises(ValueError, match="multiples of 4"):
        device.read(2, 4)
    with pytest.raises(ValueError, match="multiples of 4"):
        device.write(0, b"abc")
    with pytest.raises(ValueError, match="0 prompt tokens"):
        next(device.run([], 4))


def test_open_errors(tmp_path):
    with pytest.raises(TransportError, match="nowhere: no such device"):
        open_transport(str(tmp_path / "nowhere"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(TransportError, match=f"socket://127.0.0.1:{port}: connection refused"):
        open_transport(f"socket://127.0.0.1:{port}")
    with pytest.raises(TransportError, match="bad://x: cannot be opened"):
        open_transport("bad://x")


def test_run_over_a_socket():
    fake = FakeDevice()
    with socket.create_server(("127.0.0.1", 0)) as server:
        def serve():
            line, _ = server.accept()
            with line:
                line.settimeout(0.002)
                while not fake.closed:
                    try:
                        received = line.recv(4096)
                        if not received:
                            return
                        fake.write(received)
                    except TimeoutError:
                        pass
                    line.sendall(fake.read(0))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with Device(open_transport(f"socket://127.0.0.1:{server.getsockname()[1]}"), timeout_s=5.0) as device:
            check(list(device.run(PROMPT, 20)), 3, expected(PROMPT, 20))
            fake.closed = True
            thread.join(5.0)
            with pytest.raises(TransportError, match="the connection broke"):
                for _ in range(100):
                    device.read(0, 4)
