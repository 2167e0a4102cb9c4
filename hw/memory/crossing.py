"""From the memory port to a controller with a clock of its own and back: what the memories of all
boards with a chip share.
"""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out, connect, flipped

from sterna.hw.stream import AsyncQueue, Queue

REQUESTS, RETURNED = 8, 16  # depths of the crossings


def request_layout(address_bits, data_bits):
    """A request to a controller: a read of ``length`` words of it, or a write of ``data``, which is
    one or several of them at a multiple of so many; bit k of ``mask`` enables byte k.
    """
    return data.StructLayout(
        {
            "write": 1,
            "address": address_bits,
            "length": 8,
            "data": data_bits,
            "mask": data_bits // 8,
        }
    )


class Gather(wiring.Component):
    """Makes one word of ``count`` words of ``bits``, the first of them lowest. A word per ``count``
    cycles, latency 1; output.ready has no effect.
    """

    def __init__(self, count, bits):
        self._count, self._bits = count, bits
        super().__init__(
            {
                "input": In(stream.Signature(bits)),
                "output": Out(stream.Signature(bits * count)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        number = Signal(range(self._count))
        m.d.comb += self.input.ready.eq(1)
        m.d.sync += self.output.valid.eq(self.input.valid & (number == self._count - 1))
        with m.If(self.input.valid):
            m.d.sync += [
                number.eq(number + 1),
                self.output.payload.eq(Cat(self.output.payload[self._bits :], self.input.payload)),
            ]
        return m


def requests_of(m, port, address_bits, count):
    """Reads and writes of a MemoryPort in one order, as requests to a controller: a word of the
    port is ``count`` of its words. While both wait, writes go first.

    Parameters
    ----------
    address_bits : int
        Of the controller's addresses.
    """
    layout = request_layout(address_bits, len(port.write.payload.data))
    request = stream.Signature(layout).create()
    reads = port.read_command.payload
    number_bits = count.bit_length() - 1  # of the controller's words within one of the port
    m.d.comb += [
        request.payload.write.eq(port.write.valid),
        request.payload.address.eq(
            Mux(port.write.valid, port.write.payload.address, reads.address) << number_bits
        ),
        request.payload.length.eq(reads.length << number_bits),
        request.payload.data.eq(port.write.payload.data),
        request.payload.mask.eq(port.write.payload.mask),
        request.valid.eq(port.write.valid | port.read_command.valid),
        port.write.ready.eq(request.ready),
        port.read_command.ready.eq(request.ready & ~port.write.valid),
    ]
    return request


def cross(m, in_memory, request, port, words, refreshing, requests=REQUESTS):
    """Requests from ``sync`` to ``memory``, and ``words`` (a stream) and ``refreshing`` back to the
    port. ``in_memory`` puts a component into the domain ``memory``; ``requests`` is the depth of
    that crossing, and one more waits behind it.

    Returns
    -------
    The requests there (stream).
    """
    layout = request.payload.shape()
    m.submodules.requests = asks = AsyncQueue(
        layout, i_domain="sync", o_domain="memory", depth=requests
    )
    m.submodules.returned = back = AsyncQueue(
        words.payload.shape(), i_domain="memory", o_domain="sync", depth=RETURNED
    )
    m.submodules.refreshing = FFSynchronizer(refreshing, port.refreshing)
    connect(m, request, asks.i)
    # From a place of its own: the pointers of the crossing stay where its memory is.
    m.submodules.request = place = in_memory(Queue(layout, 1))
    connect(m, asks.o, place.i)
    connect(m, words, back.i)
    connect(m, back.o, flipped(port.read_data))
    return place.o
