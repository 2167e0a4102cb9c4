"""Run control of the whole device: interruptions, resets, faults, refusals and hosts that come and go."""

import itertools
import time
from contextlib import closing

import numpy as np
import pytest
from conftest import seed
from fake_device import refused_requests
from soc import Expected, Session, golden_outcome, random_image, random_timing
from sterna.firmware import isa
from sterna.host.device.frames import Frame, FrameDecoder
from sterna.host.device.transport import TransportError
from sterna.host.errors import DeviceError
from sterna.hw import protocol
from sterna.hw.config import longest_text
from sterna.hw.presets import PRESETS
from sterna.hw.protocol import Register
from sterna.sim.golden.model import GoldenModel

CONFIG = PRESETS["lanes40"]
GEOMETRY = (33, 50, 2, 41)
SAMPLED = {"temperature": 0.9, "seed": 11}

pytestmark = pytest.mark.rtl


@pytest.fixture
def rng(request):
    return np.random.default_rng([seed(), *request.node.name.encode()])


@pytest.fixture
def image(rng):
    return random_image(rng, CONFIG, GEOMETRY)


@pytest.fixture
def session(rng, image, tmp_path):
    with Session(CONFIG, image, tmp_path, **random_timing(rng)) as running:
        yield running


@pytest.fixture
def golden(image):
    """generate(prompt, count, ...) of the golden model."""
    return GoldenModel(image.unpack()).generate


@pytest.fixture
def check(session, image):
    """check(prompt, count, ...): the board gives the golden model's tokens and state."""
    def compare(prompt, count, **options):
        assert session.outcome(prompt, count, **options) == golden_outcome(session.image, prompt, count, **options)
    return compare


def test_saved_state_is_resumed(session, image, check):
    prompt, count, cut = [7, 0, 40], 12, 5
    whole = golden_outcome(image, prompt, count, **SAMPLED)
    where = session.program.memory_map
    first = session.generate(prompt, cut, **SAMPLED)
    state = session.device.read_state(where.state_address, where.state_bytes)
    check([3, 1], 4)  # another text in between
    assert session.device.read_state(where.state_address, where.state_bytes) != state
    session.device.write_state(where.state_address, state)
    rest, end = session.outcome(first[-1:], count - cut, start_position=len(prompt) + cut - 1, reset_state=False,
                                **SAMPLED)
    assert (first + rest, end) == whole


def test_reset_in_mid_token_leaves_a_usable_device(session, check, rng):
    device, where = session.device, session.program.memory_map
    caught = 0
    for _ in range(8):
        run = session.run([1], 800)
        next(run)
        time.sleep(float(rng.uniform(0, 0.03)))
        caught += device.status()[0]
        device.reset()
        running, enabled, fault, position = device.status()
        assert (running, enabled, fault) == (False, False, 0) and position < 800
        run.close()
        assert device.read(where.embedding_address, 64) == session.image.section("embedding")[:64].tobytes()
        check([5, 9], 3, **SAMPLED)
    assert caught >= 4  # a token was under way when it was asked last


def test_stop_token_ends_the_run(session, golden):
    tokens = golden([2], 12, **SAMPLED)
    at = next(k for k in range(3, 12) if tokens[k] not in tokens[:k])
    device = session.device
    assert session.generate([2], 12, stop=tokens[at], **SAMPLED) == tokens[:at + 1]
    assert device.read_register(Register.LIMIT) == 1 + at  # lowered by the device
    assert device.status() == (False, False, 0, 1 + at)
    assert session.generate([2], 12, stop=99, **SAMPLED) == tokens
    # By the host, where the device would have come to rest.
    assert session.outcome([2], 12, stop=(99, tokens[at]), **SAMPLED) == \
        session.outcome([2], 12, stop=tokens[at], **SAMPLED)
    assert session.generate([2], 12, stop=(99, 98, tokens[at]), **SAMPLED) == tokens[:at + 1]
    assert device.read_register(Register.LIMIT) == 1 + at
    assert device.status() == (False, False, 0, 1 + at)


def test_limit_is_the_credit_of_the_host(session, golden):
    device, tokens = session.device, golden([2], 6)
    device.write_ring(0, [2])
    for register, value in ((Register.POSITION, 0), (Register.START, 0), (Register.PROMPT_END, 1),
                            (Register.STOP, protocol.NEVER), (Register.FLAGS, 0), (Register.LIMIT, 2),
                            (Register.CONTROL, protocol.CONTROL_RUN)):
        device.write_register(register, value)
    arrived = [device.wait_token(20), device.wait_token(20)]
    assert arrived == list(enumerate(tokens[:2], 1))
    assert device.wait_token(0.2) is None and device.status() == (False, True, 0, 2)
    device.write_register(Register.LIMIT, 5)
    assert [device.wait_token(20) for _ in range(3)] == list(enumerate(tokens[2:5], 3))
    assert device.read_ring(0, 6) == [2, *tokens[:5]]
    device.write_register(Register.CONTROL, 0)
    device.write_register(Register.LIMIT, 6)  # not enabled: nothing runs
    assert device.wait_token(0.2) is None and device.status() == (False, False, 0, 5)


