"""Starts a device from the flash of its board: plays what a host would send into the link."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from sterna.hw.protocol import FLASH_HEADER_BYTES, FLASH_MAGIC, FLASH_OFFSET

LONGEST_BYTES = 256  # more than a frame has on the line
WAKE, READ = 0xAB, 0x03
WAKE_US = 5  # a W25Q128JV needs 3 us


class FlashPins(wiring.Signature):
    """A serial flash with one data line in either direction."""

    def __init__(self):
        super().__init__(
            {
                "select_n": Out(1, init=1),
                "clock": Out(1),
                "to_flash": Out(1),
                "from_flash": In(1),
            }
        )


class FlashBoot(wiring.Component):
    """Between transport and accelerator: after a reset the accelerator gets the bytes of the flash,
    then those of the transport.

    The flash holds, from ``offset`` on, a magic, the number of bytes behind it, which only programs
    read, and frames of docs/protocol.md as a host sends them, up to an empty frame
    (host/device/flash.py). Without the magic, as in an empty flash, the transport has the
    accelerator after some microseconds, and no byte of the flash has reached it. It also has it
    when 256 bytes hold no delimiter, as where a flash was not written to the end.

    A flash that has configured an iCE40 sleeps. It is woken (0xAB) and given 5 us; then one READ
    (0x03) takes all bytes at half the clock, in mode 0: a byte every 16 cycles. A full frame takes
    3872 cycles to arrive and less than 900 to be executed (``FrameExecutor``), so none finds the
    buffers taken. Replies are dropped until 256 bytes behind the end have passed, when the last one
    is over. What a host sends meanwhile is lost, and it sends it again.

    Parameters
    ----------
    clock_hz : int
        At most 100 MHz: READ allows 50.
    offset : int
        Byte address in the flash.

    Members
    -------
    flash : Out(FlashPins)
        ``select_n`` and ``clock`` are registers; ``to_flash`` changes when ``clock`` falls.
    host_rx : In(stream of 8); host_tx : Out(stream of 8)
        Of the transport.
    rx : Out(stream of 8); tx : In(stream of 8)
        Of the accelerator, which always takes a byte.
    booting : Out(1)
        The transport is cut off.
    """

    def __init__(self, clock_hz, offset=FLASH_OFFSET):
        if clock_hz > 100_000_000:
            raise ValueError(
                f"clock {clock_hz} Hz: the flash is read at half of it, 50 MHz at most"
            )
        if not 0 <= offset < 1 << 24:
            raise ValueError(f"offset {offset} in the flash: use 0 to {(1 << 24) - 1}")
        # In periods of the flash's clock
        self._pause = max(32, WAKE_US * clock_hz // 2_000_000 + 1)
        self._offset = offset
        byte = stream.Signature(8)
        super().__init__(
            {
                "flash": Out(FlashPins()),
                "host_rx": In(byte),
                "host_tx": Out(byte),
                "rx": Out(byte),
                "tx": In(byte),
                "booting": Out(1, init=1),
            }
        )

    def elaborate(self, platform):
        # Plan: the line to the flash, a bit in two cycles (`late`, `count`, `bits`); a state
        # machine that wakes the flash, reads its header and plays its frames; the end of that
        # (`over`), whatever the reason, which only a reset undoes; then who has the accelerator:
        # the flash while `booting`, afterwards the transport.
        m = Module()
        flash, booting = self.flash, self.booting

        # The line to the flash. `late`: the second half of a period; everything moves at its end,
        # when the clock falls.
        late = Signal()
        # Periods: of a pause, a command, or behind the last delimiter
        count = Signal(range(8 * LONGEST_BYTES + 1))
        bits = Signal(8)
        complete = Signal()  # `bits` is a byte, and `count` stands at the first bit of the next one
        woken, delimited, ended, over = Signal(), Signal(), Signal(), Signal()
        number = count[3:7]  # of the byte, from 1 on
        wanted = Const(
            int.from_bytes(FLASH_MAGIC[-1:] + FLASH_MAGIC[:-1], "little"), 32
        ).word_select(number[:2], 8)
        command = Mux(
            woken, Const(_in_order(READ << 24 | self._offset), 32), Const(_in_order(WAKE << 24), 32)
        )
        m.d.comb += flash.to_flash.eq(command.bit_select(count[:5], 1))
        m.d.sync += complete.eq(0)
        with m.If(booting):
            m.d.sync += [
                late.eq(~late),
                flash.clock.eq(~late & ~flash.select_n),
            ]
        with m.If(late):
            m.d.sync += [
                count.eq(count + 1),
                bits.eq(Cat(flash.from_flash, bits)),
            ]

        # What is sent and read.
        with m.FSM() as fsm:
            with m.State("PAUSE"):
                with m.If(late & (count == self._pause)):
                    m.d.sync += [
                        count.eq(0),
                        flash.select_n.eq(0),
                    ]
                    m.next = "COMMAND"
            with m.State("COMMAND"):
                with m.If(late & (count == 31)):
                    m.d.sync += [
                        count.eq(0),
                        woken.eq(1),
                        flash.select_n.eq(~woken),
                    ]
                    with m.If(woken):
                        m.next = "HEADER"
                    with m.Else():
                        m.next = "PAUSE"
            with m.State("HEADER"):
                m.d.sync += complete.eq(late & count[:3].all())
                with m.If(complete & (number <= len(FLASH_MAGIC)) & (bits != wanted)):
                    m.d.comb += over.eq(1)
                with m.If(complete & (number == FLASH_HEADER_BYTES)):
                    m.d.sync += count.eq(0)
                    m.next = "PLAY"
            with m.State("PLAY"):
                m.d.sync += complete.eq(late & count[:3].all())
                with m.If(complete & ~ended):
                    m.d.sync += [
                        delimited.eq(bits == 0),
                        ended.eq(delimited & (bits == 0)),
                    ]
                    with m.If(bits == 0):
                        m.d.sync += count.eq(0)
                m.d.comb += over.eq(count[-1])

        # The end, for good.
        with m.If(over):
            m.d.sync += [
                booting.eq(0),
                late.eq(0),
                flash.clock.eq(0),
                flash.select_n.eq(1),
            ]

        # Who has the accelerator.
        plays = booting & fsm.ongoing("PLAY") & ~ended
        m.d.comb += [
            self.rx.payload.eq(Mux(booting, bits, self.host_rx.payload)),
            self.rx.valid.eq(Mux(booting, complete & plays, self.host_rx.valid)),
            self.host_rx.ready.eq(booting | self.rx.ready),
            self.host_tx.payload.eq(self.tx.payload),
            self.host_tx.valid.eq(self.tx.valid & ~booting),
            self.tx.ready.eq(booting | self.host_tx.ready),
        ]
        return m


def _in_order(word):
    """A word of 32 bits with the bit that is sent first in bit 0."""
    return int(f"{word:032b}"[::-1], 2)
