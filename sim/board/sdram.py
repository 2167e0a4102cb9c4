"""The chip's times as numbers for the model in sdram.hpp."""

from sterna.hw.memory.chips import CHIPS

INIT_REFRESHES, POSTPONED = 8, 8  # of LOAD MODE's conditions; REFRESHes that may be late at a time


def timing_numbers(chip, clock_hz):
    """The fields of SdramTiming in their order, as text, for a ``hw.memory.sdram.SdramChip`` and its clock in Hz."""
    def picoseconds(ns):
        return round(1000 * ns)

    period = round(1e12 / clock_hz)
    times = [picoseconds(getattr(chip, name)) for name in (
        "t_rcd", "t_rp", "t_ras", "t_ras_max", "t_rc", "t_rrd", "t_rfc", "t_wr", "t_mrd", "t_refresh", "t_init")]
    return [str(value) for value in (period, chip.row_bits, chip.column_bits, *times, INIT_REFRESHES,
                                     POSTPONED << 32 | round(1e12 / chip.cas2_hz))]


def sdram_numbers(config):
    """The same as the initialiser of an array in C, for the chip of a Config; "0" if it has none."""
    if not config.sdram:
        return "0"
    clock_hz = config.memory_hz if config.own_memory_clock else config.clock_hz
    return "{" + ", ".join(f"{number}ull" for number in timing_numbers(CHIPS[config.sdram], clock_hz)) + "}"
