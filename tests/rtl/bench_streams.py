"""Bench of the bench: a stream register that may break the rules, chosen by the environment variable RULE."""

import os

import cocotb
from bench import rng, start
from streams import StreamDriver, StreamMonitor


@cocotb.test(timeout_time=1, timeout_unit="ms")
async def passes_items_on(dut):
    random = rng("items")
    items = random.sample(range(256), 256)
    driver = StreamDriver(dut, "input", stall=float(os.environ["STALL"]))
    monitor = StreamMonitor(dut, "output", stall=float(os.environ["STALL"]))
    await start(dut)
    driver.send(*items)
    assert await monitor.receive(len(items)) == items
    await driver.drain(10)
