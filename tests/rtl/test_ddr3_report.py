"""What a board whose DDR3 SDRAM cannot be levelled tells over its serial line."""

import bench
import pytest
from sterna.hw.memory.ddr3.report import TEXT, Report, decode

pytestmark = pytest.mark.rtl


def test_report(simulator):
    bench.run(Report(4_000_000, 1_000_000), "bench_ddr3_report", "ddr3_report", simulator)


def test_a_line_is_read():
    good = 1 << 32 * 1 + 8 * 2 + 5 | 1 << 7
    assert decode(f"{TEXT}{good:016x}\r\n") == [(0, 0, 7), (1, 2, 5)] and decode("sterna") is None
