"""Frames, the incremental decoder and the register block."""

import random
from dataclasses import replace

import pytest
from cobs import cobs
from crc32c import crc32c
from fake_device import INFO
from faults import SEED
from hypothesis import given
from hypothesis import strategies as st
from sterna.host.device.frames import Frame, FrameDecoder, FrameError
from sterna.host.device.info import DeviceInfo, ProtocolError
from sterna.hw import protocol
from sterna.hw.protocol import VERSIONS, Register

FRAMES = st.builds(
    lambda kind, sequence, address, data: Frame(kind, sequence, address, len(data), data),
    st.sampled_from([0x02, 0x81]), st.integers(0, 255), st.integers(0, 2**32 - 1), st.binary(max_size=224))


def test_known_frame():
    frame = Frame.write(7, 0x90000040, b"\1\0\0\0")
    body = bytes.fromhex("0207400000900401000000")
    checksum = crc32c(body).to_bytes(4, "little")
    assert 0 not in checksum
    assert frame.encode() == bytes.fromhex("04020740" "01" "04900401" "01" "01" "05") + checksum + b"\0"
    assert Frame.decode(frame.encode()[:-1]) == frame


@given(FRAMES)
def test_frame_returns(frame):
    code = frame.encode()
    assert code.index(0) == len(code) - 1
    assert FrameDecoder().feed(code) == [frame]


@given(st.lists(FRAMES, max_size=5), st.randoms(use_true_random=False))
def test_any_cut_gives_the_same_frames(frames, rand):
    line = b"\0".join(frame.encode() for frame in frames)
    decoder, received = FrameDecoder(), []
    while line:
        n = rand.randrange(1, 40)
        received += decoder.feed(line[:n])
        line = line[n:]
    assert received == frames and decoder.frames_bad == 0


@given(FRAMES, st.data())
def test_one_wrong_byte_never_passes(frame, data):
    code = bytearray(frame.encode()[:-1])
    place = data.draw(st.integers(0, len(code) - 1))
    code[place] ^= data.draw(st.integers(1, 255))
    decoder = FrameDecoder()
    assert decoder.feed(bytes(code) + b"\0") == []
    assert decoder.feed(frame.encode()) == [frame]  # in step again


def test_checksum_is_crc32c():
    # The check value of CRC-32C: 0xE3069283 for "123456789".
    body = b"123456789"
    code = cobs.encode(body + b"ab" + crc32c(body + b"ab").to_bytes(4, "little"))
    assert crc32c(body) == 0xE3069283
    assert Frame.decode(code).sequence == ord("2")


def test_too_short_and_too_long():
    for n in (6, 237):
        body = bytes(n)
        code = cobs.encode(body + crc32c(body).to_bytes(4, "little"))
        with pytest.raises(FrameError, match=f"{n + 4} bytes"):
            Frame.decode(code)


def test_noise_without_delimiter_takes_no_memory():
    decoder = FrameDecoder()
    for _ in range(1000):
        assert decoder.feed(b"\x55" * 1000) == []
    assert len(decoder._part) <= 480
    frame = Frame.read(1, 0, 4)
    assert decoder.feed(b"\0" + frame.encode()) == [frame] and decoder.frames_bad == 1


def test_random_noise_gives_no_frames():
    rand = random.Random(SEED)
    assert FrameDecoder().feed(rand.randbytes(200_000)) == []


def test_register_block_returns():
    assert DeviceInfo.parse(INFO.pack()) == INFO
    other = replace(INFO, rows=8, columns=40, lanes=8, credits=8, weight_code="bit2", ring=1024, memory_bytes=1 << 30,
                    memory="onchip", port_bytes=64, batch=4, top_k=40, register_bits=16, tree_rows=1024)
    assert DeviceInfo.parse(other.pack()) == other
    assert other.to_tiling() == {"rows": 8, "columns": 40, "lanes": 8, "port_bytes": 64, "strip": 16,
                                 "weight_code": "bit2"}


@pytest.mark.parametrize("what, byte", [("protocol", 4), ("isa", 5), ("numerics", 6), ("image", 7)])
def test_version_mismatch_names_both(what, byte):
    block = bytearray(INFO.pack())
    block[byte] = 9
    ours = VERSIONS[what]
    text = f"tty7 has {what} version 9 and this software has {ours}: update this software"
    with pytest.raises(ProtocolError, match=text):
        DeviceInfo.parse(bytes(block), "tty7")
    block[byte] = 0
    with pytest.raises(ProtocolError, match=f"{what} version 0 .* {ours}: rebuild the bitstream"):
        DeviceInfo.parse(bytes(block), "tty7")


def test_bad_magic_and_impossible_values():
    with pytest.raises(ProtocolError, match="no Sterna device: magic 0x00000000"):
        DeviceInfo.parse(bytes(protocol.HELLO_BYTES))
    with pytest.raises(ProtocolError, match="0 credits"):
        DeviceInfo.parse(replace(INFO, credits=0).pack())
    for changes in ({"batch": 3}, {"batch": 0}, {"batch": 16}, {"top_k": 65}):
        with pytest.raises(ProtocolError, match="slots and a list of .* rows: use a build with 1, 2, 4, 8 slots"):
            DeviceInfo.parse(replace(INFO, **changes).pack())
    with pytest.raises(ProtocolError, match="12 bytes"):
        DeviceInfo.parse(INFO.pack()[:12])
    for bits in (0, 15, 33, 63):
        with pytest.raises(ProtocolError, match=f"registers of {bits} bits: use a build with 16 to 32"):
            DeviceInfo.parse(replace(INFO, register_bits=bits).pack())


def test_addresses_of_a_slot():
    assert protocol.register_address(Register.LIMIT, 3) == 0x90000350 and protocol.scalar_address(13, 2) == 0xA0000134
    assert protocol.ring_address(21, 16) == 0xB0000014 and protocol.ring_address(21, 16, 2) == 0xB0000094
    assert (Register.TOP, Register.DRAFT_END, Register.SOURCE, protocol.HELLO_BYTES) == (0x64, 0x68, 0x6C, 0x30)