@pytest.mark.parametrize("word", [15, isa.encode(isa.JUMP, condition=9), 15 | 0xABCDEF << 40])
def test_unknown_instruction_is_a_fault_and_the_link_lives(session, check, word, rng):
    words = list(session.program.words)
    words[int(rng.integers(0, 12))] = word  # before the first jump: it is met
    device = session.device
    device.load_program(words)
    with pytest.raises(DeviceError, match="fault 'instruction' at position 0"):
        session.generate([2], 3)
    assert device.status() == (False, True, 1, 0)
    device.write_register(Register.CONTROL, 0)
    assert device.read(0, 64) == session.image.section("embedding")[:64].tobytes()
    device.reset()
    assert device.status() == (False, False, 0, 0)
    device.load_program(session.program.words)
    check([2], 3)


@pytest.mark.parametrize("address, size", [
    (CONFIG.memory_bytes, 4), (CONFIG.memory_bytes - 8, 16), (0x7FFFFFFC, 4), (0xC0000000, 4), (0xFFFFFFFC, 4)])
def test_addresses_outside_the_memory_are_refused(session, check, address, size):
    device = session.device
    for access in (lambda: device.read(address, size), lambda: device.write(address, bytes(size))):
        with pytest.raises(DeviceError, match=f"refused to .* 0x{address:08x} .*address"):
            access()
    inside = CONFIG.memory_bytes - 8
    device.write(inside, b"the last")
    assert device.read(inside, 8) == b"the last"
    check([4], 2)


def test_misaligned_and_malformed_requests_are_refused(session, check):
    transport = session.device.transport
    decoder = FrameDecoder()
    for frame, reason in refused_requests(CONFIG.memory_bytes):
        transport.write(frame.encode())
        deadline, replies = time.monotonic() + 20, []
        while not replies and time.monotonic() < deadline:
            replies = decoder.feed(transport.read(0.5))
        assert [(r.kind, r.sequence, r.word) for r in replies] == [(protocol.Kind.NAK, frame.sequence, reason)]
    check([4], 2)


def test_host_that_vanishes_while_uploading(session, check, rng):
    image = random_image(rng, CONFIG, (21, 65, 1, 19))
    for _ in range(4):
        address, data = image.regions(CONFIG)[0]
        frames = b"".join(Frame.write(k, address + 224 * k, data[224 * k:224 * k + 224].tobytes()).encode()
                          for k in range(min(4, len(data) // 224)))
        session.device.transport.write(frames[:int(rng.integers(1, len(frames)))])  # most likely ends inside a frame
        session.device.close()
        session.connect()
    assert session.device.info.lanes == CONFIG.lanes
    session.load(image)
    check([4, 5], 4, **SAMPLED)


def test_host_that_vanishes_while_generating(session, golden, check):
    for wanted in (1, 3):
        with closing(session.run([6], 500)) as run:  # lost interest, but still connected
            assert [token for _, token in itertools.islice(run, wanted)] == golden([6], wanted)
    run = session.run([6], 500)
    next(run)
    session.device.close()  # in mid-token, without a word
    device = session.connect()
    assert device.status()[1]  # it goes on up to its limit
    check([8, 3], 5, **SAMPLED)
    with pytest.raises(TransportError, match="connection broke"):
        list(run)


def test_prompt_and_text_longer_than_the_ring(tmp_path, rng):
    config = PRESETS["up5k"]
    image = random_image(rng, config, (6, 7, 1, 9))
    prompt = rng.integers(0, 9, config.ring + 44).tolist()
    with Session(config, image, tmp_path, seed=3) as session:
        # The state tells which tokens were read last: those of the prompt behind the ring's end, then generated ones.
        for count in (1, config.ring + 30):
            assert session.outcome(prompt, count, **SAMPLED) == golden_outcome(image, prompt, count, **SAMPLED)
        # The last positions that registers of 16 bits count; greedy tokens do not depend on the position.
        assert session.device.info.register_bits == config.register_bits == 16
        start = longest_text(config) - 3 - 6
        assert session.generate([1, 2, 3], 6, start_position=start) == golden_outcome(image, [1, 2, 3], 6)[0]


def test_any_start_of_registers_and_memory(tmp_path, rng, image):
    traces = []
    for number in range(3):
        folder = tmp_path / str(number)
        folder.mkdir()
        with Session(CONFIG, image, folder, seed=int(rng.integers(1, 1 << 31))) as session:
            device = session.device
            assert device.status() == (False, False, 0, 0)
            tokens = session.generate([1, 2], 3)
        traces.append((tokens, b"".join(values.tobytes() for _, values in session.trace())))
    golden = Expected(CONFIG, image)
    assert traces[0][0] == golden.generate([1, 2], 3)
    assert traces[1] == traces[2] == traces[0]
