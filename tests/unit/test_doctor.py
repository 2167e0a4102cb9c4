"""sterna doctor against devices in plain Python: every check passes on a good one and fails on its planted fault."""

import contextlib
import dataclasses
import json
import os
import select
import threading
import time
import tty

import pytest
import serial
from fake_device import FakeDevice
from small_model import DEVICE, SLOTS, GoldenDevice, served
from sterna.host.device.driver import Device
from sterna.host.device.info import DeviceInfo
from sterna.host.doctor import answer, identity, line, memory
from sterna.host.doctor.check import FAILED, OK, SKIPPED
from sterna.host.errors import UsageError
from sterna.hw import protocol
from sterna.hw.boards import preset
from sterna.hw.presets import PRESETS
from sterna.hw.protocol import Register

CYCLES = 3000
SIZES = {"memory_bytes": 1 << 17, "credits": 4}


class Board(GoldenDevice):
    """A golden device with the built-in model, counters that fit each other, and room for faults."""

    def __init__(self, info=DEVICE, packed=None, **options):
        super().__init__(packed or answer.BuiltinModel().packed, dataclasses.replace(info, **SIZES), **options)

    def count(self):
        for offset, step in ((0x80, CYCLES), (0x84, 1000), (0x88, 900), (0x94, CYCLES - 900), (0x98, 100)):
            self.block[offset] = self.block[offset] + step & 0xFFFFFFFF


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(line, "LOAD_S", 0.0)
    monkeypatch.setattr(memory, "QUICK_BLOCKS", 6)


def lines(sterna, device, *flags):
    """(exit code, {check: (verdict, text)}, last line) of the doctor on a device behind a socket."""
    with served(device) as url:
        code, out, err = sterna("doctor", "--device", url, *flags)
    found = [text.split(None, 1) for text in out.splitlines()]
    assert "Traceback" not in err
    checks = {rest[:18].strip(): (verdict, rest[18:].strip()) for verdict, rest in found[:-1]}
    return code, checks, out.splitlines()[-1]


@pytest.mark.parametrize("info", [DEVICE, SLOTS], ids=["one", "slots"])
def test_a_good_device_passes(sterna, info):
    code, found, last = lines(sterna, Board(info))
    assert code == 0 and last.startswith("verdict: ok: ") and {v for v, _ in found.values()} == {OK, SKIPPED}, found
    assert {"port", "versions", "build", "rest", "round trip", "write 224 bytes", "read 4 bytes", "losses",
            *memory.NAMES, "tokens, greedy", "tokens, sampled", "counters", "clock"} <= set(found)
    # The other build has no list either.
    assert ("tokens, 4 slots" in found) == ("tokens, top-k/p" in found) == (info is SLOTS)
    assert "no serial line: not judged" in found["write 224 bytes"][1]


def test_json_has_the_same_checks(sterna):
    with served(Board()) as url:
        code, out, _ = sterna("doctor", "--device", url, "--json")
    report = json.loads(out)
    assert code == 0 and report["verdict"] == "ok" and not report["simulated"]
    figures = {check["check"]: check for check in report["checks"]}
    assert figures["counters"]["cycles_per_token"] == CYCLES and figures["losses"]["frames_bad"] == 0
    assert len(figures["tokens, greedy"]["tokens"]) == answer.TOKENS


def test_memory_none_leaves_the_memory_as_it_was(sterna):
    device = Board()
    device.memory = {at: at * 7 + 1 for at in range(0, device.info.memory_bytes, 4)}
    before = dict(device.memory)
    code, found, _ = lines(sterna, device, "--memory", "none")
    assert code == 0 and found["memory"][0] == SKIPPED and "pattern" not in found
    assert device.memory == before
    assert lines(sterna, device)[0] == 0 and device.memory != before


class StuckBit(Board):
    """Bit 5 of every word from ``begin`` to ``end`` reads as 1."""

    begin, end = 0, 1 << 20

    def _load(self, address):
        value = super()._load(address)
        return value | 1 << 5 if self.begin <= address < min(self.end, self.info.memory_bytes) else value


class StuckAddress(Board):
    """Address bit 9 is always 0."""

    def _load(self, address):
        return super()._load(address & ~512 if address < self.info.memory_bytes else address)

    def _store(self, address, value):
        super()._store(address & ~512 if address < self.info.memory_bytes else address, value)


class NoMasks(Board):
    """A write of one word damages the word beside it in the port's 8 bytes."""

    def _answer(self, frame):
        super()._answer(frame)
        if frame.kind == protocol.Kind.WRITE and frame.length == 4 and frame.address < self.info.memory_bytes:
            self.memory[frame.address ^ 4] = 0x55555555


