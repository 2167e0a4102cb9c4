"""What a board and its simulation share: serial line, accelerator and the controller of the board's memory, wired."""

from amaranth import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from sterna.hw.accelerator import Accelerator, Trace
from sterna.hw.link.uart import Uart
from sterna.hw.memory.chips import CHIPS
from sterna.hw.memory.external import SdramMemory
from sterna.hw.memory.port import MemoryPort
from sterna.hw.memory.sdram import SdramPins


class Soc(wiring.Component):
    """An accelerator between its byte link or a serial line and its memory or the memory's controller.

        rx_line, tx_line -- uart --+                                   +-- memory port
                                   +-- accelerator --(memory, if external)
                      rx, tx ------+                                   +-- controller -- pins

    Parameters
    ----------
    config : Config
    baud : int or None
        Rate of a serial line in front of the accelerator; None leaves its byte streams as they are.
    accelerator : wiring.Component, optional
        With the members of ``Accelerator``, in its place.

    Members
    -------
    rx : In(stream of 8), tx : Out(stream of 8)
        Without ``baud``.
    rx_line : In(1), tx_line : Out(1)
        With it: the pins of the serial line; rx_line may change at any time.
    memory : Out(MemoryPort)
        If the memory is external and its chip not named.
    pins : Out(SdramPins)
        With ``config.sdram``: in the domain ``memory`` if the chip has a clock of its own.
    idle : Out(1)
        Nothing will happen until a byte arrives.
    trace : Out(Trace)
    """

    def __init__(self, config, baud=None, accelerator=None):
        self._config, self._baud = config, baud
        self._accelerator = accelerator or Accelerator(config)
        members = {"idle": Out(1), "trace": Out(Trace(config.batch * config.lanes))}
        if baud:
            members |= {"rx_line": In(1), "tx_line": Out(1)}
            self._uart = Uart(config.clock_hz, baud, config.frame_counter_bits)
        else:
            members |= {"rx": In(stream.Signature(8)), "tx": Out(stream.Signature(8))}
        if config.sdram:
            members["pins"] = Out(SdramPins(CHIPS[config.sdram].row_bits))
        elif config.memory == "external":
            members["memory"] = Out(MemoryPort(config.word_address_bits, config.port_bytes))
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        m.submodules.accelerator = accelerator = self._accelerator
        if self._baud:
            m.submodules.uart = uart = self._uart
            connect(m, uart.rx, accelerator.rx)
            connect(m, accelerator.tx, uart.tx)
            m.d.comb += [uart.rx_line.eq(self.rx_line), self.tx_line.eq(uart.tx_line),
                         accelerator.line_errors.eq(uart.errors), self.idle.eq(accelerator.idle & uart.idle)]
        else:
            connect(m, flipped(self.rx), accelerator.rx)
            connect(m, accelerator.tx, flipped(self.tx))
            m.d.comb += self.idle.eq(accelerator.idle)
        if self._config.sdram:
            m.submodules.memory = memory = SdramMemory(self._config)
            connect(m, accelerator.memory, memory.port)
            connect(m, memory.pins, flipped(self.pins))
        elif self._config.memory == "external":
            connect(m, accelerator.memory, flipped(self.memory))
        for name in self.trace.signature.members:
            m.d.comb += getattr(self.trace, name).eq(getattr(accelerator.trace, name))
        return m
