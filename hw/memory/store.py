"""The store engine: words of the vector engine to consecutive addresses."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from sterna.hw.memory.port import write_layout


class Store(wiring.Component):
    """Writes ``words`` words to ``address`` upwards as they come; the next command waits until they
    are through.

    A store has fewer words than the memory.

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
        super().__init__(
            {
                "command": In(
                    stream.Signature(data.StructLayout({"address": address_bits, "words": 24}))
                ),
                "words": In(stream.Signature(8 * port_bytes)),
                "write": Out(stream.Signature(write_layout(address_bits, port_bytes))),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        # Comparing with the end takes half the cells of a second counter; it is done in the cycle
        # before.
        address = Signal(self._address_bits)
        end = Signal(self._address_bits)
        following = Signal(self._address_bits)
        running = Signal()
        m.d.comb += [
            self.idle.eq(~running),
            following.eq(address + 1),
            self.command.ready.eq(~running),
            self.write.payload.address.eq(address),
            self.write.payload.data.eq(self.words.payload),
            self.write.payload.mask.eq(~0),
            self.write.valid.eq(self.words.valid & running),
            self.words.ready.eq(self.write.ready & running),
        ]
        loads = self.command.valid & ~running
        with m.If(loads):
            m.d.sync += end.eq(self.command.payload.address + self.command.payload.words)
        with m.If(loads | (self.write.valid & self.write.ready)):
            m.d.sync += [
                address.eq(Mux(running, following, self.command.payload.address)),
                running.eq(~running | (following != end)),
            ]
        return m
