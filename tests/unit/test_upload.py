"""Uploads that send only what differs: blocks, cuts at random points, images that share parts."""

import dataclasses
import random

import numpy as np
import pytest
from fake_device import INFO, FakeDevice
from faults import SEED
from sterna.host.device.driver import Device
from sterna.host.device.upload import BLOCK_BYTES, Upload, differences, upload, verify
from sterna.host.errors import DeviceError

ADDRESS = 64


class Cut(Exception):
    """The host was killed."""


class CutTransport:
    """Passes ``left`` bytes on to the device, then the host is gone."""

    def __init__(self, inner, left):
        self.inner, self.left = inner, left
        self.name, self.baud = inner.name, inner.baud

    def write(self, data):
        part = bytes(data)[:self.left]
        self.left -= len(part)
        self.inner.write(part)
        if len(part) < len(data):
            raise Cut

    def read(self, timeout_s):
        return self.inner.read(timeout_s)

    def close(self):
        """Nothing is left of the host."""


def new_device():
    return FakeDevice(INFO.__class__(**vars(INFO) | {"memory_bytes": 1 << 17, "credits": 4}))


def contents(fake, data):
    return b"".join(fake.memory.get(ADDRESS + k, 0).to_bytes(4, "little") for k in range(0, len(data), 4))


@pytest.mark.parametrize("size", [4, 252, 256, 260, 2288, 3580, 3584, 3588, 9000, 5 * 3584 + 768 + 16])
def test_differences_are_found_block_by_block(size):
    pick, fake = random.Random(SEED + size), new_device()
    device, data = Device(fake), pick.randbytes(size)
    assert differences(device, ADDRESS, data) == [(0, size)]
    seen = []
    assert upload(device, [(ADDRESS, data)]) == Upload(size, size)
    assert differences(device, ADDRESS, data, lambda *at: seen.append(at)) == []
    assert seen[-1] == (size, size) and seen == sorted(seen)
    for _ in range(8):
        at = pick.randrange(size // 4) * 4
        fake.memory[ADDRESS + at] ^= 1 << pick.randrange(32)
        ((begin, end),) = differences(device, ADDRESS, data)  # two blocks, if the last reaches into the one before
        assert begin <= at < end and end - begin <= 2 * BLOCK_BYTES and begin % 256 == 0
        sent = upload(device, [(ADDRESS, data)])
        assert sent == Upload(size, end - begin) and contents(fake, data) == data


@pytest.mark.parametrize("place", [(2 << 30) - 4096, (4 << 30) - 4096, (6 << 30) - 9000])
def test_what_lies_behind_2_and_4_gib(place):
    """Across both ends of what 32 bits of an address reach, states of slots too."""
    pick = random.Random(SEED)
    fake = FakeDevice(dataclasses.replace(INFO, memory_bytes=6 << 30, credits=4))
    device, data = Device(fake), pick.randbytes(9000)
    assert device.info.memory_bytes == 6 << 30
    assert upload(device, [(place, data)]) == Upload(9000, 9000)
    assert sorted(fake.memory) == list(range(place, place + 9000, 4))
    assert b"".join(word.to_bytes(4, "little") for _, word in sorted(fake.memory.items())) == data
    verify(device, [(place, np.frombuffer(data, np.uint8))])
    fake.memory[place + 4096] ^= 1
    with pytest.raises(DeviceError, match=f"byte {place + 4096:#010x} of the memory"):
        verify(device, [(place, np.frombuffer(data, np.uint8))])
    assert upload(device, [(place, data)]).sent_bytes <= 2 * BLOCK_BYTES
    device.write_state(place, data[::-1])
    assert device.read_state(place, 9000) == data[::-1]
    with pytest.raises(DeviceError, match="refused to read from 0x180000000"):
        device.read(device.at(6 << 30), 4)


def test_an_upload_goes_on_after_a_cut_at_any_byte():
    pick = random.Random(SEED)
    data = pick.randbytes(11 * BLOCK_BYTES + 1000)
    line_bytes = 40_000  # of the whole upload, with frames
    for cut in [0, 1, 2, 250, *(pick.randrange(line_bytes) for _ in range(30))]:
        fake = new_device()
        with pytest.raises(Cut):
            upload(Device(CutTransport(fake, cut), timeout_s=0.05), [(ADDRESS, data)])
        found = contents(fake, data)
        arrived = sum(found[k:k + 4] == data[k:k + 4] for k in range(0, len(data), 4)) * 4
        writes = fake.writes
        sent = upload(Device(fake), [(ADDRESS, data)])
        assert contents(fake, data) == data
        # All blocks that had arrived whole stay; words that are right by chance are rare.
        assert len(data) - arrived <= sent.sent_bytes <= len(data) - arrived + BLOCK_BYTES, cut
        assert fake.writes - writes <= -(-sent.sent_bytes // 224) + 1
        again = upload(Device(fake), [(ADDRESS, data)])
        assert again.sent_bytes == 0 and again.line().startswith("nothing to send: the memory holds all 40,424 bytes")


def test_only_what_differs_is_sent():
    pick, fake = random.Random(SEED), new_device()
    data = bytearray(pick.randbytes(20 * BLOCK_BYTES))
    device = Device(fake)
    assert upload(device, [(ADDRESS, data)], compare=False).line() == "sent 71,680 bytes"
    assert fake.hashed_bytes == 0
    for block in (3, 4, 9):
        data[block * BLOCK_BYTES + pick.randrange(BLOCK_BYTES)] ^= 0x40
    assert differences(device, ADDRESS, data) == [(3 * BLOCK_BYTES, 5 * BLOCK_BYTES),
                                                  (9 * BLOCK_BYTES, 10 * BLOCK_BYTES)]
    sent = upload(device, [(ADDRESS, data[:7168]), (ADDRESS + 7168, data[7168:])])
    assert sent.line() == "sent 10,752 of 71,680 bytes, the others were in the memory already"
    assert contents(fake, data) == data


def test_a_hash_outside_the_memory_is_refused():
    device = Device(new_device())
    with pytest.raises(DeviceError, match=r"fake refused to hash from 0x0001ff04 \(256 bytes\): address"):
        differences(device, (1 << 17) - 252, bytes(256))
