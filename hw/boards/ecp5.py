"""Boards with an ECP5 and an SDR SDRAM: clocks from the PLL, registers at the pins."""

from amaranth import ClockDomain, ClockSignal, Const, Elaboratable, Instance, Module, Signal
from amaranth.lib import io
from amaranth.lib.cdc import ResetSynchronizer

from sterna.hw.boards.board import connect_console
from sterna.hw.memory.chips import CHIPS
from sterna.hw.soc import Soc
from sterna.sim.golden.errors import SternaError

# ECP5 and ECP5-5G Family Data Sheet, sysCLOCK PLL timing
VCO_HZ, LEAST_PHASE_HZ = (400e6, 800e6), 10e6
TOLERANCE = 1e-6


class NoPll(SternaError, ValueError):
    """No setting of the PLL gives the clocks asked for."""


def pll_settings(input_hz, *clocks_hz):
    """(input divider, feedback divider, output dividers): VCO = input / divider * feedback *
    dividers[0], and each clock is VCO / its divider. Of several the one with the fastest phase
    comparison.

    Raises
    ------
    NoPll
        There is none.
    """
    for divider in range(1, int(input_hz / LEAST_PHASE_HZ) + 1):
        for feedback in range(1, 81):
            for first in range(1, 129):
                vco = input_hz / divider * feedback * first
                dividers = [round(vco / hz) for hz in clocks_hz]
                if (
                    VCO_HZ[0] <= vco <= VCO_HZ[1]
                    and dividers[0] == first
                    and max(dividers) <= 128
                    and all(
                        abs(vco / d / hz - 1) < TOLERANCE
                        for d, hz in zip(dividers, clocks_hz, strict=True)
                    )
                ):
                    return divider, feedback, dividers
    raise NoPll(
        f"no PLL setting makes {', '.join(f'{hz / 1e6:g}' for hz in clocks_hz)} MHz of "
        f"{input_hz / 1e6:g} MHz: use clocks that divide one frequency between 400 and 800 MHz"
    )


def pll(input_hz, dividers, oscillator, feedback, locked, **outputs):
    """The PLL (Instance), with what it needs besides.

    Parameters
    ----------
    input_hz : int
        Of ``oscillator``.
    dividers : (int, int)
        Of the input and of the feedback.
    feedback : value
        What CLKOP has become.
    locked : Signal
        Driven.
    outputs : {CLKOP, CLKOS or CLKOS2: (Hz, divider, phase, Signal)}
        CLKOP first. The phase is behind CLKOP's, in periods of the VCO.
    """
    first = outputs["CLKOP"][1]
    arguments = {f"a_FREQUENCY_PIN_{name}": f"{hz / 1e6:g}" for name, (hz, *_) in outputs.items()}
    arguments |= {"a_ICP_CURRENT": "12", "a_LPF_RESISTOR": "8", "p_FEEDBK_PATH": "CLKOP"}
    for name, (_, divider, phase, signal) in outputs.items():
        arguments |= {
            f"p_{name}_ENABLE": "ENABLED",
            f"p_{name}_DIV": divider,
            f"p_{name}_CPHASE": first - 1 + phase,
            f"p_{name}_FPHASE": 0,
            f"i_EN{name}": Const(0),
            f"o_{name}": signal,
        }
    still = ("RST", "STDBY", "PHASESEL0", "PHASESEL1", "PHASEDIR", "PHASESTEP", "PHASELOADREG")
    return Instance(
        "EHXPLLL",
        a_FREQUENCY_PIN_CLKI=f"{input_hz / 1e6:g}",
        p_CLKI_DIV=dividers[0],
        p_CLKFB_DIV=dividers[1],
        i_CLKI=oscillator,
        i_CLKFB=feedback,
        i_PLLWAKESYNC=Const(0),
        **{f"i_{name}": Const(0) for name in still},
        **arguments,
        o_LOCK=locked,
    )


