"""The SDRAM controller with a model of the chip that checks its data sheet, and the model itself."""

import dataclasses
import subprocess
from pathlib import Path

import pytest
from amaranth.hdl import Cat, Module
from amaranth.lib import wiring
from bench import SEED
from builds import verilog
from harness import compiled, controller_members, controller_statements, counted
from sterna.hw.memory.chips import CHIPS
from sterna.hw.memory.pins import SdramPins, joined
from sterna.hw.memory.sdram import ACTIVATE, ALL_BANKS, LOAD_MODE, PRECHARGE, READ, REFRESH, WRITE, SdramController
from sterna.sim.board import compile as board
from sterna.sim.board.sdram import timing_numbers

pytestmark = pytest.mark.rtl
HARNESS = Path(__file__).with_name("sdram_harness.cpp")
SHORT_INIT = {name: dataclasses.replace(chip, t_init=2_000) for name, chip in CHIPS.items()}
CHIP = SHORT_INIT["AS4C16M16SA-7"]
CLOCK_HZ = 80_000_000


class Flat(wiring.Component):
    """The controller with plain ports and registers at its pins, as a board has them, and with other cycle counts
    than those of the chip where they are given.
    """

    def __init__(self, chip, clock_hz, words=2, masks_reads=0, **cycles):
        self._masks_reads = masks_reads  # a bug: bytes of DQM that are high in the cycle of a READ
        self._controller = SdramController(chip, clock_hz, words)
        self._controller.cycles |= cycles
        super().__init__({**controller_members(self._controller), **SdramPins(chip.row_bits).members})

    def elaborate(self, platform):
        m = Module()
        m.submodules.controller = controller = self._controller
        m.d.comb += controller_statements(controller, self)
        m.d.sync += joined(controller.pins, self)
        pins = controller.pins
        if self._masks_reads:
            with m.If(~pins.cs_n & (Cat(pins.we_n, pins.cas_n, pins.ras_n) == READ)):
                m.d.sync += self.dqm.eq(self._masks_reads)
        return m


def program(chip, clock_hz, **cycles):
    """Path of the compiled harness."""
    return compiled("sdram", "controller", verilog(Flat(chip, clock_hz, **cycles), "controller"), HARNESS,
                    [board.HERE / "sdram.hpp", board.HERE / "status.hpp"])


def traffic(chip, clock_hz, cycles, sequential=False, seed=SEED, **planted):
    """Counts by name (dict of int), or the error's text."""
    return counted([program(chip, clock_hz, **planted), *timing_numbers(chip, clock_hz), "traffic", str(seed),
                    str(cycles), str(int(sequential))])


@pytest.mark.parametrize("name, clock_hz", [
    ("AS4C16M16SA-7", 80_000_000), *(pytest.param(*one, marks=pytest.mark.rest) for one in (
        ("AS4C16M16SA-7", 24_000_000), ("AS4C32M16SB-7", 100_000_000), ("AS4C32M16SB-7", 125_000_000)))])
def test_random_traffic(name, clock_hz):
    counts = traffic(SHORT_INIT[name], clock_hz, 300_000)
    print(counts)
    assert isinstance(counts, dict), counts
    assert counts["words"] > 50_000 and counts["writes"] > 5_000 and counts["waiting"] < 200


@pytest.mark.parametrize("name, clock_hz", [
    ("AS4C16M16SA-7", 80_000_000), pytest.param("AS4C32M16SB-7", 125_000_000, marks=pytest.mark.rest)])
def test_sequential_reads_reach_97_percent(name, clock_hz):
    """Of the peak, a word per cycle, refresh included; nothing else than refresh and rows is lost."""
    counts = traffic(SHORT_INIT[name], clock_hz, 1_000_000, sequential=True)
    share = counts["words"] / counts["since"]
    print(f"{name} at {clock_hz / 1e6:g} MHz: {share:.2%} of the peak, "
          f"refresh {counts['refreshing'] / counts['since']:.2%}")
    assert share >= 0.97
    assert counts["refreshes"] >= counts["since"] // (CHIP.t_refresh * clock_hz * 1e-9)


@pytest.mark.parametrize("planted, text", [
    ({"t_rcd": 1}, "tRCD violated"), *(pytest.param(*one, marks=pytest.mark.rest) for one in (
        ({"t_rp": 1}, "tRP violated"), ({"t_ras": 1, "t_rc": 1}, "tRAS violated"), ({"t_rfc": 4}, "tRFC violated"),
        ({"t_wr": 0}, "tWR violated"), ({"t_mrd": 1}, "tMRD violated"), ({"t_refresh": 1100}, "tREFI violated"),
        ({"t_init": 100}, "the pause after power-up violated")))])
