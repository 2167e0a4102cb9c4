"""Builds whose registers count positions and tokens with 16 bits: the host refuses what they cannot count, before
anything is sent, and all that they can count works.
"""

import dataclasses

import numpy as np
import pytest
from fake_device import INFO, FakeDevice, expected, info_of
from small_model import DEVICE, SLOTS, GoldenDevice, served, write_folder
from sterna.firmware.layout import LayoutError, memory_map
from sterna.firmware.program import ProgramError, build_program
from sterna.host.device.driver import Device
from sterna.host.device.info import DeviceInfo
from sterna.host.errors import UsageError
from sterna.host.model.image import ImageError, build_image
from sterna.host.model.model import Model
from sterna.host.runtime.device import DeviceRuntime
from sterna.host.runtime.golden import GoldenRuntime
from sterna.host.runtime.session import Sequence
from sterna.host.runtime.sampling import Sampling, check_end
from sterna.host.runtime.state import State, save_state
from sterna.hw.boards import preset
from sterna.hw.presets import PRESETS
from sterna.hw.protocol import Register
from sterna.sim.golden.packed import Geometry, random_model
from sterna.sim.machine.machine import Machine

LONGEST = (1 << 16) - 1
NARROW = dataclasses.replace(DEVICE, register_bits=16)
NARROW_SLOTS = dataclasses.replace(SLOTS, register_bits=16)
FAST = {"retry_s": 1.0, "poll_s": 0.005, "timeout_s": 2.0, "stall_s": 0.3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("bits") / "model")


def test_every_build_tells_its_width():
    for config in PRESETS.values():
        info = DeviceInfo.parse(info_of(config).pack())
        assert info.register_bits == config.register_bits
    assert Device(FakeDevice(info_of(PRESETS["up5k"]))).info.register_bits == 16


def test_positions_up_to_the_last_one_work():
    """The whole register is used: the last token stands at position 65,534."""
    fake = FakeDevice(dataclasses.replace(INFO, register_bits=16))
    device, prompt, n = Device(fake, **FAST), [5, 900, 17], 40
    start = LONGEST - len(prompt) - n
    tokens = list(device.run(prompt, n, seed=3, start_position=start))
    assert tokens == list(enumerate(expected(prompt, n, 3), start + len(prompt)))
    assert tokens[-1][0] == LONGEST - 1
    with pytest.raises(ValueError, match=r"a run needs a prompt and positions below 2\^16 - 1"):
        list(device.run(prompt, n, start_position=start + 1))


# What starts a run, each with one token more than fits; and with as many as fit.
TOO_LONG = [
    ("generate", "-p", "One day", "-n", "65529", "-c", "0"),
    ("generate", "-p", "One day", "-c", "65536"),
    ("generate", "-p", "One day", "-c", "0"),
    ("generate", "-p", "One day", "-p", "x", "-n", "65529", "-c", "0"),
    ("generate", "-f", "long.txt", "-n", "0", "-c", "0"),
    ("generate", "-n", "9", "-c", "0", "--load-state", "state"),
    ("bench", "-p", "65535", "-n", "0"),
    ("bench", "-p", "0", "-n", "65535"),
    ("eval", "long.txt", "--check", "70000"),
]


@pytest.fixture(scope="module")
def long_files(folder, tmp_path_factory):
    """A folder with a text of 65,536 tokens, and with a state behind 65,527 tokens."""
    place = tmp_path_factory.mktemp("long")
    (place / "long.txt").write_text("x" * (LONGEST + 1))
    model = Model(folder)
    values = np.zeros((model.geometry.num_hidden_layers, model.geometry.hidden_size))
    save_state(place / "state", State(values, [1] * (LONGEST - 8)), model.packed)
    return place


@pytest.mark.parametrize("command", TOO_LONG, ids=" ".join)
@pytest.mark.parametrize("info", [NARROW, NARROW_SLOTS], ids=["device", "slots"])
def test_texts_that_are_too_long_are_refused(sterna, folder, long_files, monkeypatch, command, info):
    monkeypatch.chdir(long_files)
    device = GoldenDevice(Model(folder).packed, info)
    with served(device) as url:
        code, out, err = sterna(*command, "-m", folder, "--device", url)
    assert code == 2 and not device.writes and "error: a text of " in err, err
    line = err.splitlines()[-1]
    assert "this build counts positions with 16 bits: make it shorter, at most 65,535 tokens" in line
    assert out == "" or command[0] == "bench"


