"""Area budgets: cells after synthesis that a change must not exceed unnoticed."""

import pytest
from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from sterna.hw import synth
from sterna.hw.accelerator import Accelerator
from sterna.hw.array.tree import RowAccumulator
from sterna.hw.config import preset

pytestmark = pytest.mark.synth

# LUTs per trit lane of a row of 20 columns, its accumulator included, by family and form.
LUTS_PER_TRIT = {("ecp5", "portable"): 20, ("ecp5", "ecp5"): 13.5, ("xcup", "xcup"): 9}
# Per trit lane of the array of lanes10 for a further slot, row queue included: less than a row of its own, since the
# XORs of signs and the registers of trits are there already.
SLOT_PER_TRIT = {"luts": 12.2, "flip_flops": 22.5}
# What the accelerator may take of an UP5K, which has 5280 logic cells, 30 block RAMs, 8 DSP blocks and 4 SPRAMs.
UP5K = {"logic_cells": 4700, "block_ram": 30, "dsp": 8, "spram": 4}


class OnlyLink(wiring.Component):
    """The accelerator behind its byte streams: what a board without trace and idle pins builds."""

    rx: In(stream.Signature(8))
    tx: Out(stream.Signature(8))

    def elaborate(self, platform):
        m = Module()
        m.submodules.accelerator = accelerator = Accelerator(preset("up5k"))
        connect(m, flipped(self.rx), accelerator.rx)
        connect(m, accelerator.tx, flipped(self.tx))
        return m


@pytest.mark.parametrize("family, form", LUTS_PER_TRIT)
def test_luts_of_a_trit_lane(family, form):
    columns, limit = 20, LUTS_PER_TRIT[family, form]
    luts = synth.count_cells(RowAccumulator(columns=columns, form=form), family).luts
    assert 0 < luts <= limit * columns, f"{luts / columns:.1f} LUTs per trit lane, at most {limit} are allowed"


def test_a_family_gets_its_form():
    chosen, portable = (synth.count_cells(RowAccumulator(columns=5, form=form), "ecp5").luts
                        for form in (None, "portable"))
    assert 0 < chosen < portable


def test_a_slot_of_the_array_shares_trits():
    one, four = (synth.synthesise("array", preset(f"lanes10,batch={batch}")) for batch in (1, 4))
    assert one.lut_ram == four.lut_ram == 0, "memories must be of one kind to be compared"
    config = preset("lanes10")
    for kind, limit in SLOT_PER_TRIT.items():
        per_trit = (getattr(four, kind) - getattr(one, kind)) / 3 / (config.rows * config.columns)
        assert 0 < per_trit <= limit, f"a further slot takes {per_trit:.1f} {kind} per trit lane, {limit} are allowed"


def test_up5k():
    cells = synth.count_cells(OnlyLink(), "ice40", "accelerator", "up5k").as_dict()
    assert cells["spram"] == UP5K["spram"], "the model memory is not in SPRAM"
    over = {kind: (cells[kind], limit) for kind, limit in UP5K.items() if cells[kind] > limit}
    assert not over, f"cells and their limits: {over}"
