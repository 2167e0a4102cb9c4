"""The four address registers of the sequencer."""

from amaranth import Array, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

REGISTERS = 4
MULTIPLIER_BITS = 16  # factors of the hardware multiplication


class AddressRegisters(wiring.Component):
    """a[areg] = value (SETA), value + token * stride (ROWA), or += words (FETCH, STORE), in
    address_bits.

    Members
    -------
    valid : In(1)
        An instruction that uses register ``areg`` is being issued; it and the inputs below stay
        until it is done.
    set, row : In(1)
        SETA or ROWA; ROWA.
    areg : In(2); value, stride : In(address_bits); words : In(24)
        Fields of the instruction.
    token : In(token_bits); token_valid : In(1)
        ROWA waits for a valid token.
    taken : In(1)
        FETCH or STORE is accepted in this cycle; only while ``ready``.
    ready : Out(1); address : Out(address_bits)
        FETCH or STORE may be offered, at this address.
    done : Out(1)
        SETA or ROWA takes effect at the end of this cycle.

    Parameters
    ----------
    address_bits, token_bits : int
    slow : bool
        With at most 16 address bits and a slow clock the registers form a ring: only the first is
        read and only the last is written, which saves the multiplexer in front of the adder. It
        turns by one place per cycle until register ``areg`` comes first, so that an instruction
        takes up to 3 cycles more; ROWA multiplies in hardware. Otherwise ROWA takes one cycle per
        bit of the token, and the others wait for nothing.
    """

    def __init__(self, address_bits, token_bits, slow):
        self._turns = slow and address_bits <= MULTIPLIER_BITS
        self._address_bits = address_bits
        address = In(address_bits)
        super().__init__(
            {
                "valid": In(1),
                "set": In(1),
                "row": In(1),
                "areg": In(2),
                "value": address,
                "stride": address,
                "words": In(24),
                "token": In(token_bits),
                "token_valid": In(1),
                "taken": In(1),
                "ready": Out(1),
                "address": Out(address_bits),
                "done": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        (self._turning if self._turns else self._selected)(m)
        return m

    def _turning(self, m):
        bits = self._address_bits
        ring = [Signal(bits, name=f"a{k}") for k in range(REGISTERS)]
        first = Signal(2)  # number of the register in ring[0]
        here, setting, adding = Signal(), Signal(), Signal()
        operand, written = Signal(bits), Signal(bits)
        m.d.comb += [
            here.eq(first == self.areg),
            setting.eq(self.set & here),
            adding.eq(~self.set & here),
            # SETA has no stride: its bits are zero.
            operand.eq(
                Mux(
                    setting,
                    self.value + self.token[:bits] * self.stride,
                    Mux(adding, self.words, 0),
                )
            ),
            # A register that only passes by gains 0
            written.eq(Mux(setting, operand, operand + ring[0])),
            self.address.eq(ring[0]),
            self.ready.eq(here),
            self.done.eq(setting & (self.token_valid | ~self.row)),
        ]
        with m.If(self.valid & (~here | self.done | self.taken)):
            m.d.sync += [ring[k].eq(ring[k + 1]) for k in range(REGISTERS - 1)]
            m.d.sync += [
                ring[-1].eq(written),
                first.eq(first + 1),
            ]

    def _selected(self, m):
        bits = self._address_bits
        registers = Array(Signal(bits, name=f"a{k}") for k in range(REGISTERS))
        # The product only counts modulo the address space, and so do the bits of the token.
        multiplier, multiplicand = Signal(min(len(self.token), bits)), Signal(bits)
        multiplying = Signal()
        advanced = Signal(bits)  # one adder for all
        m.d.comb += [
            self.address.eq(registers[self.areg]),
            advanced.eq(self.address + Mux(multiplying, multiplicand, self.words)),
            self.ready.eq(1),
            self.done.eq(Mux(self.row, multiplying & (multiplier == 0), self.set)),
        ]
        with m.If(multiplying):
            with m.If(multiplier[0]):
                m.d.sync += registers[self.areg].eq(advanced)
            m.d.sync += [
                multiplier.eq(multiplier >> 1),
                multiplicand.eq(multiplicand << 1),
                multiplying.eq(multiplier != 0),
            ]
        with m.Elif(self.valid & self.set):
            m.d.sync += [
                registers[self.areg].eq(self.value),
                multiplier.eq(self.token),
                multiplicand.eq(self.stride),
                multiplying.eq(self.row & self.token_valid),
            ]
        with m.Elif(self.taken):
            m.d.sync += registers[self.areg].eq(advanced)
