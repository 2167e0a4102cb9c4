"""Bytes of a frame to the byte stream: checksum, COBS code, delimiter."""

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from sterna.hw.link.cobs import CobsEncoder
from sterna.hw.link.crc import Crc32C


class FrameTransmitter(wiring.Component):
    """Appends the CRC-32C to the bytes of a frame, encodes it and sends it.

    One byte per cycle; ``finish`` takes 6 cycles (four checksum bytes, last code, delimiter). The
    frame is sent while the next one is built; ``body.ready`` falls while two frames wait.

    Members
    -------
    body : In(stream of 8)
        The frame without its checksum, at most 249 bytes.
    silent : In(1)
        Bytes of ``body`` are counted in ``checksum`` only and are not sent; not together with
        ``finish``.
    checksum : Out(32)
        CRC-32C of the bytes since the last frame or ``restart``; valid the cycle after a byte.
    restart : In(1)
        Forget the bytes of the unfinished frame.
    finish : In(1)
        Held until ``finished``, without ``body.valid``: complete the frame.
    finished : Out(1)
    tx : Out(stream of 8)
        Encoded frames, each ended by 0x00.

    Parameters
    ----------
    registered : bool
        As for ``CobsEncoder``, and also for a register in front of it.
    """

    def __init__(self, registered=True):
        self._registered = registered
        super().__init__(
            {
                "body": In(stream.Signature(8)),
                "silent": In(1),
                "checksum": Out(32),
                "restart": In(1),
                "finish": In(1),
                "finished": Out(1),
                "tx": Out(stream.Signature(8)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.crc = crc = Crc32C()
        m.submodules.encoder = encoder = CobsEncoder(self._registered)
        wiring.connect(m, encoder.tx, wiring.flipped(self.tx))
        tail = Signal(range(5))  # checksum bytes written
        in_checksum = self.finish & ~tail[2]
        # For the encoder, which takes a whole frame or nothing of it
        valid, byte = Signal(), Signal(8)
        if self._registered:
            with m.If(encoder.data.ready):
                m.d.sync += [
                    encoder.data.valid.eq(valid),
                    encoder.data.payload.eq(byte),
                ]
            with m.If(self.restart):
                m.d.sync += encoder.data.valid.eq(0)
        else:
            m.d.comb += [
                encoder.data.valid.eq(valid),
                encoder.data.payload.eq(byte),
            ]
        m.d.comb += [
            self.body.ready.eq(encoder.data.ready),
            valid.eq((self.body.valid & ~self.silent) | in_checksum),
            byte.eq(Mux(self.finish, crc.checksum[:8], self.body.payload)),
            encoder.restart.eq(self.restart),
            encoder.finish.eq(
                self.finish & tail[2] & (~encoder.data.valid if self._registered else 1)
            ),
            self.finished.eq(encoder.finished),
            self.checksum.eq(crc.checksum),
            crc.data.eq(self.body.payload),
            crc.shift.eq(self.finish),
            crc.valid.eq((self.body.valid & self.body.ready) | self.finish),
            crc.clear.eq(self.restart | self.finished),
        ]
        with m.If(self.finished):
            m.d.sync += tail.eq(0)
        with m.Elif(in_checksum):
            m.d.sync += tail.eq(tail + 1)
        return m
