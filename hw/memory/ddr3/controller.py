"""A controller of DDR3 SDRAM, made for one long stream of reads, and the requests that it takes."""

from math import ceil

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from sterna.hw.memory.chips import DDR3_BANK_BITS, DDR3_BURST_BITS
from sterna.hw.memory.crossing import request_layout
from sterna.hw.memory.ddr3.dfi import (
    ACTIVATE,
    BURST_BITS,
    BURST_BYTES,
    CAS,
    CAS_WRITE,
    NOP,
    PRECHARGE,
    READ,
    REFRESH,
    WRITE,
    Ddr3Dfi,
)
from sterna.hw.memory.ddr3.start import Start
from sterna.hw.memory.next_run import NextRun
from sterna.hw.memory.timer import Timer

BANKS = 1 << DDR3_BANK_BITS
BURST = 4  # clocks of the chip
# REFRESHes that are done together, as rarely; the chip lets eight of them wait
REFRESH_GROUP = 4
ALL_BANKS = 1 << 10  # address bit A10 of PRECHARGE
# Clocks between the strobes of the two ends, for their preambles, beside the data sheet's two
TURN = 2


def cycle_counts(chip, clock_hz):
    """Cycles of the controller between two commands, by the name of the rule (dict of int).

    Commands for rows take the first clock of a cycle and the others the second, so from a row's to
    a column's is a clock more than twice the cycles, and the other way one less.
    """
    clocks = {
        name.removeprefix("t_"): chip.clocks(name, 2 * clock_hz)
        for name in vars(chip)
        if name.startswith("t_")
    }
    after_write = CAS_WRITE + BURST
    return {
        "rcd": ceil((clocks["rcd"] - 1) / 2),
        "rp": ceil(clocks["rp"] / 2),
        "ras": ceil(clocks["ras"] / 2),
        "rc": ceil(clocks["rc"] / 2),
        "rrd": ceil(clocks["rrd"] / 2),
        "faw": ceil(clocks["faw"] / 2),
        "rfc": ceil(clocks["rfc"] / 2),
        "read_close": ceil((clocks["rtp"] + 1) / 2),
        "write_close": ceil((after_write + clocks["wr"] + 1) / 2),
        "write_read": ceil((after_write + clocks["wtr"]) / 2),
        "read_write": ceil((CAS + BURST + 2 - CAS_WRITE + TURN) / 2),
        "refresh": int(chip.t_refresh * clock_hz * 1e-9),
    }


