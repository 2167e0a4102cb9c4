"""Controller, leveller and cells of a DDR3 SDRAM with a chip in time: it levels, and reads what it wrote."""

import cocotb
from bench import cycles, rng
from cocotb.triggers import FallingEdge, RisingEdge
from levelling import cells_start, tell_good

BURSTS = 32


async def start(dut):
    """Returns when the levelling has ended."""
    dut.chip.cas.value = 5
    await cells_start(dut)
    await RisingEdge(dut.clk)
    dut.rst.value = 0
    await RisingEdge(dut.done)
    await cycles(dut, 4)
    tell_good(dut)
    dut._log.info(f"delays {dut.delay.value} slips {dut.slip.value} failed {dut.failed.value}")


async def ask(dut, write, address, length=0, data=0, mask=0):
    dut.write_.value, dut.address.value, dut.length.value = write, address, length
    dut.data.value, dut.mask.value = data, mask
    dut.valid.value = 1
    while True:
        await FallingEdge(dut.clk)
        taken = dut.accepted.value == 1
        await RisingEdge(dut.clk)
        if taken:
            break
    dut.valid.value = 0


async def collect(dut, found):
    while True:
        await FallingEdge(dut.clk)
        if dut.data_valid.value == 1:
            found.append(str(dut.data_read.value))


@cocotb.test()
async def levels_and_reads(dut):
    random, found, expected, content = rng(), [], [], {}
    await start(dut)
    assert dut.failed.value == 0, "not trained"
    cocotb.start_soon(collect(dut, found))
    for k in range(BURSTS):
        content[k] = random.getrandbits(128)
        await ask(dut, 1, k, data=content[k], mask=0xFFFF)
    for _ in range(60):
        if random.random() < 0.4:
            k, mask, new = random.randrange(BURSTS), random.getrandbits(16), random.getrandbits(128)
            old, fresh = content[k].to_bytes(16, "little"), new.to_bytes(16, "little")
            content[k] = int.from_bytes(bytes(fresh[i] if mask >> i & 1 else old[i] for i in range(16)), "little")
            await ask(dut, 1, k, data=new, mask=mask)
        else:
            first = random.randrange(BURSTS)
            length = random.randint(1, BURSTS - first)
            expected += [content[k] for k in range(first, first + length)]
            await ask(dut, 0, first, length=length)
        await cycles(dut, random.choice((0, 0, 3, 30)))
    await cycles(dut, 150)
    assert found == [f"{value:0128b}" for value in expected]
    assert dut.chip.problems.value == 0


@cocotb.test()
async def does_not_train(dut):
    """With byte 1 of the board broken the leveller ends, says so, and tells of byte 0 what was good."""
    await start(dut)
    assert dut.failed.value == 1, "trained"
    assert dut.good.value.to_unsigned() >> 32 == 0 and dut.good.value.to_unsigned().bit_count() >= 2
