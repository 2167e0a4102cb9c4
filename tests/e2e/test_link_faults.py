"""Whole sessions over a link that damages bytes and frames, with hosts and devices that vanish in between: the tokens
are those of a clean link, or there is one clear error.

STERNA_FAULT_ROUNDS=20 makes the matrix 20 times as long, each round with random choices of its own.
"""

import itertools
import os
import re
import time

import numpy as np
import pytest
from conftest import seed
from faults import FaultyTransport
from soc import Session, golden_outcome, random_image
from sterna.host import cli
from sterna.host.device.driver import Device
from sterna.host.device.frames import Frame
from sterna.host.device.transport import SerialTransport, open_transport
from sterna.host.device.upload import BLOCK_BYTES, upload
from sterna.host.errors import HostError
from sterna.hw.presets import PRESETS
from sterna.sim.board.board import SimulatedBoard

CONFIG = PRESETS["lanes40"]
ROUNDS = int(os.environ.get("STERNA_FAULT_ROUNDS", "1"))
FAULTS = {
    "corrupt": {"corrupt": 1e-3}, "drop": {"drop": 1e-3}, "duplicate": {"duplicate": 1e-3}, "burst": {"burst": 1e-3},
    "drop_frame": {"drop_frame": 0.05}, "duplicate_frame": {"duplicate_frame": 0.05},
    "truncate_frame": {"truncate_frame": 0.05}, "reorder_frame": {"reorder_frame": 0.05},
    "all": {"corrupt": 1e-3, "drop": 1e-3, "duplicate": 1e-3, "burst": 1e-4, "drop_frame": 1e-2,
            "duplicate_frame": 1e-2, "truncate_frame": 1e-2, "reorder_frame": 1e-2},
}
DAMAGING = ("corrupt", "drop", "duplicate", "burst", "truncate_frame", "all")
TEXT = {"temperature": 0.8, "seed": 5}
PROMPT = [1, 30, 2]

pytestmark = pytest.mark.rtl


@pytest.fixture
def rng(request):
    return np.random.default_rng([seed(), *request.node.name.encode()])


def faulty_device(session, faults, number):
    """A new connection to the session's board, with faults."""
    faulty = FaultyTransport(open_transport(session.board.url), seed() + 1000 * number, **faults)
    session.device = Device(faulty, retry_s=0.1, poll_s=0.1, timeout_s=30, stall_s=60)
    return faulty


def put(session, image):
    """Uploads what the device does not hold yet, as `sterna upload` does; returns the number of bytes sent."""
    sent = upload(session.device, image.regions(CONFIG)).sent_bytes
    session.load(image, upload=False)
    return sent


@pytest.mark.rest
@pytest.mark.parametrize("number", range(ROUNDS))
@pytest.mark.parametrize("name", FAULTS)
def test_upload_and_generation_over_a_bad_link(name, number, rng, tmp_path):
    image = random_image(rng, CONFIG, (33, 50, 1, 41))
    count = 40
    with Session(CONFIG, image, tmp_path, seed=int(rng.integers(1, 1 << 31))) as session:
        session.device.write(0, bytes(1 << 12))  # what the clean upload has left must not help
        session.device.close()
        faulty = faulty_device(session, FAULTS[name], number)
        device = session.device
        assert put(session, image) and put(session, image) == 0
        for address, data in image.regions(CONFIG):
            assert device.read(address, len(data)) == data.tobytes()
        got = session.outcome(PROMPT, count, **TEXT)
        counters = device.counters()
    assert got == golden_outcome(image, PROMPT, count, **TEXT)
    assert faulty.faults >= 5
    print(f"{faulty.faults} faults, {device.requests_repeated} requests repeated, counters {counters}")
    if name not in ("duplicate_frame", "reorder_frame"):  # these may do no harm
        assert device.requests_repeated
    assert bool(counters["frames_bad"]) == (name in DAMAGING)


def tokens_or_error(run, wanted):
    """Takes a run to its end: right tokens only, and all of them unless there is an error of one line (returned)."""
    got = []
    try:
        for _, token in run:
            got.append(token)
    except HostError as error:
        assert got == wanted[:len(got)] and "\n" not in str(error) and len(str(error)) < 250
        return str(error)
    assert got == wanted
    return None


