"""Bench of the crossing: two clocks with random phases, ratios and jitter; order kept, nothing lost or doubled."""

import cocotb
from bench import cycles, rng, settled
from cocotb.triggers import Timer
from streams import StreamDriver, StreamMonitor

ROUNDS = 10
ITEMS = 120
MOST_WAITS = 4  # of the items of steady rounds


class Side:
    """The device as seen from one clock domain, for the drivers and monitors of streams."""

    def __init__(self, dut, domain):
        self._dut, self.clk = dut, getattr(dut, f"{domain}_clk")

    def __getattr__(self, name):
        return getattr(self._dut, name)


async def clock(signal, random, period_ps):
    """A clock that begins with any phase; each half period varies by a tenth."""
    signal.value = 0
    await Timer(random.randrange(1, 2 * period_ps), "ps")
    while True:
        for value in (1, 0):
            signal.value = value
            await Timer(random.randrange(period_ps * 9 // 20, period_ps * 11 // 20), "ps")


async def held_up(side, waits):
    """Appends to `waits` in every cycle in which an item is offered and not taken."""
    while True:
        await settled(side)
        if int(side.input__valid.value) and not int(side.input__ready.value):
            waits.append(1)
        await cycles(side)


@cocotb.test()
async def crossing(dut):
    random, full = rng("crossing"), 0
    sides = write, read = Side(dut, "write"), Side(dut, "read")
    for number in range(ROUNDS):
        periods = [random.randrange(2_000, 20_000) for _ in sides]
        if number % 3 == 0:
            periods[1] = periods[0] + random.randrange(-20, 20)  # the phase drifts through all values
        resets = dut.write_rst, dut.read_rst
        for reset in resets:
            reset.value = 1
        if number < 2:
            periods[1] = periods[0] - 40 * number
        clocks = [cocotb.start_soon(clock(side.clk, random, period))
                  for side, period in zip(sides, periods, strict=True)]
        stalls = random.choice([(0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (0.3, 0.3)])
        steady = number < 2  # clocks as fast as each other: what is always taken is never held up
        if steady:
            stalls = 0.0, 0.0
        dut.input__valid.value = dut.output__ready.value = 0
        for _ in range(6):
            await cycles(write)
            await cycles(read)
        for reset in resets:
            reset.value = 0
        await cycles(write, 12)
        await cycles(read, 12)
        driver = StreamDriver(write, "input", stall=stalls[0])
        monitor = StreamMonitor(read, "output", stall=stalls[1])
        items = [random.getrandbits(16) for _ in range(ITEMS)]
        driver.send(*items)
        waits = []
        watch = cocotb.start_soon(held_up(write, waits))
        received = await monitor.receive(len(items), 40 * ITEMS)
        assert received == items, f"round {number}, periods {periods} ps: {received} instead of {items}"
        full += steady * len(waits)
        watch.cancel()
        await cycles(read, 40)
        assert len(monitor.items) == len(items), f"round {number}: an item came twice"
        for task in (*clocks, driver.task, monitor.task):
            task.cancel()
    # Both clocks jitter, so the writing one may be ahead for a moment; with half of the places it waits all the time.
    assert full <= MOST_WAITS, f"full {full} times, though all is taken"
