"""The DDR3 controller with a model of the chip that checks its data sheet, and the model itself."""

import dataclasses
import subprocess
from functools import cache
from pathlib import Path

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from bench import SEED
from builds import verilog
from harness import compiled, controller_members, controller_statements, counted
from sterna.hw.memory.chips import DDR3_CHIPS
from sterna.hw.memory.ddr3 import controller as under_test
from sterna.hw.memory.ddr3.controller import ALL_BANKS, Ddr3Controller
from sterna.hw.memory.ddr3.dfi import ACTIVATE, CALIBRATE, MODE, PRECHARGE, READ, REFRESH, WRITE, Ddr3Dfi
from sterna.hw.memory.pins import joined
from sterna.sim.board import compile as board
from sterna.sim.board.ddr3 import timing_numbers

pytestmark = pytest.mark.rtl
HARNESS = Path(__file__).with_name("ddr3_harness.cpp")
SHORT = {name: dataclasses.replace(chip, t_reset=2_000, t_cke=3_000) for name, chip in DDR3_CHIPS.items()}
CHIP = SHORT["MT41K256M16-107"]
CLOCK_HZ = 156_250_000


class Flat(wiring.Component):
    """The controller with plain ports, and with other cycle counts than those of the chip where they are given."""

    def __init__(self, chip, clock_hz, **cycles):
        self._controller = Ddr3Controller(chip, clock_hz)
        self._controller.cycles |= cycles
        super().__init__({**controller_members(self._controller), **Ddr3Dfi(chip.row_bits).members})

    def elaborate(self, platform):
        m = Module()
        m.submodules.controller = controller = self._controller
        m.d.comb += controller_statements(controller, self)
        m.d.comb += joined(controller.dfi, self)
        return m


@cache
def program(chip, clock_hz, **planted):
    """Path of the compiled harness."""
    return compiled("ddr3", "controller", verilog(Flat(chip, clock_hz, **planted), "controller"), HARNESS,
                    [board.HERE / name for name in ("ddr3.hpp", "memory.hpp", "status.hpp")])


def traffic(chip, clock_hz, cycles, sequential=False, seed=SEED, model=None, **planted):
    """Counts by name (dict of int), or the error's text, of a controller for ``chip`` with the model of the same one
    or another one.
    """
    return counted([program(chip, clock_hz, **planted), *timing_numbers(model or chip, clock_hz), "traffic",
                    str(seed), str(cycles), str(int(sequential))])


@pytest.mark.parametrize("name, clock_hz", [
    ("MT41K256M16-107", CLOCK_HZ), *(pytest.param(*one, marks=pytest.mark.rest) for one in (
        ("MT41K256M16-107", 166_000_000), ("MT41K128M16-125", CLOCK_HZ)))])
def test_random_traffic(name, clock_hz):
    counts = traffic(SHORT[name], clock_hz, 300_000)
    print(counts)
    assert isinstance(counts, dict), counts
    assert counts["bursts"] > 30_000 and counts["writes"] > 5_000 and counts["waiting"] < 128


def test_sequential_reads_reach_95_percent():
    """Of the peak, a burst per two cycles, refresh included; nothing else than refresh is lost."""
    counts = traffic(CHIP, CLOCK_HZ, 500_000, sequential=True)
    assert isinstance(counts, dict), counts
    share = 2 * counts["bursts"] / counts["since"]
    print(f"{share:.2%} of the peak, refresh {counts['refreshing'] / counts['since']:.2%}")
    assert share >= 0.95
    assert counts["refreshes"] + under_test.REFRESH_GROUP >= counts["since"] // (CHIP.t_refresh * CLOCK_HZ * 1e-9)


# Times long enough for the states of the controller not to cover them; and for a model each a time that is a clock
# longer than what a controller of these keeps, or some where the states after it take a few more.
LONG = dataclasses.replace(CHIP, t_rcd=(0, 40), t_rp=(0, 40), t_ras=(0, 150), t_rc=(0, 190), t_rtp=(12, 0),
                           t_wr=(0, 80))
