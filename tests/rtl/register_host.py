"""The host's side of the registers: requests and answers, and the model memory behind them."""

import bench
import cocotb
from sterna.hw.link.executor import Request, Response
from sterna.hw.memory.port import burst_layout, write_layout
from streams import StreamDriver, StreamMonitor


class Host:
    """Requests and answers of the host against a memory model behind the arbiter's host side."""

    def __init__(self, dut, config, stall):
        bits, self.port, self.stall = config.word_address_bits, config.port_bytes, stall
        self.dut, self.random, self.words = dut, bench.rng("host"), {}
        self.request = StreamDriver(dut, "request", Request, stall)
        self.response = StreamMonitor(dut, "response", Response, stall)
        self.bursts = StreamMonitor(dut, "host_bursts", burst_layout(bits), stall)
        self.writes = StreamMonitor(dut, "host_write", write_layout(bits, self.port), stall)
        dut.host_words__valid.value = 0
        cocotb.start_soon(self._memory())

    async def _memory(self):
        seen = written = 0
        d = self.dut
        while True:
            await bench.cycles(d)
            for write in self.writes.items[written:]:
                old = self.words.get(write["address"], 0)
                for k in range(self.port):
                    if write["mask"] >> k & 1:
                        old = old & ~(0xFF << 8 * k) | write["data"] & 0xFF << 8 * k
                self.words[write["address"]] = old
            written = len(self.writes.items)
            for burst in self.bursts.items[seen:]:
                seen += 1
                await bench.cycles(d, self.random.randint(1, 6))
                for k in range(burst["length"]):
                    while self.random.random() < self.stall:
                        await bench.cycles(d)
                    d.host_words__valid.value = 1
                    d.host_words__payload.value = self.words.get(burst["address"] + k, 0)
                    await bench.cycles(d)
                    d.host_words__valid.value = 0

    async def call(self, write, address, value=0):
        """(data, error) of one request."""
        count = len(self.response.items)
        self.request.send({"write": int(write), "address": address, "data": value})
        answer = (await self.response.receive(count + 1, 2000))[count]
        return answer["data"], answer["error"]

    async def write(self, address, value):
        """Writes a word; it must not be refused."""
        assert (await self.call(True, address, value))[1] == 0, hex(address)

    async def read(self, address):
        """The word at an address that must not be refused."""
        value, error = await self.call(False, address)
        assert not error, hex(address)
        return value
