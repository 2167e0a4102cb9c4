"""One memory port for three users: the fetch engine, the stores of the vector engine, the host."""

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from sterna.hw.memory.port import MAX_BURST_WORDS, MemoryPort, burst_layout, write_layout

OUTSTANDING = 8
LENGTH_BITS = MAX_BURST_WORDS.bit_length()


class Arbiter(wiring.Component):
    """Shares a memory port; the host goes first, because it asks for single words now and then.

    Returning words are handed out by a queue of (owner, length) in the order of the bursts. At most
    ``outstanding`` bursts are under way. Words for a fetch engine that is held in reset are
    dropped, so a reset only has to last until ``quiet``.

    Members
    -------
    port : Out(MemoryPort)
    fetch_bursts : In(stream of burst_layout); fetch_words : Out(stream of 8 * P)
    host_bursts : In(stream of burst_layout); host_words : Out(stream of 8 * P)
        Words must always be accepted on both.
    store, host_write : In(stream of write_layout)
    quiet : Out(1)
        No burst is under way.
    """

    def __init__(self, *, address_bits, port_bytes, outstanding=OUTSTANDING):
        self._outstanding = outstanding
        word = 8 * port_bytes
        burst, write = burst_layout(address_bits), write_layout(address_bits, port_bytes)
        super().__init__(
            {
                "port": Out(MemoryPort(address_bits, port_bytes)),
                "fetch_bursts": In(stream.Signature(burst)),
                "fetch_words": Out(stream.Signature(word)),
                "host_bursts": In(stream.Signature(burst)),
                "host_words": Out(stream.Signature(word)),
                "store": In(stream.Signature(write)),
                "host_write": In(stream.Signature(write)),
                "quiet": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        owner_layout = data.StructLayout({"host": 1, "length": LENGTH_BITS})
        m.submodules.owners = owners = SyncFIFO(width=owner_layout.size, depth=self._outstanding)
        port = self.port

        # A choice must not change while valid waits for ready, so it is held until the transfer.
        held_read, held_write = Signal(), Signal()
        read_host, write_host = Signal(), Signal()
        last_read, last_write = Signal(), Signal()
        m.d.comb += [
            read_host.eq(Mux(held_read, last_read, self.host_bursts.valid)),
            write_host.eq(Mux(held_write, last_write, self.host_write.valid)),
        ]
        m.d.sync += [
            last_read.eq(read_host),
            held_read.eq(port.read_command.valid & ~port.read_command.ready),
            last_write.eq(write_host),
            held_write.eq(port.write.valid & ~port.write.ready),
        ]
        new = data.View(owner_layout, owners.w_data)
        issued = port.read_command.valid & port.read_command.ready
        # Plain expressions: they are defined from reset on, in every simulator.
        can_read = port.read_command.ready & owners.w_rdy
        m.d.comb += [
            port.read_command.payload.eq(
                Mux(read_host, self.host_bursts.payload, self.fetch_bursts.payload)
            ),
            port.read_command.valid.eq(
                Mux(read_host, self.host_bursts.valid, self.fetch_bursts.valid) & owners.w_rdy
            ),
            self.host_bursts.ready.eq(read_host & can_read),
            self.fetch_bursts.ready.eq(~read_host & can_read),
            port.write.payload.eq(Mux(write_host, self.host_write.payload, self.store.payload)),
            port.write.valid.eq(Mux(write_host, self.host_write.valid, self.store.valid)),
            self.host_write.ready.eq(write_host & port.write.ready),
            self.store.ready.eq(~write_host & port.write.ready),
        ]
        m.d.comb += [
            owners.w_en.eq(issued),
            new.host.eq(read_host),
            new.length.eq(port.read_command.payload.length),
        ]

        owner = data.View(owner_layout, owners.r_data)
        count = Signal(LENGTH_BITS)
        arrived = port.read_data.valid
        m.d.comb += [
            port.read_data.ready.eq(1),
            self.fetch_words.payload.eq(port.read_data.payload),
            self.host_words.payload.eq(port.read_data.payload),
            self.fetch_words.valid.eq(arrived & ~owner.host),
            self.host_words.valid.eq(arrived & owner.host),
            self.quiet.eq(~owners.r_rdy),
        ]
        m.d.comb += owners.r_en.eq(arrived & (count == owner.length - 1))
        with m.If(arrived):
            m.d.sync += count.eq(Mux(owners.r_en, 0, count + 1))
        return m
