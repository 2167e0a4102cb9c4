"""The link and its leaf units in simulation."""

from types import SimpleNamespace

import bench
import pytest
from fuzz_link import fuzz
from sterna.hw import protocol
from sterna.hw.link import Link
from sterna.hw.link.cobs import CobsDecoder
from sterna.hw.link.crc import INITIAL, RESIDUE, Crc32C, update
from sterna.hw.link.receiver import FrameReceiver
from sterna.hw.link.transmitter import FrameTransmitter

UNITS = {"crc": Crc32C(), "decoder": CobsDecoder(), "transmitter": FrameTransmitter(),
         "transmitter_slow": FrameTransmitter(registered=False)}
TESTS = {"crc": "checksum", "transmitter_slow": "transmitter"}


@pytest.mark.rtl
@pytest.mark.parametrize("stall", [0.4, 0.0])
@pytest.mark.parametrize("unit", UNITS)
def test_units(unit, stall, simulator):
    bench.run(UNITS[unit], "bench_link_units", f"link_{unit}", simulator, testcase=TESTS.get(unit, unit),
              env={"STALL": stall, "UNIT": unit})


@pytest.mark.rtl
@pytest.mark.parametrize("slow, batch, credits, stall", [
    *((False, 1, credits, stall) for credits, stall in ((3, 0.5), (2, 0.0), (8, 0.2), (1, 0.3))),
    *((True, 1, credits, stall) for credits, stall in ((2, 0.5), (1, 0.3))),
    (False, 4, 2, 0.3)])
def test_link(slow, batch, credits, stall, simulator):
    config = SimpleNamespace(credits=credits, slow=slow, register_bits=16 if slow else 32,
                             frame_counter_bits=8 if slow else 32, batch=batch, memory_bytes=4096)
    bench.run(Link(config), "bench_link", "link_slow" if slow else f"link{batch}", simulator,
              env={"STALL": stall, "CREDITS": credits, "NUMBER_BITS": config.register_bits, "BATCH": batch})


@pytest.mark.rest
@pytest.mark.rtl
def test_addresses_of_36_bits(simulator):
    """Requests that a carry into the upper four bits lies within: in the address, and not in the reply."""
    config = SimpleNamespace(credits=3, slow=False, register_bits=32, frame_counter_bits=32, batch=1,
                             memory_bytes=protocol.FLAT)
    bench.run(Link(config), "bench_link", "link_wide", simulator, testcase="windowed_requests", env={
        "STALL": 0.3, "CREDITS": 3, "NUMBER_BITS": 32, "BATCH": 1, "BASE": protocol.FLAT + (3 << 32) - 2048})


@pytest.mark.rtl
@pytest.mark.parametrize("frames", [3_000, pytest.param(12_000, marks=pytest.mark.rest)])
def test_fuzzed_frames(frames):
    """Some of what `python tests/rtl/fuzz_link.py` does a million times."""
    counts = fuzz(frames, bench.SEED, credits=2)
    print(f"fuzzed link, seed {bench.SEED}: {counts}")
    assert counts["frames"] >= frames
    assert min(counts[k] for k in ("bad", "lost", "refused", "executed")) > frames // 120


def test_software_model_and_residue():
    state = INITIAL
    for byte in b"123456789":
        state = update(state, byte)
    assert state ^ 0xFFFFFFFF == 0xE3069283  # the check value of CRC-32C
    for byte in (state ^ 0xFFFFFFFF).to_bytes(4, "little"):
        state = update(state, byte)
    assert state ^ 0xFFFFFFFF == RESIDUE


@pytest.mark.parametrize("credits", [0, -1, 256])
def test_impossible_credits(credits):
    with pytest.raises(ValueError, match=f"credits {credits}: use 1 to 255"):
        FrameReceiver(credits)
