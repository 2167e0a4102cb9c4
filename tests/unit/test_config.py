"""Configurations: what cannot be built is refused with its allowed values, and what is accepted can be built."""

import dataclasses

import pytest
from amaranth.hdl import Fragment
from fake_device import INFO, FakeDevice, expected
from faults import SEED
from hypothesis import given, seed, settings
from hypothesis import strategies as st
from sterna.host.device.driver import Device
from sterna.hw.accelerator import Accelerator
from sterna.hw.config import RANGES, Config, ConfigError, most_visits
from sterna.hw.presets import PRESETS

SMALLEST = Config(name="smallest", rows=1, columns=5, lanes=1, port_bytes=2, memory_bytes=256, vector_words=1,
                  activation_words=1, strip=1, clock_hz=1, row_words=3, fifo_words=4, ring=2, credits=1,
                  program_words=1, register_bits=16, counters=False)
LARGEST = Config(name="largest", rows=1, columns=160, lanes=32, port_bytes=128, memory_bytes=1 << 35,
                 vector_words=1 << 14, activation_words=412, strip=0xFFE0, clock_hz=0xFFFFFFFF, batch=2, top_k=64,
                 tree_rows=0xFFFF, row_words=1 << 20, fifo_words=1 << 16, ring=1 << 15, credits=255,
                 program_words=1024)


def test_every_integer_has_a_range():
    fields = {field.name for field in dataclasses.fields(Config) if field.type in (int, "int")}
    assert fields == {*RANGES, "batch", "memory_hz", "axi_ports", "engines"}


@pytest.mark.parametrize("field", RANGES)
def test_values_outside_their_range_are_refused(field):
    least, most = RANGES[field]
    for value in (least - 1, most + 1, 0.5, True, None):
        with pytest.raises(ConfigError, match=f"{field} {value}: use {least} to {most}"):
            dataclasses.replace(SMALLEST, **{field: value})


@pytest.mark.parametrize("changes, message", [
    ({"ring": 1}, "ring 1: use 2 to 32768"), ({"ring": 12}, "ring 12: must be a power of two"),
    ({"ring": 65536}, "ring 65536: use 2 to 32768"), ({"credits": 0}, "credits 0: use 1 to 255"),
    ({"credits": 256}, "credits 256: use 1 to 255"), ({"fifo_words": 3}, "fifo_words 3: use 4 to 65536"),
    ({"columns": 15, "fifo_words": 5}, "fifo_words 5: must be even, since the array takes two words a cycle"),
    ({"strip": 0}, "strip 0: use 1 to"), ({"port_bytes": 1}, "port_bytes 1: use 2 to 128"),
    ({"port_bytes": 256}, "port_bytes 256: use 2 to 128"), ({"memory_bytes": 320 + 1}, "must be a multiple of 64"),
    ({"lanes": 4, "columns": 20, "strip": 4, "row_words": 9}, "lanes 4: at most port_bytes 2"),
    ({"row_words": 2}, "row_words 2: the row queue must hold a strip of 1 rows and two tiles"),
    ({"tree_rows": 6}, "tree_rows 6: at most the 5 codes of an activation buffer"),
    ({"tree_rows": 5, "memory": "onchip"}, "tree_rows 5: needs memory outside of the chip"),
    ({"sdram": "AS4C16M16SA-7", "memory_bytes": 32 << 20, "memory_hz": 1, "clock_hz": 80_000_000},
     "memory_hz 1: use 10000000 to 143000000"),
    ({"memory_bytes": 1 << 34}, "memory_bytes 17179869184: at most 8589934592, as an address register counts 2"),
    ({"memory_bytes": 320, "port_bytes": 128}, "memory_bytes 320: must be a multiple of 128"),
    ({"memory_hz": 1}, "memory_hz 1: needs sdram or ddr3"), ({"engines": 3}, "engines 3: use one of 1, 2, 4, 8"),
    ({"axi_ports": 3}, "axi_ports 3: use one of 0, 1, 2, 4, 8"),
    ({"axi_ports": 1}, "axi_ports 1: 2 bytes each of 2, where a port has 4 to 64"),
    ({"axi_ports": 1, "port_bytes": 128}, "axi_ports 1: 128 bytes each of 128"),
    ({"axi_ports": 1, "port_bytes": 4, "memory": "onchip"}, "axi_ports 1: needs memory outside of the chip"),
    ({"axi_ports": 1, "port_bytes": 4, "block_bytes": 96}, "block_bytes 96: must be a power of two"),
    ({"axi_ports": 1, "port_bytes": 4, "block_bytes": 2048},
     "block_bytes 2048: use 64 to 1024 with ports of 4 bytes"),
    ({"axi_ports": 1, "port_bytes": 4, "memory_bytes": 320}, "memory_bytes 320: must be a multiple of 256"),
    ({"axi_ports": 1, "sdram": "AS4C16M16SA-7"}, "sdram and axi_ports: use one of them"),
    ({"ddr3": "none"}, "ddr3 'none': use one of MT41K256M16-107"),
    ({"ddr3": "MT41K256M16-107"}, "MT41K256M16-107: needs external memory and words of 8 bytes or more"),
    ({"ddr3": "MT41K256M16-107", "port_bytes": 8}, "memory_bytes 256: MT41K256M16-107 has 536870912"),
    ({"ddr3": "MT41K256M16-107", "port_bytes": 8, "memory_bytes": 512 << 20, "memory_hz": 150_000_000,
      "clock_hz": 150_000_000}, "memory_hz 150000000: use 151515152 to 166666666")])
