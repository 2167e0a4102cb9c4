"""The link: bytes in and out on one side, 32-bit requests and token events on the other."""

from amaranth import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from sterna.hw.link.executor import Event, FrameExecutor, Request, Response
from sterna.hw.link.receiver import FrameReceiver
from sterna.hw.link.transmitter import FrameTransmitter
from sterna.hw.protocol import wide


class Link(wiring.Component):
    """Link protocol of docs/protocol.md, device side.

    ::

        rx -> FrameReceiver (COBS, CRC, buffers) -> FrameExecutor <-> request, response
        tx <- FrameTransmitter (CRC, COBS)       <------'    '------- event

    ``rx`` takes one byte per cycle always and ``tx`` gives one. Nothing of a frame is acted on
    before its checksum has been verified. Whatever arrives, the link is in step again after the
    next delimiter, and a ``tx`` that stalls holds up replies and events but loses none; frames that
    then find no buffer are counted in ``frames_lost``.

    Parameters
    ----------
    config : Config
        ``credits``: frame buffers of 256 bytes; without ``counters``, those of frames have 8 bits.

    Members
    -------
    rx : In(stream of 8)
    tx : Out(stream of 8)
    request : Out(stream of Request)
        ``write``, ``address`` (bytes, a multiple of 4; its range is checked by the responder),
        ``data``.
    response : In(stream of Response)
        One per request, in order, for writes too. ``error`` turns the frame into a NAK
        "address", with ``memory`` into one "memory".
    event : In(stream of Event)
        Tokens to report; taken when the TOKEN frame is complete.
    frames_bad, frames_lost : Out(frame_counter_bits)
    """

    def __init__(self, config):
        self._config = config
        bits = config.frame_counter_bits
        super().__init__(
            {
                "rx": In(stream.Signature(8)),
                "tx": Out(stream.Signature(8)),
                "request": Out(stream.Signature(Request)),
                "response": In(stream.Signature(Response)),
                "event": In(stream.Signature(Event)),
                "frames_bad": Out(bits),
                "frames_lost": Out(bits),
            }
        )

    def elaborate(self, platform):
        m = Module()
        cfg = self._config
        m.submodules.receiver = receiver = FrameReceiver(
            cfg.credits, cfg.frame_counter_bits, not cfg.slow
        )
        m.submodules.executor = executor = FrameExecutor(
            cfg.register_bits, (cfg.batch - 1).bit_length(), wide=wide(cfg.memory_bytes)
        )
        m.submodules.transmitter = transmitter = FrameTransmitter(not cfg.slow)
        wiring.connect(m, wiring.flipped(self.rx), receiver.rx)
        wiring.connect(m, transmitter.tx, wiring.flipped(self.tx))
        wiring.connect(m, receiver.bytes, executor.bytes)
        wiring.connect(m, executor.body, transmitter.body)
        wiring.connect(m, executor.request, wiring.flipped(self.request))
        wiring.connect(m, wiring.flipped(self.response), executor.response)
        wiring.connect(m, wiring.flipped(self.event), executor.event)
        m.d.comb += [
            executor.available.eq(receiver.available),
            receiver.rewind.eq(executor.rewind),
            receiver.release.eq(executor.release),
            transmitter.restart.eq(executor.restart),
            transmitter.finish.eq(executor.finish),
            executor.finished.eq(transmitter.finished),
            transmitter.silent.eq(executor.silent),
            executor.checksum.eq(transmitter.checksum),
            self.frames_bad.eq(receiver.frames_bad),
            self.frames_lost.eq(receiver.frames_lost),
        ]
        return m
