"""Pins of an SDR SDRAM of 16 bits, and the registers at them."""

from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sterna.hw.memory.chips import BANK_BITS, DATA_BYTES

DATA_BITS = 8 * DATA_BYTES
PAD_CYCLES = 2  # of the registers at the pins, on the way out and back


class SdramPins(wiring.Signature):
    """What a controller drives and reads. A board has one more register at each pin, in both
    directions; between them the chip has the controller's clock: it samples at the end of the cycle
    in which these values stand at the pins, and a word that it drives is taken at the end of a
    cycle, too.
    """

    def __init__(self, row_bits):
        super().__init__(
            {
                "cke": Out(1),
                "cs_n": Out(1),
                "ras_n": Out(1, init=1),
                "cas_n": Out(1, init=1),
                "we_n": Out(1, init=1),
                "ba": Out(BANK_BITS),
                "a": Out(row_bits),
                "dqm": Out(DATA_BYTES),
                "dq_o": Out(DATA_BITS),
                "dq_oe": Out(1),
                "dq_i": In(DATA_BITS),
            }
        )


def joined(inner, outer, prefix="", suffix=""):
    """Statements that join the members of an interface with those of the same names, between a
    ``prefix`` and a ``suffix``, of ``outer``, in both directions. In a clock domain they are
    registers, as boards have them in the FPGA's cells at the pins.
    """
    pairs = [
        (getattr(inner, name), getattr(outer, f"{prefix}{name}{suffix}"), member.flow)
        for name, member in inner.signature.members.items()
    ]
    return [mine.eq(theirs) if flow == In else theirs.eq(mine) for mine, theirs, flow in pairs]