def test_a_stuck_bit_is_found(sterna):
    code, found, last = lines(sterna, StuckBit())
    assert code == 1 and last.startswith("verdict: failed: ") and "data lines" in last
    assert found["data lines"] == (FAILED, "bits 5, 37 of 64 are wrong")
    assert found["pattern"][0] == FAILED and "(bit 5)" in found["pattern"][1]


@pytest.mark.rest
def test_a_stuck_bit_of_one_word_needs_the_full_test(sterna):
    """It lies outside of what the quick test looks at, which says how much that is."""
    device = StuckBit()
    tested = memory.extent("quick", device.info.memory_bytes).parts
    free = next(at for at in range(0, device.info.memory_bytes, 4096) if (at, 4096) not in tested)
    device.begin, device.end = free + 1024, free + 1028
    assert lines(sterna, device)[0] == 0
    code, found, _ = lines(sterna, device, "--memory", "full")
    assert code == 1 and f"byte 0x{free + 1024:x} is" in found["pattern"][1]
    assert lines(sterna, device, "--memory", f"0:{free}")[0] == 0
    assert lines(sterna, device, "--memory", f"{free:#x}:{free + 4096:#x}")[0] == 1


def test_a_stuck_address_line_is_found(sterna):
    code, found, _ = lines(sterna, StuckAddress())
    assert code == 1 and found["address lines"][0] == FAILED
    assert "0x0 holds" in found["address lines"][1] and "belongs to 0x200" in found["address lines"][1]


def test_missing_masks_are_found(sterna):
    code, found, _ = lines(sterna, NoMasks())
    assert code == 1 and found["byte masks"][0] == FAILED and found["pattern"][0] == OK


def test_other_tokens_are_found(sterna):
    packed = answer.BuiltinModel().packed
    layer = dataclasses.replace(packed.layers[1], down=-packed.layers[1].down)
    code, found, last = lines(sterna, Board(packed=dataclasses.replace(packed, layers=(packed.layers[0], layer))))
    assert code == 1 and "tokens, greedy" in last and "the golden model's is" in found["tokens, greedy"][1]


@pytest.mark.parametrize("offset, text", [(0x84, "0 words from the memory"), (0x88, "0 of the array"),
                                          (0x94, "cycles do not fit")])
def test_counters_that_cannot_be_are_found(sterna, offset, text):
    class Broken(Board):
        def count(self):
            super().count()
            self.block[offset] = self.block[offset] + 5000 if offset == 0x94 else 0

    code, found, _ = lines(sterna, Broken())
    assert code == 1 and found["counters"][0] == FAILED and text in found["counters"][1]


def test_a_build_without_counters_is_no_failure(sterna):
    class Without(Board):
        def count(self):
            pass

    code, found, _ = lines(sterna, Without())
    assert code == 0 and found["counters"] == (SKIPPED, "this build counts no cycles")


def test_a_known_build_is_named_and_compared():
    info = dict(vars(DEVICE))
    config = PRESETS["lanes40"]
    told = {name: getattr(config, name) for name in info if hasattr(config, name)}
    told["build"] = identity.build_of(config)

    def checks(wanted=None, **changes):
        device = Device(FakeDevice(DeviceInfo(**info | told | changes)))
        return list(identity.identify(device, wanted))[-1]

    assert checks().verdict == OK and "lanes40; 3 x 20 trits" in checks().text
    assert checks(build=1).verdict == OK and "no board or preset" in checks(build=1).text
    assert checks(clock_hz=1000).verdict == FAILED and "clock_hz is 1000" in checks(clock_hz=1000).text
    assert checks(wanted=config).verdict == OK
    assert checks(wanted=preset("lanes10")).verdict == FAILED
    board = preset("ulx3s-85f")
    told = {name: getattr(board, name) for name in info if hasattr(board, name)} | {"build": identity.build_of(board)}
    assert "ulx3s-85f or ulx3s-45f" in checks(memory_hz=125_000_000).text
    assert checks(memory_hz=100_000_000).verdict == FAILED


# The line


class Wire(FakeDevice):
    """A serial line of 1 Mbaud with a clock of its own, which ``read`` moves; and its faults."""

    baud = 1_000_000

    def __init__(self, clock, latency_s=0.001, *, one_at_a_time=False, **options):
        super().__init__(DEVICE, **options)
        self.clock, self.latency_s, self.one_at_a_time = clock, latency_s, one_at_a_time
        self.free_at, self.due = [0.0, 0.0], []

    def write(self, data):
        for piece in filter(None, data.split(b"\0")):
            self.free_at[0] = max(self.free_at[0], self.clock[0]) + (len(piece) + 1) * 1e-5
            super().write(piece + b"\0")
            answer_, self.replies = bytes(self.replies), bytearray()
            self.free_at[1] = max(self.free_at[1], self.free_at[0]) + len(answer_) * 1e-5
            if self.one_at_a_time:
                self.free_at[0] = self.free_at[1] = self.free_at[1] + 10 * self.latency_s
            self.due.append((self.free_at[1] + self.latency_s, answer_))

    def read(self, timeout_s):
        if not self.due:
            return super().read(timeout_s)
        at, data = self.due.pop(0)
        self.clock[0] = max(self.clock[0], at)
        return data


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_shares_of_a_line(clock):
    found = {check.name: check for check in line.link_checks(Device(Wire(clock)))}
    assert all(check.verdict == OK for check in found.values()), found
    write = found["write 224 bytes"].values
    assert write["window"] == [1, 4] and write["share"][1] == pytest.approx(224 / 237, abs=0.06)
    assert 0.4 < write["share"][0] < 0.7
    assert found["round trip"].values["median_s"] == pytest.approx(0.001 + 30e-5, abs=2e-4)


