"""Figures of the boards: place and route over several seeds, simulated speeds, and their tables and pictures."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from statistics import median

from docs.figures.netlists import check, family_of
from docs.figures.pages import table
from sterna.host.model.model import Model
from sterna.host.runtime.open import Demands, open_runtime, open_simulation
from sterna.host.runtime.sampling import Sampling
from sterna.host.runtime.statistics import useful_bytes
from sterna.hw.boards import BOARDS
from sterna.hw.config import delivered_bytes
from sterna.hw.flow.bitstream import Build, versions
from sterna.hw.flow.synth import synthesise
from sterna.hw.flow.units import units_of
from sterna.sim.cpu.model import usable_threads

SEEDS = range(1, 6)
# One more address bit changes little, and the 12F has the die of the 25F, which gives the same cells and clocks.
PLACED = [name for name, board in BOARDS.items() if not name.endswith(("-64m", "-12f"))
          and (board.config.sdram or board.config.ddr3 or board.ddr3 or board.config.memory == "onchip")]
TOKENS, PROMPT = 8, "Once upon a time"
LONG_CYCLES, LONG_TOKENS = 100_000_000, 16  # at least, in steps of
# Models by board; the other boards with an ECP5 have the same configuration as the first one.
MODELS = {"ulx3s-85f": ("story", "stories37m"), "icebreaker": ("tiny",)}
LONG = "ulx3s-85f", "stories37m"
WHOLE, INSIDE = "accelerator", {"decoder", "tree", "activations", "rows", "lane", "multiplier", "adder", "tables",
                                "toplist", "random"}
KINDS = {"luts": "LUTs", "logic_cells": "logic cells", "flip_flops": "flip-flops", "block_ram": "block RAM",
         "dsp": "DSP", "spram": "SPRAM"}
COLOURS = ("#2a6f97", "#89c2d9", "#014f86", "#f77f00", "#fcbf49", "#d62828", "#6a994e", "#a7c957", "#bc4749",
           "#9d4edd", "#c77dff", "#adb5bd", "#495057", "#2b9348", "#ffafcc", "#7f5539",
           "#00b4d8", "#e5989b", "#1b4332", "#ddb892")


def routes(name):
    """Cells and clocks of a board over all seeds; the bitstream of the fastest one stays."""
    build = Build(BOARDS[name], tell=print)
    out = {"seconds.synthesis": build.synthesise()}
    with ThreadPoolExecutor(usable_threads()) as pool:
        found = list(pool.map(build.route, SEEDS))
    best = max(found, key=lambda run: min(clock.fmax_hz / clock.target_hz for clock in run.clocks.values()))
    build.keep(best)
    for kind in found[0].used:
        out |= {f"{kind}.used": max(run.used[kind] for run in found), f"{kind}.available": found[0].available[kind]}
    for domain, clock in found[0].clocks.items():
        speeds = [run.clocks[domain].fmax_hz / 1e6 for run in found]
        out |= {f"{domain}.target.mhz": clock.target_hz / 1e6, f"{domain}.median.mhz": median(speeds),
                f"{domain}.least.mhz": min(speeds), f"{domain}.all.mhz": speeds}
    tools = ", ".join(f"{tool} {number}" for tool, number in versions().items())
    return out | {"seconds.route": median(run.seconds for run in found), "met": sum(run.met for run in found),
                  "seed": best.seed,
                  "how": f"placed and routed: {tools}; seeds {SEEDS[0]} to {SEEDS[-1]}; the clocks asked for are "
                         "those that the bitstream has; clocks in nextpnr's model, cells of the largest run"}


def speed(name, image):
    """Cycles of sampled tokens on the simulated board, with its controller and the model of its memory."""
    model, config = Model(image), replace(BOARDS[name].config, counters=True)  # those that a small board lacks
    with open_simulation(config, model, print, Demands(), preload=config.memory == "external") as runtime:
        for _ in runtime.generate(model.vocabulary.encode(PROMPT), TOKENS, Sampling(0.8, 1)):
            pass
        statistics = runtime.statistics
    useful, cycles = useful_bytes(model.geometry, config.weight_code), statistics.cycles_per_token
    memory = config.sdram or "the SPRAM on chip"
    weights = model.geometry.read_weights
    return {"cycles_per_token": cycles, "share": useful / delivered_bytes(config) / cycles,
            "share.deliverable": statistics.share, "useful.bytes": useful, "weights": weights,
            "tokens_per_second": config.clock_hz / cycles,
            "roofline": delivered_bytes(config) * config.clock_hz / useful,
            "how": f"cycles simulated over {TOKENS} tokens behind {PROMPT!r}, temperature 0.8, seed 1, with the "
                   f"controller and a model of {memory}; tokens/s projected"}


def units(name):
    """LUTs (iCE40: logic cells) of the units of a board's accelerator, each synthesised alone."""
    config = BOARDS[name].config
    family = family_of(config)
    out = {}
    for unit in units_of(config):
        if unit != WHOLE and unit not in INSIDE:
            cells = synthesise(unit, config, family)
            out[unit] = cells.luts if family == "ecp5" else cells.logic_cells
    return out | {"how": "synthesised: each unit alone, before place and route; controller and crossings: sdram"}


