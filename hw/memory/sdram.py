"""SDR SDRAM: what a chip asks for, and a controller made for one long stream of reads."""

from dataclasses import dataclass
from math import ceil

from amaranth import Array, Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from sterna.hw.memory.port import MemoryPort, burst_layout, write_layout

BANK_BITS = 2
BANKS = 1 << BANK_BITS
DATA_BITS = 16
QUEUED_BURSTS, QUEUED_WRITES = 4, 16
INIT_REFRESHES = 8
# ras_n, cas_n, we_n from bit 2 down.
LOAD_MODE, REFRESH, PRECHARGE, ACTIVATE, WRITE, READ, _, NOP = range(8)
ALL_BANKS = 1 << 10  # address bit A10 of PRECHARGE


@dataclass(frozen=True, kw_only=True)
class SdramChip:
    """An SDR SDRAM of 16 bits and four banks; times in ns, as the data sheet's minima unless said.

    Attributes
    ----------
    row_bits, column_bits : int
    t_rcd, t_rp, t_ras, t_rc, t_rrd, t_rfc, t_wr, t_mrd : float
        ACTIVATE to READ or WRITE, PRECHARGE to ACTIVATE, ACTIVATE to PRECHARGE, ACTIVATE to ACTIVATE of one bank and of
        two, REFRESH to ACTIVATE, last data written to PRECHARGE, LOAD MODE to any command.
    t_ras_max : float
        A row may be open no longer.
    t_refresh : float
        Mean time between two REFRESHes.
    t_init : float
        From stable power and clock to the first command.
    cas2_hz : int
        Highest clock at a CAS latency of 2; above it, it is 3.
    """

    name: str
    row_bits: int
    column_bits: int
    t_rcd: float
    t_rp: float
    t_ras: float
    t_rc: float
    t_rrd: float
    t_rfc: float
    t_wr: float
    t_mrd: float
    t_ras_max: float = 100_000
    t_refresh: float = 64e6 / 8192
    t_init: float = 200_000
    cas2_hz: int = 100_000_000

    @property
    def bytes(self):
        """Size of the memory."""
        return 2 << (self.row_bits + self.column_bits + BANK_BITS)

    def cycles(self, name, clock_hz):
        """A time of the data sheet ("t_rcd" ...) in whole cycles, rounded up (int)."""
        return ceil(getattr(self, name) * clock_hz * 1e-9 - 1e-9)

    def cas_latency(self, clock_hz):
        """2 or 3 cycles."""
        return 2 if clock_hz <= self.cas2_hz else 3


# The slowest figures of the two makers' -7 grades, so that either fits: Alliance AS4C16M16SA-7 and AS4C32M16SB-7 (t_rcd and
# t_rp of 21 ns, t_rc of 63 ns), ISSI IS42S16160G-7.
_GRADE7 = {"t_rcd": 21, "t_rp": 21, "t_ras": 42, "t_rc": 63, "t_rrd": 14, "t_rfc": 63, "t_wr": 14, "t_mrd": 14}
CHIPS = {chip.name: chip for chip in (
    SdramChip(name="AS4C16M16SA-7", row_bits=13, column_bits=9, **_GRADE7),
    SdramChip(name="AS4C32M16SB-7", row_bits=13, column_bits=10, **_GRADE7),
)}


