"""The server against its engine alone, with few clients and with many: what the step ``serving.load`` measures."""

import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
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


def cpu_seconds(process="self"):
    """Seconds that the processors have spent on a process (float)."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


async def _alone(engine, count, seconds):
    """(tokens/s, tokens per second of the processors) of an engine with ``count`` callers, who want one text after
    the other.
    """
    number, more = 0, True

    async def caller():
        nonlocal number
        while more:
            number += 1
            await engine.generate(PROMPT, max_tokens=TOKENS, temperature=1.0, seed=number, ignore_end=True)

    tasks = [asyncio.create_task(caller()) for _ in range(count)]
    await asyncio.sleep(min(5.0, seconds / 4))
    before, began, spent = sum(device.tokens for device in engine.devices), time.monotonic(), cpu_seconds()
    await asyncio.sleep(seconds)
    tokens = sum(device.tokens for device in engine.devices) - before
    rates = tokens / (time.monotonic() - began), tokens / (cpu_seconds() - spent)
    more = False
    await asyncio.gather(*tasks)
    return rates


def alone(count, seconds):
    with sterna.load(MODEL, "cpu", queue=512) as engine:
        return asyncio.run(_alone(engine, count, seconds))


def served(count, seconds):
    """What clients of ``sterna serve`` see (dict), with its memory."""
    server = subprocess.Popen([sys.executable, "-m", "sterna", "serve", "-m", str(MODEL), "--port", "0"], cwd=ROOT,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        port = server.stdout.readline().strip().rpartition(":")[2]
        at_first = cpu_seconds(server.pid)
        body = {"model": MODEL.stem, "messages": [{"role": "user", "content": PROMPT}], "max_tokens": TOKENS,
                "temperature": 1.0, "ignore_eos": True, "stream": True}
        done = subprocess.run([sys.executable, "-m", "docs.figures.serving.clients", port, str(count), str(seconds)],
                              input=json.dumps(body), capture_output=True, text=True, check=True, cwd=ROOT)
        status = Path(f"/proc/{server.pid}/status").read_text()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as answer:
            made = sum(device["tokens"] for device in json.load(answer)["devices"])
        return json.loads(done.stdout) | {"per_cpu": made / (cpu_seconds(server.pid) - at_first),
                                          "memory_bytes": int(status.split("VmHWM:")[1].split()[0]) << 10}
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
        beside = max(SECONDS, seconds // 3)
        around = [alone(count, beside)]
        seen = served(count, seconds)
        around.append(alone(count, beside))
        rate, per_cpu = (statistics.mean(values) for values in zip(*around, strict=True))
        first, total = seen.pop("first_s"), seen.pop("total_s")
        rows.append(seen | {"clients": count, "alone_tokens_per_second": rate, "alone": around,
                            "alone_per_cpu": per_cpu,
                            "ratio": seen["tokens_per_second"] / rate, "errors": len(seen["errors"]),
                            "first": quantiles(first), "total": quantiles(total)})
        loads.append(busy())
        print(f"  {count} clients: {seen['tokens_per_second']:,.0f} tokens/s, {seen['per_cpu']:,.0f} per CPU second, "
              f"alone {around}", flush=True)
    return {"rows": rows, "loads": loads,
            "how": f"measured on {usable_threads()} cores that the server and its clients share; {MODEL.stem}, one "
                   f"prompt, answers of {TOKENS} tokens, streamed; load averages of the machine before the runs and "
                   f"behind each {', '.join(f'{load:.1f}' for load in loads)}, where 2 to 3 are the run's own"}