def test_texts_that_fit_are_not_refused(sterna, folder):
    """The longest one by its options; it ends after some tokens."""
    model = Model(folder)
    device = GoldenDevice(model.packed, NARROW)
    wanted = sterna("generate", "-m", folder, "-p", "One day", "--temp", "0", "-n", "3", "--device", "golden")
    stop = wanted[1].strip()[-1]
    with served(device) as url:
        code, out, err = sterna("generate", "-m", folder, "-p", "One day", "--temp", "0", "-c", LONGEST,
                                "--stop", stop, "--device", url)
    assert code == 0 and out.startswith("One"), err


def test_a_simulated_board_is_refused_before_it_is_compiled(sterna, folder):
    code, _, err = sterna("generate", "-m", folder, "-p", "x", "-c", "0", "--device", "sim:up5k")
    assert code == 2 and err.count("\n") == 1 and "a text of any length: this build counts positions with 16" in err
    code, _, err = sterna("bench", "-m", folder, "-n", "70000", "--device", "sim:lanes10,register_bits=16")
    assert code == 2 and err.count("\n") == 1 and "a text of 70,001 tokens: this build" in err


def test_a_runtime_refuses_by_itself(folder):
    """Whoever uses a runtime without the commands."""
    runtime = DeviceRuntime(Model(folder), Device(GoldenDevice(Model(folder).packed, NARROW), **FAST), print)
    with pytest.raises(UsageError, match="a text of 65,536 tokens"):
        next(runtime.generate([1], LONGEST, Sampling()))
    runtime.restore(State(np.zeros((2, 40)), [1] * LONGEST))
    with pytest.raises(UsageError, match="a text of 65,536 tokens"):
        next(runtime.generate([], 1, Sampling()))
    several = DeviceRuntime(Model(folder), Device(GoldenDevice(Model(folder).packed, NARROW_SLOTS), **FAST), print)
    with pytest.raises(UsageError, match="a text of 65,536 tokens"):
        next(several.generate_all([Sequence([1], 5, Sampling()), Sequence([1], LONGEST, Sampling())]))


def test_a_vocabulary_that_is_too_large_is_refused():
    config = preset("lanes10,register_bits=16")
    for vocab in (3, 65_535):
        assert memory_map(config, Geometry(20, 30, 1, vocab)).end
    large = Geometry(20, 30, 1, 65_536)
    message = "vocabulary: the model has 65,536 tokens and this build can count 65,535: use a build with more "
    for build in (config, info_of(config)):
        with pytest.raises(LayoutError, match=message):
            memory_map(build, large)
        with pytest.raises(ProgramError, match=message):
            build_program(build, large)
    with pytest.raises(ImageError, match=message):
        build_image(dataclasses.replace(random_model(np.random.default_rng(1), Geometry(20, 30, 1, 3)),
                                        geometry=large), config, "{}", "x", 0)
    assert memory_map(preset("lanes10"), large).end
    with pytest.raises(LayoutError, match="this build can count 16,777,216"):
        memory_map(preset("lanes10,memory_bytes=2147483648"), Geometry(1, 1, 1, (1 << 24) + 1))


def test_an_end_that_looks_like_none_is_refused():
    build = preset("lanes10,register_bits=16")
    for end in (None, 0, 65_534):
        check_end(build, end)
    with pytest.raises(UsageError, match="the end of a text is token 65535, which a build with tokens of 16 bits"):
        check_end(build, 65_535)
    check_end(preset("lanes10"), (65_535, 7))
    check_end(build, (7, 65_535))  # the host itself looks for all but the first


@pytest.mark.parametrize("bits", [16, 32])
def test_the_interpreter_keeps_as_many_bits(bits):
    machine = Machine(preset(f"lanes10,register_bits={bits}"), bytearray(64))
    slot, mask = machine.slots[0], (1 << bits) - 1
    for name in ("position", "start", "limit", "prompt_end", "stop"):
        setattr(machine, name, 0xABCD1234)
        assert getattr(slot, name) == 0xABCD1234 & mask
    assert Machine(machine.config, bytearray(64)).slots[0].stop == mask
    fake = FakeDevice(dataclasses.replace(INFO, register_bits=bits))
    device = Device(fake, **FAST)
    for register in (Register.POSITION, Register.START, Register.LIMIT, Register.PROMPT_END, Register.STOP):
        device.write_register(register, 0xABCD1234)
        assert device.read_register(register) == 0xABCD1234 & mask
    device.write_ring(0, [0xABCD1234])
    assert device.read_ring(0, 1) == [0xABCD1234 & mask]


def test_golden_counts_any_text(folder):
    """The golden model has no registers."""
    runtime = GoldenRuntime(Model(folder))
    assert next(runtime.generate([1], 1 << 31, Sampling())) >= 0
