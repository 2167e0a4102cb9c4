"""The server against its engine alone, with few clients and with many: what the step ``serving.load`` measures."""

import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import sterna
from sterna.sim.cpu.model import usable_threads

ROOT = Path(__file__).resolve().parents[3]
MODEL = ROOT / "models" / "stories37m" / "stories37m.sterna"
PROMPT, TOKENS = "Once upon a time, there was a little girl named Lily.", 128
CLIENTS, SECONDS, MOST_SECONDS = (1, 32, 256), 20, 120  # seconds for all but the most clients
SPREAD = 2000  # times that are kept of a distribution


def quantiles(values):
    """Sorted values (list of float), evenly chosen where there are many."""
    values = sorted(values)
    step = max(1, len(values) // SPREAD)
    return [round(value, 4) for value in values[::step]]


async def _alone(engine, count, seconds):
    """Tokens/s of an engine with ``count`` callers, who want one text after the other."""
    number, more = 0, True

    async def caller():
        nonlocal number
        while more:
            number += 1
            await engine.generate(PROMPT, max_tokens=TOKENS, temperature=1.0, seed=number, ignore_end=True)

    tasks = [asyncio.create_task(caller()) for _ in range(count)]
    await asyncio.sleep(min(5.0, seconds / 4))
    before, began = sum(device.tokens for device in engine.devices), time.monotonic()
    await asyncio.sleep(seconds)
    rate = (sum(device.tokens for device in engine.devices) - before) / (time.monotonic() - began)
    more = False
    await asyncio.gather(*tasks)
    return rate


def alone(count, seconds):
    with sterna.load(MODEL, "cpu", queue=512) as engine:
        return asyncio.run(_alone(engine, count, seconds))


def served(count, seconds):
    """What clients of ``sterna serve`` see (dict), with its memory."""
    server = subprocess.Popen([sys.executable, "-m", "sterna", "serve", "-m", str(MODEL), "--port", "0"], cwd=ROOT,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        port = server.stdout.readline().strip().rpartition(":")[2]
        body = {"model": MODEL.stem, "messages": [{"role": "user", "content": PROMPT}], "max_tokens": TOKENS,
                "temperature": 1.0, "ignore_eos": True, "stream": True}
        done = subprocess.run([sys.executable, "-m", "docs.figures.serving.clients", port, str(count), str(seconds)],
                              input=json.dumps(body), capture_output=True, text=True, check=True, cwd=ROOT)
        status = Path(f"/proc/{server.pid}/status").read_text()
        return json.loads(done.stdout) | {"memory_bytes": int(status.split("VmHWM:")[1].split()[0]) << 10}
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)


def busy():
    """Processes that wanted a processor in the last minute (float)."""
    return os.getloadavg()[0]


def measured():
    """What the step finds: for each number of clients the engine alone before and after, the server in between."""
    rows, loads = [], [busy()]
    for count in CLIENTS:
        seconds = MOST_SECONDS if count == max(CLIENTS) else SECONDS
        around = [alone(count, SECONDS)]
        seen = served(count, seconds)
        around.append(alone(count, SECONDS))
        rate = statistics.mean(around)
        first, total = seen.pop("first_s"), seen.pop("total_s")
        rows.append(seen | {"clients": count, "alone_tokens_per_second": rate, "alone": around,
                            "ratio": seen["tokens_per_second"] / rate, "errors": len(seen["errors"]),
                            "first": quantiles(first), "total": quantiles(total)})
        loads.append(busy())
        print(f"  {count} clients: {seen['tokens_per_second']:,.0f} tokens/s, alone {around}", flush=True)
    return {"rows": rows, "before": loads[0],
            "how": f"measured on {usable_threads()} cores that the server and its clients share; {MODEL.stem}, "
                   f"answers of {TOKENS} tokens, streamed; load of the machine before the run {loads[0]:.1f}"}
