"""What a board and its simulation share: serial line, accelerator and the controller of the board's
memory, wired.
"""

from amaranth import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from sterna.hw.accelerator import Accelerator
from sterna.hw.link.flash import FlashBoot, FlashPins
from sterna.hw.link.uart import Uart
from sterna.hw.memory.axi.memory import AxiMemory
from sterna.hw.memory.chips import CHIPS, DDR3_CHIPS
from sterna.hw.memory.ddr3.dfi import Ddr3Pins, Levelled
from sterna.hw.memory.ddr3.memory import Ddr3Memory
from sterna.hw.memory.external import SdramMemory
from sterna.hw.memory.pins import SdramPins
from sterna.hw.memory.port import MemoryPort
from sterna.hw.vector.engine import Trace


class Soc(wiring.Component):
    """An accelerator between its byte link or a serial line and its memory or the memory's
    controller.

        rx_line, tx_line - uart -+                                          +-- memory port
                                 +-(FlashBoot)- accelerator -(memory, if external)
                        rx, tx --+      |                                   +-- controller -- pins
                                      flash

    Parameters
    ----------
    config : Config
    baud : int or None
        Rate of a serial line in front of the accelerator; None leaves its byte streams as they are.
    accelerator : wiring.Component, optional
        With the members of ``Accelerator``, in its place.
    flash_offset : int or None
        Where in the board's flash the frames lie that the accelerator starts from (``FlashBoot``);
        None: nowhere.

    Members
    -------
    rx : In(stream of 8), tx : Out(stream of 8)
        Without ``baud``.
    rx_line : In(1), tx_line : Out(1)
        With it: the pins of the serial line; rx_line may change at any time.
    memory : Out(MemoryPort)
        If the memory is external, and neither its chip nor AXI ports are named; with several
        engines ``array(K)``.
    axi : Out(Axi4), an array of n
        With ``config.axi_ports``, in the domain ``sync``.
    pins : Out(SdramPins) or Out(Ddr3Pins)
        With ``config.sdram`` or ``config.ddr3``: in the domain ``memory`` if the chip has a clock
        of its own. With several engines a chip of each, ``array(K)``.
    levelled : Out(Levelled)
        With ``config.ddr3``.
    flash : Out(FlashPins)
        With ``flash_offset``.
    idle : Out(1)
        Nothing will happen until a byte arrives.
    trace : Out(Trace)
    """

    def __init__(self, config, baud=None, accelerator=None, flash_offset=None):
        self._config, self._baud = config, baud
        self._boot = None if flash_offset is None else FlashBoot(config.clock_hz, flash_offset)
        self._accelerator = accelerator or Accelerator(config)
        members = {
            "idle": Out(1),
            "trace": Out(Trace(config.batch * config.lanes)),
        }
        if baud:
            members |= {
                "rx_line": In(1),
                "tx_line": Out(1),
            }
            self._uart = Uart(config.clock_hz, baud, config.frame_counter_bits)
        else:
            members |= {
                "rx": In(stream.Signature(8)),
                "tx": Out(stream.Signature(8)),
            }
        if self._boot:
            members["flash"] = Out(FlashPins())
        if config.sdram:
            members["pins"] = _of_each(config, SdramPins(CHIPS[config.sdram].row_bits))
        elif config.ddr3:
            members["pins"] = Out(Ddr3Pins(DDR3_CHIPS[config.ddr3].row_bits))
            members["levelled"] = Out(Levelled())
        elif config.axi_ports:
            self._memory = AxiMemory.of(config)
            members["axi"] = self._memory.signature.members["axi"]
        elif config.memory == "external":
            port = MemoryPort(config.word_address_bits, config.port_bytes)
            members["memory"] = _of_each(config, port)
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        m.submodules.accelerator = accelerator = self._accelerator
        rx, tx, idle = accelerator.rx, accelerator.tx, accelerator.idle
        if self._boot:
            m.submodules.boot = boot = self._boot
            connect(m, boot.rx, rx)
            connect(m, tx, boot.tx)
            connect(m, boot.flash, flipped(self.flash))
            rx, tx, idle = boot.host_rx, boot.host_tx, idle & ~boot.booting
        if self._baud:
            m.submodules.uart = uart = self._uart
            connect(m, uart.rx, rx)
            connect(m, tx, uart.tx)
            m.d.comb += [
                uart.rx_line.eq(self.rx_line),
                self.tx_line.eq(uart.tx_line),
                accelerator.line_errors.eq(uart.errors),
                self.idle.eq(idle & uart.idle),
            ]
        else:
            connect(m, flipped(self.rx), rx)
            connect(m, tx, flipped(self.tx))
            m.d.comb += self.idle.eq(idle)
        if self._config.engines > 1:
            self._memories(m)
        elif self._config.sdram:
            m.submodules.memory = memory = SdramMemory(self._config)
            connect(m, accelerator.memory, memory.port)
            connect(m, memory.pins, flipped(self.pins))
        elif self._config.ddr3:
            m.submodules.memory = memory = Ddr3Memory(self._config)
            connect(m, accelerator.memory, memory.port)
            connect(m, memory.pins.dfi, flipped(self.pins.dfi))
            connect(m, memory.pins.trim, flipped(self.pins.trim))
            connect(m, memory.levelled, flipped(self.levelled))
        elif self._config.axi_ports:
            m.submodules.memory = memory = self._memory
            connect(m, accelerator.memory, memory.port)
            for inner, outer in zip(memory.axi, self.axi, strict=True):
                connect(m, inner, flipped(outer))
            m.d.comb += accelerator.memory_fault.eq(memory.error)
        elif self._config.memory == "external":
            connect(m, accelerator.memory, flipped(self.memory))
        connect(m, accelerator.trace, flipped(self.trace))
        return m

    def _memories(self, m):
        """Of several engines."""
        for k, port in enumerate(self._accelerator.memory):
            if self._config.sdram:
                m.submodules[f"memory{k}"] = memory = SdramMemory(self._config.of_engine)
                connect(m, port, memory.port)
                connect(m, memory.pins, flipped(self.pins[k]))
            else:
                connect(m, port, flipped(self.memory[k]))


def _of_each(config, signature):
    """A member of a signature that each engine has: of one engine without an index."""
    return Out(signature) if config.engines == 1 else Out(signature).array(config.engines)
