"""COBS coding of frames of at most 253 bytes, one byte per cycle.

Frames of the protocol have at most 240 bytes, so the code 0xFF (254 bytes without a zero behind
them) never occurs in a valid frame and neither unit treats it specially; in a received frame it
only leads to an overlong frame.
"""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

HALF_BYTES = 256  # one frame under construction and one being sent share a 512-byte block RAM


class CobsDecoder(wiring.Component):
    """Byte stream to frames: every code byte but the first stands for a zero.

    One byte per cycle, never waits; each output belongs to the byte taken one cycle before. Any
    0x00 ends a frame, so the decoder is in step again after the next delimiter whatever came
    before.

    Members
    -------
    rx : In(stream of 8)
        ``ready`` is always 1.
    valid, data : Out(1), Out(8)
        A decoded byte.
    end : Out(1)
        The frame is complete; never together with ``valid``, and not given for empty frames.
    broken : Out(1)
        With ``end``: the delimiter came where a byte was due.
    """

    rx: In(stream.Signature(8))
    valid: Out(1)
    data: Out(8)
    end: Out(1)
    broken: Out(1)

    def elaborate(self, platform):
        m = Module()
        left = Signal(8)  # bytes before the next code byte
        inside = Signal()  # a byte came since the last delimiter
        byte = self.rx.payload
        is_code = left == 0
        m.d.comb += self.rx.ready.eq(1)
        m.d.sync += [
            self.valid.eq(0),
            self.end.eq(0),
            self.broken.eq(~is_code),
        ]
        with m.If(self.rx.valid):
            with m.If(byte == 0):
                m.d.sync += [
                    self.end.eq(inside),
                    inside.eq(0),
                    left.eq(0),
                ]
            with m.Else():
                m.d.sync += [
                    inside.eq(1),
                    self.valid.eq(inside),
                    self.data.eq(Mux(is_code, 0, byte)),
                    left.eq(Mux(is_code, byte, left) - 1),
                ]
        return m


class CobsEncoder(wiring.Component):
    """Bytes to COBS frames, in place in a double buffer in block RAM.

    A place is kept free for the code byte before the first data byte. A byte that is not zero is
    written at its place; a zero writes the distance to the open code place there and makes its own
    place the open one. So each byte costs one write, the end of a frame costs two (last code,
    delimiter), and the frame is sent while the next one is built.

    Throughput: one byte per cycle in and out, 2 cycles at the end of a frame in, 3 out.
    ``data.ready`` falls while both halves hold unsent frames. At most 253 bytes per frame, so that
    code, bytes and delimiter fit into a half.

    Members
    -------
    data : In(stream of 8)
        Bytes of the frame.
    restart : In(1)
        Forget the bytes of the unfinished frame.
    finish : In(1)
        Held until ``finished``: end the frame and queue it for sending. Only after at least one
        byte, and without ``data.valid``.
    finished : Out(1)
    tx : Out(stream of 8)
        The frame with its delimiter.

    Parameters
    ----------
    registered : bool
        False leaves out the register behind the block RAM: a longer path, and 2 cycles at the end
        of a frame out.
    """

    def __init__(self, registered=True):
        self._registered = registered
        super().__init__(
            {
                "data": In(stream.Signature(8)),
                "restart": In(1),
                "finish": In(1),
                "finished": Out(1),
                "tx": Out(stream.Signature(8)),
            }
        )

    def elaborate(self, platform):
        # Plan: a frame is built in one half of the memory (`half`, `place`, `code_place`) while the
        # one before it is sent from the other (`send_half`, `send_place`). All that the two sides
        # know of each other is `full`, whose bits are set and cleared at the end.
        m = Module()
        # A half is read only after it has been written, so what a read during a write returns does
        # not matter.
        m.submodules.memory = memory = Memory(
            shape=8, depth=2 * HALF_BYTES, init=[], attrs={"no_rw_check": 1}
        )
        write = memory.write_port()
        read = memory.read_port()

        # Building.
        full = Signal(2)  # halves that hold a frame to be sent
        half = Signal()
        place = Signal(range(HALF_BYTES), init=1)
        code_place = Signal(range(HALF_BYTES))
        distance = Signal(8, init=1)
        coded = Signal()  # the last code byte is in place, the delimiter follows
        put = Signal()
        to_code = Signal()
        m.d.comb += [
            self.data.ready.eq(~full.bit_select(half, 1)),
            put.eq(self.data.valid & self.data.ready),
            to_code.eq(Mux(self.finish, ~coded, self.data.payload == 0)),
            write.en.eq(put | self.finish),
            write.addr.eq(Cat(Mux(to_code, code_place, place), half)),
            write.data.eq(Mux(to_code, distance, Mux(self.finish, 0, self.data.payload))),
            self.finished.eq(self.finish & coded),
        ]
        m.d.sync += coded.eq(self.finish & ~coded)
        with m.If(self.restart | self.finished):
            m.d.sync += [
                place.eq(1),
                code_place.eq(0),
                distance.eq(1),
            ]
        with m.Elif(put):
            m.d.sync += [
                place.eq(place + 1),
                distance.eq(distance + 1),
            ]
            with m.If(to_code):
                m.d.sync += [
                    code_place.eq(place),
                    distance.eq(1),
                ]
        with m.If(self.finished):
            m.d.sync += half.eq(~half)

        # Sending: block RAM, then perhaps a register; all move together when a byte can leave.
        send_half = Signal()
        send_place = Signal(range(HALF_BYTES))
        fetched = Signal()
        sent = Signal()
        move = ~self.tx.valid | self.tx.ready
        m.d.comb += [
            read.addr.eq(Cat(send_place, send_half)),
            read.en.eq(move),
            # Only the delimiter is zero
            sent.eq(self.tx.valid & self.tx.ready & (self.tx.payload == 0)),
        ]
        with m.If(sent):
            m.d.sync += [
                send_half.eq(~send_half),
                send_place.eq(0),
                fetched.eq(0),
            ]
        with m.Elif(move):
            m.d.sync += fetched.eq(full.bit_select(send_half, 1))
            with m.If(full.bit_select(send_half, 1)):
                m.d.sync += send_place.eq(send_place + 1)
        if self._registered:
            with m.If(sent):
                m.d.sync += self.tx.valid.eq(0)
            with m.Elif(move):
                m.d.sync += [
                    self.tx.valid.eq(fetched),
                    self.tx.payload.eq(read.data),
                ]
        else:
            m.d.comb += [
                self.tx.valid.eq(fetched),
                self.tx.payload.eq(read.data),
            ]

        # A half is full from the end of its frame in until that of its frame out.
        for k in range(2):
            with m.If(self.finished & (half == k)):
                m.d.sync += full[k].eq(1)
            with m.Elif(sent & (send_half == k)):
                m.d.sync += full[k].eq(0)
        return m