def chip_phase(chip, memory_hz, steps):
    """By how many of ``steps`` per period the chip's clock follows the controller's: the middle
    between the latest that lets data reach the input register in time and the earliest that lets
    them stay until it has taken them.

    Data are taken two edges of the controller behind the chip's last edge. With delays d of pad,
    clock and board that are the same for all lines, they are there from phase + t_ac + d - period,
    and until phase + t_oh + d of it.
    """
    # In ns; out through one pad, back through another, and the board between them
    period, pads = 1e9 / memory_hz, 4.0
    access = chip.t_ac2 if chip.cas_latency(memory_hz) == 2 else chip.t_ac3
    earliest, latest = period - chip.t_oh - pads, 2 * period - access - pads
    # The chip's inputs want a quarter, too
    middle = min(max((earliest + latest) / 2, 0.25 * period), 0.75 * period)
    return round(middle / period * steps)


class Clocks(Elaboratable):
    """Domains ``sync``, ``memory`` and ``chip`` (the clock that the chip gets) of the board's
    oscillator, held in reset until the PLL has locked.
    """

    def __init__(self, config, oscillator_hz):
        self._config, self._oscillator_hz = config, oscillator_hz

    def elaborate(self, platform):
        m = Module()
        cfg = self._config
        divider, feedback, (memory, sync) = pll_settings(
            self._oscillator_hz, cfg.memory_hz, cfg.clock_hz
        )
        phase = chip_phase(CHIPS[cfg.sdram], cfg.memory_hz, memory)
        m.domains += [
            ClockDomain("sync"),
            ClockDomain("memory"),
            ClockDomain("chip", reset_less=True),
        ]
        oscillator = platform.request(platform.default_clk, dir="i").i
        locked = Signal()
        m.submodules.pll = pll(
            self._oscillator_hz,
            (divider, feedback),
            oscillator,
            ClockSignal("memory"),
            locked,
            CLKOP=(cfg.memory_hz, memory, 0, ClockSignal("memory")),
            CLKOS=(cfg.clock_hz, sync, 0, ClockSignal("sync")),
            CLKOS2=(cfg.memory_hz, memory, phase, ClockSignal("chip")),
        )
        for domain in ("sync", "memory"):
            m.submodules[f"{domain}_reset"] = ResetSynchronizer(~locked, domain=domain)
        return m


def raw_port(platform, name, number):
    """The ports of a resource without buffers."""
    return platform.request(
        name, number, dir={pin.name: "-" for pin in platform.lookup(name, number).ios}
    )


class SdramTop(Elaboratable):
    """The gateware of a board with an ECP5 and an SDR SDRAM: a ``Soc`` with clocks and pins."""

    def __init__(self, board):
        self._board = board

    def elaborate(self, platform):
        m = Module()
        config = self._board.config
        m.submodules.clocks = Clocks(config, platform.default_clk_frequency)
        m.submodules.soc = soc = Soc(config, self._board.baud)
        connect_console(m, platform, soc)

        for name, number, pin in self._board.tied_high:
            m.submodules[f"{name}_{pin}"] = high = io.Buffer(
                "o", getattr(raw_port(platform, name, number), pin)
            )
            m.d.comb += high.o.eq(1)

        port = raw_port(platform, "sdram", 0)
        pins, outputs = (
            soc.pins,
            {
                "clk_en": "cke",
                "cs": "cs_n",
                "we": "we_n",
                "ras": "ras_n",
                "cas": "cas_n",
                "ba": "ba",
                "a": "a",
                "dqm": "dqm",
            },
        )
        for name, pin in outputs.items():
            if not hasattr(port, name):
                continue  # tied on the board
            m.submodules[name] = buffer = io.FFBuffer("o", getattr(port, name), o_domain="memory")
            value = getattr(pins, pin)
            # These ports are inverted
            m.d.comb += buffer.o.eq(~value if pin.endswith("_n") else value)
        m.submodules.dq = dq = io.FFBuffer("io", port.dq, i_domain="memory", o_domain="memory")
        m.d.comb += [
            dq.o.eq(pins.dq_o),
            dq.oe.eq(pins.dq_oe),
            pins.dq_i.eq(dq.i),
        ]
        m.submodules.clk = clk = io.DDRBuffer("o", port.clk, o_domain="chip")
        m.d.comb += [
            clk.o[0].eq(1),
            clk.o[1].eq(0),
        ]
        return m
