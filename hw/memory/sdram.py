"""A controller of SDR SDRAM, made for one long stream of reads, and the requests that it takes."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from sterna.hw.memory.chips import BANK_BITS, DATA_BYTES
from sterna.hw.memory.crossing import request_layout
from sterna.hw.memory.next_run import NextRun
from sterna.hw.memory.pins import DATA_BITS, PAD_CYCLES, SdramPins
from sterna.hw.memory.timer import Timer

BANKS = 1 << BANK_BITS
INIT_REFRESHES = 8
REFRESH_GROUP = 4  # REFRESHes that are done together, as rarely; the chip lets eight of them wait
# ras_n, cas_n, we_n from bit 2 down.
LOAD_MODE, REFRESH, PRECHARGE, ACTIVATE, WRITE, READ, _, NOP = range(8)
ALL_BANKS = 1 << 10  # address bit A10 of PRECHARGE


class SdramController(wiring.Component):
    """Carries out reads and writes of an SDR SDRAM, in their order.

    A request is cut into runs within a page; each goes through three places:

        requests --> cut at the page's end --> next: its row is opened
                 --> current: READ or WRITE per cycle --> pins

    Every READ and WRITE moves one word (burst length 1), so commands for rows take single cycles
    between them: the row of the next run is opened while the current one is read, if they are in
    different banks. Pages follow each other from bank to bank, so a sequential stream of long reads
    loses 2 / 2^column_bits to rows, and about (4 t_rfc + t_rp + t_rcd + 12 cycles) / (4 t_refresh)
    to REFRESHes, of which four are done together.

    Two timers, of t_ras and of t_wr, serve all banks: the row of any bank is closed no earlier than
    they allow.

    Throughput: a word per cycle within a run; a request per 4 cycles. Latency: 10 + CAS latency
    cycles from an accepted request, its row open and nothing before it, to its first word.
    Back-pressure: one request waits behind the two runs; words that were read are not held back.
    During initialisation nothing goes on.

    Parameters
    ----------
    chip : sterna.hw.memory.chips.SdramChip
    clock_hz : int
    words : int
        Words of a write, a power of two.

    Members
    -------
    requests : In(stream of request_layout)
        Word address: row, bank, column, from the top.
    words : Out(stream of 16)
        Words that were read, in order; ready has no effect.
    pins : Out(SdramPins)
    ready : Out(1)
        The chip is initialised.
    refreshing : Out(1)
        Reads are not carried out for the sake of a REFRESH.
    """

    def __init__(self, chip, clock_hz, words=1):
        self.chip, self.clock_hz, self._count = chip, clock_hz, words
        self.cycles = {
            name: chip.cycles(name, clock_hz)
            for name in (
                "t_rcd",
                "t_rp",
                "t_ras",
                "t_rc",
                "t_rrd",
                "t_rfc",
                "t_wr",
                "t_mrd",
                "t_init",
            )
        }
        self.cycles["t_refresh"] = int(chip.t_refresh * clock_hz * 1e-9)
        self.cas = chip.cas_latency(clock_hz)
        requests = request_layout(chip.address_bits, DATA_BITS * words)
        super().__init__(
            {
                "requests": In(stream.Signature(requests)),
                "words": Out(stream.Signature(DATA_BITS)),
                "pins": Out(SdramPins(chip.row_bits)),
                "ready": Out(1),
                "refreshing": Out(1),
            }
        )

    def elaborate(self, platform):
        # Plan: how commands for rows reach the pins (`send`); the runs that requests are cut into
        # (`cut`), and what is known of the banks (`open_`, `rows`, timers); the current run, a READ
        # or WRITE per cycle; the next run (`following`), whose row a state machine opens meanwhile;
        # initialisation and REFRESH, where `due` keeps the next run from starting; the pins, where
        # a command for rows goes first.
        m = Module()
        t, column_bits, row_bits = self.cycles, self.chip.column_bits, self.chip.row_bits
        run_layout = data.StructLayout(
            {
                "write": 1,
                "column": column_bits,
                "bank": BANK_BITS,
                "row": row_bits,
                "count": 8,
                "data": DATA_BITS * self._count,
                "mask": DATA_BYTES * self._count,
            }
        )
        # What leaves the registers for the pins: a command for rows or the mode, else one of the
        # current run.
        row_valid, row_command = Signal(), Signal(3)
        row_bank, row_address = Signal(BANK_BITS), Signal(row_bits)
        m.d.sync += row_valid.eq(0)

        def send(command, address, bank=0):
            m.d.sync += [
                row_valid.eq(1),
                row_command.eq(command),
                row_address.eq(address),
                row_bank.eq(bank),
            ]

        # What all parts below share: runs, banks and their timers.
        due, refresh_runs = Signal(), Signal()
        cut = self._cut(m, run_layout)
        starts = Signal()
        upcoming = NextRun(m, cut, row_bits, BANKS, due=due, held=refresh_runs, starts=starts)
        following, open_ = upcoming.run, upcoming.open
        row_stays = max(t["t_ras"], t["t_rc"] - t["t_rp"])
        opened, written = Timer(m, "opened", row_stays), Timer(m, "written", t["t_wr"])

        # The current run.
        active, current, last = Signal(), Signal(run_layout), Signal()
        since_read = Timer(m, "since_read", self.cas + 1)
        issue = Signal()
        reads = issue & ~current.write
        m.d.comb += [
            issue.eq(active & ~row_valid & (~current.write | since_read.done)),
            starts.eq(upcoming.ready & ~due & (~active | (issue & last))),
        ]
        with m.If(reads):
            m.d.sync += since_read.start(self.cas + 1)
        with m.If(issue):
            m.d.sync += [
                current.column.eq(current.column + 1),
                current.count.eq(current.count - 1),
                last.eq(current.count == 2),
                current.data.eq(current.data >> DATA_BITS),
                current.mask.eq(current.mask >> DATA_BYTES),
            ]
        with m.If(starts):
            m.d.sync += [
                active.eq(1),
                current.eq(following),
                last.eq(following.count == 1),
            ]
        with m.Elif(issue & last):
            m.d.sync += active.eq(0)

        with m.If(issue & current.write):
            m.d.sync += written.start(t["t_wr"])

        # The next run. Between two ACTIVATEs lie t_rcd and the states of a run, which covers t_rrd;
        # a bank is only closed here, t_rp before it is opened again, or for REFRESH.
        assert t["t_rrd"] <= t["t_rcd"] + 2
        may_close = Signal()
        wait = Timer(m, "wait", max(t["t_rcd"], t["t_rp"]))
        m.d.sync += may_close.eq(
            opened.done & written.done & ~(active & (current.bank == following.bank))
        )

        def close():
            send(PRECHARGE, 0, following.bank)
            m.d.sync += wait.start(t["t_rp"] - 1)

        def open_row():
            send(ACTIVATE, following.row, following.bank)
            m.d.sync += [
                opened.start(row_stays),
                wait.start(max(t["t_rcd"] - 2, 0)),
            ]

        upcoming.add(may_close, close, open_row, wait)

        # Initialisation and REFRESH. t_init passes once; what comes later is counted by `gap`.
        power, passed = Signal(range(t["t_init"] + 1), init=t["t_init"]), Signal()
        gap, left = (
            Timer(m, "gap", max(t["t_rfc"], t["t_rp"], t["t_mrd"])),
            Signal(range(INIT_REFRESHES + 1)),
        )
        interval = Signal(
            range(REFRESH_GROUP * t["t_refresh"]), init=REFRESH_GROUP * t["t_refresh"] - 1
        )
        elapsed, quiet = Signal(), Signal()
        m.d.sync += [
            elapsed.eq(interval == 1),
            interval.eq(Mux(elapsed, REFRESH_GROUP * t["t_refresh"] - 1, interval - 1)),
            quiet.eq(due & ~active & ~row_valid & opened.done & written.done),
        ]
        with m.If(elapsed & self.ready):
            m.d.sync += due.eq(1)
        with m.FSM(name="refresh") as fsm:
            with m.State("POWER"):
                m.d.sync += [
                    power.eq(power - 1),
                    passed.eq(power == 0),
                ]
                with m.If(passed):
                    m.d.sync += left.eq(INIT_REFRESHES)
                    m.next = "CLOSE"
            with m.State("CLOSE"):
                send(PRECHARGE, ALL_BANKS)
                m.d.sync += [
                    gap.start(t["t_rp"] - 1),
                    open_.eq(0),
                ]
                m.next = "REFRESH"
            with m.State("REFRESH"):
                with m.If(gap.done):
                    with m.If(left != 0):
                        send(REFRESH, 0)
                        m.d.sync += [
                            left.eq(left - 1),
                            gap.start(t["t_rfc"] - 1),
                        ]
                    with m.Elif(self.ready):
                        m.d.sync += due.eq(0)
                        m.next = "RUN"
                    with m.Else():
                        # Burst length 1, sequential, single writes
                        send(LOAD_MODE, 1 << 9 | self.cas << 4)
                        m.d.sync += gap.start(t["t_mrd"] - 1)
                        m.next = "MODE"
            with m.State("MODE"):
                with m.If(gap.done):
                    m.d.sync += self.ready.eq(1)
                    m.next = "RUN"
            with m.State("RUN"):
                with m.If(due & quiet & ~active & ~row_valid):
                    m.d.sync += left.eq(REFRESH_GROUP)
                    m.next = "CLOSE"
        m.d.comb += [
            refresh_runs.eq(~fsm.ongoing("RUN")),
            self.refreshing.eq(due & self.ready),
        ]

        # Pins.
        pins, writes = self.pins, issue & current.write
        arriving = Signal(self.cas + 1 + PAD_CYCLES)
        m.d.comb += [
            pins.cke.eq(1),
            pins.cs_n.eq(0),
        ]
        m.d.sync += [
            Cat(pins.we_n, pins.cas_n, pins.ras_n).eq(
                Mux(row_valid, row_command, Mux(issue, Mux(current.write, WRITE, READ), NOP))
            ),
            pins.ba.eq(Mux(row_valid, row_bank, current.bank)),
            pins.a.eq(Mux(row_valid, row_address, current.column)),
            pins.dq_o.eq(current.data[:DATA_BITS]),
            pins.dq_oe.eq(writes),
            pins.dqm.eq(Mux(writes, ~current.mask[:DATA_BYTES], 0)),
            arriving.eq(Cat(reads, arriving)),
            self.words.payload.eq(pins.dq_i),
            self.words.valid.eq(arriving[-1]),
        ]
        return m

    def _cut(self, m, layout):
        """The stream of runs, each within a page, that requests become."""
        runs = stream.Signature(layout).create()
        run = Signal(layout)
        held, counted, crosses = Signal(), Signal(), Signal()
        request = self.requests.payload
        length = Mux(request.write, self._count, request.length)
        # Where the run would end, in words from the last multiple of 256 that it begins behind
        behind = Signal(9)
        more = Signal()
        page = Cat(run.bank, run.row)
        m.d.comb += [
            more.eq(run.column[8:].all() & behind[8] & (behind[:8] != 0)),
            self.requests.ready.eq(~held),
            runs.payload.eq(run),
            runs.valid.eq(held & counted),
        ]
        with m.If(~held):
            m.d.sync += [
                held.eq(self.requests.valid),
                counted.eq(0),
                run.write.eq(request.write),
                Cat(run.column, run.bank, run.row).eq(request.address),
                run.count.eq(length),
                behind.eq(request.address[:8] + length),
                run.data.eq(request.data),
                run.mask.eq(request.mask),
            ]
        with m.Elif(~counted):
            m.d.sync += [
                counted.eq(1),
                crosses.eq(more),
            ]
            with m.If(more):
                m.d.sync += run.count.eq(-run.column[:8])
        with m.Elif(runs.ready):
            m.d.sync += [
                held.eq(crosses),
                crosses.eq(0),
                page.eq(page + 1),
                run.column.eq(0),
                run.count.eq(behind[:8]),
            ]
        return runs