def test_a_device_that_takes_one_request_at_a_time_is_found(clock):
    found = {check.name: check for check in line.link_checks(Device(Wire(clock, one_at_a_time=True)))}
    assert found["write 224 bytes"].verdict == FAILED and "do not help" in found["write 224 bytes"].text


def test_slow_answers_are_found(clock):
    assert line.round_trips(Device(Wire(clock, 0.2, ))).verdict == FAILED
    slow = line.round_trips(Device(Wire(clock, 0.016)))
    assert slow.verdict == OK and "latency timer seems to be at 16 ms" in slow.text


def test_wrong_data_on_the_way_are_found():
    class Mixed(FakeDevice):
        def _load(self, address):
            value = super()._load(address)
            return value ^ 1 if address >= protocol.RING else value

    found = {check.name: check for check in line.link_checks(Device(Mixed()))}
    assert found["read 4 bytes"].verdict == found["write 4 bytes"].verdict == FAILED
    assert "read back wrong" in found["read 4 bytes"].text


@pytest.mark.parametrize("counter", [0xA0, 0xA4, 0xA8])
def test_losses_are_found(counter):
    class Noisy(FakeDevice):
        def _answer(self, frame):
            self.block[counter] = (self.block[counter] + 1) % 256
            super()._answer(frame)

    check = list(line.link_checks(Device(Noisy())))[-1]
    assert (check.name, check.verdict) == ("losses", FAILED)


# The clock


class Clocked(Board):
    """A device whose counter of cycles runs at ``hertz`` while it runs tokens, of which it finishes none."""

    baud = 1_000_000
    hertz = 80_000_000

    def _load(self, address):
        if address == protocol.REGISTERS + 0x80 and self._running():
            return int(time.monotonic() * self.hertz) & 0xFFFFFFFF
        return super()._load(address)

    def _token(self):
        pass


@pytest.mark.parametrize("hertz, good", [(80_000_000, True), (72_000_000, False), (100_000_000, False)])
def test_clock_against_the_wall(hertz, good):
    device = Clocked()
    device.hertz = hertz
    runtime = answer.open_model(answer.BuiltinModel(), Device(device), False, print)
    check = answer.clock_check(runtime, CYCLES, 0.2)
    assert (check.verdict == OK) == good, check.text
    assert check.values["clock_hz"] == pytest.approx(hertz, rel=0.02)
    assert not device.block[Register.CONTROL] & 1


@contextlib.contextmanager
def plugged(device):
    """Name of a serial port with the device at its other end."""
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    ended = threading.Event()

    def serve():
        while not ended.is_set():
            if select.select([ours], [], [], 0.001)[0]:
                device.write(os.read(ours, 4096))
            data = device.read(0)
            while data:
                data = data[os.write(ours, data):]

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield os.ttyname(theirs)
    finally:
        ended.set()
        thread.join()
        os.close(ours)
        os.close(theirs)


class Plugged(Board):
    """On a port the clock is looked at: the prompt without end is run in no time and 80 MHz."""

    def _endless(self):
        return self.block[Register.PROMPT_END] == protocol.NEVER - 1

    def _load(self, address):
        if address == protocol.REGISTERS + 0x80 and self._endless() and self._running():
            return int(time.monotonic() * 80e6) & 0xFFFFFFFF
        return super()._load(address)

    def _token(self):
        if not self._endless():
            super()._token()


def test_a_serial_port_has_a_rate_and_a_clock(sterna):
    with plugged(Plugged()) as port:
        _, out, err = sterna("doctor", "--device", port)
        # Rates and the clock are judged by the wall clock, which a busy machine may stretch; nothing else may fail.
        failed = [line.split()[1] for line in out.splitlines() if line.startswith("failed")]
        assert {*failed} <= {"write", "read", "clock"}, out + err
        assert f"{port} is open at 1000000 baud" in out and "of the line" in out
        assert "MHz counted, 80.00 MHz told" in out and "fixed in the bitstream" in out
        assert f"what is in the model memory of {port} will be lost" in err
        with serial.Serial(port, exclusive=True):
            code, out, _ = sterna("doctor", "--device", port)
        assert code == 1 and "the port is in use: close the other program" in out


