"""Requests on LiteDRAM's native port, against a model that stalls: every word, and data of writes in time."""

from collections import deque

import cocotb
from bench import cycles, rng, settled, start
from streams import StreamDriver, StreamMonitor

ADDRESS_BITS, BANK_BITS = 10, 3
LATENCY = 5  # cycles at least from a command to its data: those of the shortest way through LiteDRAM
STALL = 0.3


class Memory:
    """Takes commands at random, and carries each out later, in order; a write wants its data in that cycle, whatever
    comes then.
    """

    def __init__(self, dut):
        self.dut, self.random = dut, rng("memory")
        self.content = {}
        self.waiting = deque()  # (cycle, write, address)
        cocotb.start_soon(self._run())

    async def _run(self):
        dut, cycle, busy = self.dut, 0, 0
        while True:
            await cycles(dut)
            cycle += 1
            if self.random.random() < 0.01:
                busy = cycle + 60  # a refresh
            ready = cycle >= busy and len(self.waiting) < 12 and self.random.random() >= STALL
            dut.native__cmd__ready.value = int(ready)
            due = self.waiting[0] if self.waiting and self.waiting[0][0] <= cycle >= busy else None
            dut.native__rdata__valid.value = int(due is not None and not due[1])
            dut.native__wdata__ready.value = int(due is not None and due[1])
            dut.native__rdata__payload.value = (
                self.content.get(due[2], 0) if due and not due[1] else self.random.getrandbits(128))
            if due:
                self.waiting.popleft()
            await settled(dut)
            if due and due[1]:
                assert dut.native__wdata__valid.value == 1, "the data of a write were late"
                word = dut.native__wdata__payload.value.to_unsigned()
                self._store(due[2], word & (1 << 128) - 1, word >> 128)
            if ready and dut.native__cmd__valid.value == 1:
                command = dut.native__cmd__payload.value.to_unsigned()
                least = max(cycle + LATENCY, self.waiting[-1][0] + 1 if self.waiting else 0)
                self.waiting.append((least + self.random.choice((0, 0, 1, 7)), command & 1, command >> 1))

    def _store(self, address, data, mask):
        self.content[address] = masked(self.content.get(address, 0), data, mask)


def masked(old, new, mask):
    """A word of 16 bytes behind a write (int)."""
    bits = sum(0xFF << 8 * k for k in range(16) if mask >> k & 1)
    return old & ~bits | new & bits


@cocotb.test()
async def traffic(dut):
    from sterna.hw.memory.crossing import request_layout
    random, layout = rng(), request_layout(ADDRESS_BITS, 128)
    dut.native__cmd__ready.value = dut.native__wdata__ready.value = dut.native__rdata__valid.value = 0
    await start(dut)
    Memory(dut)
    StreamMonitor(dut, "native__cmd", passive=True)
    requests, words = StreamDriver(dut, "requests", layout), StreamMonitor(dut, "words")
    content, expected = {}, []
    for k in range(300):
        if k % 50 == 0:
            requests.stall, writes = random.choice((0.0, 0.5)), random.choice((0.1, 0.9))
        address = random.randrange((1 << ADDRESS_BITS) - 32)
        if random.random() < writes:
            value, mask = random.getrandbits(128), random.choice((0xFFFF, random.getrandbits(16)))
            content[address] = masked(content.get(address, 0), value, mask)
            requests.send({"write": 1, "address": address, "length": 0, "data": value, "mask": mask})
        else:
            address = random.choice((*content, address))
            length = random.randint(1, min(32, (1 << ADDRESS_BITS) - address))
            expected += [content.get(address + i, 0) for i in range(length)]
            requests.send({"write": 0, "address": address, "length": length, "data": 0, "mask": 0})
    await requests.drain()
    assert await words.receive(len(expected)) == expected