def test_what_cannot_be_built_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(SMALLEST, **changes)


def elaborate(config):
    Fragment.get(Accelerator(config), None)


@pytest.mark.parametrize("config", [
    SMALLEST, dataclasses.replace(SMALLEST, memory="onchip", weight_code="bit2"),
    pytest.param(LARGEST, marks=pytest.mark.rest),
    dataclasses.replace(SMALLEST, sdram="AS4C16M16SA-7", memory_bytes=32 << 20, memory_hz=10_000_000,
                        clock_hz=10_000_000)], ids=["smallest", "onchip", "largest", "sdram"])
def test_the_ends_of_every_range_can_be_built(config):
    elaborate(config)


@st.composite
def configs(draw):
    """Configurations near the bounds of what is accepted; sizes that only make memories long stay small."""
    lanes = 1 << draw(st.integers(0, 3))
    port = max(lanes, 2) << draw(st.integers(0, 2))
    rows, columns = draw(st.integers(1, 3)), 5 * lanes * draw(st.integers(1, 2))
    strip = rows * lanes * draw(st.integers(1, 2))
    values = {"rows": rows, "columns": columns, "lanes": lanes, "port_bytes": min(port, 64), "strip": strip,
              "row_words": -(-(strip + 2 * max(rows, lanes)) // lanes) + draw(st.integers(0, 2)),
              "weight_code": draw(st.sampled_from(["trit5", "bit2"])), "batch": draw(st.sampled_from([1, 1, 2])),
              "memory": draw(st.sampled_from(["external", "onchip"])), "top_k": draw(st.sampled_from([0, 1, 5, 64])),
              "tree_rows": draw(st.sampled_from([0, 0, 1, 2, 5])),
              "clock_hz": draw(st.sampled_from([1, 40_000_000, 40_000_001])),
              "register_bits": draw(st.integers(16, 32)), "counters": draw(st.booleans())}
    for field in ("vector_words", "activation_words", "program_words", "fifo_words", "credits"):
        values[field] = RANGES[field][0] + draw(st.integers(0, 5))
    values["ring"] = 1 << draw(st.integers(1, 4))
    values["memory_bytes"] = 64 * draw(st.integers(4, 9))
    return values


@seed(SEED)
@settings(max_examples=8, deadline=None)
@given(configs())
def test_what_is_accepted_can_be_built(values):
    try:
        config = Config(name="random", **values)
    except ConfigError:
        return
    elaborate(config)


@pytest.mark.parametrize("chained", [False, True])
def test_the_shortest_ring_carries_a_text(chained):
    fake = FakeDevice(dataclasses.replace(INFO, ring=2, batch=8 if chained else 1))
    device, prompt = Device(fake, poll_s=0.005, stall_s=5.0), [5, 900, 17, 3, 8]
    found = list(device.run(prompt, 20, seed=3, chained=chained))
    assert found == list(enumerate(expected(prompt, 20, 3), len(prompt)))


def test_every_preset_but_the_one_on_chip_walks_trees():
    assert {name: most_visits(config) for name, config in PRESETS.items()} == \
        dict.fromkeys(PRESETS, 1024) | {"up5k": 0}
    fewer = dataclasses.replace(INFO, tree_rows=1000, activation_words=3, columns=20)
    assert most_visits(fewer) == 60  # a code for each


def test_presets_are_within_their_ranges():
    assert all(least <= getattr(config, field) <= most for config in PRESETS.values()
               for field, (least, most) in RANGES.items())