def test_planted_cycles_are_found(planted, text):
    """A controller that keeps one time too short fails under the traffic that a right one stands."""
    # The states of a run cover these times of this chip: one with longer ones.
    longer = {"t_ras": 100, "t_rc": 121} if "t_ras" in planted else {"t_wr": 60, "t_mrd": 120}
    chip = dataclasses.replace(CHIP, **longer)
    assert isinstance(traffic(chip, 125_000_000, 60_000), dict)
    found = traffic(chip, 125_000_000, 200_000, **planted)
    assert isinstance(found, str) and text in found, found


def test_a_mask_during_a_read_is_found():
    """With a CAS latency of 2 a byte whose DQM pin is high in the cycle of a READ does not come."""
    assert " instead of " in traffic(CHIP, CLOCK_HZ, 60_000, masks_reads=2)


# A right session of a chip at 80 MHz, then what is wrong behind it.
INIT = [(160, PRECHARGE, 0, ALL_BANKS), *((164 + 6 * k, REFRESH, 0, 0) for k in range(8)), (212, LOAD_MODE, 0, 0x220)]
SESSION = [*INIT, (214, ACTIVATE, 0, 5), (216, READ, 0, 3), (217, ACTIVATE, 1, 5), (219, READ, 1, 7),
           (224, WRITE, 0, 3), (227, PRECHARGE, 0, 0), (229, ACTIVATE, 0, 6)]
VIOLATIONS = {
    "tRCD": [(214, ACTIVATE, 0, 5), (215, READ, 0, 3)], "tRAS": [(214, ACTIVATE, 0, 5), (217, PRECHARGE, 0, 0)],
    "tRP": [(214, ACTIVATE, 0, 5), (220, PRECHARGE, 0, 0), (221, ACTIVATE, 0, 5)],
    "tRC": [(214, ACTIVATE, 0, 5), (218, PRECHARGE, 0, 0), (219, ACTIVATE, 0, 5)],
    "tRRD": [(214, ACTIVATE, 0, 5), (215, ACTIVATE, 1, 5)], "tMRD": [(213, ACTIVATE, 0, 5)],
    "tWR": [(214, ACTIVATE, 0, 5), (220, WRITE, 0, 5), (221, PRECHARGE, 0, 0)],
    "tRFC": [(220, REFRESH, 0, 0), (224, ACTIVATE, 0, 5)], "tREFI": [(214, ACTIVATE, 0, 5), (7_000, READ, 0, 3)],
}


def run_commands(sequence, chip=CHIP, clock_hz=CLOCK_HZ):
    done = subprocess.run([program(CHIP, CLOCK_HZ), *timing_numbers(chip, clock_hz), "commands",
                           *(str(value) for command in sequence for value in command)],
                          capture_output=True, text=True)
    return done.returncode, done.stderr.strip()


def test_right_session():
    assert run_commands(SESSION) == (0, "")


@pytest.mark.parametrize("name", VIOLATIONS)
def test_every_time_is_checked(name):
    if name == "tRC":  # with these chips tRAS + tRP covers it: one with a longer tRC
        code, text = run_commands([*INIT, *VIOLATIONS[name][:2], (220, ACTIVATE, 0, 5)],
                                  dataclasses.replace(CHIP, t_rc=90))
    else:
        code, text = run_commands([*INIT, *VIOLATIONS[name]])
    assert code and f"SDRAM: {name} violated" in text, text


@pytest.mark.parametrize("sequence, text", [
    ([(100, PRECHARGE, 0, ALL_BANKS)], "the pause after power-up"),
    ([(160, ACTIVATE, 0, 0)], "ACTIVATE before LOAD MODE"),
    ([(160, REFRESH, 0, 0)], "REFRESH before PRECHARGE"),
    ([*INIT[:3], (212, LOAD_MODE, 0, 0x220)], "LOAD MODE before all REFRESHes"),
    ([*INIT[:-1], (212, LOAD_MODE, 0, 0x223)], "a mode other than burst length 1"),
    ([*INIT, (214, READ, 0, 0)], "in a closed bank"),
    ([*INIT, (214, ACTIVATE, 0, 5), (220, ACTIVATE, 0, 6)], "ACTIVATE of an open bank"),
    ([*INIT, (214, ACTIVATE, 0, 5), (220, REFRESH, 0, 6)], "REFRESH with an open bank"),
    ([*INIT, (214, ACTIVATE, 0, 5), (216, READ, 0, 6), (218, WRITE, 0, 6)], "both ends drive the data lines")])
def test_wrong_orders_are_found(sequence, text):
    code, found = run_commands(sequence)
    assert code and text in found, found


def test_clock_too_fast_for_the_latency():
    code, found = run_commands([(cycle * 2, *rest) for cycle, *rest in INIT], clock_hz=125_000_000)
    assert code and "a CAS latency of 2 at this clock" in found