# What is in the way


def test_a_busy_device_is_left_alone(sterna):
    device = Board(tokens_per_call=0)
    device.block[Register.CONTROL], device.block[Register.LIMIT] = 1, 40
    code, found, _ = lines(sterna, device)
    assert code == 1 and "slot 0 is running, at position 0" in found["rest"][1] and found["memory"][0] == SKIPPED
    assert device.block[Register.CONTROL] == 1 and not device.memory
    device = Board(tokens_per_call=1)
    device.ring[:40] = [(None, 1)] * 40
    device.block[Register.CONTROL], device.block[Register.LIMIT], device.block[Register.PROMPT_END] = 1, 10**6, 10**6
    code, found, _ = lines(sterna, device, "--halt")
    assert code == 0 and "ended a run at position" in found["rest"][1]


def test_an_old_fault_is_reset_and_one_that_stays_is_found(sterna):
    device = Board()
    device.block[Register.STATUS] = 1 << 8
    code, found, _ = lines(sterna, device)
    assert code == 0 and "fault 1 (instruction) was there, and is reset" in found["rest"][1]

    class Faulty(Board):
        def _load(self, address):
            return 1 << 8 if address == protocol.REGISTERS + Register.STATUS else super()._load(address)

    code, found, _ = lines(sterna, Faulty())
    assert code == 1 and "stays after a reset" in found["rest"][1]


def test_a_fault_ends_the_tokens(sterna):
    device = Board()
    device.fault_at = 3
    code, found, last = lines(sterna, device)
    assert code == 1 and "fault 1 at position 3" in found["tokens"][1] and "tokens" in last


@pytest.mark.parametrize("offset, value, text", [
    (Register.VERSIONS, 99, "has protocol version 99 and this software has"),
    (Register.MAGIC, 0, "is no Sterna device")])
def test_another_device_or_version(sterna, offset, value, text):
    device = Board()
    device.hello[offset] = value
    code, found, last = lines(sterna, device)
    assert code == 1 and text in found["versions"][1] and last == "verdict: failed: versions"
    assert found["memory"][0] == SKIPPED


def test_no_port_and_no_answer(sterna):
    code, out, _ = sterna("doctor", "--device", "/dev/no-such-port")
    assert code == 1 and "failed   port" in out and "no such device" in out
    assert out.splitlines()[-1] == "verdict: failed: port"
    device = Board()
    device.silent = True
    code, found, _ = lines(sterna, device)
    assert code == 1 and "no answer for 3 s: check the cable and the baud rate" in found["answer"][1]


def test_ctrl_c_leaves_the_device_at_rest(sterna, monkeypatch):
    device = Board()
    seen = []

    def interrupt(runtime):
        runtime.device.write_register(Register.CONTROL, 1)
        seen.append(runtime)
        raise KeyboardInterrupt

    monkeypatch.setattr(answer, "answer_checks", interrupt)
    with served(device) as url:
        code, out, err = sterna("doctor", "--device", url)
    assert code == 130 and err.endswith("error: interrupted\n") and seen
    assert not device.block[Register.CONTROL] & 1 and "pattern" in out


@pytest.mark.parametrize("flags, message", [
    (("--device", "golden"), "--device golden: give a serial port"),
    (("--device", ""), "--device : give a serial port"),
    (("--device", "sim:lanes9"), "unknown preset 'lanes9'"),
    (("--device", "/dev/x", "--baud", "1,2"), "--baud 1,2: the rate of a board is fixed"),
    (("--device", "sim", "--baud", "x"), "--baud x: use the bits per second"),
    (("--device", "sim", "--baud", "0"), "--baud 0: use the bits per second"),
    (("--device", "sim:up5k", "--baud", "20000000"), "--baud: baud 20000000 with a clock of 24000000 Hz: use 1 to"),
    (("--device", "sim", "--memory", "some"), "--memory some: use quick, full, none, or BEGIN:END"),
    (("--device", "sim:up5k", "--memory", "0:1048576"), "within the 131072 bytes"),
    (("--device", "sim", "--memory", "8:16"), "use multiples of 256"), ((), "Missing option '--device'")])
def test_wrong_uses(sterna, flags, message):
    code, out, err = sterna("doctor", *flags)
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1


def test_extents():
    with pytest.raises(UsageError):
        memory.extent("5:3", 4096)
    quick = memory.extent("quick", 32 << 20)
    assert len(quick.parts) == 6 and quick.parts[0][0] == 0 and sum(quick.parts[-1]) == 32 << 20
    assert memory.extent("full", (1 << 17) + 256).total == (1 << 17) + 256
    assert memory.extent("quick", 2048).parts == ((0, 2048),)
