"""LiteDRAM's native port, and the controller's requests on it."""

from amaranth import Cat, Module, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out, connect, flipped

from sterna.hw.memory.crossing import request_layout
from sterna.hw.memory.ddr3.dfi import BURST_BITS, BURST_BYTES
from sterna.hw.stream import Queue

# Writes whose data wait for the controller, which has eight commands of a bank in its queue
WAITING = 16


class NativePort(wiring.Signature):
    """LiteDRAM's native port, seen from who asks: words are bursts of the chip, 16 bytes.

    Commands are carried out in their order. The data of a write are taken in the cycle in which
    ``wdata.ready`` is high, five behind its command or later, and must be there by then; words that
    were read come in order and are not held back.

    Members
    -------
    cmd : Out(stream of a struct: we, addr)
    wdata : Out(stream of a struct: data, we)
        Bit k of ``we`` enables byte k.
    rdata : In(stream of 128)
        Its ready has no effect.
    """

    def __init__(self, address_bits):
        command = data.StructLayout({"we": 1, "addr": address_bits})
        written = data.StructLayout({"data": BURST_BITS, "we": BURST_BYTES})
        super().__init__(
            {
                "cmd": Out(stream.Signature(command)),
                "wdata": Out(stream.Signature(written)),
                "rdata": In(stream.Signature(BURST_BITS)),
            }
        )


class NativeAdapter(wiring.Component):
    """Requests, as the own controller takes them, on LiteDRAM's native port.

        requests --> commands, one a burst --> two places --> cmd
                 --> data of writes --> queue --> wdata
        words <-- rdata

    A write's data are offered one cycle behind its command or earlier. LiteDRAM's ready comes from
    the command's bank and row in the same cycle, so commands are offered from flip-flops.

    Throughput: a burst a cycle; what the controller gives is half of that. Latency: 2 cycles from a
    request to its first command; words pass without a register. Back-pressure: a request and two
    commands are held; no write is commanded while the queue is full.

    Parameters
    ----------
    address_bits : int
        Of a burst: row, bank, column, from the top.

    Members
    -------
    requests : In(stream of request_layout)
    words : Out(stream of 128)
        Bursts that were read, in order; ready has no effect.
    native : Out(NativePort)
    """

    def __init__(self, address_bits):
        self._layout = request_layout(address_bits, BURST_BITS)
        super().__init__(
            {
                "requests": In(stream.Signature(self._layout)),
                "words": Out(stream.Signature(BURST_BITS)),
                "native": Out(NativePort(address_bits)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        native, requests = self.native, self.requests
        cmd, wdata = native.cmd, native.wdata
        m.submodules.held = held = Queue(self._layout, 1)
        m.submodules.data = queue = SyncFIFOBuffered(
            width=len(Value.cast(wdata.payload)), depth=WAITING
        )
        m.submodules.commands = commands = Queue(cmd.payload.shape(), 2)
        connect(m, commands.o, flipped(cmd))
        request, command = held.o.payload, commands.i
        # Of a read: the bursts that were commanded
        number, taken, done = Signal(8), Signal(), Signal()
        m.d.comb += [
            held.i.payload.eq(requests.payload),
            held.i.valid.eq(requests.valid),
            requests.ready.eq(held.i.ready),
            held.o.ready.eq(done),
            command.payload.we.eq(request.write),
            command.payload.addr.eq(request.address + number),
            command.valid.eq(held.o.valid & (queue.w_rdy | ~request.write)),
            taken.eq(command.valid & command.ready),
            done.eq(taken & (request.write | (number == request.length - 1))),
            queue.w_data.eq(Cat(request.data, request.mask)),
            queue.w_en.eq(taken & request.write),
            Value.cast(wdata.payload).eq(queue.r_data),
            wdata.valid.eq(queue.r_rdy),
            queue.r_en.eq(wdata.ready),
            self.words.payload.eq(native.rdata.payload),
            self.words.valid.eq(native.rdata.valid),
            native.rdata.ready.eq(1),
        ]
        with m.If(taken):
            m.d.sync += number.eq(number + 1)
        with m.If(done):
            m.d.sync += number.eq(0)
        return m
