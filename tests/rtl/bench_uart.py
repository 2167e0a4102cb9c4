"""Bench of the UART against a host whose clock is another: rates, glitches, breaks, noise."""

import os

import cocotb
from bench import cycles, rng, settled
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge, Timer
from uart_line import PS, HostLine, HostReceiver

CLOCK_HZ, BAUD = int(os.environ.get("CLOCK_HZ", "1")), int(os.environ.get("BAUD", "1"))
COUNT = int(os.environ.get("COUNT", "30"))
BIT_CYCLES = CLOCK_HZ / BAUD
LOOK = max(1, int(BIT_CYCLES) // 8) / BIT_CYCLES  # bits
FINE = BIT_CYCLES >= 6
ERRORS = (-0.02, 0.0, 0.02) if FINE else (-0.015, 0.0, 0.015)
SPECIAL = [0x00, 0xFF, 0x55, 0xAA, 0x01, 0x80, 0x7F, 0xFE]


class Board:
    def __init__(self, dut, salt):
        self.dut, self.random = dut, rng(salt)
        self.host = HostLine(dut.rx_line, BAUD, self.random)
        self.items = []
        dut.rx__ready.value, dut.tx__valid.value = 1, 0
        cocotb.start_soon(self._receive())

    async def _receive(self):
        # Woken by the device only: a bench that looks at every cycle would take minutes for a byte.
        while True:
            await RisingEdge(self.dut.rx__valid)
            await settled(self.dut)
            if int(self.dut.rx__valid.value):
                self.items.append(int(self.dut.rx__payload.value))

    async def send(self, *values):
        """Gives bytes to the transmitter, each as soon as it takes it."""
        await cycles(self.dut)
        for value in values:
            self.dut.tx__payload.value, self.dut.tx__valid.value = value, 1
            await settled(self.dut)
            while not int(self.dut.tx__ready.value):
                await RisingEdge(self.dut.tx__ready)
                await settled(self.dut)
            await cycles(self.dut)
        self.dut.tx__valid.value = 0

    async def begin(self):
        # The clock's period is a whole number of simulation steps; the rate follows it.
        period_ps = 2 * round(PS / CLOCK_HZ / 2)
        self.host.nominal_ps = period_ps * BIT_CYCLES
        self.dut.rst.value = 1
        Clock(self.dut.clk, period_ps, unit="ps").start()
        await cycles(self.dut, 3)
        self.dut.rst.value = 0
        self.items.clear()  # what random registers gave before the reset
        await cycles(self.dut, 6)
        await Timer(self.random.randrange(1, period_ps), "ps")
        self.period_ps = period_ps
        return self

    def bytes(self, count):
        return [self.random.choice([self.random.randrange(256), self.random.choice(SPECIAL)]) for _ in range(count)]

    async def received(self):
        """The bytes since the last call, once the line has been at rest for a while, and the errors since then."""
        await self.host.hold(1, 13)
        await settled(self.dut)
        assert int(self.dut.idle.value) == 1
        items, self.items[:] = list(self.items), []
        errors, before = int(self.dut.errors.value), getattr(self, "errors", 0)
        self.errors = errors
        return items, (errors - before) % 256


@cocotb.test(timeout_time=500, timeout_unit="ms")
async def clock_errors(dut):
    """Every byte arrives at any phase with clocks 2 % apart and edges that move."""
    board = await Board(dut, "clocks").begin()
    for error in ERRORS:
        board.host.error, board.host.jitter = error, 0.04 if FINE else 0.0
        sent = SPECIAL + board.bytes(COUNT)
        for value in sent:
            await board.host.send(value)
            if board.random.random() < 0.3:
                await board.host.hold(1, board.random.uniform(0, 3))
        assert await board.received() == (sent, 0), error


@cocotb.test(timeout_time=500, timeout_unit="ms")
async def glitches(dut):
    """Pulses shorter than a look never count, at rest or inside a byte; start bits that are too short are none."""
    board = await Board(dut, "glitches").begin()
    random, host = board.random, board.host
    sent = board.bytes(COUNT)
    for value in sent:
        # Two of them are at least four looks apart: each look majority has at most one of them.
        at = random.uniform(0, 1)
        places = []
        while at < 9.4:
            places.append((at, random.uniform(0.1, 0.95) * LOOK))
            at += 4 * LOOK + random.uniform(0, 2)
        await host.send(value, glitches=places)
        if random.random() < 0.3:
            await host.levels([1] * 3, glitches=[(1.2, 0.9 * LOOK)])
    # A shifted edge and a glitch beside it can cost a look; half a bit is still far.
    assert await board.received() == (sent, 0)
    for _ in range(10):
        await host.hold(0, random.uniform(0, 0.5 - LOOK if FINE else 0.2))
        await host.hold(1, random.uniform(1, 3))
        assert await board.received() == ([], 0)
        value = random.randrange(256)
        await host.send(value)
        assert await board.received() == ([value], 0)


@cocotb.test(timeout_time=500, timeout_unit="ms")
async def breaks_and_missing_stop_bits(dut):
    board = await Board(dut, "breaks").begin()
    random, host = board.random, board.host
    seen = []

    async def watch():
        while True:
            await RisingEdge(dut.receiver_break)
            await settled(dut)  # before that it may only be on the way
            if int(dut.receiver_break.value):
                assert int(dut.receiver_error.value)
                seen.append(1)

    cocotb.start_soon(watch())
    for number, bits in enumerate((10, 11, 15, 60, random.uniform(10, 40)), 1):
        await host.hold(0, bits)
        assert await board.received() == ([], 1) and len(seen) == number
        sent = board.bytes(3)
        await host.send(*sent)
        assert await board.received() == (sent, 0)
    for _ in range(5):
        first, lost = board.bytes(2)
        await host.send(first)
        await host.send(lost | 1, stop=0)
        await host.hold(1, 1.5)
        last = random.randrange(256)
        await host.send(last)
        assert await board.received() == ([first, last], 1) and len(seen) == 5
    await host.hold(0, 5)  # no break: too short for a byte of zeros, it is one of ones behind them
    assert (await board.received())[1] == 0 and len(seen) == 5


@cocotb.test(timeout_time=500, timeout_unit="ms")
async def noise(dut):
    """Levels at random, then bytes again: nothing hangs, and behind a pause every byte is right."""
    board = await Board(dut, "noise").begin()
    random, host = board.random, board.host
    errors = 0
    for _ in range(4):
        for _ in range(20):
            await host.hold(random.randrange(2), random.uniform(0.05, 3))
        errors += (await board.received())[1]
        sent = board.bytes(4)
        await host.send(*sent)
        assert await board.received() == (sent, 0)
    assert errors > 0


@cocotb.test(timeout_time=500, timeout_unit="ms")
async def sending(dut):
    """Bytes without a pause at the exact rate, with pauses, and while others arrive."""
    board = await Board(dut, "sending").begin()
    bit_ps = board.host.nominal_ps
    readers = [HostReceiver(dut.tx_line, PS / bit_ps, error) for error in (-0.02, 0.0, 0.02)]
    sent = SPECIAL + board.bytes(COUNT)
    cocotb.start_soon(board.send(*sent))
    incoming = board.bytes(len(sent))
    await board.host.send(*incoming)
    await board.host.hold(1, 13)
    assert [reader.items for reader in readers] == [sent] * 3
    starts = readers[1].starts
    for k, at in enumerate(starts):
        assert abs(at - starts[0] - 10 * k * bit_ps) <= (1 + 0.01 * k) * board.period_ps + 0.0006 * 10 * k * bit_ps, k
    assert (await board.received()) == (incoming, 0)
    for value in SPECIAL:
        cocotb.start_soon(board.send(value))
        await board.host.hold(1, 11 + board.random.uniform(0, 4))
    assert readers[1].items[len(sent):] == SPECIAL
