"""A board's gateware with plain ports, for the compiled harness of the simulated board (sim/board)."""

import importlib

from amaranth.hdl import Module, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from sterna.hw.link.flash import FlashPins
from sterna.hw.memory.axi.bus import Axi4
from sterna.hw.memory.axi.memory import ID_BITS
from sterna.hw.memory.chips import CHIPS, DDR3_CHIPS
from sterna.hw.memory.ddr3.dfi import Ddr3Pins
from sterna.hw.memory.pins import SdramPins, joined
from sterna.hw.protocol import FLASH_OFFSET
from sterna.hw.soc import Soc
from sterna.sim.board.compile import ACCELERATOR

TOP = "simulated_board"


def device_class(path):
    """Class named by "module:Class".

    Raises
    ------
    ValueError
        If `path` has no colon or the module has no such class.
    """
    module, colon, name = path.partition(":")
    found = getattr(importlib.import_module(module), name, None) if colon else None
    if found is None:
        raise ValueError(f"device {path!r}: use module:Class with a class that exists")
    return found


def suffixes(config):
    """Ends of the names of the ports of each engine's memory (list of str)."""
    return [str(k or "") for k in range(config.engines)]


class SimulatedBoard(wiring.Component):
    """Flattens the members of a ``Soc`` into ports that a C++ harness can set and read as plain bytes.

    No logic is added, and no registers but those at the pins of an SDRAM, which boards have in their input and output
    cells: throughput, latency and back-pressure are those of the accelerator.

    Parameters
    ----------
    config : sterna.hw.config.Config
        Configuration of the accelerator; P = port_bytes, V = lanes, B = batch, A = word_address_bits.
    device : str
        "module:Class" of the accelerator, constructed with `config` and having the members of
        sterna.hw.accelerator.Accelerator.
    baud : int or None
        Rate of a serial line in front of the byte streams; None leaves the streams as they are.
    flash : bool
        The board has a flash and starts from ``FLASH_OFFSET`` in it.

    Members
    -------
    rx_payload, rx_valid, rx_ready : bytes to the device (payload and valid are inputs)
    tx_payload, tx_valid, tx_ready : bytes from the device
    rx_line, tx_line : with ``baud``, in place of the six above: the pins of the serial line
    command_address [A], command_length [8], command_valid, command_ready : bursts to read (external memory only)
    data_payload [8 P], data_valid, data_ready : words read, inputs, in the order of the commands
    write_address [A], write_data [8 P], write_mask [P], write_valid, write_ready : words to write; bit k = byte k
    refreshing : input, the memory cannot deliver in this cycle
    cke, cs_n, ras_n, cas_n, we_n, ba [2], a [rows], dqm [2], dq_o [16], dq_oe, dq_i [16] : with ``config.sdram``,
        in place of the memory's ports above: the pins of the chip, in the domain ``memory`` if it has a clock
        of its own; of several engines each has its memory's ports, and from the second on their names end with its
        number, from 1
    the members of Ddr3Dfi and Ddr3Trim : with ``config.ddr3``, in place of the memory's ports above, in the domain
        ``memory``
    axi0_arid, axi0_araddr, ... : with ``config.axi_ports``, in place of the memory's ports above: the members of
        ``Axi4`` of each port, in the main clock
    select_n, clock, to_flash, from_flash : with ``flash``: its pins
    idle : output, the device waits for received bytes
    trace_valid, trace_last, trace_is_code, trace_values [24 B V], trace_codes [8 B V] : every intermediate vector
    """

    def __init__(self, config, device=ACCELERATOR, baud=None, flash=False):
        self._config, self._baud, self._flash = config, baud, flash
        self._soc = Soc(config, baud, device_class(device)(config), FLASH_OFFSET if flash else None)
        self._external = config.memory == "external" and not (config.sdram or config.ddr3 or config.axi_ports)
        ports = {"rx_payload": In(8), "rx_valid": In(1), "rx_ready": Out(1),
                 "tx_payload": Out(8), "tx_valid": Out(1), "tx_ready": In(1)}
        if baud:
            ports = {"rx_line": In(1), "tx_line": Out(1)}
        ports |= {"idle": Out(1),
                  "trace_valid": Out(1), "trace_last": Out(1), "trace_is_code": Out(1),
                  "trace_values": Out(24 * config.batch * config.lanes),
                  "trace_codes": Out(8 * config.batch * config.lanes)}
        if flash:
            ports |= FlashPins().members
        memory = {}
        if config.sdram:
            memory |= SdramPins(CHIPS[config.sdram].row_bits).members
        if config.ddr3:
            for interface in Ddr3Pins(DDR3_CHIPS[config.ddr3].row_bits).members.values():
                ports |= interface.signature.members
        if config.axi_ports:
            bus = Axi4(data_bytes=config.port_bytes // config.axi_ports, id_bits=ID_BITS)
            ports |= {f"axi{k}_{name}": member for k in range(config.axi_ports)
                      for name, member in bus.members.items()}
        if self._external:
            word_bits = 8 * config.port_bytes
            memory |= {"command_address": Out(config.word_address_bits), "command_length": Out(8),
                       "command_valid": Out(1), "command_ready": In(1),
                       "data_payload": In(word_bits), "data_valid": In(1), "data_ready": Out(1),
                       "write_address": Out(config.word_address_bits), "write_data": Out(word_bits),
                       "write_mask": Out(config.port_bytes), "write_valid": Out(1), "write_ready": In(1),
                       "refreshing": In(1)}
        for suffix in suffixes(config):
            ports |= {name + suffix: member for name, member in memory.items()}
        super().__init__(ports)

    def elaborate(self, platform):
        m = Module()
        m.submodules.soc = soc = self._soc
        if self._baud:
            m.d.comb += [soc.rx_line.eq(self.rx_line), self.tx_line.eq(soc.tx_line)]
        else:
            m.d.comb += [
                soc.rx.payload.eq(self.rx_payload), soc.rx.valid.eq(self.rx_valid), self.rx_ready.eq(soc.rx.ready),
                self.tx_payload.eq(soc.tx.payload), self.tx_valid.eq(soc.tx.valid), soc.tx.ready.eq(self.tx_ready),
            ]
        m.d.comb += [
            self.idle.eq(soc.idle),
            self.trace_valid.eq(soc.trace.valid), self.trace_last.eq(soc.trace.last),
            self.trace_is_code.eq(soc.trace.is_code), self.trace_values.eq(Value.cast(soc.trace.values)),
            self.trace_codes.eq(Value.cast(soc.trace.codes)),
        ]
        if self._flash:
            pins = soc.flash
            m.d.comb += [self.select_n.eq(pins.select_n), self.clock.eq(pins.clock), self.to_flash.eq(pins.to_flash),
                         pins.from_flash.eq(self.from_flash)]
        if self._config.ddr3:
            m.d.comb += [joined(soc.pins.dfi, self), joined(soc.pins.trim, self)]
        for k in range(self._config.axi_ports):
            m.d.comb += joined(soc.axi[k], self, f"axi{k}_")
        for k, suffix in enumerate(suffixes(self._config)):
            self._memory(m, k, suffix)
        return m

    def _memory(self, m, engine, suffix):
        """The ports of an engine's memory, whose names have a ``suffix``."""
        config, soc = self._config, self._soc
        several = config.engines > 1
        if config.sdram:
            domain = m.d.memory if config.own_memory_clock else m.d.sync
            domain += joined(soc.pins[engine] if several else soc.pins, self, suffix=suffix)
        if self._external:
            memory = soc.memory[engine] if several else soc.memory

            def port(name):
                return getattr(self, name + suffix)
            m.d.comb += [
                port("command_address").eq(memory.read_command.payload.address),
                port("command_length").eq(memory.read_command.payload.length),
                port("command_valid").eq(memory.read_command.valid),
                memory.read_command.ready.eq(port("command_ready")),
                memory.read_data.payload.eq(port("data_payload")), memory.read_data.valid.eq(port("data_valid")),
                port("data_ready").eq(memory.read_data.ready),
                port("write_address").eq(memory.write.payload.address),
                port("write_data").eq(memory.write.payload.data),
                port("write_mask").eq(memory.write.payload.mask), port("write_valid").eq(memory.write.valid),
                memory.write.ready.eq(port("write_ready")), memory.refreshing.eq(port("refreshing")),
            ]
