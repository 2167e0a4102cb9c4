"""Whole sessions over a serial line, simulated bit by bit, behind a USB bridge with its latency and packets."""

import dataclasses

import numpy as np
import pytest
from conftest import seed
from soc import golden_outcome, random_image
from sterna.firmware.program import build_program, inverse_temperature
from sterna.host import cli
from sterna.host.device.driver import Device
from sterna.host.device.frames import FrameDecoder
from sterna.host.device.transport import open_transport
from sterna.hw import protocol
from sterna.hw.presets import PRESETS
from sterna.hw.protocol import Kind
from sterna.sim.board.board import Line, SimulatedBoard, read_line

pytestmark = pytest.mark.rtl

BITS_PER_BYTE = 10  # a start bit, eight of data, a stop bit


def frames(log, to_device):
    """[(cycle of the delimiter, Frame)] of one direction of the line."""
    decoder, found = FrameDecoder(), []
    part = log[log["to_device"] == to_device]
    for cycle, byte in zip(part["cycle"].tolist(), part["byte"].tolist(), strict=True):
        found += [(cycle, frame) for frame in decoder.feed(bytes([byte]))]
    return found


def share_of_line(log, config, baud):
    """Payload of an upload in bits of the line, over the line's bits in the time that the upload took.

    The payload is the data of the WRITEs to the model memory, each byte ten bits. The time goes from the first byte
    of the first HASH of the memory to the last ACK from it: comparing, frame overhead, waiting and repeating are in
    it, finding the device and loading program and constants are not.
    """
    sent = [(cycle, frame) for cycle, frame in frames(log, 1) if frame.address < protocol.PROGRAM]
    begin = sent[0][0] - 13 * BITS_PER_BYTE * config.clock_hz / baud
    end = max(cycle for cycle, frame in frames(log, 0) if frame.kind == Kind.ACK and frame.address < protocol.PROGRAM)
    acked = {frame.address: frame.length for _, frame in sent if frame.kind == Kind.WRITE}
    return sum(acked.values()) * BITS_PER_BYTE / ((end - begin) / config.clock_hz * baud)


# Rate, geometry, latency timer in us, error of the clock in ppm: a board with an FT2232H and its latency timer at
# 1 ms. The clocks of the two ends are apart by as much as a UART has to bear.
UPLOADS = {"up5k": (1_500_000, (30, 40, 2, 199), 1000, 20_000),
           "lanes40": (12_000_000, (40, 60, 2, 500), 1000, -20_000)}


@pytest.mark.rest
@pytest.mark.parametrize("name", UPLOADS)
def test_upload_keeps_the_line_busy(name, tmp_path, capsys):
    baud, geometry, latency_us, error_ppm = UPLOADS[name]
    config = PRESETS[name]
    image = random_image(np.random.default_rng([seed(), *name.encode()]), config, geometry)
    assert len(image.section("embedding")) % 4 == (2 if name == "up5k" else 0)  # not whole words of the link
    (tmp_path / "model.sterna").write_bytes(image.data.tobytes())
    line = Line(baud=baud, error_ppm=error_ppm, latency_us=latency_us, log=tmp_path / "line")
    with SimulatedBoard(config, line=line, seed=seed()) as board:
        command = ["upload", "-m", str(tmp_path / "model.sterna"), "--device", board.url]
        assert cli.main(command) == 0
        assert cli.main([*command, "--verify"]) == 0
    text = capsys.readouterr().err
    size = sum(len(data) for _, data in image.regions(config))
    assert f"sent {size:,} bytes" in text and f"nothing to send: the memory holds all {size:,} bytes already" in text
    assert "verified: every block is as in the image" in text
    log = read_line(line.log)
    writes = [frame for _, frame in frames(log, 1) if frame.kind == Kind.WRITE and frame.address < protocol.PROGRAM]
    assert sum(frame.length for frame in writes) == size, "a frame was sent twice"
    share = share_of_line(log, config, baud * (1 + error_ppm * 1e-6))
    print(f"{name}: {size} bytes at {baud} baud, latency timer {latency_us} us: {share:.1%} of the line's rate")
    assert share >= 0.9


@pytest.mark.rest
def test_generation_over_a_noisy_line(tmp_path):
    """Inverted bits on the line: the same text, and the counters say what happened."""
    config, geometry = PRESETS["up5k"], (12, 14, 1, 19)
    image = random_image(np.random.default_rng([seed(), 77]), config, geometry)
    line = Line(baud=1_500_000, error_ppm=-20_000, noise_ppb=300_000, latency_us=1000)
    prompt, count, options = [1, 5, 2], 12, {"temperature": 0.8, "seed": 5}
    with SimulatedBoard(config, line=line, seed=seed()) as board:
        with Device(open_transport(board.url), retry_s=1, poll_s=1, timeout_s=60) as device:
            program = build_program(device.info, image.geometry)
            for address, data in image.regions(config):
                device.write(address, data)
                assert device.read(address, len(data)) == data.tobytes()
            device.load_program(program.words)
            device.write_scalars(program.scalars)
            tokens = [token for _, token in device.run(
                prompt, count, seed=5, sample=True, inverse_temperature_bits=inverse_temperature(0.8))]
            counters = device.counters()
            repeated = device.requests_repeated
    assert tokens == golden_outcome(image, prompt, count, **options)[0]
    print(f"{repeated} requests repeated, counters {counters}")
    assert repeated and counters["frames_bad"] and counters["line_errors"]


def test_line_options_reach_the_board():
    assert dataclasses.asdict(Line(baud=9600))["latency_us"] == 1000
    with pytest.raises(ValueError, match="baud 20000001 with a clock of 80000000 Hz"):
        with SimulatedBoard(PRESETS["lanes40"], line=Line(baud=20_000_001)):
            pass
