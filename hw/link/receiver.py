"""Frames from the byte stream into verified frame buffers."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from sterna.hw.link.cobs import CobsDecoder
from sterna.hw.link.crc import RESIDUE, Crc32C
from sterna.hw.protocol import MAX_FRAME_BYTES, OVERHEAD_BYTES

BUFFER_BYTES = 256
# A frame starts so far below the end of its buffer that its data begin at address 0 and the write
# address after the last byte is the number of data bytes. The place before the frame, which the
# longest frame does not reach, keeps that number.
FIRST = BUFFER_BYTES - OVERHEAD_BYTES
LENGTH_PLACE = FIRST - 1


class FrameReceiver(wiring.Component):
    """Decodes, verifies and queues frames; hands out their bytes.

    A frame is queued when its delimiter arrives and its code, length (11 to 240 bytes) and checksum
    are right. Otherwise it is counted in ``frames_bad``; a frame that begins while all buffers are
    taken is counted in ``frames_lost``. One byte per cycle is taken always: a serial line cannot
    wait. The oldest frame is read as a stream: first the number of its data bytes (frame length -
    11), then the frame from its type on, one byte per cycle, 2 cycles after ``rewind``.

    Parameters
    ----------
    credits : int
        Frame buffers of 256 bytes, in one block RAM; 1 to 255, the field of the register block.
    counter_bits : int
        Bits of the two counters.
    registered : bool
        False leaves out the register behind the block RAM: one cycle less and a longer path.

    Members
    -------
    rx : In(stream of 8)
        Bytes from the host; ``ready`` is always 1.
    available : Out(1)
        At least one verified frame is queued.
    bytes : Out(stream of 8)
        Bytes of the oldest frame; meaningless unless ``available``. After the frame come leftovers
        of the buffer.
    rewind : In(1)
        Read the oldest frame from its start.
    release : In(1)
        Give the oldest frame's buffer back. Needs a ``rewind`` before the next read.
    frames_bad, frames_lost : Out(counter_bits)
        Wrapping counters.
    """

    def __init__(self, credits, counter_bits=32, registered=True):
        if not 1 <= credits <= 255:
            raise ValueError(f"credits {credits!r}: use 1 to 255 frame buffers")
        self.credits = credits
        self._registered = registered
        super().__init__(
            {
                "rx": In(stream.Signature(8)),
                "available": Out(1),
                "bytes": Out(stream.Signature(8)),
                "rewind": In(1),
                "release": In(1),
                "frames_bad": Out(counter_bits),
                "frames_lost": Out(counter_bits),
            }
        )

    def elaborate(self, platform):
        # Plan: decoder, checksum and memory; the ring of buffers in it (`newest`, `oldest`,
        # `queued`); filling the newest one, byte by byte at `place`, until the end of a frame
        # decides on `commit`; the queue between the two sides; reading the oldest one, anew at each
        # `rewind`.
        m = Module()
        m.submodules.decoder = decoder = CobsDecoder()
        m.submodules.crc = crc = Crc32C()
        # A buffer is read only between its commit and its release and written only outside, so what
        # a read returns during a write does not matter.
        m.submodules.memory = memory = Memory(
            shape=8, depth=self.credits * BUFFER_BYTES, init=[], attrs={"no_rw_check": 1}
        )
        write = memory.write_port()
        read = memory.read_port()
        wiring.connect(m, wiring.flipped(self.rx), decoder.rx)

        # Buffers are used in turn.
        def advance(index):
            wrap = self.credits & (self.credits - 1)
            return Mux(index == self.credits - 1, 0, index + 1) if wrap else index + 1

        index_bits = (self.credits - 1).bit_length()
        newest = Signal(index_bits)
        oldest = Signal(index_bits)
        queued = Signal(range(self.credits + 1))

        # Filling. `place` counts on into bit 8 when the header and checksum are complete.
        place = Signal(9, init=FIRST)
        overlong = Signal()
        no_buffer = Signal()  # sticky until the end of the frame
        dropped = no_buffer | (queued == self.credits)
        good = Signal()
        commit = Signal()
        m.d.comb += [
            crc.data.eq(decoder.data),
            crc.valid.eq(decoder.valid),
            crc.clear.eq(decoder.end),
            good.eq((crc.checksum == RESIDUE) & place[8] & ~overlong & ~decoder.broken),
            commit.eq(decoder.end & good & ~dropped),
            write.en.eq((decoder.valid | decoder.end) & ~dropped & ~overlong),
            write.addr.eq(Cat(Mux(decoder.end, LENGTH_PLACE, place[:8]), newest)),
            write.data.eq(Mux(decoder.end, place[:8], decoder.data)),
        ]
        with m.If(decoder.end):
            m.d.sync += [
                place.eq(FIRST),
                overlong.eq(0),
                no_buffer.eq(0),
            ]
            with m.If(dropped):
                m.d.sync += self.frames_lost.eq(self.frames_lost + 1)
            with m.Elif(~good):
                m.d.sync += self.frames_bad.eq(self.frames_bad + 1)
        with m.Elif(decoder.valid):
            m.d.sync += [
                place.eq(place + 1),
                no_buffer.eq(dropped),
            ]
            with m.If(place == FIRST + MAX_FRAME_BYTES):
                m.d.sync += overlong.eq(1)

        # The queue.
        m.d.comb += self.available.eq(queued != 0)
        with m.If(commit):
            m.d.sync += newest.eq(advance(newest))
        with m.If(self.release):
            m.d.sync += oldest.eq(advance(oldest))
        with m.If(commit != self.release):
            m.d.sync += queued.eq(Mux(commit, queued + 1, queued - 1))

        # Reading: block RAM, then perhaps a register; both move when the byte offered is taken or
        # absent.
        read_place = Signal(8)
        fetched = Signal()
        move = ~self.bytes.valid | self.bytes.ready
        m.d.comb += [
            read.addr.eq(Cat(read_place, oldest)),
            read.en.eq(move),
        ]
        with m.If(self.rewind):
            m.d.sync += [
                read_place.eq(LENGTH_PLACE),
                fetched.eq(0),
            ]
        with m.Elif(move):
            m.d.sync += [
                read_place.eq(read_place + 1),
                fetched.eq(1),
            ]
        if self._registered:
            with m.If(self.rewind):
                m.d.sync += self.bytes.valid.eq(0)
            with m.Elif(move):
                m.d.sync += [
                    self.bytes.valid.eq(fetched),
                    self.bytes.payload.eq(read.data),
                ]
        else:
            m.d.comb += [
                self.bytes.valid.eq(fetched),
                self.bytes.payload.eq(read.data),
            ]
        return m