def long_run(name, image):
    """At least 100 million cycles of generation: every time of the memory's data sheet is kept, or the board stops;
    and the tokens are the golden model's.
    """
    model = Model(image)
    prompt, made, cycles = model.vocabulary.encode(PROMPT), [], 0
    with open_runtime(f"sim:{name}", model, tell=print, preload=True) as runtime:
        while cycles < LONG_CYCLES:
            made += runtime.generate([] if made else prompt, LONG_TOKENS, Sampling(0.8, 1))
            cycles = runtime.statistics.counters["cycles"]
    with open_runtime("golden", model, tell=print) as golden:
        equal = made == list(golden.generate(prompt, len(made), Sampling(0.8, 1)))
    if not equal:
        raise RuntimeError(f"{name}: the tokens differ from the golden model's")
    return {"cycles": cycles, "tokens": len(made),
            "how": f"simulated: {len(made)} tokens of {image.stem}, equal to the golden model's, with no violation "
                   f"of a time of the data sheet of {BOARDS[name].config.sdram}"}


def netlist(name, image):
    """Tokens of the netlist after synthesis against the golden model's; an error if one differs."""
    found = check(name, image)
    return found.as_dict() | {"how": "simulated: the gateware after synthesis, as cells of the FPGA with models of "
                                     "their behaviour; greedy and sampled tokens equal to the golden model's"}


def steps(models):
    """{name of a figure: (function, inputs)}; ``models`` gives the image of a name."""
    out = {f"boards.place.{name}": (lambda name=name: routes(name), ()) for name in PLACED}
    for name, images in MODELS.items():
        out[f"boards.units.{name}"] = (lambda name=name: units(name), ())
        for image in images:
            out[f"boards.speed.{name}.{image}"] = (lambda name=name, image=image: speed(name, models(image)),
                                                   (models(image),))
        out[f"boards.netlist.{name}"] = (lambda name=name, image=images[0]: netlist(name, models(image)),
                                         (models(images[0]),))
    name, image = LONG
    out[f"boards.long.{name}"] = (lambda: long_run(name, models(image)), (models(image),))
    return out


def _placed(results):
    return {name: results[f"boards.place.{name}"] for name in PLACED if f"boards.place.{name}" in results}


