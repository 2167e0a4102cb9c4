"""Logic cells of an iCE40 netlist: what its LUTs, flip-flops and carries take once they share
cells.
"""

from collections import Counter


def logic_cells(module):
    """Logic cells of a module mapped to iCE40 cells (int).

    A cell holds a LUT, a flip-flop fed by that LUT, and a carry whose operands are the LUT's inputs
    I1 and I2 and whose carry in is its I3 (Lattice, iCE40 UltraPlus Family Data Sheet). So a
    flip-flop counts if its data come from no LUT, or from one whose output goes elsewhere too, and
    a carry counts if no LUT fits it. Packing for placement can only add the cells that pass a carry
    out of or into its chain.

    Parameters
    ----------
    module : dict
        A module as yosys writes it with ``write_json``.
    """
    cells = module["cells"].values()
    readers, drivers, by_carry_in = Counter(), {}, {}
    for port in module["ports"].values():
        if port["direction"] == "output":
            readers.update(port["bits"])
    for cell in cells:
        for name, bits in cell["connections"].items():
            if cell["port_directions"][name] == "input":
                readers.update(bits)
            elif cell["type"] == "SB_LUT4":
                drivers.update(dict.fromkeys(bits, cell))
        if cell["type"] == "SB_LUT4":
            by_carry_in.setdefault(cell["connections"]["I3"][0], []).append(cell)

    def alone(cell):
        nets = {name: bits[0] for name, bits in cell["connections"].items()}
        if cell["type"].startswith("SB_DFF"):
            return nets["D"] not in drivers or readers[nets["D"]] > 1
        operands = {nets["I0"], nets["I1"]}
        return not any(
            {lut["connections"]["I1"][0], lut["connections"]["I2"][0]} == operands
            for lut in by_carry_in.get(nets["CI"], ())
        )

    return sum(
        cell["type"] == "SB_LUT4"
        or (cell["type"].startswith(("SB_DFF", "SB_CARRY")) and alone(cell))
        for cell in cells
    )
