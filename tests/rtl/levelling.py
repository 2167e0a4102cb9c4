"""What the benches of levelled memories with a chip in time share: the start of cells and chip, and what is good."""

import os

from cocotb.triggers import RisingEdge, Timer


async def cells_start(dut):
    """The chip's ways become those of the environment; returns when the cells' clocks run."""
    dut.chip.out_ps.value = int(os.environ["OUT_PS"])
    dut.chip.back_ps0.value, dut.chip.back_ps1.value = map(int, os.environ["BACK_PS"].split())
    await Timer(100, "ns")
    dut.init_rst.value = 0
    await RisingEdge(dut.started)
    await Timer(200, "ns")


def tell_good(dut):
    """Logs a row of delays for each byte and slip, with a mark where reads were right."""
    good = dut.good.value.to_unsigned()
    for byte in (0, 1):
        for slip in range(4):
            row = good >> 32 * byte + 8 * slip & 0xFF
            dut._log.info(f"byte {byte} slip {slip}: {''.join('.#'[row >> k & 1] for k in range(8))}")
