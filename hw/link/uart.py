"""Asynchronous serial line: 8 data bits, no parity, one stop bit, least significant bit first."""

from math import ceil, log2

from amaranth import Cat, Module, Signal
from amaranth.lib import cdc, stream, wiring
from amaranth.lib.wiring import In, Out

LEAST_CYCLES = 4  # per bit
ACCURACY_BITS = 10
FILTER_PARTS = 8  # the line is looked at about so often per bit, or every cycle


class BitClock:
    """The rate of a line as an accumulator: ``step`` is added modulo 2 ** ``bits`` per cycle, a
    carry ends a bit.

    Bits are a whole number of cycles long only on average, so any rate up to a quarter of the clock
    will do. It is met within 2 ** -ACCURACY_BITS / 2, which is 0.05 %.

    Raises
    ------
    ValueError
        The rate is not positive, or above a quarter of the clock.
    """

    def __init__(self, clock_hz, baud):
        if not 0 < baud * LEAST_CYCLES <= clock_hz:
            raise ValueError(
                f"baud {baud!r} with a clock of {clock_hz!r} Hz: use 1 to "
                f"{clock_hz // LEAST_CYCLES}, "
                f"{LEAST_CYCLES} cycles per bit"
            )
        self.cycles = clock_hz / baud
        self.bits = ceil(log2(self.cycles)) + ACCURACY_BITS
        self.step = round((1 << self.bits) / self.cycles)


