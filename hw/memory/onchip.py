"""Model memory in on-chip RAM, behind the same port as an external one."""

from amaranth import Array, Cat, ClockSignal, Const, Instance, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In

from sterna.hw.memory.port import MemoryPort

SPRAM_ADDRESS_BITS = 14


class OnChipMemory(wiring.Component):
    """A single-ported RAM: one word per cycle, read or written; writes go first.

    Read latency two cycles (memory and output register). One address serves both directions and a write disables the read.
    For a platform whose ``device`` is "iCE40UP5K" and words of two bytes, blocks of SB_SPRAM256KA are instantiated: they have no
    initial contents, which every memory in Verilog made from Amaranth has.

    Parameters
    ----------
    address_bits, port_bytes, words : int

    Members
    -------
    port : In(MemoryPort)
    """

    def __init__(self, *, address_bits, port_bytes, words):
        self._address_bits, self._port_bytes, self._words = address_bits, port_bytes, words
        super().__init__({"port": In(MemoryPort(address_bits, port_bytes))})

    def elaborate(self, platform):
        m = Module()
        port = self.port
        address = Signal(self._address_bits)
        left = Signal(8)
        shared = Signal(self._address_bits)
        reading = Signal()
        stages = Signal(2)
        m.d.comb += [
            port.write.ready.eq(1),
            reading.eq((left != 0) & ~port.write.valid),
            shared.eq(Mux(port.write.valid, port.write.payload.address, address)),
            port.read_command.ready.eq((left == 0) | (reading & (left == 1))),
            port.read_data.valid.eq(stages[1]),
        ]
        if self._port_bytes == 2 and getattr(platform, "device", None) == "iCE40UP5K":
            data = self._spram(m, shared, reading)
        else:
            m.submodules.memory = memory = Memory(shape=8 * self._port_bytes, depth=self._words, init=[])
            read, write = memory.read_port(), memory.write_port(granularity=8)
            data = read.data
            m.d.comb += [
                read.addr.eq(shared),
                read.en.eq(~port.write.valid),
                write.addr.eq(shared),
                write.data.eq(port.write.payload.data),
                write.en.eq(Mux(port.write.valid, port.write.payload.mask, 0)),
            ]
        m.d.sync += stages.eq(Cat(reading, stages[0]))
        with m.If(stages[0]):
            m.d.sync += port.read_data.payload.eq(data)
        with m.If(reading):
            m.d.sync += [address.eq(address + 1), left.eq(left - 1)]
        with m.If(port.read_command.valid & port.read_command.ready):
            m.d.sync += [address.eq(port.read_command.payload.address), left.eq(port.read_command.payload.length)]
        return m

    def _spram(self, m, address, reading):
        """Blocks of SPRAM; returns the word whose address was given one cycle before with ``reading``."""
        write = self.port.write
        block_bits = max(0, (self._words - 1).bit_length() - SPRAM_ADDRESS_BITS)
        block = address[SPRAM_ADDRESS_BITS:]
        read_block = Signal(max(1, block_bits))
        with m.If(reading):
            m.d.sync += read_block.eq(block)
        words = []
        for k in range(-(-self._words >> SPRAM_ADDRESS_BITS)):
            word = Signal(16, name=f"word_{k}")
            m.submodules[f"spram{k}"] = Instance(
                "SB_SPRAM256KA", i_CLOCK=ClockSignal(), i_ADDRESS=address[:SPRAM_ADDRESS_BITS],
                i_DATAIN=write.payload.data,
                i_MASKWREN=Cat(bit.replicate(2) for bit in write.payload.mask),  # one bit for every four data bits
                i_WREN=write.valid, i_CHIPSELECT=(block == k) if block_bits else Const(1), i_STANDBY=Const(0), i_SLEEP=Const(0),
                i_POWEROFF=Const(1),  # low active
                o_DATAOUT=word)
            words.append(word)
        return Array(words)[read_block]
