"""The ECP5's cells at the pins of a DDR3 SDRAM (Lattice FPGA-TN-02035, ECP5 High-Speed I/O)."""

from amaranth import Cat, ClockSignal, Const, Instance, Module, Mux, ResetSignal, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sterna.hw.memory.chips import DATA_BYTES, DDR3_BANK_BITS, DDR3_BEATS
from sterna.hw.memory.ddr3.dfi import (
    BURST_BITS,
    BURST_BYTES,
    DELAY_BITS,
    LANES,
    READ,
    SLIP_BITS,
    SLIPS,
    WRITE,
    Ddr3Dfi,
    Ddr3Trim,
)

FAST = "memory2x"  # domain of the chip's clock; its edges are those of `sync` and one between them
DQ_BITS = 8 * DATA_BYTES
BEATS = DDR3_BEATS // 2  # of a cycle
# Cycles from a command to what it moves, from register to register. They are those that the chip's
# latencies of 5 and the cells' own make; an ODDRX2F is a cycle later than the cells of DQ and DQS.
STORED, WRITTEN = 2, 4  # after a WRITE: its data in the second place; the first half at the cells
GATE, READ_VALID = 4, 14  # after a READ: the gate's pulse; the whole burst


class Ddr3Pads(wiring.Signature):
    """The chip's pins, those of both directions as what a pad needs; ``_t`` is high for inputs."""

    def __init__(self, row_bits):
        super().__init__(
            {
                "clk": Out(1),
                "cke": Out(1),
                "odt": Out(1),
                "reset_n": Out(1),
                "ras_n": Out(1),
                "cas_n": Out(1),
                "we_n": Out(1),
                "ba": Out(DDR3_BANK_BITS),
                "a": Out(row_bits),
                "dm": Out(LANES),
                "dq_o": Out(DQ_BITS),
                "dq_t": Out(DQ_BITS),
                "dq_i": In(DQ_BITS),
                "dqs_o": Out(LANES),
                "dqs_t": Out(LANES),
                "dqs_i": In(LANES),
            }
        )


