"""Several engines (docs/scaling.md): predictions for memories of boards, and what two engines gain in the RTL."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from docs.figures import perf
from docs.figures.pages import table
from sterna.hw.engines.deal import Share
from sterna.hw.engines.rows import RowGather
from sterna.hw.engines.words import WordMerge
from sterna.hw.flow.synth import count_cells
from sterna.hw.presets import PRESETS
from sterna.host.plan.model import NAMES
from sterna.sim.golden.geometry import Geometry
from sterna.sim.golden.packed import random_model
from sterna.sim.perf.memory import Timing
from sterna.sim.perf.predict import predict

_GIB = 1 << 30
_WIDE = replace(PRESETS["lanes320"], tree_rows=0, memory_bytes=4 * _GIB, program_words=1024)
# Memory of a board: GB/s that are read, where they are, configuration, timing. The times of DRAM are those of an
# 8 Gb DDR4 (docs/results.md) in cycles; the rate of HBM2 is a measured one, refresh included. Turns of U rows, which
# lcm(R, V) is, have to deal 2,560 and 2,048 rows evenly, so R and V are powers of two where there are many engines.
BOARDS = {
    "kv260": ("16.0", "KV260: DDR4 over four AXI ports that are one stream, 64 bytes at 250 MHz",
              replace(_WIDE, name="kv260", clock_hz=250_000_000), Timing(50, 1950, 95)),
    "u250": ("76.8", "Alveo U250: four DIMMs of DDR4-2400, 64 bytes at 300 MHz each",
             replace(_WIDE, name="u250", engines=4, rows=8, columns=80, lanes=16, strip=320, activation_words=128,
                     vector_words=4096, row_words=64, clock_hz=300_000_000), Timing(60, 2340, 114)),
    "u280": ("425", "Alveo U280: 32 channels of HBM2 in pairs, 128 bytes at 225 MHz each",
             replace(_WIDE, name="u280", engines=16, rows=8, columns=160, lanes=32, strip=640, port_bytes=128,
                     activation_words=64, vector_words=2048, row_words=32, fifo_words=1024,
                     clock_hz=225_000_000), Timing(40, 0, 0, 236)),
}
BATCHES = {"kv260": (1,), "u250": (1, 4), "u280": (1, 4)}  # that are predicted
MODELS = {"1_3b": "1.3b", "2_7b": "2.7b"}
# What is run in the RTL: lanes40 with one engine and with two.
SHAPES = {"small": Geometry(400, 800, 1, 300), "large": Geometry(1024, 2816, 1, 2000)}
SEED = 5


def predicted(board, model, batch):
    """What a step finds of a published model on a board, greedy, in all of ``batch`` slots (dict)."""
    _, _, config, timing = BOARDS[board]
    found = predict(replace(config, batch=batch), NAMES[MODELS[model]], sampled=False, timing=timing)
    return {"cycles_per_token": found.cycles_per_run, "tokens_per_second": found.tokens_per_second,
            "words.share": found.words / found.cycles_per_run, "idle.share": found.stall_idle / found.cycles_per_run,
            "how": "predicted by the cycle model (sim/perf)"}


def cells():
    """Cells of what stands between engines and vector engine (dict): two of lanes40 on ECP5, u280 on UltraScale+."""
    out = {"how": "synthesised with yosys, unplaced"}
    two = replace(PRESETS["lanes40"], name="two", engines=2, tree_rows=0)
    for name, config, family in (("two", two, "ecp5"), ("u280", BOARDS["u280"][2], "xcup")):
        shape = {"engines": config.engines, "unit": config.unit}
        units = {"rows": RowGather(**shape, lanes=config.lanes),
                 "words": WordMerge(engines=config.engines, port_bytes=config.port_bytes),
                 "share": Share(**shape, bits=24)}
        for unit, component in units.items():
            found = count_cells(component, family, unit, name)
            out |= {f"{name}.{unit}.{kind}": getattr(found, kind) for kind in ("luts", "flip_flops", "dsp")}
    return out


def measured(shape, tokenizer_json):
    """Cycles of a token in the RTL with one engine and with two, and the cycle model's errors (dict)."""
    geometry, out = SHAPES[shape], {}
    packed = random_model(np.random.default_rng(SEED), geometry)
    with TemporaryDirectory() as folder:
        for engines in (1, 2):
            config = replace(PRESETS["lanes40"], name=f"engines{engines}", engines=engines, tree_rows=0)
            found = perf.compare(config, packed, Path(folder) / "image", tokenizer_json,
                                 perf.timing_of("lanes40"), ("greedy",))
            cycles, _, model = found["greedy"]
            out |= {f"cycles{engines}": cycles, f"error{engines}.change": model.cycles_per_run / cycles - 1}
    return out | {"gain": round(out["cycles1"] / out["cycles2"], 3), "how": "simulated cycles, refresh included"}


def steps(tokenizer_json):
    """{name: function} of the steps; ``tokenizer_json`` gives the text of a tokenizer."""
    out = {f"scaling.{board}.{model}.b{batch}": lambda b=board, m=model, n=batch: predicted(b, m, n)
           for board in BOARDS for model in MODELS for batch in BATCHES[board]}
    out |= {f"scaling.rtl.{shape}": lambda shape=shape: measured(shape, tokenizer_json()) for shape in SHAPES}
    return out | {"scaling.cells": cells}


def tables(results):
    """Markdown by name (dict of str), of what is there of the figures: ``results`` are values by step."""
    lines = []
    for board, (rate, where, config, _) in BOARDS.items():
        for batch in BATCHES[board]:
            found = [results.get(f"scaling.{board}.{model}.b{batch}") for model in MODELS]
            if not all(found):
                continue
            lines.append([where, rate, config.engines, f"{config.rows} x {config.columns}, {config.lanes}", batch,
                          *(f"{one['tokens_per_second']:,.0f}" for one in found),
                          *(f"{one['words.share']:.0%}" for one in found)])
    head = ["memory", "GB/s", "K", "R x C, V of an engine", "B", "1.3B, tokens/s", "2.7B, tokens/s",
            "port busy, 1.3B", "2.7B"]
    return {"table.scaling": table(head, lines)} if lines else {}
