"""What a board whose DDR3 SDRAM cannot be levelled tells over its serial line."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sterna.hw.memory.ddr3.dfi import DELAYS, LANES, SLIPS

TEXT = "sterna: ddr3 not levelled, good settings by byte, slip and delay: "
DIGITS = LANES * SLIPS * DELAYS // 4


def decode(line):
    """The settings that a line of the report tells (list of (byte, slip, delay)), or None if it is
    none.

    Parameters
    ----------
    line : str
    """
    _, found, digits = line.strip().rpartition(TEXT)
    if not found:
        return None
    good = int(digits, 16)
    bits = (k for k in range(LANES * SLIPS * DELAYS) if good >> k & 1)
    return [(k // (SLIPS * DELAYS), k // DELAYS % SLIPS, k % DELAYS) for k in bits]


class Report(wiring.Component):
    """Sends a line of text with the leveller's ``good`` in 16 hexadecimal digits, the highest
    first, again and again: 8 bits, no parity, one stop bit. The line is high before.

    Throughput: a line per 84 bytes. Latency: a byte.

    Parameters
    ----------
    clock_hz, baud : int

    Members
    -------
    failed : In(1)
    good : In(64)
        Stable while ``failed``.
    line : Out(1)
    """

    def __init__(self, clock_hz, baud):
        self._cycles = round(clock_hz / baud)
        super().__init__(
            {
                "failed": In(1),
                "good": In(LANES * SLIPS * DELAYS),
                "line": Out(1, init=1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        text, end = TEXT.encode(), b"\r\n"
        length = len(text) + DIGITS + len(end)
        place, bit = Signal(range(length)), Signal(range(10))
        wait, digits = Signal(range(self._cycles)), Signal.like(self.good)
        letter, digit, character, shift = Signal(8), Signal(4), Signal(8), Signal(9, init=-1)
        is_digit = Signal()
        m.d.comb += [
            digit.eq(digits[-4:]),
            is_digit.eq((place >= len(text)) & (place < len(text) + DIGITS)),
            self.line.eq(shift[0]),
        ]
        m.d.sync += [
            character.eq(
                Mux(
                    is_digit,
                    Mux(digit >= 10, digit + (ord("a") - 10), digit + ord("0")),
                    letter,
                )
            ),
            wait.eq(Mux(wait == self._cycles - 1, 0, wait + 1)),
        ]
        with m.Switch(place):
            for k, code in enumerate((*text, *[0] * DIGITS, *end)):
                with m.Case(k):
                    m.d.sync += letter.eq(code)
        with m.If(wait == self._cycles - 1):
            m.d.sync += shift.eq(Cat(shift[1:], Const(1)))
            m.d.sync += bit.eq(Mux(bit == 9, 0, bit + 1))
            with m.If(self.failed & (bit == 9)):
                m.d.sync += [
                    shift.eq(Cat(Const(0), character)),
                    place.eq(Mux(place == length - 1, 0, place + 1)),
                    digits.eq(Mux(is_digit, digits << 4, self.good)),
                ]
        return m
