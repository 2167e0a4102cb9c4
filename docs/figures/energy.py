"""Energy of a token, projected: what the simulated board counts, times published energies per event
with their ranges.

Two runs of a board differ by some tokens, and so do their counts; the difference is that of the tokens alone.
"""

import re
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from docs.figures.pages import table
from sterna.host.runtime.open import open_simulation
from sterna.host.runtime.sampling import Demands, Sampling
from sterna.hw.boards import preset
from sterna.hw.flow.synth import synthesise
from sterna.hw.memory.chips import CHIPS
from sterna.sim.board.board import read_toggles

PROMPT, TOKENS = 1, (1, 5)  # length of the prompt; tokens of the two runs
PICO, NANO, MILLI = 1e-12, 1e-9, 1e-3
CLOCKS = re.compile(r"\b(clk|rst|memory_clk|memory_rst)$")
OTHERS = (  # published figures of others: name, model, kind, tokens/s, J per token, weights in 10^9
    ("MatMul-free paper, Stratix 10, 13 W", "1.3B", "projected there", 23.8, 13 / 23.8, 1.3),
    ("bitnet-kv260, KV260, 6.2 W", "BitNet 2B4T", "measured", 16.78, 0.381, 2.4),
    ("TerEffic, U280 with HBM, 46 W", "2.7B", "published", 727, 46 / 727, 2.7))


@dataclass(frozen=True)
class Range:
    """A figure as low, likely and high."""

    low: float
    likely: float
    high: float

    def __mul__(self, factor):
        return Range(*(value * factor for value in self))

    def __add__(self, other):
        return Range(*(a + b for a, b in zip(self, other, strict=True)))

    def __iter__(self):
        return iter((self.low, self.likely, self.high))

    def times(self, other):
        """The product of two figures that are off independently, at its worst."""
        return Range(*(a * b for a, b in zip(self, other, strict=True)))


ZERO = Range(0, 0, 0)
# docs/energy.md says where these come from. In J, W, V, A, s.
TOGGLE = Range(0.044, 0.20, 0.60) * PICO
CLOCK_NET = {"ice40": Range(50, 54, 110) * PICO, "ecp5": Range(54, 220, 900) * PICO}  # a cycle
CLOCK_CELL = Range(0.002, 0.014, 0.05) * PICO  # a cycle and flip-flop
RAM_ACCESS = Range(1, 5, 10) * PICO
RAM_BUSY = Range(0.1, 0.5, 1)  # accesses of a block RAM per cycle
STATIC = {"ice40": Range(0.10, 0.104, 0.25) * MILLI, "ecp5": Range(100, 200, 400) * MILLI}
PIN_TOGGLE = Range(0.5 * 10, 0.5 * 15, 0.5 * 30) * (3.3 ** 2 * PICO)
VDD = 3.3


@dataclass(frozen=True)
class Currents:
    """Supply currents of an SDR SDRAM in A, and the clock period in s at which the burst's is given."""

    one_bank: float  # IDD1
    active: float  # IDD3N
    burst: float  # IDD4
    refresh: float  # IDD5
    period: float

    def energies(self, chip):
        """J of an ACTIVATE with its PRECHARGE, of a word read or written and of a REFRESH; and W in between."""
        cycle, refresh = chip.t_rc * NANO, chip.t_rfc * NANO
        return (VDD * (self.one_bank - self.active) * cycle, VDD * (self.burst - self.active) * self.period,
                VDD * (self.refresh - self.active) * refresh, VDD * self.active)


SAMSUNG = Currents(0.090, 0.025, 0.130, 0.180, 7.5 * NANO)  # K4S561632E-75
INFINEON = Currents(0.210, 0.045, 0.210, 0.240, 8 * NANO)  # HYB39S256160T-8
TYPICAL = 0.5  # of the data sheet's maxima, at the low end


@dataclass(frozen=True)
class Case:
    """A board with a model: what is projected."""

    board: str
    family: str
    model: Path


CASES = {"ulx3s": ("ULX3S 85F, story model", "ulx3s-85f", "ecp5", "story/story.sterna"),
         "up5k": ("UP5K, tiny model", "up5k", "ice40", "tiny/tiny.sterna")}
ENDS = ("low", "likely", "high")


def cases(models):
    """{name: Case}; ``models`` is the folder of the shipped ones."""
    return {name: Case(board, family, models / path) for name, (_, board, family, path) in CASES.items()}


def unit_of(path):
    """The unit that a signal of the simulated board belongs to: a part of the accelerator, or what is beside it."""
    parts = path.split(".")
    if "accelerator" in parts:
        at = parts.index("accelerator")
        return parts[at + 1] if len(parts) > at + 2 else "accelerator"
    if "soc" in parts:
        at = parts.index("soc")
        return "controller" if len(parts) > at + 2 and parts[at + 1] == "memory" else "board"
    return "board"


def run(config, model, tokens, **options):
    """(statistics, counts of the board) of one run from the start, on the board of a Config."""
    with open_simulation(config, model, print, Demands(), preload=config.memory == "external",
                         timing=options) as runtime:
        for _ in runtime.generate([1] * PROMPT, tokens, Sampling(0.8, 1)):
            pass
        board, statistics = runtime.board, runtime.statistics
    return statistics, board.counts


