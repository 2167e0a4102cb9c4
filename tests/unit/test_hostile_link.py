"""A hostile device: whatever it sends, the host ends with a valid object or one of our errors, in bounded memory."""

import dataclasses
import itertools
import random

import pytest
from fake_device import INFO, FakeDevice
from hostile import ERRORS, Memory, damaged_bytes, examples, outcome
from hypothesis import given
from hypothesis import strategies as st
from small_model import DEVICE, GoldenDevice, write_folder
from sterna.firmware.layout import memory_map
from sterna.host.device.driver import Device
from sterna.host.device.frames import Frame, FrameDecoder
from sterna.host.device.info import DeviceInfo, ProtocolError
from sterna.host.device.link import MOST_TOKENS
from sterna.host.errors import DeviceError
from sterna.host.model.image import ImageError
from sterna.host.model.model import Model
from sterna.host.runtime.device import DeviceRuntime
from sterna.host.runtime.sampling import Sampling
from sterna.hw import protocol
from sterna.hw.protocol import Kind, Register
from sterna.sim.golden.packed import Geometry

GEOMETRY = Geometry(40, 48, 2, 264)
FRAMES = b"".join(Frame(kind, 3, 0x90000000, 8, bytes(range(8))).encode() for kind in (0x81, 0x90, 0x83, 0x77))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return Model(write_folder(tmp_path_factory.mktemp("hostile") / "model"))


@examples(150)
@given(st.lists(st.one_of(st.binary(max_size=600), damaged_bytes(FRAMES)), max_size=5))
def test_bytes_of_a_line(pieces):
    decoder = FrameDecoder()
    for piece in pieces:
        for frame in decoder.feed(piece):
            assert Frame.decode(frame.encode()[:-1]) == frame and frame.word >= 0
    assert len(decoder._part) <= 2 * protocol.MAX_FRAME_BYTES
    good = Frame.read(1, 0, 4)
    assert decoder.feed(b"\0" + good.encode())[-1] == good  # in step again, whatever came before


@examples(200)
@given(st.lists(st.tuples(st.integers(8, protocol.HELLO_BYTES - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_register_block(changes):
    """A block that is believed describes an array whose layout can be computed."""
    block = bytearray(DEVICE.pack())
    for at, value in changes:
        block[at] = value
    info = outcome(lambda: DeviceInfo.parse(bytes(block), "tty7"), "tty7", ProtocolError)
    if info:
        where = memory_map(info, GEOMETRY, check=False)
        assert 0 < where.stream_bytes < where.end


@examples(50)
@given(st.binary(max_size=60))
def test_register_block_of_any_bytes(block):
    assert outcome(lambda: DeviceInfo.parse(block, "tty7"), "tty7", ProtocolError) is None


@pytest.mark.parametrize("field, value", [("rows", 0), ("columns", 0), ("columns", 7), ("lanes", 0), ("lanes", 3),
                                          ("strip", 0), ("port_bytes", 3), ("rows", 65535)])
def test_arrays_that_cannot_be(field, value):
    with pytest.raises(ProtocolError, match="tty7 reports an array that cannot be: .*rebuild the bitstream"):
        DeviceInfo.parse(dataclasses.replace(DEVICE, **{field: value}).pack(), "tty7")


class Liar(FakeDevice):
    """Answers reads of status and ring with numbers from ``random``, from the first run on."""

    def __init__(self, seed, **options):
        super().__init__(**options)
        self.random, self.lies = random.Random(seed), False

    def _load(self, address):
        value = super()._load(address)
        if self.lies and self.random.random() < 0.3:
            return self.random.choice([0, 1, 2, value + 1, 2**16, 2**31, 2**32 - 2, 2**32 - 1])
        return value

    def _store(self, address, value):
        super()._store(address, value)
        self.lies |= address == protocol.REGISTERS + Register.CONTROL and value == protocol.CONTROL_RUN


@examples(30)
@given(st.integers(0, 10**6))
def test_device_that_lies(seed):
    device = Device(Liar(seed), retry_s=0.05, poll_s=0.001, timeout_s=0.1, stall_s=0.02)
    with Memory() as memory:
        outcome(lambda: list(itertools.islice(device.run([5, 6, 7], 1 << 30), 40)), "fake")
    assert memory.peak_bytes < 4 << 20


def test_position_behind_the_limit_of_a_run():
    class Ahead(FakeDevice):
        """Says that all positions have been processed, and sends no token."""

        def _load(self, address):
            assert address & 0xF0000000 != protocol.RING, "the host believes it"
            behind = address == protocol.REGISTERS + Register.POSITION and self.block[Register.CONTROL] & 1
            return 1 << 31 if behind else super()._load(address)

        def _token(self):
            pass

    device = Device(Ahead(), retry_s=1.0, poll_s=0.001, timeout_s=1.0, stall_s=1.0)
    with pytest.raises(DeviceError, match="fake: reports position 2147483648 behind the limit 15: reset"):
        list(device.run([5, 6, 7], 1 << 30))


@pytest.mark.parametrize("position", [2**32 - 1, 40, 0])
def test_position_that_cannot_be(model, position):
    """Behind the limit, or before what has been read: the host must not read gigabytes of ring."""
    class Jumping(GoldenDevice):
        jumps = False

        def _load(self, address):
            jump = self.jumps and address == protocol.REGISTERS + Register.POSITION
            return position if jump else super()._load(address)

    fake = Jumping(model.packed)
    runtime = DeviceRuntime(model, Device(fake, retry_s=1.0, poll_s=0.005, timeout_s=2.0, stall_s=0.3), print)
    said = f"reports position {position} " if position else "the device was restarted"
    with Memory() as memory, pytest.raises(DeviceError, match=f"fake: {said}"):
        run = runtime.generate([0, 50], 12, Sampling())
        for _ in range(5):
            next(run)
        fake.jumps = True
        run.close()
    assert memory.peak_bytes < 4 << 20


def test_token_that_the_model_does_not_have(model):
    class Wild(GoldenDevice):
        def _send(self, kind, sequence, address, length, data=b""):
            super()._send(kind, sequence, address, length, b"\xff" * 4 if kind == Kind.TOKEN else data)

    runtime = DeviceRuntime(model, Device(Wild(model.packed), retry_s=1.0, poll_s=0.005), print)
    with pytest.raises(DeviceError, match="fake: made token 4294967295, and the model has 264"):
        list(runtime.generate([0, 50], 3, Sampling()))
    assert runtime.tokens == [0, 50]


def test_flood_of_tokens_is_bounded():
    class Flood(FakeDevice):
        def read(self, timeout_s):
            return (Frame(Kind.TOKEN, 0, 9, 4, bytes(4)).encode() * 2000 if timeout_s is not None else b"") + \
                super().read(timeout_s)

    fake = Flood()
    device = Device(fake)
    for _ in range(60):
        device.read_register(Register.BUILD)
    assert len(device._window._tokens[0]) == MOST_TOKENS < 60 * 2000
    assert device.info == INFO and issubclass(ImageError, ERRORS)
