"""Model memory in on-chip RAM, behind the same port as an external one."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In

from sterna.hw.memory.port import MemoryPort


class OnChipMemory(wiring.Component):
    """A single-ported RAM: one word per cycle, read or written; writes go first.

    Read latency two cycles (memory and output register). One address serves both directions and a write disables the read, which
    is what single-ported RAM blocks such as the UP5K's SPRAM need to be inferred.

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
        m.submodules.memory = memory = Memory(shape=8 * self._port_bytes, depth=self._words, init=[])
        read = memory.read_port()
        write = memory.write_port(granularity=8)
        address = Signal(self._address_bits)
        left = Signal(8)
        shared = Signal(self._address_bits)
        reading = Signal()
        stages = Signal(2)
        m.d.comb += [
            port.write.ready.eq(1),
            reading.eq((left != 0) & ~port.write.valid),
            shared.eq(Mux(port.write.valid, port.write.payload.address, address)),
            read.addr.eq(shared),
            read.en.eq(~port.write.valid),
            write.addr.eq(shared),
            write.data.eq(port.write.payload.data),
            write.en.eq(Mux(port.write.valid, port.write.payload.mask, 0)),
            port.read_command.ready.eq((left == 0) | (reading & (left == 1))),
            port.read_data.valid.eq(stages[1]),
        ]
        m.d.sync += stages.eq(Cat(reading, stages[0]))
        with m.If(stages[0]):
            m.d.sync += port.read_data.payload.eq(read.data)
        with m.If(reading):
            m.d.sync += [address.eq(address + 1), left.eq(left - 1)]
        with m.If(port.read_command.valid & port.read_command.ready):
            m.d.sync += [address.eq(port.read_command.payload.address), left.eq(port.read_command.payload.length)]
        return m
