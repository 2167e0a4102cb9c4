"""Levelling of the reads of a DDR3 SDRAM: the delay and slip of each byte that bursts need."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from sterna.hw.memory.crossing import request_layout
from sterna.hw.memory.ddr3.dfi import (
    BURST_BITS,
    DELAY_BITS,
    DELAYS,
    LANES,
    SLIP_BITS,
    SLIPS,
    Ddr3Trim,
)

# Bursts that are written once and read at every setting: any beats, no two of them the same
PATTERN = (
    0x6BC1_1FA4_93D7_0E58_C236_7D89_E44B_185E,
    0x2A97_D05C_4EB3_F168_8B1D_35E2_A679_9C40,
    0xFF00_55AA_00FF_AA55_0F0F_F0F0_3CC3_C33C,
    0xE91B_7246_B8AD_54F3_1D6E_C785_298A_F03B,
)
# Cycles of the strobes' pause around a new delay, which comes in its middle, and behind it
PAUSE, SETTLED = 16, 16
JUDGE = 16  # cycles after the last burst: a detection has come by then


class Leveller(wiring.Component):
    """Levels the reads once, then lets requests and bursts pass.

    It writes four bursts at the top of the memory, then reads them with each slip and delay; a
    setting is good for a byte if all its beats come right and its cells detected bursts. For each
    byte the middle is taken of the longest run of good delays with one slip, and the bursts are
    read once more. What was in these 64 bytes is lost.

    Throughput: what passes does so without a register. Latency: about 120 cycles a setting, 4000 in
    all. Back-pressure: no request is taken before it has ended; if it failed, they are, and what is
    read is wrong.

    Parameters
    ----------
    address_bits, bursts : int
        Of the controller's requests.
    pause : int
        Cycles; cells that take some for a new setting want a longer one.

    Members
    -------
    requests : In(stream of request_layout), words : Out(stream of 128)
        As the controller's.
    asks : Out(stream of request_layout), given : In(stream of 128)
        To and from the controller.
    trim : Out(Ddr3Trim)
    start : In(1)
        The chip is initialised.
    done, failed : Out(1)
        Levelled; and in the end the bursts were wrong in some byte. They stay.
    good : Out(64)
        Whether a setting was good, bit ``32 byte + 8 slip + delay``.
    """

    def __init__(self, address_bits, bursts, pause=PAUSE):
        self._bursts, self._pause = bursts, pause
        self._place = (1 << address_bits) - len(PATTERN)
        layout = request_layout(address_bits, BURST_BITS * bursts)
        super().__init__(
            {
                "requests": In(stream.Signature(layout)),
                "words": Out(stream.Signature(BURST_BITS)),
                "asks": Out(stream.Signature(layout)),
                "given": In(stream.Signature(BURST_BITS)),
                "trim": Out(Ddr3Trim()),
                "start": In(1),
                "done": Out(1),
                "failed": Out(1),
                "good": Out(LANES * SLIPS * DELAYS),
            }
        )

    def elaborate(self, platform):
        m = Module()
        asks, ask = self.asks, Signal.like(self.asks.payload)
        asking = Signal()
        with m.If(self.done):
            m.d.comb += [
                asks.payload.eq(self.requests.payload),
                asks.valid.eq(self.requests.valid),
                self.requests.ready.eq(asks.ready),
            ]
        with m.Else():
            m.d.comb += [
                asks.payload.eq(ask),
                asks.valid.eq(asking),
            ]
        m.d.comb += [
            self.given.ready.eq(1),
            self.words.payload.eq(self.given.payload),
            self.words.valid.eq(self.given.valid & self.done),
        ]

        # A write of the controller has several bursts: their number in PATTERN
        count = len(PATTERN) // self._bursts
        number, setting = Signal(range(len(PATTERN) + 1)), Signal(SLIP_BITS + DELAY_BITS)
        delay, slip = setting[:DELAY_BITS], setting[DELAY_BITS:]
        pause, settle = self._pause, self._pause + SETTLED
        last, wait = Signal(), Signal(range(settle + JUDGE + 1))
        right, is_good = Signal(LANES), Signal(LANES)
        # Where the wait stands in the next cycle: no comparison precedes what follows from it.
        reads, judges = Signal(), Signal()
        m.d.sync += [
            reads.eq(wait == 2),
            judges.eq(wait == pause + JUDGE - 1),
        ]
        self._compare(m, number, right)
        lanes = [_Lane(k) for k in range(LANES)]
        m.d.comb += [
            is_good.eq(right & self.trim.seen),
            self.trim.pause.eq((wait != 0) & (wait <= pause)),
            self.trim.clear.eq(reads),
        ]

        written = [
            sum(PATTERN[k + i] << BURST_BITS * i for i in range(self._bursts))
            for k in range(0, len(PATTERN), self._bursts)
        ]
        with m.FSM(name="level"):
            with m.State("WAIT"):
                with m.If(self.start):
                    m.next = "FILL"
            with m.State("FILL"):
                m.d.sync += [
                    ask.write.eq(1),
                    ask.address.eq(self._place + number * self._bursts),
                    ask.mask.eq(-1),
                    asking.eq(1),
                ]
                self._choose(m, number, ask.data, written)
                with m.If(asking & asks.ready):
                    m.d.sync += [
                        asking.eq(0),
                        number.eq(number + 1),
                        wait.eq(settle),
                    ]
                    with m.If(number == count - 1):
                        m.next = "SETTLE"
            with m.State("SETTLE"):
                m.d.sync += [
                    wait.eq(wait - 1),
                    number.eq(0),
                    right.eq(-1),
                    ask.write.eq(0),
                    ask.address.eq(self._place),
                    ask.length.eq(len(PATTERN)),
                ]
                # The setting changes within the pause
                with m.If(wait == pause // 2):
                    for k, lane in enumerate(lanes):
                        m.d.sync += [
                            self.trim.delay.word_select(k, DELAY_BITS).eq(
                                Mux(last, lane.end - (lane.longest >> 1), delay)
                            ),
                            self.trim.slip.word_select(k, SLIP_BITS).eq(Mux(last, lane.slip, slip)),
                        ]
                with m.If(reads):
                    m.d.sync += asking.eq(1)
                    m.next = "READ"
            with m.State("READ"):
                with m.If(asks.ready):
                    m.d.sync += asking.eq(0)
                with m.If(number == len(PATTERN)):
                    m.d.sync += wait.eq(0)
                    m.next = "JUDGE"
            with m.State("JUDGE"):
                # Upwards and above the pause
                m.d.sync += wait.eq(Mux(wait == 0, pause + 1, wait + 1))
                with m.If(judges):
                    m.d.sync += [
                        setting.eq(setting + 1),
                        last.eq(setting.all()),
                        wait.eq(settle),
                    ]
                    with m.If(last):
                        m.d.sync += [
                            self.done.eq(1),
                            self.failed.eq(~is_good.all()),
                            wait.eq(0),
                        ]
                        m.next = "DONE"
                    with m.Else():
                        m.d.sync += [
                            self.good.word_select(k, SLIPS * DELAYS)
                            .bit_select(setting, 1)
                            .eq(is_good[k])
                            for k in range(LANES)
                        ]
                        for k, lane in enumerate(lanes):
                            lane.take(m, is_good[k], delay, slip)
                        m.next = "SETTLE"
            with m.State("DONE"):
                pass
        return m

    @staticmethod
    def _choose(m, number, register, values):
        """Sets a register to that of the values that has a number."""
        with m.Switch(number):
            for k, value in enumerate(values):
                with m.Case(k):
                    m.d.sync += register.eq(value)

    def _compare(self, m, number, right):
        """Counts the bursts that come, and clears ``right`` of the bytes that are wrong in one."""
        given, expected, valid = Signal(BURST_BITS), Signal(BURST_BITS), Signal()
        m.d.sync += [
            given.eq(self.given.payload),
            valid.eq(self.given.valid & ~self.done),
        ]
        self._choose(m, number, expected, PATTERN)
        with m.If(self.given.valid & ~self.done):
            m.d.sync += number.eq(number + 1)
        with m.If(valid):
            for lane in range(LANES):
                wrong = Cat(
                    given.word_select(k, 8) != expected.word_select(k, 8)
                    for k in range(lane, BURST_BITS // 8, LANES)
                ).any()
                with m.If(wrong):
                    m.d.sync += right[lane].eq(0)


class _Lane:
    """The longest run of good delays of a byte so far: its length, its last delay and its slip."""

    def __init__(self, number):
        self.longest = Signal(range(DELAYS + 1), name=f"longest{number}")
        self.end = Signal(DELAY_BITS, name=f"end{number}")
        self.slip = Signal(SLIP_BITS, name=f"slip{number}")
        self._run = Signal(range(DELAYS + 1), name=f"run{number}")

    def take(self, m, good, delay, slip):
        """Statements for a setting that was tried."""
        run = Signal.like(self._run, name=f"{self._run.name}_now")
        m.d.comb += run.eq(Mux(delay == 0, 0, self._run) + 1)
        m.d.sync += self._run.eq(Mux(good, run, 0))
        with m.If(good & (run > self.longest)):
            m.d.sync += [
                self.longest.eq(run),
                self.end.eq(delay),
                self.slip.eq(slip),
            ]