class Ddr3Phy(wiring.Component):
    """Moves commands and bursts between a controller and the pins, four beats a cycle.

    Commands and the chip's clock leave through ODDRX2F, the clock's edge in their middle. Data of
    writes leave with DQSW270, a quarter of a clock before the strobe's edges, which leave with
    DQSW. Of reads DQSBUFM lets the chip's strobe pass while its gate is open, delays it by a
    quarter and takes the beats with it; IDDRX2DQA gives four of them a cycle, from some beat on
    that ``slip`` corrects.

        dfi -> registers -> ODDRX2F, ODDRX2DQA, ODDRX2DQSB -> pads
        dfi <- pairs of words <- slip <- IDDRX2DQA <- pads

    Throughput: a burst per two cycles in either direction. Latency: 14 cycles from a READ to
    ``read_valid``, the gate's pulse 4 cycles behind it; the data of a WRITE reach the cells 4
    cycles behind it. Domains: ``sync``, the controller's, and ``memory2x``.

    Parameters
    ----------
    row_bits : int

    Members
    -------
    dfi : In(Ddr3Dfi)
    trim : In(Ddr3Trim)
    pads : Out(Ddr3Pads)
    ddrdel : In(1)
        Of the DDRDLLA of these pins.
    pause : In(1)
        From its start.
    """

    def __init__(self, row_bits):
        self._row_bits = row_bits
        super().__init__(
            {
                "dfi": In(Ddr3Dfi(row_bits)),
                "trim": In(Ddr3Trim()),
                "pads": Out(Ddr3Pads(row_bits)),
                "ddrdel": In(1),
                "pause": In(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        self._clocks = {
            "i_SCLK": ClockSignal(),
            "i_ECLK": ClockSignal(FAST),
            "i_RST": ResetSignal(),
        }
        self._commands(m)
        dfi = self.dfi

        # Writes: a place for the burst as it comes, one for the burst whose halves leave next.
        wrote, was_read = Signal(WRITTEN + 3), Signal(READ_VALID)
        writes, reads = dfi.column_command == WRITE, dfi.column_command == READ
        first, second = Signal(BURST_BITS + BURST_BYTES), Signal(BURST_BITS + BURST_BYTES)
        data, mask = Signal(BURST_BITS // 2), Signal(BURST_BYTES // 2)
        m.d.sync += [
            wrote.eq(Cat(writes, wrote)),
            was_read.eq(Cat(reads, was_read)),
        ]
        with m.If(writes):
            m.d.sync += first.eq(Cat(dfi.write_data, dfi.write_mask))
        with m.If(wrote[STORED - 1]):
            m.d.sync += second.eq(first)
        high = wrote[WRITTEN - 1]
        both = Cat(second[:BURST_BITS]), Cat(second[BURST_BITS:])
        for half, whole in ((data, both[0]), (mask, both[1])):
            m.d.sync += half.eq(Mux(high, whole[len(half) :], whole[: len(half)]))
        drives = Signal()
        # Registers whose bits k tell of a WRITE k + 1 cycles ago
        m.d.comb += drives.eq(wrote[WRITTEN - 1] | wrote[WRITTEN])
        before = Signal()
        after = Signal()
        m.d.comb += [
            before.eq(wrote[WRITTEN - 2] & ~drives),
            after.eq(wrote[WRITTEN + 1] & ~drives),
        ]

        gate = was_read[GATE - 1] | was_read[GATE]
        words = [self._lane(m, k, gate, data, mask, drives, before, after) for k in range(LANES)]
        earlier = [Signal.like(word, name=f"earlier{k}") for k, word in enumerate(words)]
        m.d.sync += [one.eq(word) for one, word in zip(earlier, words, strict=True)]
        # A lane's word has its beats in order, each of eight bits
        beats = [
            half[k].word_select(beat, 8)
            for half in (earlier, words)
            for beat in range(BEATS)
            for k in range(LANES)
        ]
        m.d.comb += [
            dfi.read_data.eq(Cat(beats)),
            dfi.read_valid.eq(was_read[READ_VALID - 1]),
        ]
        return m

    def _commands(self, m):
        """The chip's clock and the pins that it takes with its rising edge."""
        dfi, pads = self.dfi, self.pads

        def output(name, pad, values):
            m.submodules[name] = Instance(
                "ODDRX2F",
                **self._clocks,
                **{f"i_D{k}": value for k, value in enumerate(values)},
                o_Q=pad,
            )

        output("clk", pads.clk, (Const(0), Const(1), Const(0), Const(1)))
        for name in ("cke", "odt", "reset_n"):
            output(name, getattr(pads, name), (getattr(dfi, name),) * 4)
        rows = {
            "we_n": dfi.row_command[0],
            "cas_n": dfi.row_command[1],
            "ras_n": dfi.row_command[2],
            "ba": dfi.row_bank,
            "a": dfi.row_address,
        }
        columns = {
            "we_n": dfi.column_command[0],
            "cas_n": dfi.column_command[1],
            "ras_n": dfi.column_command[2],
            "ba": dfi.column_bank,
            "a": dfi.column_address,
        }
        for name, row in rows.items():
            for k, (bit, other) in enumerate(zip(row, columns[name], strict=True)):
                pad = getattr(pads, name)
                output(f"{name}{k}", pad[k], (bit, bit, other, other))

    def _lane(self, m, lane, gate, data, mask, drives, before, after):
        """The cells of a byte; returns the word of 4 beats of 8 bits that it gives (Signal)."""
        pads, trim = self.pads, self.trim
        quarter, strobe, early = Signal(), Signal(), Signal()  # DQSR90, DQSW, DQSW270
        read, write, found = Signal(3), Signal(3), Signal()
        delay = trim.delay.word_select(lane, DELAY_BITS)
        slip = trim.slip.word_select(lane, SLIP_BITS)
        unused = {f"i_DYNDELAY{k}": Const(0) for k in range(8)}
        m.submodules[f"dqsbuf{lane}"] = Instance(
            "DQSBUFM",
            p_DQS_LI_DEL_ADJ="MINUS",
            p_DQS_LI_DEL_VAL=1,
            p_DQS_LO_DEL_ADJ="MINUS",
            p_DQS_LO_DEL_VAL=4,
            **self._clocks,
            **unused,
            i_DDRDEL=self.ddrdel,
            i_PAUSE=self.pause | trim.pause,
            i_RDLOADN=Const(0),
            i_RDMOVE=Const(0),
            i_RDDIRECTION=Const(1),
            i_WRLOADN=Const(0),
            i_WRMOVE=Const(0),
            i_WRDIRECTION=Const(1),
            i_READ0=gate,
            i_READ1=gate,
            **{f"i_READCLKSEL{k}": delay[k] for k in range(DELAY_BITS)},
            i_DQSI=pads.dqs_i[lane],
            o_DQSR90=quarter,
            o_DQSW=strobe,
            o_DQSW270=early,
            **{f"o_RDPNTR{k}": read[k] for k in range(3)},
            **{f"o_WRPNTR{k}": write[k] for k in range(3)},
            o_BURSTDET=found,
        )
        was_found, seen = Signal(name=f"was_found{lane}"), trim.seen[lane]
        m.d.sync += was_found.eq(found)
        with m.If(trim.clear):
            m.d.sync += seen.eq(0)
        with m.Elif(found & ~was_found):
            m.d.sync += seen.eq(1)

        # The strobe is low for a clock before a burst and half a one behind it
        m.submodules[f"dqs_o{lane}"] = Instance(
            "ODDRX2DQSB",
            **self._clocks,
            i_DQSW=strobe,
            i_D0=Const(0),
            i_D1=drives,
            i_D2=Const(0),
            i_D3=drives,
            o_Q=pads.dqs_o[lane],
        )
        m.submodules[f"dqs_t{lane}"] = Instance(
            "TSHX2DQSA",
            **self._clocks,
            i_DQSW=strobe,
            i_T0=~(drives | after),
            i_T1=~(drives | before),
            o_Q=pads.dqs_t[lane],
        )

        def output(name, pad, values):
            m.submodules[name] = Instance(
                "ODDRX2DQA",
                **self._clocks,
                i_DQSW270=early,
                **{f"i_D{beat}": value for beat, value in enumerate(values)},
                o_Q=pad,
            )

        output(f"dm{lane}", pads.dm[lane], [mask[LANES * k + lane] for k in range(BEATS)])
        window = Signal(2 * BEATS * 8, name=f"window{lane}")
        given = Signal(BEATS * 8, name=f"given{lane}")
        for bit in range(8):
            number = 8 * lane + bit
            output(
                f"dq_o{number}",
                pads.dq_o[number],
                [data[DQ_BITS * beat + number] for beat in range(BEATS)],
            )
            m.submodules[f"dq_t{number}"] = Instance(
                "TSHX2DQA",
                **self._clocks,
                i_DQSW270=early,
                i_T0=~drives,
                i_T1=~drives,
                o_Q=pads.dq_t[number],
            )
            late = Signal(name=f"late{number}")
            m.submodules[f"dq_d{number}"] = Instance(
                "DELAYG",
                p_DEL_MODE="DQS_ALIGNED_X2",
                i_A=pads.dq_i[number],
                o_Z=late,
            )
            m.submodules[f"dq_i{number}"] = Instance(
                "IDDRX2DQA",
                **self._clocks,
                i_DQSR90=quarter,
                **{f"i_RDPNTR{k}": read[k] for k in range(3)},
                **{f"i_WRPNTR{k}": write[k] for k in range(3)},
                i_D=late,
                **{f"o_Q{beat}": given[8 * beat + bit] for beat in range(BEATS)},
            )
        word = Signal(BEATS * 8, name=f"word{lane}")
        m.d.sync += window.eq(Cat(window[len(given) :], given))
        with m.Switch(slip):
            for k in range(SLIPS):
                with m.Case(k):
                    m.d.sync += word.eq(window[8 * k :][: len(word)])
        return word


class PhyStart(wiring.Component):
    """The delay locked loop of the pins, and the order in which it, the clock of the cells and
    their strobes start (FPGA-TN-02035, section on the synchronisation of DDR memory interfaces):
    lock, freeze, stop the clock, reset its divider, start the clock, unfreeze, pause the strobes,
    take the loop's code.

    In the domain ``init``, whose clock never stops. Each step takes 8 cycles.

    Members
    -------
    stop : Out(1), reset : Out(1)
        For ECLKSYNCB, and for CLKDIVF.
    ddrdel : Out(1), pause : Out(1)
        For Ddr3Phy.
    done : Out(1)
        Stays high.
    """

    STEPS = 12

    def __init__(self):
        super().__init__(
            {
                "stop": Out(1),
                "reset": Out(1),
                "ddrdel": Out(1),
                "pause": Out(1),
                "done": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        locked, seen, count = Signal(), Signal(2), Signal(8)
        step = count[3:]
        freeze, update = Signal(), Signal()
        m.submodules.dll = Instance(
            "DDRDLLA",
            i_RST=ResetSignal("init"),
            i_CLK=ClockSignal(FAST),
            i_UDDCNTLN=~update,
            i_FREEZE=freeze,
            o_DDRDEL=self.ddrdel,
            o_LOCK=locked,
        )
        m.d.init += [
            seen.eq(Cat(locked, seen)),
            freeze.eq((step >= 1) & (step < 6)),
            self.stop.eq((step >= 2) & (step < 5)),
            self.reset.eq(step == 3),
            self.pause.eq((step >= 7) & (step < 10)),
            update.eq(step == 8),
            self.done.eq(step == self.STEPS),
        ]
        with m.If((seen[1] | (count != 0)) & (step != self.STEPS)):
            m.d.init += count.eq(count + 1)
        return m