@pytest.mark.rest
@pytest.mark.parametrize("number", range(ROUNDS))
@pytest.mark.parametrize("name", ["none", "all"])
def test_host_killed_and_restarted_in_mid_token(name, number, rng, tmp_path):
    image, other = (random_image(rng, CONFIG, (33, 50, 1, 41)) for _ in range(2))
    faults = FAULTS.get(name, {})
    whole = golden_outcome(image, PROMPT, 12, **TEXT)
    endless = golden_outcome(image, PROMPT, 400, **TEXT)[0]
    with Session(CONFIG, other, tmp_path, seed=int(rng.integers(1, 1 << 31))) as session:
        size = sum(len(data) for _, data in image.regions(CONFIG))
        sent = 0
        for attempt in range(4):
            # The host goes in the middle of an upload, of a frame, or of a token; the next one knows nothing of it.
            address, data = image.regions(CONFIG)[1]
            part = int(rng.integers(len(data) // 8)) * 4
            session.device.write(address, data[:part].tobytes())
            frame = Frame.write(9, address + part, bytes(range(64))).encode()
            session.device.transport.write(frame[:rng.integers(70)])
            session.device.close()
            faulty_device(session, faults, 10 * number + attempt)
            sent += put(session, image)
            run = session.run(PROMPT, 400, **TEXT)
            first = [token for _, token in itertools.islice(run, int(rng.integers(1, 6)))]
            assert first == endless[:len(first)]
            time.sleep(float(rng.uniform(0, 0.02)))
            session.device.close()
            faulty_device(session, faults, 10 * number + attempt + 5)
            assert put(session, image) == 0
            assert session.outcome(PROMPT, 12, **TEXT) == whole
            assert isinstance(tokens_or_error(run, endless[len(first):]), str)
        assert sent < 2 * size


@pytest.mark.parametrize("number", range(ROUNDS))
@pytest.mark.parametrize("name", ["none", "all"])
def test_device_reset_in_mid_token(name, number, rng, tmp_path):
    image = random_image(rng, CONFIG, (33, 50, 1, 41))
    wanted = golden_outcome(image, PROMPT, 300, **TEXT)[0]
    errors = 0
    with Session(CONFIG, image, tmp_path, seed=int(rng.integers(1, 1 << 31))) as session:
        session.device.close()
        faulty_device(session, FAULTS.get(name, {}), number)
        for _ in range(4):
            run = session.run(PROMPT, 300, **TEXT)
            taken = int(rng.integers(1, 5))
            assert [next(run)[1] for _ in range(taken)] == wanted[:taken]
            time.sleep(float(rng.uniform(0, 0.02)))
            session.device.reset()
            error = tokens_or_error(run, wanted[taken:])
            errors += error is not None
            assert error is None or "the device was restarted or stopped at position" in error
            assert session.generate(PROMPT, 12, **TEXT) == wanted[:12]
    assert errors


@pytest.mark.rest
def test_interrupted_upload_goes_on(rng, tmp_path, monkeypatch, capsys):
    """Ctrl-C at random bytes of `sterna upload`: the next one sends only what is missing."""
    image = random_image(rng, CONFIG, (40, 60, 2, 150))
    (tmp_path / "model.sterna").write_bytes(image.data.tobytes())
    regions = image.regions(CONFIG)
    size, write, left = sum(len(data) for _, data in regions), SerialTransport.write, [0]

    def interrupted(transport, data):
        write(transport, bytes(data)[:left[0]])
        left[0] -= len(data)
        if left[0] < 0:
            raise KeyboardInterrupt

    with SimulatedBoard(CONFIG, seed=seed()) as board:
        command = ["upload", "-m", str(tmp_path / "model.sterna"), "--device", board.url]
        again = 0
        for _ in range(4 * ROUNDS):
            with Device(open_transport(board.url)) as device:
                for address, data in regions:
                    device.write(address, bytes(len(data)))
            left[0] = int(rng.integers(100, size))
            monkeypatch.setattr(SerialTransport, "write", interrupted)
            assert cli.main(command) == 130 and capsys.readouterr().err.endswith("error: interrupted\n")
            monkeypatch.setattr(SerialTransport, "write", write)
            with Device(open_transport(board.url)) as device:  # looks at the first word of each frame
                missing = sum(device.read(address + k, 4) != data[k:k + 4].tobytes()
                              for address, data in regions for k in range(0, len(data), 224)) * 224
            assert cli.main([*command, "--verify"]) == 0
            text = capsys.readouterr().err
            found = re.search(r"sent ([\d,]+)( of|) ([\d,]+) bytes", text)
            sent = int(found[1].replace(",", "")) if found else 0  # the cut came behind the last byte of the model
            print(f"{size} bytes, {missing} missing, {sent} sent again")
            assert sent <= missing + 2 * BLOCK_BYTES and "verified: every block" in text
            again += sent
        assert again < 4 * ROUNDS * size


def test_board_that_is_switched_off(rng, tmp_path):
    image = random_image(rng, CONFIG, (33, 50, 1, 41))
    wanted = golden_outcome(image, PROMPT, 100, **TEXT)[0]
    session = Session(CONFIG, image, tmp_path)
    with session:
        run = session.run(PROMPT, 100, **TEXT)
        assert next(run)[1] == wanted[0]
        session.board._process.kill()
        error = tokens_or_error(run, wanted[1:])
        assert error and "the connection broke" in error
        session.board._process.wait()
        session.board._process.stdin.close()
        session.board._process.stdout.close()
        session.board._process = None


def test_frames_beyond_the_buffers_are_counted(rng, tmp_path):
    image = random_image(rng, CONFIG, (33, 50, 1, 41))
    with Session(CONFIG, image, tmp_path) as session:
        device = session.device
        device.transport.write(bytes(range(1, 200)) + b"\0")
        assert device.counters()["frames_bad"] == 1
        device.transport.write(b"".join(Frame.read(k, 0, 224).encode() for k in range(100)))
        assert device.read(0, 256) == image.regions(CONFIG)[0][1][:256].tobytes()
        counters = device.counters()
        assert counters["frames_lost"] > 0 and counters["frames_bad"] == 1
        assert session.generate(PROMPT, 5, **TEXT) == golden_outcome(image, PROMPT, 5, **TEXT)[0]
