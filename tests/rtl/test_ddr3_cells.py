"""Models of the ECP5's cells for DDR3: LiteDRAM's PHY, which works on boards, levels and reads through them."""

import bench
import pytest

pytestmark = [pytest.mark.rtl, pytest.mark.icarus, pytest.mark.rest]
CELLS, CHIP = bench.HERE / "ecp5_ddr_cells.v", bench.HERE / "ddr3_chip.v"


def levels_and_reads(folder, clock_hz, out_ps, back_ps, text):
    """LiteDRAM's PHY at a clock, with ways to and from the chip, through models with a text."""
    from litedram_phy import verilog
    sources = {"litedram.v": verilog(clock_hz), "cells.v": text, "chip.v": CHIP.read_text()}
    for name, content in sources.items():
        (folder / name).write_text(content)
    bench.run(None, "bench_litedram", "litedram_bench", "icarus", [folder / name for name in sources],
              env={"OUT_PS": out_ps, "BACK_PS": back_ps})


@pytest.mark.parametrize("clock_hz, out_ps, back_ps, latency", [
    (75e6, 800, "1400 2900", 5), (100e6, 300, "700 900", 6)])
def test_litedram_levels_and_reads(tmp_path, clock_hz, out_ps, back_ps, latency):
    text = CELLS.read_text().replace("READ_LATENCY = 5", f"READ_LATENCY = {latency}")
    levels_and_reads(tmp_path, clock_hz, out_ps, back_ps, text)


@pytest.mark.parametrize("before, after", [
    ("0.25 * period : 0.0) passed", "0.0 : 0.0) passed"),  # a strobe that is not a quarter late
    ("0.75 * period : 0.0) ECLK", "0.25 * period : 0.0) ECLK")],  # data of writes half a period off
    ids=["strobe", "writes"])
def test_other_cells_are_found(tmp_path, before, after):
    text = CELLS.read_text()
    assert before in text
    with pytest.raises(AssertionError, match="no window of delays|at its pins"):
        levels_and_reads(tmp_path, 100e6, 300, "700 900", text.replace(before, after))
