"""Area budgets: cells after synthesis that a change must not exceed unnoticed."""

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped
from sterna.hw.array.tree import RowAccumulator
from sterna.hw.boards import BOARDS, preset
from sterna.hw.flow import synth
from sterna.hw.link.flash import FlashPins
from sterna.hw.soc import Soc

pytestmark = [pytest.mark.synth, pytest.mark.rest]

# LUTs per trit lane of a row of 20 columns, its accumulator included, by family and form.
LUTS_PER_TRIT = {("ecp5", "portable"): 20, ("ecp5", "ecp5"): 13.5, ("xcup", "xcup"): 9}
# Per trit lane of the array of lanes10 for a further slot, row queue included: less than a row of its own, since the
# XORs of signs and the registers of trits are there already.
SLOT_PER_TRIT = {"luts": 12.2, "flip_flops": 22.5}
# What all of the iCEBreaker's gateware but its PLL may take of an UP5K, which has 5280 logic cells, 30 block
# RAMs, 8 DSP blocks and 4 SPRAMs. Place and route adds some 100 cells, for the ends of carry chains and as
# ways for registers.
UP5K = {"logic_cells": 4800, "block_ram": 30, "dsp": 8, "spram": 4}
FLASH_BOOT = 110  # logic cells


class OnlyPins(wiring.Component):
    """What a board without trace and idle pins builds."""

    rx_line: In(1)
    tx_line: Out(1)
    flash: Out(FlashPins())

    def elaborate(self, platform):
        m = Module()
        board = BOARDS["icebreaker"]
        m.submodules.soc = soc = Soc(board.config, board.baud, flash_offset=board.flash_offset)
        m.d.comb += [soc.rx_line.eq(self.rx_line), self.tx_line.eq(soc.tx_line)]
        connect(m, soc.flash, flipped(self.flash))
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
    """Of products: sums of a gather are a slot's own."""
    one, four = (synth.synthesise("array", preset(f"lanes10,batch={batch},tree_rows=0")) for batch in (1, 4))
    assert one.lut_ram == four.lut_ram == 0, "memories must be of one kind to be compared"
    config = preset("lanes10")
    for kind, limit in SLOT_PER_TRIT.items():
        per_trit = (getattr(four, kind) - getattr(one, kind)) / 3 / (config.rows * config.columns)
        assert 0 < per_trit <= limit, f"a further slot takes {per_trit:.1f} {kind} per trit lane, {limit} are allowed"


def test_up5k():
    cells = synth.count_cells(OnlyPins(), "ice40", "board", "up5k").as_dict()
    assert cells["spram"] == UP5K["spram"], "the model memory is not in SPRAM"
    over = {kind: (cells[kind], limit) for kind, limit in UP5K.items() if cells[kind] > limit}
    assert not over, f"cells and their limits: {over}"
    boot = synth.synthesise("flash", preset("up5k"), "ice40").logic_cells
    assert 0 < boot <= FLASH_BOOT, f"FlashBoot takes {boot} logic cells, {FLASH_BOOT} are allowed"