class Ddr3Controller(wiring.Component):
    """Carries out reads and writes of a DDR3 SDRAM, in their order; its cycle is two clocks of the
    chip.

    A request is cut into runs within a page; each goes through three places:

        requests --> cut at the page's end --> next: its row is opened
                 --> current: READ or WRITE every second cycle --> dfi

    Every READ and WRITE moves a burst of 16 bytes, which takes two cycles of the data lines.
    Commands for rows have a clock of their own, so the row of the next run is opened while the
    current one is read, if they are in different banks. Pages follow each other from bank to bank,
    so a sequential stream of long reads loses nothing to rows, and about
    (4 t_rfc + t_rp + t_rcd + 14 cycles) / (4 t_refresh) to REFRESHes, of which four are done
    together.

    One timer each of t_ras, of t_rtp and of t_wr serves all banks: the row of any bank is closed no
    earlier than they allow.

    Throughput: a burst per two cycles within a run; a request per 5 cycles. Latency: 7 cycles from
    an accepted request, its row open and nothing before it, to its READ. Back-pressure: one request
    waits behind the two runs; bursts that were read are not held back. Before ``ready`` and in a
    REFRESH nothing goes on.

    Parameters
    ----------
    chip : sterna.hw.memory.chips.Ddr3Chip
    clock_hz : int
        Of the controller, half of the chip's.
    bursts : int
        Bursts of a write, a power of two.

    Members
    -------
    requests : In(stream of request_layout)
        Address of a burst: row, bank, column, from the top.
    words : Out(stream of 128)
        Bursts that were read, in order; ready has no effect.
    dfi : Out(Ddr3Dfi)
    ready : Out(1)
        The chip is initialised.
    refreshing : Out(1)
        Reads are not carried out for the sake of a REFRESH.
    """

    def __init__(self, chip, clock_hz, bursts=1):
        self.chip, self.clock_hz, self._count = chip, clock_hz, bursts
        self.cycles = cycle_counts(chip, clock_hz)
        self.start = Start(chip, clock_hz)
        requests = request_layout(chip.address_bits, BURST_BITS * bursts)
        super().__init__(
            {
                "requests": In(stream.Signature(requests)),
                "words": Out(stream.Signature(BURST_BITS)),
                "dfi": Out(Ddr3Dfi(chip.row_bits)),
                "ready": Out(1),
                "refreshing": Out(1),
            }
        )

    def elaborate(self, platform):
        # Plan: commands for rows (`send`); the runs that requests are cut into (`cut`), and what is
        # known of the banks (`open_`, `rows`, timers); the current run, a READ or WRITE every
        # second cycle; the next run (`following`), whose row a state machine opens meanwhile;
        # REFRESH, where `due` keeps the next run from starting.
        m = Module()
        t, row_bits, dfi = self.cycles, self.chip.row_bits, self.dfi
        m.submodules.start = start = self.start
        m.submodules.cut = cut = Cut(self.chip, self._count)
        connect(m, flipped(self.requests), cut.requests)
        runs = cut.runs
        m.d.sync += dfi.row_command.eq(NOP)

        def send(command, address, bank=0):
            m.d.sync += [
                dfi.row_command.eq(command),
                dfi.row_address.eq(address),
                dfi.row_bank.eq(bank),
            ]

        # What all parts below share: the next run, banks and their timers.
        due, refresh_runs = Signal(), Signal(init=1)
        starts = Signal()
        upcoming = NextRun(m, runs, row_bits, BANKS, due=due, held=refresh_runs, starts=starts)
        following, open_ = upcoming.run, upcoming.open
        row_stays = max(t["ras"], t["rc"] - t["rp"])
        opened = Timer(m, "opened", row_stays)
        read, written = Timer(m, "read", t["read_close"]), Timer(m, "written", t["write_close"])

        # The current run.
        active, current, last = Signal(), Signal.like(runs.payload), Signal()
        spaced, issue = Signal(), Signal()
        turn = Timer(m, "turn", max(t["read_write"], t["write_read"]))
        wrote = Signal()
        m.d.comb += [
            issue.eq(active & spaced & ((current.write == wrote) | turn.done)),
            # The cycle behind a run's last command has none anyway: no command is lost by beginning
            # there, and what begins does not depend on whether this cycle has one.
            starts.eq(upcoming.ready & ~due & ~active),
        ]
        m.d.sync += [
            spaced.eq(~issue),
            dfi.column_command.eq(Mux(issue, Mux(current.write, WRITE, READ), NOP)),
            dfi.column_bank.eq(current.bank),
            dfi.column_address.eq(current.column << DDR3_BURST_BITS),
            dfi.write_data.eq(current.data[:BURST_BITS]),
            dfi.write_mask.eq(~current.mask[:BURST_BYTES]),
        ]
        with m.If(issue):
            m.d.sync += [
                current.column.eq(current.column + 1),
                current.count.eq(current.count - 1),
                last.eq(current.count == 2),
                wrote.eq(current.write),
                turn.start(Mux(current.write, t["write_read"] - 1, t["read_write"] - 1)),
            ]
            if self._count > 1:
                m.d.sync += [
                    current.data.eq(current.data >> BURST_BITS),
                    current.mask.eq(current.mask >> BURST_BYTES),
                ]
            with m.If(current.write):
                m.d.sync += written.start(t["write_close"] - 2)
            # Of all other READs a later one of the same run tells
            with m.Elif(last):
                m.d.sync += read.start(t["read_close"] - 2)
        with m.If(starts):
            m.d.sync += [
                active.eq(1),
                current.eq(following),
                last.eq(following.count == 1),
            ]
        with m.Elif(issue & last):
            m.d.sync += active.eq(0)

        # The next run. Between two ACTIVATEs lie t_rcd and at least four states of a run.
        between = t["rcd"] + 4
        assert t["rrd"] <= between and t["faw"] <= 4 * between
        may_close = Signal()
        wait = Timer(m, "wait", max(t["rcd"], t["rp"]))
        # A cycle late, as `quiet` below; the timers of both are as much shorter
        m.d.sync += may_close.eq(
            opened.done & read.done & written.done & ~(active & (current.bank == following.bank))
        )

        def close():
            send(PRECHARGE, 0, following.bank)
            m.d.sync += wait.start(t["rp"] - 1)

        def open_row():
            send(ACTIVATE, following.row, following.bank)
            m.d.sync += [
                opened.start(row_stays - 2),
                # The wait ends three cycles before the command for a column may come
                wait.start(max(t["rcd"] - 3, 0)),
            ]

        upcoming.add(may_close, close, open_row, wait)

        self._refresh(m, send, due, refresh_runs, open_, (opened, read, written), active)
        with m.If(~start.done):
            send(start.command, start.address, start.bank)
        m.d.sync += [
            dfi.reset_n.eq(start.reset_n),
            dfi.cke.eq(start.cke),
            dfi.odt.eq(start.done),
        ]
        m.d.comb += [
            self.ready.eq(start.done),
            self.words.payload.eq(dfi.read_data),
            self.words.valid.eq(dfi.read_valid),
        ]
        return m

    def _refresh(self, m, send, due, runs, open_, timers, active):
        """The state machine of REFRESH: ``due`` keeps runs from starting, ``runs`` their rows from
        being looked at.
        """
        t = self.cycles
        left = Signal(range(REFRESH_GROUP + 1))
        gap = Timer(m, "gap", max(t["rfc"], t["rp"]))
        cycles = REFRESH_GROUP * t["refresh"]
        interval, elapsed, quiet = Signal(range(cycles), init=cycles - 1), Signal(), Signal()
        m.d.sync += [
            elapsed.eq(interval == 1),
            interval.eq(Mux(elapsed, cycles - 1, interval - 1)),
            quiet.eq(due & ~active & Cat(timer.done for timer in timers).all()),
        ]
        with m.If(elapsed & self.ready):
            m.d.sync += due.eq(1)
        with m.FSM(name="refresh") as fsm:
            with m.State("RUN"):
                with m.If(due & quiet & ~active):
                    m.d.sync += [
                        left.eq(REFRESH_GROUP),
                        gap.start(t["rp"] - 1),
                        open_.eq(0),
                    ]
                    send(PRECHARGE, ALL_BANKS)
                    m.next = "REFRESH"
            with m.State("REFRESH"):
                with m.If(gap.done):
                    with m.If(left != 0):
                        send(REFRESH, 0)
                        m.d.sync += [
                            left.eq(left - 1),
                            gap.start(t["rfc"] - 1),
                        ]
                    with m.Else():
                        m.d.sync += due.eq(0)
                        m.next = "RUN"
        m.d.sync += [
            runs.eq(~fsm.ongoing("RUN") | ~self.ready),
            self.refreshing.eq(due),
        ]


