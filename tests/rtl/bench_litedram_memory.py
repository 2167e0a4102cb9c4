"""The memory port through LiteDRAM with a chip in time: it levels, and reads what it wrote."""

import os
from collections import deque

import cocotb
from bench import cycles, rng
from cocotb.triggers import FallingEdge, RisingEdge
from levelling import cells_start, tell_good

ROWS, BURSTS = 16, 32  # that the chip's model has; of a page of 128, four times the same
PAGE_BITS, BANK_BITS = 7, 3


class Port:
    """The memory port, and what every place holds. Reads and writes are taken in the order of their calls."""

    def __init__(self, dut):
        self.dut, self.content, self.expected = dut, {}, deque()
        self.words = 0

    async def start(self):
        """Returns when the levelling has ended."""
        dut = self.dut
        cocotb.start_soon(self._modes())
        await cells_start(dut)
        await RisingEdge(dut.memory_clk)
        dut.memory_rst.value = 0
        await RisingEdge(dut.clk)
        dut.rst.value = 0
        await RisingEdge(dut.done)
        tell_good(dut)
        await cycles(dut, 4)
        cocotb.start_soon(self._collect())

    async def _modes(self):
        """The latencies of the chip's model become those that the mode registers ask for."""
        chip = self.dut.chip
        while True:
            await RisingEdge(self.dut.ck)
            if self.dut.reset_n.value == self.dut.cke.value == 1 and not any(
                    pin.value != 0 for pin in (self.dut.ras_n, self.dut.cas_n, self.dut.we_n)):
                address = self.dut.a.value.to_unsigned()
                match self.dut.ba.value.to_unsigned():
                    case 0:
                        chip.cas.value = (address >> 4 & 7) + 4
                    case 2:
                        chip.cas_write.value = (address >> 3 & 7) + 5

    @staticmethod
    def place(address):
        """Of a word in the chip's model."""
        page = address >> PAGE_BITS
        return (page >> BANK_BITS) % ROWS, page % (1 << BANK_BITS), address % BURSTS

    async def _taken(self, ready):
        while True:
            await FallingEdge(self.dut.clk)
            taken = ready.value == 1
            await RisingEdge(self.dut.clk)
            if taken:
                return

    async def write(self, address, value, mask=0xFFFF):
        dut = self.dut
        dut.write_address.value, dut.word_data.value, dut.word_mask.value = address, value, mask
        dut.write_valid.value = 1
        await self._taken(dut.write_ready)
        dut.write_valid.value = 0
        old = self.content.get(self.place(address), 0).to_bytes(16, "little")
        new = value.to_bytes(16, "little")
        self.content[self.place(address)] = int.from_bytes(
            bytes(new[i] if mask >> i & 1 else old[i] for i in range(16)), "little")

    async def read(self, address, length):
        dut = self.dut
        dut.reads_address.value, dut.reads_length.value = address, length
        dut.reads_valid.value = 1
        await self._taken(dut.reads_ready)
        dut.reads_valid.value = 0
        self.expected.extend((k, self.content[self.place(k)]) for k in range(address, address + length))

    async def _collect(self):
        while True:
            await FallingEdge(self.dut.clk)
            if self.dut.data_valid.value == 1:
                at, right = self.expected.popleft()
                assert str(self.dut.data_read.value) == f"{right:0128b}", f"word {at:#x} is wrong"
                self.words += 1


@cocotb.test()
async def levels_and_reads(dut):
    random, port = rng(), Port(dut)
    await port.start()
    assert dut.failed.value == 0, "not trained"
    pages = [random.randrange(ROWS - 1 << BANK_BITS) for _ in range(4)]
    for page in pages:
        for k in range(BURSTS):
            await port.write(page << PAGE_BITS | k, random.getrandbits(128))
    for _ in range(120):
        page, k = random.choice(pages) << PAGE_BITS, random.randrange(BURSTS)
        if random.random() < 0.4:
            await port.write(page | k, random.getrandbits(128), random.getrandbits(16))
        else:
            await port.read(page | k, random.randint(1, BURSTS - k))
        await cycles(dut, random.choice((0, 0, 3, 30)))
    await cycles(dut, 150)
    assert not port.expected and dut.chip.problems.value == 0


@cocotb.test()
async def share(dut):
    """Of the peak that one linear stream of reads gets, refresh included; it is printed."""
    random, port = rng(), Port(dut)
    await port.start()
    for page in range(1 << BANK_BITS):
        for k in range(BURSTS):
            await port.write(page << PAGE_BITS | k, random.getrandbits(128))
    length, address, size = 32, 0, 1 << PAGE_BITS + BANK_BITS
    while port.words == 0:
        await port.read(address % size, length)
        address += length
    begun, first, span = 0, port.words, int(os.environ["CYCLES"])
    begun = cocotb.utils.get_sim_time("ns")
    while (passed := cocotb.utils.get_sim_time("ns") - begun) < 20 * span:
        await port.read(address % size, length)
        address += length
    found = (port.words - first) / (passed / 20)
    dut._log.info(f"share {found:.4f}")
    assert found >= float(os.environ["LEAST"]), f"share of the peak {found:.2%}"
    assert dut.chip.problems.value == 0
