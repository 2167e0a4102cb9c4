"""What starts a device from the flash of its board."""

import bench
import pytest
from sterna.hw.link.flash import FlashBoot


@pytest.mark.rtl
@pytest.mark.parametrize("clock_hz, offset", [(12_000_000, 0), (24_000_000, 1 << 20), (100_000_000, 0x5A3C96)])
def test_flash_boot(clock_hz, offset, simulator):
    bench.run(FlashBoot(clock_hz, offset), "bench_flash", "flash_boot", simulator,
              env={"CLOCK_HZ": clock_hz, "OFFSET": offset})


@pytest.mark.parametrize("arguments, words", [
    ((100_000_001,), "clock 100000001 Hz"), ((24_000_000, 1 << 24), "offset 16777216"),
    ((24_000_000, -1), "offset -1")])
def test_impossible_flashes(arguments, words):
    with pytest.raises(ValueError, match=words):
        FlashBoot(*arguments)
