"""The store engine: words of the vector engine to consecutive addresses."""

from amaranth import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from sterna.hw.memory.port import write_layout


class Store(wiring.Component):
    """Writes ``words`` words to ``address`` upwards as they come; the next command waits until they are through.

    Members
    -------
    command : In(stream of {address, words})
    words : In(stream of 8 * P)
    write : Out(stream of write_layout)
    idle : Out(1)
        Every commanded word has been handed to the memory.
    """

    def __init__(self, *, address_bits, port_bytes):
        self._address_bits, self._port_bytes = address_bits, port_bytes
        super().__init__({
            "command": In(stream.Signature(data.StructLayout({"address": address_bits, "words": 24}))),
            "words": In(stream.Signature(8 * port_bytes)),
            "write": Out(stream.Signature(write_layout(address_bits, port_bytes))),
            "idle": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        address = Signal(self._address_bits)
        left = Signal(min(24, self._address_bits + 1))  # no more words than the memory has
        m.d.comb += [
            self.idle.eq(left == 0),
            self.command.ready.eq(left == 0),
            self.write.payload.address.eq(address),
            self.write.payload.data.eq(self.words.payload),
            self.write.payload.mask.eq(~0),
            self.write.valid.eq(self.words.valid & (left != 0)),
            self.words.ready.eq(self.write.ready & (left != 0)),
        ]
        with m.If(self.command.valid & (left == 0)):
            m.d.sync += [address.eq(self.command.payload.address), left.eq(self.command.payload.words)]
        with m.If(self.write.valid & self.write.ready):
            m.d.sync += [address.eq(address + 1), left.eq(left - 1)]
        return m