class SdramPins(wiring.Signature):
    """What a controller drives and reads, all of it in registers at the pins. The chip has the controller's clock: it
    samples at the end of the cycle in which these values stand, and a word that it drives is taken at the end of a cycle, too.
    """

    def __init__(self, row_bits):
        super().__init__({
            "cke": Out(1), "cs_n": Out(1), "ras_n": Out(1, init=1), "cas_n": Out(1, init=1), "we_n": Out(1, init=1), "ba": Out(BANK_BITS),
            "a": Out(row_bits), "dqm": Out(DATA_BITS // 8), "dq_o": Out(DATA_BITS), "dq_oe": Out(1), "dq_i": In(DATA_BITS),
        })


class SdramController(wiring.Component):
    """Memory port of 16 bits on an SDR SDRAM.

    A word per cycle: every READ and WRITE moves one word (burst length 1), so that any address may follow any other, and
    commands for rows take single cycles between them. Pages follow each other from bank to bank; while words of one are read,
    the row of the next (of this burst, or of the one queued behind it) is opened, which costs two cycles per page. So a
    sequential stream loses 2 / 2^column_bits to rows and about (6 + t_rp + t_rfc + t_rcd) / t_refresh to REFRESH.

    Order: bursts in the order of their commands. Writes wait in a queue of 16 and are written together; a burst that was
    commanded behind a waiting write waits until the queue is empty. With no burst waiting, writes are written at once.

    Latency, with the row open: 4 + CAS latency cycles from an accepted command to its first word. Back-pressure: commands are accepted
    while less than 4 wait; words that were read are not held back. During initialisation nothing is accepted.

    Parameters
    ----------
    chip : SdramChip
    clock_hz : int

    Members
    -------
    port : In(MemoryPort)
        Word address: row, bank, column, from the top.
    pins : Out(SdramPins)
    ready : Out(1)
        The chip is initialised.
    """

    def __init__(self, chip, clock_hz):
        self.chip, self.clock_hz = chip, clock_hz
        self.address_bits = chip.row_bits + BANK_BITS + chip.column_bits
        self.cycles = {name: chip.cycles(name, clock_hz)
                       for name in ("t_rcd", "t_rp", "t_ras", "t_rc", "t_rrd", "t_rfc", "t_wr", "t_mrd", "t_init")}
        self.cycles["t_refresh"] = int(chip.t_refresh * clock_hz * 1e-9)
        self.cas = chip.cas_latency(clock_hz)
        super().__init__({"port": In(MemoryPort(self.address_bits, DATA_BITS // 8)), "pins": Out(SdramPins(chip.row_bits)),
                          "ready": Out(1)})

    def elaborate(self, platform):
        m = Module()
        port, pins, t = self.port, self.pins, self.cycles
        column_bits, row_bits = self.chip.column_bits, self.chip.row_bits

        def page_of(address):
            return address[column_bits:]

        # Queues. A burst carries whether a write waited when it was commanded.
        burst = data.StructLayout({"burst": burst_layout(self.address_bits), "behind": 1})
        m.submodules.bursts = bursts = SyncFIFOBuffered(width=burst.size, depth=QUEUED_BURSTS)
        m.submodules.writes = writes = SyncFIFOBuffered(width=write_layout(self.address_bits, 2).size, depth=QUEUED_WRITES)
        queued, new = data.View(burst, bursts.r_data), data.View(burst, bursts.w_data)
        write = data.View(write_layout(self.address_bits, 2), writes.r_data)
        write_waits = Signal()  # registered by the queue or on its way into it
        m.d.comb += [
            port.read_command.ready.eq(bursts.w_rdy & self.ready), bursts.w_en.eq(port.read_command.valid & self.ready),
            new.burst.eq(port.read_command.payload), write_waits.eq(writes.level != 0), new.behind.eq(write_waits),
            port.write.ready.eq(writes.w_rdy & self.ready), writes.w_en.eq(port.write.valid & self.ready),
            writes.w_data.eq(port.write.payload),
        ]

        # The burst that is being read.
        reading, behind = Signal(), Signal()
        address, left = Signal(self.address_bits), Signal(8)
        last = Signal(self.address_bits)  # its last word
        loads, column_read, column_write = Signal(), Signal(), Signal()
        ends = column_read & (left == 1)
        m.d.comb += [loads.eq(bursts.r_rdy & (~reading | ends)), bursts.r_en.eq(loads)]
        with m.If(column_read):
            m.d.sync += [address.eq(address + 1), left.eq(left - 1)]
        with m.If(loads):
            m.d.sync += [reading.eq(1), address.eq(queued.burst.address), left.eq(queued.burst.length), behind.eq(queued.behind),
                         last.eq(queued.burst.address + queued.burst.length - 1)]
        with m.Elif(ends):
            m.d.sync += reading.eq(0)
        with m.If(~write_waits):
            m.d.sync += behind.eq(0)

        # Which word is next, and which page behind it.
        writing = Signal()
        here, ahead, ahead_valid = Signal(self.address_bits), Signal(row_bits + BANK_BITS), Signal()
        crosses = page_of(last) != page_of(address)
        m.d.comb += [
            writing.eq(writes.r_rdy & (behind | ~reading)),
            here.eq(Mux(writing, write.address, address)),
            ahead.eq(Mux(crosses, page_of(last), page_of(queued.burst.address))),
            ahead_valid.eq(reading & ~writing & (crosses | bursts.r_rdy)),
        ]

        banks = [_Bank(m, k, row_bits, t) for k in range(BANKS)]
        bank, row = here[column_bits:column_bits + BANK_BITS], here[column_bits + BANK_BITS:]
        ahead_bank, ahead_row = ahead[:BANK_BITS], ahead[BANK_BITS:]

        def of(name, number):
            return Array(getattr(b, name) for b in banks)[number]

        # What may be done in this cycle.
        since_activate, since_read = Signal(range(t["t_rrd"] + 1)), Signal(range(self.cas + 3))
        with m.If(since_activate != 0):
            m.d.sync += since_activate.eq(since_activate - 1)
        with m.If(since_read != 0):
            m.d.sync += since_read.eq(since_read - 1)
        hit, hit_ahead = of("open", bank) & (of("row", bank) == row), of("open", ahead_bank) & (of("row", ahead_bank) == ahead_row)
        wanted = writing | (reading & ~behind)
        can_column = wanted & hit & of("column_ready", bank) & ~(writing & (since_read != 0))
        prepares = ahead_valid & ~hit_ahead & (ahead_bank != bank)
        target, target_row = Mux(prepares, ahead_bank, bank), Mux(prepares, ahead_row, row)
        needs_row = prepares | (wanted & ~hit)
        can_activate = needs_row & ~of("open", target) & of("activate_ready", target) & (since_activate == 0)
        can_precharge = needs_row & of("open", target) & of("precharge_ready", target)

        # Time between refreshes, initialisation, and the time that a command of all banks takes.
        interval, refresh_due, pause = Signal(range(t["t_refresh"]), init=t["t_refresh"] - 1), Signal(), Signal(range(
            max(t["t_init"], t["t_rfc"]) + 1), init=t["t_init"])
        refreshes = Signal(range(INIT_REFRESHES + 1))
        m.d.sync += interval.eq(Mux(interval == 0, t["t_refresh"] - 1, interval - 1))
        with m.If((interval == 0) & self.ready):
            m.d.sync += refresh_due.eq(1)
        with m.If(pause != 0):
            m.d.sync += pause.eq(pause - 1)

        command, ba, a = Signal(3, init=NOP), Signal(BANK_BITS), Signal(row_bits)
        precharge_all = Signal()
        m.d.comb += [command.eq(NOP), ba.eq(target), a.eq(target_row)]
        all_closed = ~Cat(*(b.open for b in banks)).any()
        all_precharge_ready = Cat(*(b.precharge_ready | ~b.open for b in banks)).all()
        all_activate_ready = Cat(*(b.activate_ready for b in banks)).all()

        with m.FSM() as fsm:
            with m.State("POWER"):
                with m.If(pause == 0):
                    m.d.comb += [command.eq(PRECHARGE), a.eq(ALL_BANKS), precharge_all.eq(1)]
                    m.d.sync += [pause.eq(t["t_rp"] - 1), refreshes.eq(INIT_REFRESHES)]
                    m.next = "INIT"
            with m.State("INIT"):
                with m.If(pause == 0):
                    with m.If(refreshes != 0):
                        m.d.comb += command.eq(REFRESH)
                        m.d.sync += [refreshes.eq(refreshes - 1), pause.eq(t["t_rfc"] - 1)]
                    with m.Else():
                        # Burst length 1, sequential, CAS latency, single writes.
                        m.d.comb += [command.eq(LOAD_MODE), ba.eq(0), a.eq(1 << 9 | self.cas << 4)]
                        m.d.sync += pause.eq(t["t_mrd"] - 1)
                        m.next = "MODE"
            with m.State("MODE"):
                with m.If(pause == 0):
                    m.d.sync += self.ready.eq(1)
                    m.next = "RUN"
            with m.State("RUN"):
                with m.If(refresh_due):
                    with m.If(~all_closed):
                        with m.If(all_precharge_ready):
                            m.d.comb += [command.eq(PRECHARGE), a.eq(ALL_BANKS), precharge_all.eq(1)]
                    with m.Elif(all_activate_ready):
                        m.d.comb += command.eq(REFRESH)
                        m.d.sync += [refresh_due.eq(0), pause.eq(t["t_rfc"] - 1)]
                        m.next = "REFRESH"
                # The next page first: it needs the command lines for a cycle or two only.
                with m.Elif(can_activate):
                    m.d.comb += command.eq(ACTIVATE)
                    m.d.sync += since_activate.eq(t["t_rrd"] - 1)
                with m.Elif(can_precharge):
                    m.d.comb += [command.eq(PRECHARGE), a.eq(0)]
                with m.Elif(can_column):
                    m.d.comb += [command.eq(Mux(writing, WRITE, READ)), column_write.eq(writing), column_read.eq(~writing),
                                 ba.eq(bank), a.eq(here[:column_bits])]
                    with m.If(~writing):
                        m.d.sync += since_read.eq(self.cas + 2)
            with m.State("REFRESH"):
                with m.If(pause == 0):
                    m.next = "RUN"
        for b in banks:
            b.follow(m, command, (ba == b.number), precharge_all, target_row)
        m.d.comb += [writes.r_en.eq(column_write),
                     port.refreshing.eq((fsm.ongoing("RUN") & refresh_due) | fsm.ongoing("REFRESH"))]

        # Pins.
        m.d.comb += [pins.cke.eq(1), pins.cs_n.eq(0)]
        m.d.sync += [
            Cat(pins.we_n, pins.cas_n, pins.ras_n).eq(command), pins.ba.eq(ba), pins.a.eq(a), pins.dq_o.eq(write.data),
            pins.dq_oe.eq(column_write), pins.dqm.eq(Mux(column_write, ~write.mask, 0)),
        ]
        arriving = Signal(self.cas + 1)
        m.d.sync += [arriving.eq(Cat(column_read, arriving)), port.read_data.payload.eq(pins.dq_i),
                     port.read_data.valid.eq(arriving[-1])]
        return m


class _Bank:
    """Row of one bank and the cycles until it takes each kind of command."""

    def __init__(self, m, number, row_bits, t):
        self.number, self._t = number, t
        self.open, self.row = Signal(name=f"open{number}"), Signal(row_bits, name=f"row{number}")
        longest = max(t["t_rc"], t["t_ras"], t["t_rp"], t["t_rcd"], t["t_wr"] + 1)
        self._until = {kind: Signal(range(longest + 1), name=f"until_{kind}{number}")
                       for kind in ("activate", "column", "precharge")}
        for kind, until in self._until.items():
            setattr(self, f"{kind}_ready", until == 0)
            with m.If(until != 0):
                m.d.sync += until.eq(until - 1)

    def follow(self, m, command, addressed, all_banks, row):
        """Takes over what a command does to the bank."""
        t, until = self._t, self._until

        def at_least(kind, cycles):
            with m.If(until[kind] < cycles):
                m.d.sync += until[kind].eq(cycles - 1)

        with m.If(((command == PRECHARGE) & addressed) | all_banks):
            m.d.sync += self.open.eq(0)
            at_least("activate", t["t_rp"])
        with m.Elif((command == ACTIVATE) & addressed):
            m.d.sync += [self.open.eq(1), self.row.eq(row), until["column"].eq(t["t_rcd"] - 1),
                         until["precharge"].eq(t["t_ras"] - 1), until["activate"].eq(t["t_rc"] - 1)]
        with m.Elif((command == WRITE) & addressed):
            at_least("precharge", t["t_wr"] + 1)
