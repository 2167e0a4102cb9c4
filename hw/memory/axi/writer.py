"""A write master of AXI4: whole bursts, one ID, a response for each."""

from amaranth import Module, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out, connect, flipped

from sterna.hw.memory.axi.bus import (
    ADDRESS_BITS,
    LENGTH_BITS,
    Axi4Write,
    Burst,
    burst_command,
)
from sterna.hw.memory.axi.layout import beats
from sterna.hw.stream import Queue


def beat_layout(beat_bytes):
    """A beat: its bytes, which of them are written (bit k: byte k), and whether it ends a burst."""
    return data.StructLayout({"data": 8 * beat_bytes, "mask": beat_bytes, "last": 1})


class AxiWriter(wiring.Component):
    """Writes bursts, all of one ID, so that the memory keeps their order.

    The address of a burst comes with its last beat or later: then its beats follow one another at
    WVALID without a gap of this side's making, none before its address is offered.

        command -> (AW register) -> AW     beats -> (two blocks) -> W     B -> done

    Throughput: a beat per cycle. Latency: a cycle to AW, one more to W. Back-pressure: ``beats``
    while two blocks wait, ``command`` while one waits behind AW.

    Parameters
    ----------
    beat_bytes, block_bytes, address_bits : int
    most : int
        Bursts that may wait for their response; who commands them keeps to it.

    Members
    -------
    command : In(stream of burst_command)
    beats : In(stream of beat_layout)
    done : Out(1)
        A burst is written: reads that begin now see it.
    axi : Out(Axi4Write), IDs of 1 bit, which are 0
    error : Out(1)
        Once a response was no OKAY, or came for no burst; it stays.
    """

    def __init__(self, *, beat_bytes, block_bytes, most, id_bits=1, address_bits=ADDRESS_BITS):
        self._beat_bytes, self._block = beat_bytes, beats(1, beat_bytes, block_bytes)
        self._most = most
        super().__init__(
            {
                "command": In(
                    stream.Signature(burst_command(address_bits, beat_bytes, block_bytes))
                ),
                "beats": In(stream.Signature(beat_layout(beat_bytes))),
                "done": Out(1),
                "axi": Out(
                    Axi4Write(address_bits=address_bits, data_bytes=beat_bytes, id_bits=id_bits)
                ),
                "error": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        axi, shape = self.axi, beat_layout(self._beat_bytes)
        m.submodules.waiting = waiting = Queue(self.command.payload.shape(), 1)
        connect(m, flipped(self.command), waiting.i)
        command = waiting.o
        begins, ends = Signal(), Signal()
        m.d.comb += [
            command.ready.eq(~axi.awvalid | axi.awready),
            begins.eq(command.valid & command.ready),
            axi.awsize.eq((self._beat_bytes - 1).bit_length()),
            axi.awburst.eq(Burst.INCR),
        ]
        with m.If(axi.awready):
            m.d.sync += axi.awvalid.eq(0)
        with m.If(begins):
            m.d.sync += [
                axi.awvalid.eq(1),
                axi.awaddr.eq(command.payload.address << (self._beat_bytes - 1).bit_length()),
                axi.awlen.eq((command.payload.length - 1)[:LENGTH_BITS]),
            ]

        # Bursts whose address is offered and whose last beat is not written, and those without a
        # response. The two counts are of one width: a beat may be written before its address.
        open_, unanswered = Signal(range(self._most + 1)), Signal(range(self._most + 1))
        m.submodules.fifo = fifo = SyncFIFO(width=shape.size, depth=2 * self._block)
        beat = data.View(shape, fifo.r_data)
        m.d.comb += [
            fifo.w_data.eq(Value.cast(self.beats.payload)),
            fifo.w_en.eq(self.beats.valid),
            self.beats.ready.eq(fifo.w_rdy),
            axi.wvalid.eq(fifo.r_rdy & (open_ != 0)),
            axi.wdata.eq(beat.data),
            axi.wstrb.eq(beat.mask),
            axi.wlast.eq(beat.last),
            fifo.r_en.eq(axi.wvalid & axi.wready),
            ends.eq(fifo.r_en & axi.wlast),
            axi.bready.eq(1),
            self.done.eq(axi.bvalid & (unanswered != 0)),
        ]
        m.d.sync += [
            open_.eq(open_ + begins - ends),
            unanswered.eq(unanswered + begins - self.done),
        ]
        with m.If(axi.bvalid & ((axi.bresp != 0) | (unanswered == 0))):
            m.d.sync += self.error.eq(1)
        return m
