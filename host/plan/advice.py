"""Which board to buy, in one sentence."""

from sterna.host.plan.rows import megabytes, speed
from sterna.host.runtime.statistics import useful_bytes

ENOUGH = 10  # tokens per second that a board should make, where none fits


def buy(geometry, rows):
    """The sentence, of what boards exist and fit; where none does, what it would take (str).

    Parameters
    ----------
    geometry : Geometry
    rows : list of Row
    """
    boards = [row for row in rows if row.kind == "board" and row.fits]
    if boards:
        best = max(row.tokens_per_second for row in boards)
        alike = [row for row in boards if row.tokens_per_second > 0.99 * best]
        others = ", ".join(row.name for row in alike[1:])
        which = alike[0].name if len(alike) == 1 else f"any of {alike[0].name}, {others}"
        clock = "a projected" if alike[0].clock == "projected" else "the placed"
        return (f"buy {which}: {speed(best)} tokens/s by the cycle model at {clock} clock, and nothing here that "
                "exists is faster.")
    boards = [row for row in rows if row.kind == "board"]
    least = min((row.needed_bytes for row in rows), default=0)
    useful = useful_bytes(geometry, "trit5")
    text = (f"none of the boards here holds this model: it takes a memory of {megabytes(least)}, and "
            f"{ENOUGH} tokens/s take {useful * ENOUGH / 1e9:.3g} GB/s of it")
    if boards:
        most = max(row.memory_bytes for row in boards)
        text += f" (the largest of them has {megabytes(most)})"
    timing = [row for row in rows if row.kind == "preset" and row.slots == 1 and row.tokens_per_second]
    timing = [row for row in timing if row.fits] or timing
    if timing:
        best = max(timing, key=lambda row: row.tokens_per_second)
        memory = best.widened.get("memory_bytes", best.memory_bytes)
        text += (f"; a board with the port and clock of the timing model {best.name} and {megabytes(memory)} would "
                 f"make {speed(best.tokens_per_second)} tokens/s")
    return text + "."
