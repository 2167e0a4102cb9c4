"""The times of a DDR3 chip as numbers for the model in ddr3.hpp."""

from math import ceil

from sterna.hw.memory.chips import DDR3_CHIPS, DDR3_PERIOD_CL5

POSTPONED = 8  # REFRESHes that may be late at a time


def timing_numbers(chip, clock_hz):
    """The fields of Ddr3Timing in their order, as text, for a ``hw.memory.chips.Ddr3Chip`` and the clock in Hz of its
    controller, half of its own.
    """
    period = ceil(1e12 / (2 * clock_hz) - 1e-6)

    def picoseconds(name):
        value = getattr(chip, name)
        clocks, ns = value if isinstance(value, tuple) else (0, value)
        return max(clocks * period, round(1000 * ns))

    times = [picoseconds(f"t_{name}") for name in (
        "aa", "rcd", "rp", "ras", "rc", "rrd", "faw", "rfc", "xpr", "wr", "wtr", "rtp", "ccd", "mrd", "mod",
        "zq_init", "dll", "ras_max", "refresh", "reset", "cke")]
    limits = [round(1000 * ns) for ns in DDR3_PERIOD_CL5]
    return [str(value) for value in (period, chip.row_bits, chip.column_bits, *times, POSTPONED, *limits)]


def ddr3_numbers(config):
    """The same as the initialiser of an array in C, for the chip of a Config; "0" if it has none."""
    if not config.ddr3:
        return "0"
    numbers = timing_numbers(DDR3_CHIPS[config.ddr3], config.memory_hz)
    return "{" + ", ".join(f"{number}ull" for number in numbers) + "}"
