"""Models of any geometry on every tiling of a preset or board, brought into a device by each way that there is."""

import dataclasses

import numpy as np
import pytest
from fake_device import FakeDevice, info_of, refused_requests
from faults import SEED
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from sterna.firmware.layout import ALIGN, tiling_of
from sterna.firmware.program import build_program
from sterna.host.device.driver import Device
from sterna.host.device.flash import flash_image
from sterna.host.device.frames import FrameDecoder
from sterna.host.device.upload import upload, verify
from sterna.host.errors import DeviceError
from sterna.host.model.image import Image, build_image
from sterna.host.runtime.open import memory_file
from sterna.hw import protocol
from sterna.hw.boards import BOARDS
from sterna.hw.presets import PRESETS
from sterna.hw.protocol import FLASH_HEADER_BYTES
from sterna.sim.golden.packed import Geometry, random_model

EVERY = {name: board.config for name, board in BOARDS.items()} | PRESETS
CONFIGS = {config.name: config for config in {tuple(tiling_of(c).values()): c for c in EVERY.values()}.values()}
NARROW = [name for name, config in CONFIGS.items() if config.port_bytes < 4]


def image_of(config, geometry):
    packed = random_model(np.random.default_rng(SEED), Geometry(*geometry))
    return Image(build_image(packed, config, "{}", "test", 0))


def contents(fake, address, size):
    """Bytes of a fake device's memory."""
    return b"".join(fake.memory.get(at, 0).to_bytes(4, "little") for at in range(address, address + size, 4))


def holds(fake, image, config):
    """Whether both parts of the model lie where the program looks for them."""
    where = image.check(config)
    return all(contents(fake, address, len(image.section(name)) + 4)[:len(image.section(name))]
               == image.section(name).tobytes()
               for name, address in (("embedding", where.embedding_address), ("stream", where.stream_address)))


@pytest.mark.parametrize("name", CONFIGS)
@seed(SEED)
@settings(max_examples=8, deadline=None)
@given(geometry=st.tuples(st.integers(1, 45), st.integers(1, 60), st.integers(1, 2), st.integers(2, 120)))
def test_any_geometry_is_taken(name, geometry):
    config = CONFIGS[name]
    image = image_of(config, geometry)
    fake = FakeDevice(info_of(config))
    device, regions = Device(fake), image.regions(config)
    sent = upload(device, regions)
    assert sent.sent_bytes == sent.total_bytes and holds(fake, image, config)
    verify(device, regions)
    assert upload(device, regions).sent_bytes == 0
    # What the last word of a part reaches into belongs to nobody.
    ends = [address + len(data) for address, data in regions]
    assert ends[0] <= image.check(config).stream_address and ends[1] <= image.check(config).state_address
    device.load_program(build_program(config, image.geometry).words)


@pytest.mark.parametrize("name", NARROW)
def test_parts_that_are_no_whole_words(name, tmp_path):
    """The three ways into a memory: over the link, from the flash, and as a file of the simulation."""
    config, odd = CONFIGS[name], 0
    for vocab in (512, 513, 514):
        image = image_of(config, (12, 13, 1, vocab))
        odd += any(len(image.section(part)) % 4 for part in ("embedding", "stream"))
        fakes = [FakeDevice(info_of(config)) for _ in range(3)]
        upload(Device(fakes[0]), image.regions(config), compare=False)
        data = flash_image(image, config)[FLASH_HEADER_BYTES:]
        fakes[1].write(data)
        replies = FrameDecoder().feed(bytes(fakes[1].replies))
        assert len(replies) == data.count(b"\0") - 1 and {r.kind for r in replies} == {protocol.Kind.ACK}
        for path, offset, size, address in memory_file(tmp_path / "memory", image.regions(config)):
            part = path.read_bytes()[offset:offset + size]
            words = {address + k: int.from_bytes(part[k:k + 4], "little") for k in range(0, size, 4)}
            fakes[2].memory |= words
            assert size % 4 == 0 and address % ALIGN == 0
        assert all(holds(fake, image, config) for fake in fakes)
        assert len({contents(fake, 0, image.check(config).end) for fake in fakes}) == 1
    assert odd


def test_the_fake_device_refuses_what_the_gateware_refuses():
    """Otherwise the tests above would prove nothing; tests/e2e/test_soc_control.py asks the gateware the same."""
    fake = FakeDevice(dataclasses.replace(info_of(PRESETS["up5k"]), memory_bytes=1024))
    for frame, reason in refused_requests(1024):
        fake.replies.clear()
        fake.write(frame.encode())
        (reply,) = FrameDecoder().feed(bytes(fake.replies))
        assert (reply.kind, reply.sequence, reply.word) == (protocol.Kind.NAK, frame.sequence, reason), frame
    with pytest.raises(DeviceError, match="refused to write to 0x00000400"):
        Device(fake).write(1024, bytes(4))
