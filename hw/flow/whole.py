"""Cells of a whole accelerator with its memory controller and serial line, unit by unit, from one
synthesis that keeps the hierarchy: a module that is there several times is synthesised once, which
is what makes it short.
"""

import json
import re
import tempfile
from collections import Counter
from pathlib import Path

from sterna.hw.flow.bitstream import without_collisions
from sterna.hw.flow.synth import (
    FAMILIES,
    TARGETS,
    XILINX,
    Cells,
    by_kind,
    failure,
    run_tool,
    yosys,
)
from sterna.hw.flow.units import SynthesisError

BAUD = 1_000_000
WHOLE, REST = "whole", "between"  # rows beside the units: all of it, and the wires between them
HIERARCHICAL = ("xc7", "xcup")
# What the parts have, by the names of `Cells`. XCK26: Kria K26 SOM Data Sheet (DS987), the SOM's
# programmable logic.
PARTS = {
    "xck26": {
        "luts": 117_120,
        "flip_flops": 234_240,
        "block_ram": 144,
        "ultra_ram": 64,
        "dsp": 1_248,
    },
}


def shared(text):
    """RTLIL text of Amaranth in which modules that differ in nothing but their names, those of what
    is inside them included, are one (str).
    """
    head, *modules = re.split(r"(?m)^(?=attribute \\generator)", text)
    by_name = {re.search(r"(?m)^module (\S+)", module)[1]: module for module in modules}
    while True:
        first, same = {}, {}
        for name, module in by_name.items():
            contents = _contents(module)
            if first.setdefault(contents, name) != name:
                same[name] = first[contents]
        if not same:
            return head + "".join(by_name.values())
        kept = {name: module for name, module in by_name.items() if name not in same}
        by_name = {name: _renamed(module, same) for name, module in kept.items()}


def _contents(module):
    """What tells modules apart (str): all but the name, and the numbers and order of the ports,
    which cells name.
    """
    body = re.sub(r"(?m)^module \S+", "module", module)
    body = re.sub(r"(?m)^(  wire .*(?:input|output|inout)) \d+ ", r"\1 ", body)
    wires = re.findall(r"(?m)^  wire .*\n", body)
    return "".join(sorted(wires)) + re.sub(r"(?m)^  wire .*\n", "", body)


def _renamed(module, names):
    """Text of a module in which cells of some types have others (str); ``names``: {old: new}."""
    return re.sub(r"(?m)^(  cell )(\S+)", lambda m: m[1] + names.get(m[2], m[2]), module)


def totals(modules):
    """Function that gives the Counter of the primitives in a module by its name, with all that is
    inside it; ``modules`` as in the JSON of yosys' `stat`.
    """
    known = {}

    def total(name):
        if name not in known:
            known[name] = Counter()
            for kind, number in modules[name]["num_cells_by_type"].items():
                inside = f"\\{kind}"
                more = total(inside) if inside in modules else {kind: 1}
                known[name].update({cell: number * count for cell, count in more.items()})
        return known[name]

    return total


def by_unit(config, family="xcup", step=lambda text: None):
    """Cells of the `Soc` of a configuration, by unit.

    Nothing is optimised across the border of a module, so the sum is an upper bound.

    Parameters
    ----------
    config : Config
    family : str
        One of HIERARCHICAL.
    step : callable(str)
        As of ``sterna.hw.flow.synth.count_cells``.

    Returns
    -------
    list of Cells
        The units within the accelerator and beside it, REST and, at the end, WHOLE.

    Raises
    ------
    SynthesisError
        For another family, a missing yosys or a failed synthesis.
    """
    if family not in HIERARCHICAL:
        raise SynthesisError(f"family {family!r}: by unit, use one of {', '.join(HIERARCHICAL)}")
    tool = yosys()
    from sterna.hw.flow import rtlil
    from sterna.hw.soc import Soc

    what = f"synthesising {config.name} for {family}"
    step(f"{what}: elaborating")
    text = rtlil.convert(Soc(config, BAUD), name="unit", platform=TARGETS[family])
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "unit.il").write_text(shared(without_collisions(text)))
        script = (
            f"read_rtlil {{root}}/unit.il; {XILINX.format(family=family)}; "
            "tee -q -o {root}/cells.json stat -json"
        )
        step(f"{what}: yosys")
        done = run_tool(tool, folder, ("-q", "-p", script))
        if done.returncode:
            raise SynthesisError(f"yosys could not synthesise {config.name}: {failure(done)}")
        modules = json.loads((Path(folder) / "cells.json").read_text())["modules"]
    return rows(modules, config.name, family)


def rows(modules, preset, family):
    """The Cells of `by_unit` from the modules of yosys' `stat` (list)."""
    total, kinds = totals(modules), FAMILIES[family][1]

    def cells(unit, counter):
        return Cells(unit, preset, family, **by_kind(counter, kinds))

    found, rest = {}, Counter()
    for outer in ("\\unit", "\\unit.accelerator"):
        for kind, number in modules[outer]["num_cells_by_type"].items():
            inside = f"\\{kind}"
            if inside == "\\unit.accelerator":
                continue
            if inside in modules:
                name = kind.rpartition(".")[2]
                found[name] = Counter({c: n * number for c, n in total(inside).items()})
            else:
                rest[kind] += number
    return [
        *(cells(unit, found[unit]) for unit in sorted(found)),
        cells(REST, rest),
        cells(WHOLE, total("\\unit")),
    ]


def used(cells, part):
    """{kind: (used, available)} of a whole on a part, with two half block RAMs in a whole one."""
    counts = cells.as_dict() | {
        "luts": cells.luts,
        "block_ram": cells.block_ram + cells.half_block_ram / 2,
    }
    return {kind: (counts[kind], available) for kind, available in PARTS[part].items()}