class UartReceiver(wiring.Component):
    """Line to bytes.

    The line is looked at eight times per bit (every cycle, where a bit has fewer than 16), and the
    majority of the last three looks counts: what is shorter than one look, an eighth of a bit, is
    never seen. A start bit that ends before its middle was none. Each bit is read in its middle,
    counted from the edge of its own start bit. The looks move that place by up to an eighth of a
    bit or a cycle, whichever is more; clocks that are 2 % apart move it by 19 % of a bit until the
    stop bit. That is less than half a bit, with room for jitter, from 6 cycles per bit on; at 4
    cycles clocks may be 1.5 % apart.

    A byte without stop bit is dropped, and the line has to be high again before the next start bit.
    One that is all zero is a break, however long it lasts.

    Latency: from the middle of the stop bit, 1 to 2 looks and 4 cycles. A byte that is complete
    before the last one was taken is dropped, which counts as an error.

    Parameters
    ----------
    clock_hz, baud : int
        See ``BitClock``.

    Members
    -------
    line : In(1)
        Asynchronous; high at rest.
    bytes : Out(stream of 8)
    error : Out(1)
        High for a cycle: a byte was lost, to a missing stop bit, a break or a full output.
    break_ : Out(1)
        With ``error``: it was a break.
    idle : Out(1)
        No byte is being received and none waits.
    """

    def __init__(self, clock_hz, baud):
        self._clock = BitClock(clock_hz, baud)
        super().__init__(
            {
                "line": In(1),
                "bytes": Out(stream.Signature(8)),
                "error": Out(1),
                "break_": Out(1),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        clock = self._clock
        synchronised = Signal(init=1)
        m.submodules += cdc.FFSynchronizer(self.line, synchronised, init=1)

        every = max(1, int(clock.cycles) // FILTER_PARTS)
        look = Signal()
        if every > 1:
            wait = Signal(range(every))
            m.d.comb += look.eq(wait == 0)
            m.d.sync += wait.eq(wait - 1)
            with m.If(look):
                m.d.sync += wait.eq(every - 1)
        else:
            m.d.comb += look.eq(1)
        a, b, c = looks = Signal(3, init=7)
        level = Signal()
        with m.If(look):
            m.d.sync += looks.eq(Cat(synchronised, looks))
        m.d.comb += level.eq((a & b) | (b & c) | (a & c))

        phase = Signal(clock.bits)
        total = Signal(clock.bits + 1)
        middle = total[-1]
        bits = Signal(8)
        left = Signal(4)
        complete = Signal()
        m.d.comb += total.eq(phase + clock.step)
        m.d.sync += phase.eq(total)
        with m.If(self.bytes.ready):
            m.d.sync += self.bytes.valid.eq(0)
        with m.FSM(init="WAIT") as fsm:
            with m.State("WAIT"):
                with m.If(level):
                    m.next = "IDLE"
            with m.State("IDLE"):
                # Half a bit from here; a step more, because the edge was on average half a look ago
                # and the carry comes on average half a cycle late.
                m.d.sync += [
                    phase.eq((1 << clock.bits - 1) + clock.step),
                    left.eq(8),
                ]
                with m.If(~level):
                    m.next = "START"
            with m.State("START"):
                with m.If(middle & level):
                    m.next = "IDLE"
                with m.Elif(middle):
                    m.next = "DATA"
            with m.State("DATA"):
                with m.If(middle):
                    m.d.sync += [
                        bits.eq(Cat(bits[1:], level)),
                        left.eq(left - 1),
                    ]
                    with m.If(left == 1):
                        m.next = "STOP"
            with m.State("STOP"):
                with m.If(middle & level):
                    m.d.comb += complete.eq(1)
                    m.next = "IDLE"
                with m.Elif(middle):
                    m.d.comb += [
                        self.error.eq(1),
                        self.break_.eq(bits == 0),
                    ]
                    m.next = "WAIT"
        with m.If(complete & self.bytes.valid & ~self.bytes.ready):
            m.d.comb += self.error.eq(1)
        with m.Elif(complete):
            m.d.sync += [
                self.bytes.valid.eq(1),
                self.bytes.payload.eq(bits),
            ]
        m.d.comb += self.idle.eq((fsm.ongoing("IDLE") | fsm.ongoing("WAIT")) & ~self.bytes.valid)
        return m


class UartTransmitter(wiring.Component):
    """Bytes to line.

    Ten bits per byte, one after the other while bytes come; an edge is at most a cycle late against
    the rate, and the lateness does not add up. Latency: the start bit begins in the cycle after a
    byte was taken.

    Parameters
    ----------
    clock_hz, baud : int
        See ``BitClock``.

    Members
    -------
    bytes : In(stream of 8)
    line : Out(1)
        High at rest; a register, so without glitches.
    idle : Out(1)
    """

    def __init__(self, clock_hz, baud):
        self._clock = BitClock(clock_hz, baud)
        super().__init__(
            {
                "bytes": In(stream.Signature(8)),
                "line": Out(1, init=1),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        clock = self._clock
        phase = Signal(clock.bits)
        total = Signal(clock.bits + 1)
        over = Signal()  # the present bit
        bits = Signal(9)  # still to be sent
        left = Signal(range(10))
        busy = Signal()
        m.d.comb += [
            total.eq(phase + clock.step),
            over.eq(total[-1]),
            self.bytes.ready.eq(~busy | (over & (left == 0))),
            self.idle.eq(~busy),
        ]
        m.d.sync += phase.eq(total)
        with m.If(over):
            m.d.sync += [
                self.line.eq(bits[0]),
                bits.eq(Cat(bits[1:], 1)),
                left.eq(left - 1),
            ]
            with m.If(left == 0):
                m.d.sync += [
                    busy.eq(0),
                    left.eq(0),
                    self.line.eq(1),
                ]
        with m.If(self.bytes.valid & self.bytes.ready):
            m.d.sync += [
                busy.eq(1),
                self.line.eq(0),
                bits.eq(Cat(self.bytes.payload, 1)),
                left.eq(9),
            ]
            with m.If(~busy):
                m.d.sync += phase.eq(0)
        return m


class Uart(wiring.Component):
    """A serial line as the byte streams of the link, with a count of what was lost on it.

    Parameters
    ----------
    clock_hz, baud : int
        See ``BitClock``.
    counter_bits : int

    Members
    -------
    rx_line : In(1); tx_line : Out(1)
        The pins; ``rx_line`` may change at any time.
    rx : Out(stream of 8); tx : In(stream of 8)
        Bytes received and bytes to send: ``Accelerator.rx`` and ``tx``.
    errors : Out(counter_bits)
        Bytes lost by the receiver, breaks included; wraps.
    idle : Out(1)
        Nothing is being received or sent.
    """

    def __init__(self, clock_hz, baud, counter_bits=8):
        self._receiver, self._transmitter = (
            UartReceiver(clock_hz, baud),
            UartTransmitter(clock_hz, baud),
        )
        byte = stream.Signature(8)
        super().__init__(
            {
                "rx_line": In(1),
                "tx_line": Out(1),
                "rx": Out(byte),
                "tx": In(byte),
                "errors": Out(counter_bits),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.receiver, m.submodules.transmitter = receiver, transmitter = (
            self._receiver,
            self._transmitter,
        )
        wiring.connect(m, receiver.bytes, wiring.flipped(self.rx))
        wiring.connect(m, wiring.flipped(self.tx), transmitter.bytes)
        m.d.comb += [
            receiver.line.eq(self.rx_line),
            self.tx_line.eq(transmitter.line),
            self.idle.eq(receiver.idle & transmitter.idle),
        ]
        m.d.sync += self.errors.eq(self.errors + receiver.error)
        return m
