"""The report of a board that does not train, bit by bit from its line."""

import cocotb
from bench import rng, start
from cocotb.triggers import FallingEdge

BIT_CYCLES, BYTES = 4, 84


@cocotb.test()
async def tells_the_settings(dut):
    good = rng().getrandbits(64)
    dut.failed.value, dut.good.value = 0, good
    await start(dut)
    levels = []
    for cycle in range(BIT_CYCLES * 10 * (2 * BYTES + 20)):
        if cycle == 100:
            dut.failed.value = 1
        await FallingEdge(dut.clk)
        levels.append(int(dut.line.value))
    assert all(levels[:100])
    text, at = bytearray(), 0
    while (at := next((k for k in range(at, len(levels) - 10 * BIT_CYCLES) if not levels[k]), None)) is not None:
        bits = [levels[at + BIT_CYCLES * k + BIT_CYCLES // 2] for k in range(10)]
        assert bits[0] == 0 and bits[9] == 1
        text.append(sum(bit << k for k, bit in enumerate(bits[1:9])))
        at += 9 * BIT_CYCLES + BIT_CYCLES // 2
    lines = text.decode().split("\r\n")
    expected = f"sterna: ddr3 not levelled, good settings by byte, slip and delay: {good:016x}"
    assert lines[:2] == [expected, expected]
