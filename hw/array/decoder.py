"""Packed weight bytes to trits (docs/image-format.md, "Matrix")."""

from amaranth import Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out


class Trit(data.Struct):
    """One weight: ``nonzero`` says that the activation counts, ``negative`` that it counts
    negatively.

    ``negative`` is 0 whenever ``nonzero`` is 0.
    """

    nonzero: 1
    negative: 1


class TritDecoder(wiring.Component):
    """T packed bytes to R * C trits, one tile per cycle, never stalling.

    ``trit5``: a byte b yields five trits by repeating p = 3 b; trit = (p >> 8) - 1; b = p mod 256.
    Each step is one ten-bit adder; a register follows every second step. ``bit2``: trit k is the
    bit pair k (00, 01, 11), wires only. Latency ``latency`` cycles (3 for trit5, 1 for bit2 or when
    not ``pipelined``: one register behind all steps).

    Parameters
    ----------
    trits : int
        R * C, a multiple of 5 for trit5.
    code : str
        "trit5" or "bit2".
    pipelined : bool
        A register after every second step rather than one at the end.

    Members
    -------
    tile : In(8 * T), valid : In(1)
        A tile enters if ``valid``; otherwise the registers keep what they hold.
    trits : Out(ArrayLayout(Trit, R * C))
    """

    def __init__(self, *, trits, code, pipelined=True):
        if code not in ("trit5", "bit2"):
            raise ValueError(f"weight code {code!r}: use trit5 or bit2")
        if code == "trit5" and trits % 5:
            raise ValueError(f"{trits} trits do not fill bytes of five")
        self._count, self._code = trits, code
        self._steps = (2, 2, 1) if pipelined else (5,)
        self.latency = len(self._steps) if code == "trit5" else 1
        tile_bytes = trits // 5 if code == "trit5" else -(-trits // 4)
        super().__init__(
            {
                "tile": In(8 * tile_bytes),
                "valid": In(1),
                "trits": Out(data.ArrayLayout(Trit, trits)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        valid = [self.valid]
        for k in range(self.latency - 1):
            register = Signal(name=f"valid{k}")
            m.d.sync += register.eq(valid[-1])
            valid.append(register)
        if self._code == "bit2":
            with m.If(valid[0]):
                m.d.sync += [
                    self.trits[k].eq(self.tile.word_select(k, 2)) for k in range(self._count)
                ]
            return m
        for byte in range(self._count // 5):
            rest = self.tile.word_select(byte, 8)
            digits = []
            for stage, steps in enumerate(self._steps):
                for _ in range(steps):
                    triple = Signal(10, name=f"triple{byte}_{len(digits)}")
                    m.d.comb += triple.eq(rest + (rest << 1))
                    digits.append(triple[8:10])
                    rest = triple[0:8]
                kept = [
                    Signal(2, name=f"digit{byte}_{k}_{stage}", reset_less=True)
                    for k in range(len(digits))
                ]
                kept_rest = Signal(8, name=f"rest{byte}_{stage}", reset_less=True)
                with m.If(valid[stage]):
                    m.d.sync += [
                        kept_rest.eq(rest),
                        *(new.eq(old) for new, old in zip(kept, digits, strict=True)),
                    ]
                digits, rest = kept, kept_rest
            for k, digit in enumerate(digits):
                # Digits 0, 1, 2 are the trits -1, 0, +1.
                m.d.comb += [
                    self.trits[5 * byte + k].nonzero.eq(~digit[0]),
                    self.trits[5 * byte + k].negative.eq(~digit[0] & ~digit[1]),
                ]
        return m