STRICTER = {
    "t_rcd": ((14, 0), "tRCD"), "t_rp": ((15, 0), "tRP"), "t_ras": ((49, 0), "tRAS"), "t_rc": ((63, 0), "tRC"),
    "t_rtp": ((14, 0), "tRTP"), "t_wr": ((27, 0), "tWR"), "t_wtr": ((6, 0), "tWTR"), "t_rfc": ((83, 0), "tRFC"),
    "t_ccd": ((5, 0), "tCCD"), "t_refresh": (3_400, "tREFI"), "t_ras_max": (15_000, "tRAS (longest)"),
    "t_reset": (2_040, "the reset after power-up"), "t_cke": (3_040, "the pause from RESET# to CKE"),
    "t_xpr": ((89, 0), "tXPR"), "t_mrd": ((5, 0), "tMRD"), "t_mod": ((13, 0), "tMOD"),
    "t_zq_init": ((540, 0), "tZQinit"), "t_dll": ((570, 0), "tDLLK")}


@pytest.mark.rest
def test_a_controller_of_another_chip_is_found():
    """It keeps all times of its own chip; where another one wants more, the model finds the traffic that shows it."""
    assert isinstance(traffic(LONG, CLOCK_HZ, 60_000), dict)
    for field, (value, text) in STRICTER.items():
        found = traffic(LONG, CLOCK_HZ, 200_000, model=dataclasses.replace(LONG, **{field: value}))
        assert isinstance(found, str) and f"{text} violated" in found, (field, found)


@pytest.mark.rest
def test_a_planted_turn_is_found():
    found = traffic(CHIP, CLOCK_HZ, 60_000, read_write=2)
    assert isinstance(found, str) and "the turn from READ to WRITE violated" in found, found


# A right session of the chip at 312.5 MHz, then what is wrong behind it.
UP = 8
MODES = [(1650, MODE, 2, 0x200), (1654, MODE, 3, 0), (1658, MODE, 1, 6), (1662, MODE, 0, 0x310)]
INIT = [(625, UP, 0, 0), (1563, UP, 1, 0), *MODES, (1674, CALIBRATE, 0, 0x400)]
SESSION = [*INIT, (2186, ACTIVATE, 0, 5), (2191, READ, 0, 8), (2192, ACTIVATE, 1, 5), (2197, READ, 1, 16),
           (2203, WRITE, 0, 8), (2217, PRECHARGE, 0, 0), (2222, ACTIVATE, 0, 6)]
