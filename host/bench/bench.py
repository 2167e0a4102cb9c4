"""Measurements of ``sterna bench``: repetitions of one test on a loaded runtime, and the row that they make.

A test reads ``n_prompt`` tokens (pp) or makes ``n_gen`` tokens (tg), each time from an empty state; tg also in
several sequences at once. Names of fields that llama-bench has too mean the same here; ``pl`` is that of
llama-batched-bench.
"""

import math
import statistics
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np

from sterna.host.runtime.session import Sequence
from sterna.host.runtime.statistics import STALLS
from sterna.hw.presets import PRESETS
from sterna.sim.board.dram import SETTINGS
from sterna.sim.cpu.stream import best_rate

WARM_UP_TOKENS, STREAM_SECONDS = 2, 0.4
MOST_STREAM_BYTES = 1 << 29  # so that a large model needs little more memory than its own
KINDS = {  # what computes: what the wall clock is of, what the cycles are, what the speed at the clock is
    "cpu": ("this machine's processor", None, None),
    "golden": ("the golden model on this machine", None, None),
    "simulated": ("the simulation on this machine, not the hardware", "simulated", "projected"),
    "hardware": ("the device with its link", "counted", "device time"),
}


@dataclass(frozen=True)
class Workload:
    """A prompt of ``n_prompt`` tokens that is only read, or ``n_gen`` tokens to make; the other one is 0.

    ``parallel`` sequences are made side by side.
    """

    n_prompt: int
    n_gen: int
    parallel: int = 1

    @property
    def name(self):
        """As in llama-bench, pp32, tg32, and with B sequences as in llama-batched-bench: tg32 B4."""
        parallel = f" B{self.parallel}" if self.parallel > 1 else ""
        return f"pp{self.n_prompt}" if self.n_prompt else f"tg{self.n_gen}{parallel}"

    @property
    def tokens(self):
        """Tokens of one repetition, of all sequences."""
        return self.n_prompt or self.n_gen * self.parallel


@dataclass(frozen=True)
class Sample:
    """One repetition: its wall time, and the Usage of its tokens."""

    tokens: int
    seconds: float
    usage: object

    @property
    def rate(self):
        """Tokens per second of wall time."""
        return self.tokens / self.seconds if self.seconds > 0 else math.nan


def prompt_of(model, count, seed):
    """``count`` random token ids (list of int); the same for the same vocabulary, count and seed."""
    return np.random.default_rng(seed).integers(0, model.geometry.vocab_size, count).tolist()


def repeat(runtime, test, sampling, seed, progress=lambda done: None):
    """One repetition (Sample) on a runtime, whose text is forgotten.

    The last token of a text is not read before its successor is made, so a prompt has one token more than is read.
    """
    runtime.restart()
    if test.n_prompt:
        ids = prompt_of(runtime.model, test.n_prompt + 1, seed)
        for _ in runtime.generate(ids, 0, sampling, progress=lambda done, total: progress(done)):
            pass
        found = runtime.statistics
        return Sample(found.prompt_tokens, found.prompt_seconds, found.prompt_usage)
    if test.parallel > 1:
        sequences = [Sequence([runtime.model.end], test.n_gen, sampling) for _ in range(test.parallel)]
        made = (token for _, token in runtime.generate_all(sequences) if token is not None)
    else:
        made = runtime.generate([runtime.model.end], test.n_gen, sampling)
    for done, _ in enumerate(made, 1):
        progress(done)
    found = runtime.statistics
    return Sample(found.tokens, found.seconds, found.usage)


def warm_up(runtime, test, sampling, seed):
    """A short run of the test's kind, measured by nobody."""
    short = replace(test, n_prompt=min(test.n_prompt, WARM_UP_TOKENS), n_gen=min(test.n_gen, WARM_UP_TOKENS))
    repeat(runtime, short, sampling, seed)


def _spread(values):
    """(mean, sample standard deviation) without None; None where there are not enough values."""
    values = [v for v in values if v is not None]
    return (statistics.fmean(values) if values else None), (statistics.stdev(values) if len(values) > 1 else None)


def _build_of(config):
    """(name of the preset or None, build register as hex) of a DeviceInfo; (None, None) without one."""
    if config is None:
        return None, None
    names = {int(c.digest[:8], 16): c.name for c in PRESETS.values()}
    return names.get(config.build), f"{config.build:08x}"


