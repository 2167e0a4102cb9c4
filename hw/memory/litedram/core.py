"""The module of LiteDRAM with the interfaces of this project, and what levels its cells."""

from amaranth import Cat, ClockSignal, Instance, Module, ResetSignal, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sterna.hw.memory.chips import DDR3_BANK_BITS
from sterna.hw.memory.ddr3.dfi import DELAY_BITS, LANES, NOP, SLIP_BITS, Ddr3Trim
from sterna.hw.memory.ddr3.phy import DQ_BITS, FAST, Ddr3Pads
from sterna.hw.memory.litedram.native import NativePort
from sterna.hw.memory.litedram.verilog import NAME, litedram_verilog

STILL = 4  # cycles of a strobe's pause before and behind the steps of its byte


class LitedramCore(wiring.Component):
    """LiteDRAM's PHY and controller (Instance), in the domain ``memory`` with the cells' clock
    ``memory2x``, the start of its cells in ``init``.

    Its Verilog is added to the platform's files; a simulator is given it by who runs it.

    Parameters
    ----------
    chip : sterna.hw.memory.chips.Ddr3Chip
    clock_hz : int
        Of the domain ``memory``.

    Members
    -------
    native : In(NativePort)
    command, bank, address, reset_n, cke, started : In
        As of ``Start``: what leaves in the first clock of a cycle until the chip has started.
    sel : In(2)
        Bytes whose strobe pauses, and to which the steps apply.
    delay_inc, slip_inc : In(1)
        A step of the gate's delay, of eight, and of the slip, of four; both go round.
    clear : In(1), seen : Out(2)
        As of ``Ddr3Trim``.
    refreshing : Out(1)
    pads : Out(Ddr3Pads)
    stop, reset, pause : Out(1)
        Of the start of the cells, in ``init``: the first two for the clock's gate and divider; it
        has ended when ``pause`` falls.
    """

    def __init__(self, chip, clock_hz):
        self._chip, self._clock_hz = chip, clock_hz
        super().__init__(
            {
                "native": In(NativePort(chip.address_bits)),
                "command": In(3, init=NOP),
                "bank": In(DDR3_BANK_BITS),
                "address": In(chip.row_bits),
                "reset_n": In(1),
                "cke": In(1),
                "started": In(1),
                "sel": In(LANES),
                "delay_inc": In(1),
                "slip_inc": In(1),
                "clear": In(1),
                "seen": Out(LANES),
                "refreshing": Out(1),
                "pads": Out(Ddr3Pads(chip.row_bits)),
                "stop": Out(1),
                "reset": Out(1),
                "pause": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        if hasattr(platform, "add_file"):
            platform.add_file(f"{NAME}.v", litedram_verilog(self._chip, self._clock_hz))
        native, pads = self.native, self.pads
        names = "command", "bank", "address", "reset_n", "cke", "started"
        inputs = {name: getattr(self, name) for name in names}
        inputs |= {name: getattr(self, name) for name in ("sel", "delay_inc", "slip_inc", "clear")}
        outputs = {
            name: getattr(self, name) for name in ("seen", "refreshing", "stop", "reset", "pause")
        }
        inputs |= {
            "cmd_valid": native.cmd.valid,
            "cmd_we": native.cmd.payload.we,
            "cmd_addr": native.cmd.payload.addr,
            "wdata_valid": native.wdata.valid,
            "wdata_data": native.wdata.payload.data,
            "wdata_we": native.wdata.payload.we,
        }
        outputs |= {
            "cmd_ready": native.cmd.ready,
            "wdata_ready": native.wdata.ready,
            "rdata_valid": native.rdata.valid,
            "rdata_data": native.rdata.payload,
        }
        single = "clk", "reset_n", "a", "ba", "ras_n", "cas_n", "we_n", "cke", "odt", "dm"
        outputs |= {f"pad_{name}": getattr(pads, name) for name in single}
        for name, count in (("dq", DQ_BITS), ("dqs", LANES)):
            enables = Signal(count, name=f"{name}_oe")
            m.d.comb += getattr(pads, f"{name}_t").eq(~enables)
            for k in range(count):
                outputs |= {
                    f"pad_{name}{k}_o": getattr(pads, f"{name}_o")[k],
                    f"pad_{name}{k}_oe": enables[k],
                }
                inputs[f"pad_{name}{k}_i"] = getattr(pads, f"{name}_i")[k]
        clocks = {
            "i_sys_clk": ClockSignal("memory"),
            "i_sys_rst": ResetSignal("memory"),
            "i_sys2x_clk": ClockSignal(FAST),
            "i_sys2x_rst": ResetSignal("memory"),
            "i_init_clk": ClockSignal("init"),
            "i_init_rst": ResetSignal("init"),
        }
        m.submodules.core = Instance(
            NAME,
            **clocks,
            **{f"i_{name}": value for name, value in inputs.items()},
            **{f"o_{name}": value for name, value in outputs.items()},
        )
        return m


class Steps(wiring.Component):
    """Takes the cells of LiteDRAM's PHY to what a leveller wants, step by step: they know no other
    way than one delay or slip more.

    Its own counts of both begin with 0, as those of the cells do after their reset. Bytes follow
    each other; each has its strobe paused for STILL cycles before the first step and behind the
    last one. At most 2 (8 + 4 + 2 STILL) cycles from a new setting to the last step.

    Members
    -------
    trim : In(Ddr3Trim)
        ``pause`` has no effect: the strobes pause around the steps.
    sel : Out(2), delay_inc : Out(1), slip_inc : Out(1), clear : Out(1), seen : In(2)
        As of ``LitedramCore``.
    """

    CYCLES = 2 * (8 + 4 + 2 * STILL)

    def __init__(self):
        super().__init__(
            {
                "trim": In(Ddr3Trim()),
                "sel": Out(LANES),
                "delay_inc": Out(1),
                "slip_inc": Out(1),
                "clear": Out(1),
                "seen": In(LANES),
            }
        )

    def elaborate(self, platform):
        m = Module()
        trim = self.trim
        delays, slips = Signal.like(trim.delay), Signal.like(trim.slip)
        m.d.comb += [
            self.clear.eq(trim.clear),
            trim.seen.eq(self.seen),
        ]
        wrong = Signal(LANES)
        m.d.comb += wrong.eq(
            Cat(
                (delays.word_select(k, DELAY_BITS) != trim.delay.word_select(k, DELAY_BITS))
                | (slips.word_select(k, SLIP_BITS) != trim.slip.word_select(k, SLIP_BITS))
                for k in range(LANES)
            )
        )
        still = Signal(range(STILL + 1))
        with m.FSM(name="steps"):
            for k in range(LANES):
                delay = delays.word_select(k, DELAY_BITS)
                slip = slips.word_select(k, SLIP_BITS)
                later = (k + 1) % LANES
                with m.State(f"LOOK{k}"):
                    m.d.sync += still.eq(STILL)
                    with m.If(wrong[k]):
                        m.d.sync += self.sel[k].eq(1)
                        m.next = f"BEFORE{k}"
                    with m.Elif(wrong[later]):
                        m.next = f"LOOK{later}"
                with m.State(f"BEFORE{k}"):
                    m.d.sync += still.eq(still - 1)
                    with m.If(still == 1):
                        m.next = f"STEP{k}"
                with m.State(f"STEP{k}"):
                    m.d.sync += still.eq(STILL)
                    with m.If(delay != trim.delay.word_select(k, DELAY_BITS)):
                        m.d.comb += self.delay_inc.eq(1)
                        m.d.sync += delay.eq(delay + 1)
                    with m.Elif(slip != trim.slip.word_select(k, SLIP_BITS)):
                        m.d.comb += self.slip_inc.eq(1)
                        m.d.sync += slip.eq(slip + 1)
                    with m.Else():
                        m.next = f"BEHIND{k}"
                with m.State(f"BEHIND{k}"):
                    m.d.sync += still.eq(still - 1)
                    with m.If(still == 1):
                        m.d.sync += self.sel[k].eq(0)
                        m.next = f"LOOK{later}"
        return m