OPENED = [*INIT, (2186, ACTIVATE, 0, 5)]
VIOLATIONS = {
    "tRCD": [*OPENED, (2190, READ, 0, 8)], "tRAS": [*OPENED, (2196, PRECHARGE, 0, 0)],
    "tRP": [*OPENED, (2197, PRECHARGE, 0, 0), (2201, ACTIVATE, 0, 5)],
    "tRRD": [*OPENED, (2189, ACTIVATE, 1, 5)],
    "tCCD": [*OPENED, (2191, READ, 0, 8), (2194, READ, 0, 16)],
    "tRTP": [*OPENED, (2196, READ, 0, 8), (2199, PRECHARGE, 0, 0)],
    "tWR": [*OPENED, (2191, WRITE, 0, 8), (2204, PRECHARGE, 0, 0)],
    "tWTR": [*OPENED, (2191, WRITE, 0, 8), (2203, READ, 0, 8)],
    "tRFC": [*INIT, (2186, REFRESH, 0, 0), (2267, ACTIVATE, 0, 5)],
    "tREFI": [*OPENED, (2197, PRECHARGE, 0, 0), (25_000, ACTIVATE, 0, 5)],
    "tRAS (longest)": [*INIT, (2186, REFRESH, 0, 0), (2268, ACTIVATE, 0, 5), (24_250, READ, 0, 8)],
    "tXPR": [*INIT[:2], (1600, *MODES[0][1:])], "tMRD": [*INIT[:3], (1653, *MODES[1][1:])],
    "tMOD": [*INIT[:-1], (1673, CALIBRATE, 0, 0x400)], "tZQinit": [*INIT, (2185, ACTIVATE, 0, 5)],
    "the turn from READ to WRITE": [*OPENED, (2191, READ, 0, 8), (2196, WRITE, 0, 8)],
    "the reset after power-up": [(624, UP, 0, 0), (626, UP, 1, 0)],
    "the pause from RESET# to CKE": [INIT[0], (1562, UP, 1, 0)],
}
WRONG = [
    ([(10, UP, 1, 0)], "CKE is high in a reset"),
    ([INIT[0], (800, ACTIVATE, 0, 5)], "a command before CKE"),
    ([*INIT[:5], (1674, ACTIVATE, 0, 5)], "a command before all mode registers are set"),
    ([*INIT[:-1], (1674, ACTIVATE, 0, 5)], "a command before the calibration"),
    ([*INIT[:-1], (1674, CALIBRATE, 0, 0)], "a short calibration"),
    ([*INIT[:5], (1662, MODE, 0, 0x320)], "a mode other than bursts of eight"),
    ([*INIT[:5], (1662, MODE, 0, 0x210)], "no reset of the DLL"),
    ([*INIT[:4], (1658, MODE, 1, 7)], "the DLL is off"),
    ([*INIT[:2], (1650, MODE, 2, 0x208)], "a CAS latency of writes other than 5"),
    ([*INIT, (2186, READ, 0, 0)], "in a closed bank"),
    ([*OPENED, (2240, ACTIVATE, 0, 6)], "ACTIVATE of an open bank"),
    ([*OPENED, (2240, REFRESH, 0, 6)], "REFRESH with an open bank"),
    ([*OPENED, (2240, MODE, 0, 0x310)], "MODE with an open bank"),
    ([*OPENED, (2240, READ, 0, 4)], "no multiple of eight"),
    ([*OPENED, (2240, READ, 0, ALL_BANKS)], "automatic precharge"),
    ([*INIT, *((2186 + 90 * k, REFRESH, 0, 0) for k in range(10))], "more REFRESHes ahead of time")]


def run_commands(sequence, chip=CHIP, clock_hz=CLOCK_HZ):
    done = subprocess.run([program(CHIP, CLOCK_HZ), *timing_numbers(chip, clock_hz), "commands",
                           *(str(value) for command in sequence for value in command)],
                          capture_output=True, text=True)
    return done.returncode, done.stderr.strip()


def test_right_session():
    assert run_commands(SESSION) == (0, "")


def test_every_time_is_checked():
    for name, sequence in VIOLATIONS.items():
        code, text = run_commands(sequence)
        assert code and f"DDR3: {name} violated" in text, (name, text)
    # What other times cover with this chip: others with longer ones
    for name, field, value, sequence in (
            ("tRC", "t_rc", (0, 60), [*OPENED, (2197, PRECHARGE, 0, 0), (2203, ACTIVATE, 0, 5)]),
            ("tFAW", "t_faw", (0, 60), [*INIT, *((2186 + 4 * k, ACTIVATE, k, 5) for k in range(5))]),
            ("tDLLK", "t_dll", (600, 0), [*OPENED, (2191, READ, 0, 8)]),
            ("tAA", "t_aa", (0, 17), [*OPENED, (2191, READ, 0, 8)])):
        code, text = run_commands(sequence, dataclasses.replace(CHIP, **{field: value}))
        assert code and f"DDR3: {name} violated" in text, text


def test_wrong_orders_are_found():
    for sequence, text in WRONG:
        code, found = run_commands(sequence)
        assert code and text in found, (text, found)


def test_clock_outside_of_the_range_of_the_latency():
    for clock_hz in (140_000_000, 175_000_000):
        code, found = run_commands([(cycle * 2, *rest) for cycle, *rest in INIT], clock_hz=clock_hz)
        assert code and "a CAS latency of 5 at this clock" in found
