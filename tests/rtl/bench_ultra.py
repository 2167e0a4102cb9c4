"""Bench of the memory in UltraRAM: random reads and writes against a dictionary."""

import os

import bench
import cocotb

WIDTH, DEPTH = int(os.environ["WIDTH"]), int(os.environ["DEPTH"])
CYCLES = 4000


@cocotb.test()
async def words(dut):
    """A read gives the last word that was written before, in the cycle behind; without an enable the data stay, and
    nothing is written. Half of all places are near each other and the ends of blocks, so that words are read soon.
    """
    random, held, shown = bench.rng("ultra"), {}, None
    for name in ("write_enable", "read_enable", "write_address", "read_address", "write_data"):
        getattr(dut, name).value = 0
    await bench.start(dut)
    near = sorted({k for end in (0, 4096, DEPTH) for k in range(end - 4, end + 4) if 0 <= k < DEPTH})
    seen = stayed = 0
    for _ in range(CYCLES):
        write, read = (random.choice(near) if random.random() < 0.5 else random.randrange(DEPTH) for _ in range(2))
        writes, reads, data = random.random() < 0.6, random.random() < 0.6, random.getrandbits(WIDTH)
        dut.write_enable.value, dut.write_address.value, dut.write_data.value = int(writes), write, data
        dut.read_enable.value, dut.read_address.value = int(reads), read
        await bench.settled(dut)
        if shown is not None:
            assert int(dut.read_data.value) == shown, (write, read)
            seen, stayed = seen + 1, stayed + (not reads)
        await bench.cycles(dut)
        if reads:  # a read beside the write of its word may return anything
            shown = None if writes and write == read else held.get(read)
        if writes:
            held[write] = data
    assert seen > CYCLES // 4 and stayed > CYCLES // 10