def tables(results):
    """Markdown by name (dict of str) of what is there of the figures: ``results`` are values by step."""
    out, placed = {}, _placed(results)
    if placed:
        head = ["board", *KINDS.values(), "clock", "asked, MHz", "median", "least", "seeds met", "seconds"]
        rows = []
        for name, v in placed.items():
            cells = [f"{v[f'{kind}.used']:,} ({v[f'{kind}.used'] / v[f'{kind}.available']:.0%})"
                     if f"{kind}.used" in v else "" for kind in KINDS]
            for number, domain in enumerate(d for d in ("sync", "memory") if f"{d}.median.mhz" in v):
                clocks = [f"{v[f'{domain}.{what}.mhz']:.1f}" for what in ("target", "median", "least")]
                rows.append([*(["" for _ in (name, *cells)] if number else [name, *cells]), domain, *clocks,
                             *(["", ""] if number else [f"{v['met']} of {len(v['sync.all.mhz'])}",
                                                        f"{v['seconds.synthesis']:.0f} + {v['seconds.route']:.0f}"])])
        out["table.boards.place"] = table(head, rows)
    rows = []
    for name, images in MODELS.items():
        for image in images:
            v = results.get(f"boards.speed.{name}.{image}")
            if v:
                scaled = f"{v['tokens_per_second'] * _scale(placed[name]):,.1f}" if name in placed else ""
                rows.append([name, image, f"{v['weights'] / 1e6:.2f} M", f"{v['cycles_per_token']:,.0f}",
                             f"{v['share']:.1%}", f"{v['share.deliverable']:.1%}" if v["share.deliverable"] else "",
                             f"{v['tokens_per_second']:,.1f}", scaled, f"{v['roofline']:,.1f}"])
    if rows:
        out["table.boards.speed"] = table(
            ["board", "model", "weights", "cycles per token (simulated)", "share of the memory's peak",
             "of what it gives beside refresh", "tokens/s at the built clock", "at the median Fmax",
             "roofline at the built clock"], rows)
    checked = [v for key, v in results.items() if key.startswith("boards.netlist.")]
    if checked:
        out["table.boards.netlist"] = table(
            ["board", "model", "tokens compared", "cycles", "seconds: synthesis and compilation, run"],
            [[v["board"], v["model"], v["tokens"], f"{v['cycles']:,}", f"{v['build_s']:.0f} + {v['run_s']:.0f}"]
             for v in checked])
    for key, v in results.items():
        if key.startswith("boards.long."):
            out["table.boards.long"] = (f"{v['cycles']:,} simulated cycles of generation on "
                                        f"{key.rpartition('.')[2]}: {v['tokens']} tokens, "
                                        "no violation of the memory's data sheet.")
    return out


def _scale(v):
    """By how much all clocks of a board could be faster together, at the median of each."""
    return min(v[f"{domain}.median.mhz"] / v[f"{domain}.target.mhz"] for domain in ("sync", "memory")
               if f"{domain}.median.mhz" in v)


PICTURES = ("picture.boards.clocks", "picture.boards.units")


def draw(results, folder):
    """Write boards-clocks.svg (every seed's clock) and boards-units.svg (cells by unit), as far as there are figures;
    returns what shows them, as markdown by name (dict of str).
    """
    from matplotlib.figure import Figure

    from docs.figures.causes import save

    out = {}
    if placed := _placed(results):
        out["picture.boards.clocks"] = "![The clocks of every seed, by board](boards-clocks.svg)"
        figure = Figure(figsize=(9, 0.6 * len(placed) + 1.4), layout="constrained")
        axes = figure.add_subplot()
        for domain, colour, marker in (("sync", COLOURS[0], "o"), ("memory", COLOURS[3], "s")):
            points = [(mhz, k) for k, v in enumerate(placed.values()) for mhz in v.get(f"{domain}.all.mhz", ())]
            targets = [(v[f"{domain}.target.mhz"], k) for k, v in enumerate(placed.values())
                       if f"{domain}.target.mhz" in v]
            axes.scatter(*zip(*points, strict=True), color=colour, marker=marker, alpha=0.7,
                         label=f"{domain}: a seed")
            axes.scatter(*zip(*targets, strict=True), color=colour, marker="|", s=400, label=f"{domain}: asked for")
        axes.set_yticks(range(len(placed)), placed)
        axes.set_ylim(len(placed) - 0.4, -0.6)
        axes.set_xlim(left=0)
        axes.set_xlabel("MHz after place and route (nextpnr's model)")
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside upper center", ncols=4, frameon=False)
        save(figure, folder / "boards-clocks.svg")
    found = {name: dict(results[f"boards.units.{name}"]) for name in MODELS if f"boards.units.{name}" in results}
    if found:
        out["picture.boards.units"] = "![Cells of the units, by board](boards-units.svg)"
        figure = Figure(figsize=(9, 1.1 * len(found) + 2), layout="constrained")
        axes = figure.add_subplot()
        names = dict.fromkeys(unit for units in found.values() for unit in units if unit != "how")
        names = sorted(names, key=lambda unit: -sum(units.get(unit, 0) for units in found.values()))
        left = [0] * len(found)
        for number, unit in enumerate(names):
            widths = [units.get(unit, 0) for units in found.values()]
            axes.barh(range(len(found)), widths, left=left, label=unit, color=COLOURS[number % len(COLOURS)],
                      edgecolor="white")
            left = [a + b for a, b in zip(left, widths, strict=True)]
        axes.set_yticks(range(len(found)), found)
        axes.invert_yaxis()
        axes.set_xlabel("LUTs (iCE40: logic cells) of each unit after synthesis")
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside upper center", ncols=6, frameon=False)
        save(figure, folder / "boards-units.svg")
    return out