class Cut(wiring.Component):
    """Cuts requests into runs, each within a page.

    Throughput: a run per two cycles. Latency: 2 cycles. Back-pressure: one request is held.

    Members
    -------
    requests : In(stream of request_layout)
    runs : Out(stream of a struct: write, column, bank, row, count, data, mask)
        ``column`` counts bursts.
    """

    def __init__(self, chip, bursts):
        self._bursts = bursts
        self._column_bits = chip.column_bits - DDR3_BURST_BITS
        layout = data.StructLayout(
            {
                "write": 1,
                "column": self._column_bits,
                "bank": DDR3_BANK_BITS,
                "row": chip.row_bits,
                "count": 8,
                "data": BURST_BITS * bursts,
                "mask": BURST_BYTES * bursts,
            }
        )
        requests = request_layout(chip.address_bits, BURST_BITS * bursts)
        super().__init__(
            {
                "requests": In(stream.Signature(requests)),
                "runs": Out(stream.Signature(layout)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        runs, run = self.runs, Signal.like(self.runs.payload)
        held, counted = Signal(), Signal()
        request, page_bursts = self.requests.payload, 1 << self._column_bits
        length = Mux(request.write, self._bursts, request.length)
        # What is left of the request, and of the page from where the run begins
        left, room = Signal(8), Signal(range(page_bursts + 1))
        page = Cat(run.bank, run.row)
        crosses = Signal()
        m.d.comb += [
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
                left.eq(length),
                room.eq(Const(page_bursts) - request.address[: self._column_bits]),
                run.data.eq(request.data),
                run.mask.eq(request.mask),
            ]
        with m.Elif(~counted):
            m.d.sync += [
                counted.eq(1),
                crosses.eq(left > room),
                run.count.eq(Mux(left > room, room, left)),
                left.eq(left - room),
            ]
        with m.Elif(runs.ready):
            m.d.sync += [
                held.eq(crosses),
                counted.eq(0),
                room.eq(page_bursts),
                page.eq(page + 1),
                run.column.eq(0),
            ]
        return m