def used_bytes(geometry, weight_bytes, head=True):
    """Bytes (float) of the weights that a token uses on a CPU; one inside a prompt needs no head.

    Parameters
    ----------
    geometry : ModelGeometry
    weight_bytes : int
        What one reading of all weights takes; of trees, of the rows that a token visits.
    head : bool
    """
    return weight_bytes * (1 - (not head) * geometry.vocab_size * geometry.hidden_size / geometry.read_weights)


def stream_of(runtime):
    """What this machine reads with the threads of a runtime, from as much memory as its weights take or from
    MOST_STREAM_BYTES: the fields of a row about it (dict), None where the weights are not in this machine's memory.
    """
    size_bytes = min(runtime.statistics.weight_bytes, MOST_STREAM_BYTES) or None
    rate = best_rate(size_bytes, runtime.threads, STREAM_SECONDS) if size_bytes else None
    return {"stream_bytes": size_bytes, "stream_bytes_per_second": rate}


def setting(runtime, device, timing):
    """The fields of a row that one runtime's tests have in common (dict).

    Parameters
    ----------
    runtime : Runtime
    device : str
        As --device names it.
    timing : dict
        The memory timing of a simulation; empty for anything else.
    """
    model, config = runtime.model, runtime.statistics.config
    kind = "simulated" if runtime.statistics.simulated else "hardware" if config else \
        "cpu" if runtime.statistics.weight_bytes else "golden"
    preset, build = _build_of(config)
    code = config.weight_code if config else model.image.tiling["weight_code"] if model.image else None
    size_bytes = runtime.statistics.weight_bytes
    used = {name: round(used_bytes(model.geometry, size_bytes, head)) if size_bytes else None
            for name, head in (("token_bytes", True), ("prompt_token_bytes", False))}
    params = sum(math.prod(shape) for shape in model.geometry.shapes().values())
    return {"model_filename": str(model.path), "model_type": model.name, "model_size": runtime.model_bytes,
            "model_n_params": params, "weight_code": code, "device": device, "kind": kind, "preset": preset,
            "build": build, "clock_hz": config.clock_hz if config else None,
            "latency_cycles": timing.get("latency_cycles"),
            "refresh_interval_cycles": timing.get("refresh_interval_cycles"),
            "refresh_cycles": timing.get("refresh_cycles"),
            "dram": next((name for name, dram in SETTINGS.items() if dram == timing.get("dram")), None),
            "threads": runtime.threads, **used, **stream_of(runtime)}


def row(common, test, samples, sampling, seed, wanted):
    """The result of a test (dict): ``common`` of ``setting``, and the figures of its ``samples``.

    Times are in ns, sizes in bytes, rates in tokens/s. ``wanted`` is the number of repetitions that were asked for.
    Figures that a device does not give, and deviations of a single repetition, are None.
    """
    wall_of, cycles_are, clock_is = KINDS[common["kind"]]
    rates, times = [s.rate for s in samples], [round(s.seconds * 1e9) for s in samples]
    (avg_ts, stddev_ts), (avg_ns, stddev_ns) = _spread(rates), _spread(times)
    cycles, cycles_deviation = _spread(s.usage.cycles_per_token for s in samples)
    stalls = [s.usage.stalls() for s in samples]
    used = common["prompt_token_bytes" if test.n_prompt else "token_bytes"]
    effective, stream = avg_ts * used if used else None, common["stream_bytes_per_second"]
    out = common | {
        "test": test.name, "n_prompt": test.n_prompt, "n_gen": test.n_gen, "pl": test.parallel,
        "temperature": sampling.temperature, "seed": seed, "repetitions": len(samples), "repetitions_wanted": wanted,
        "test_time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "avg_ns": round(avg_ns), "stddev_ns": None if stddev_ns is None else round(stddev_ns),
        "avg_ts": avg_ts, "stddev_ts": stddev_ts, "ts_is": f"wall clock of {wall_of}",
        "cycles_per_token": cycles, "stddev_cycles_per_token": cycles_deviation,
        "cycles_are": cycles_are if cycles else None,
        "tokens_per_run": _spread(s.usage.tokens_per_run for s in samples)[0],
        "clock_ts": common["clock_hz"] / cycles if cycles else None, "clock_ts_is": clock_is if cycles else None,
        "memory_share": _spread(s.usage.share for s in samples)[0],
        "effective_bytes_per_second": effective, "stream_share": effective / stream if effective and stream else None}
    out |= {f"stall_{name}": _spread(s.get(name) for s in stalls)[0] for name in STALLS.values()}
    return out | {"samples_ns": times, "samples_ts": rates}