def events(case, model):
    """Per token: cycles, bits that changed by unit, and counts of the chip (float, dict, dict)."""
    config, found = preset(case.board), []
    for tokens in TOKENS:
        with tempfile.TemporaryDirectory() as folder:
            path, toggles = Path(folder) / "toggles", Counter()
            statistics, counts = run(config, model, tokens, toggles=path)
            for name, count in read_toggles(path).items():
                if not CLOCKS.search(name):
                    toggles[unit_of(name)] += count
            found.append((toggles, counts))
    if not config.counters:  # with them the same design has the same cycles
        statistics, _ = run(replace(config, counters=True), model, TOKENS[1])
    (toggles, counts), (more, most) = found
    n = TOKENS[1] - TOKENS[0]
    return (statistics.usage.cycles_per_token, {unit: (more[unit] - toggles[unit]) / n for unit in more},
            {name: (most[name] - counts[name]) / n for name in most})


def dram(config, counts, seconds):
    """{part: Range in J} of the chip of a Config for its counts in a time."""
    if not config.sdram:
        return {}
    chip = CHIPS[config.sdram]
    words = counts["read"] + counts["write"]

    def parts(currents):
        activate, word, refresh, between = currents.energies(chip)
        return words * word, counts["activate"] * activate + counts["refresh"] * refresh, between * seconds
    likely, high = parts(SAMSUNG), parts(INFINEON)
    names = ("SDRAM, words", "SDRAM, ACTIVATE and REFRESH", "SDRAM, in between")
    found = {name: Range(TYPICAL * a, a, b) for name, a, b in zip(names, likely, high, strict=True)}
    return found | {"pins of the SDRAM": PIN_TOGGLE * counts["pins"]}


def parts(case, cells, cycles, toggles, counts):
    """{part: Range in J per token}."""
    config = preset(case.board)
    seconds = cycles / config.clock_hz
    rams = cells["block_ram"] + 4 * cells["spram"]  # one of the SPRAMs is read at a time, of four times the width
    return {"FPGA, logic and wires": TOGGLE * sum(toggles.values()),
            "FPGA, clock": (CLOCK_NET[case.family] + CLOCK_CELL * cells["flip_flops"]) * cycles,
            "FPGA, block RAM": RAM_ACCESS.times(RAM_BUSY) * (rams * cycles),
            "FPGA, static": STATIC[case.family] * seconds, **dram(config, counts, seconds)}


def project(case):
    """What the step finds: figures by name, and how."""
    from sterna.host.model.model import Model
    model, config = Model(case.model), preset(case.board)
    cells = synthesise("accelerator", config, case.family).as_dict()
    cycles, toggles, counts = events(case, model)
    found = parts(case, cells, cycles, toggles, counts)
    total = sum(found.values(), ZERO)
    weights = model.geometry.read_weights
    seconds = cycles / config.clock_hz
    out = {"weights": weights, "cycles": cycles, "tokens_per_second": 1 / seconds, "clock.mhz": config.clock_hz / 1e6,
           "flip_flops": cells["flip_flops"], "block_ram": cells["block_ram"]}
    for name, value in (found | {"total": total, "watts": total * (1 / seconds)}).items():
        out |= {f"{name}.{end}": part for end, part in zip(ENDS, value, strict=True)}
    out |= {f"unit.{name}": value / cycles for name, value in toggles.items()}
    out |= {f"count.{name}": value for name, value in counts.items()}
    return out | {"how": f"projected: events counted in {TOKENS[1] - TOKENS[0]} tokens of the simulated board times "
                         "published energies (docs/energy.md)"}


def digits(value):
    """A number with two significant digits (str)."""
    if not value:
        return "0"
    return f"{float(f'{value:.2g}'):,.10g}"


def tables(results):
    """Markdown by name (dict of str), of what is there of the figures: ``results`` are values by step."""
    found = {name: results[f"energy.{name}"] for name in CASES if f"energy.{name}" in results}
    if len(found) < len(CASES):
        return {}
    names = [key.removesuffix(".likely") for key in found["ulx3s"]
             if key.endswith(".likely") and key != "watts.likely"]

    def cell(v, name, unit):
        if f"{name}.likely" not in v:
            return ""
        low, likely, high = (digits(v[f"{name}.{end}"] / unit) for end in ENDS)
        return f"{likely} ({low} to {high})"

    out = {"table.energy": table(["uJ per token: likely (low to high)", *(text for text, *_ in CASES.values())], [
        *([name, *(cell(v, name, 1e-6) for v in found.values())] for name in names),
        ["mean power, mW", *(cell(v, "watts", 1e-3) for v in found.values())]])}
    units = dict.fromkeys(key[5:] for v in found.values() for key in v if key.startswith("unit."))
    order = sorted(units, key=lambda unit: -found["ulx3s"].get(f"unit.{unit}", 0))[:6]
    out["table.toggles"] = table(["bits that change per cycle", *order, "all"], [
        [CASES[name][0], *(digits(v.get(f"unit.{unit}", 0)) for unit in order),
         digits(sum(value for key, value in v.items() if key.startswith("unit.")))] for name, v in found.items()])
    ours = [[text, f"{found[name]['weights'] / 1e6:.1f} M", "projected", f"{found[name]['tokens_per_second']:,.0f}",
             cell(found[name], "total", 1), cell(found[name], "total", found[name]["weights"] * NANO)]
            for name, (text, *_) in CASES.items()]
    others = [[name, model, kind, f"{speed:,g}", digits(joule), digits(joule / weights)]
              for name, model, kind, speed, joule, weights in OTHERS]
    out["table.energy.others"] = table(
        ["design", "weights", "kind", "tokens/s", "J per token", "nJ per token and weight"], ours + others)
    for name, v in found.items():
        out |= {f"energy.{name}.{key}.text": digits(v[f"count.{key}"])
                for key in ("read", "activate", "refresh", "pins") if f"count.{key}" in v}
        out[f"energy.{name}.per_cycle.text"] = digits(1e12 * sum(
            v[f"{key[:-7]}.likely"] for key in v if key.startswith("FPGA") and key.endswith(".likely")) / v["cycles"])
    return out
