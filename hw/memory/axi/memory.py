"""The memory port in front of n AXI4 masters that go in lock step."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from sterna.hw.memory.axi.bus import ADDRESS_BITS, Axi4
from sterna.hw.memory.axi.combiner import Combiner
from sterna.hw.memory.axi.layout import LayoutError, beats
from sterna.hw.memory.axi.reader import AxiReader
from sterna.hw.memory.axi.writer import AxiWriter
from sterna.hw.memory.pins import joined
from sterna.hw.memory.port import MemoryPort
from sterna.hw.stream import Queue

ID_BITS = 4  # 16 bursts under way at each port
WRITES = 8  # bursts that wait for their response
ASKED = 2  # commands before each reader, so that ports may differ


class AxiMemory(wiring.Component):
    """Memory port on n AXI4 ports, each with its part of every word (``layout``).

        reads  - cut into blocks - n readers  - AR, R    -+
                                     |  all have a beat    +- axi[0..n-1]
        words <----------------------+                    |
        writes - combined ------- n writers  - AW, W, B -+

    A burst of the port becomes one of each master, or several if it leaves a block. A word goes out
    when every port has its beat. A read of a group waits while a write of the same group is not
    answered, since AXI keeps no order between the channels; other reads pass it.

    Throughput: a word per cycle as long as each port gives a beat per cycle, 2^ID_BITS blocks
    ahead. Latency: six cycles beside the memory's own. Back-pressure: reads wait for places, writes
    for room or answers; words that return are always taken, as RREADY and BREADY say.

    Parameters
    ----------
    word_address_bits, ports, beat_bytes, block_bytes : int
    base : int
        Byte address of the model memory: a multiple of a group's bytes.
    address_bits : int
        Of the ports' addresses.

    Members
    -------
    port : In(MemoryPort)
        ``refreshing`` is 0: nothing at the pins tells it.
    axi : Out(Axi4), an array of n
    error : Out(1)
        Once a port answered with an error or against the protocol. It stays until the reset, no
        word goes out from then on, and no write is told to be done: what needs one waits for ever.
    """

    def __init__(
        self,
        *,
        word_address_bits,
        ports,
        beat_bytes,
        block_bytes,
        base=0,
        address_bits=ADDRESS_BITS,
    ):
        block = beats(ports, beat_bytes, block_bytes)
        if base % (ports * block_bytes) or base < 0:
            raise LayoutError(f"base {base}: use a multiple of {ports * block_bytes}")
        end = base + (ports * beat_bytes << word_address_bits)
        if end > 1 << address_bits:
            raise LayoutError(f"address_bits {address_bits}: the memory ends at {end:#x}")
        self._shape = {"beat_bytes": beat_bytes, "block_bytes": block_bytes}
        self._ports, self._block, self._base = ports, block, base
        self._word_address_bits, self._address_bits = word_address_bits, address_bits
        signature = Axi4(address_bits=address_bits, data_bytes=beat_bytes, id_bits=ID_BITS)
        super().__init__(
            {
                "port": In(MemoryPort(word_address_bits, ports * beat_bytes)),
                "axi": Out(signature).array(ports),
                "error": Out(1),
            }
        )

    @classmethod
    def of(cls, config, base=0):
        """That of a Config with ``axi_ports``."""
        return cls(
            word_address_bits=config.word_address_bits,
            ports=config.axi_ports,
            beat_bytes=config.port_bytes // config.axi_ports,
            block_bytes=config.block_bytes,
            base=base,
        )

    def _beat_address(self, word, port):
        """Where the beat of a port lies that belongs to a word: its address over a beat's bytes."""
        bits, port_bits = (self._block - 1).bit_length(), (self._ports - 1).bit_length()
        number = Cat(word[:bits], Const(port, port_bits), word[bits:])
        return number + self._base // self._shape["beat_bytes"]

    def elaborate(self, platform):
        m = Module()
        port, block = self.port, self._block
        beat_bits = (block - 1).bit_length()
        address = Signal(self._word_address_bits)
        left = Signal(8)
        length, rest = Signal(range(block + 1)), Signal(range(block + 1))
        issues = Signal()
        m.submodules.combiner = combiner = Combiner(
            address_bits=self._word_address_bits, ports=self._ports, most=WRITES, **self._shape
        )
        connect(m, flipped(port.write), combiner.write)

        # Reads, cut at the ends of blocks.
        reads = port.read_command
        m.d.comb += [
            rest.eq(block - address[:beat_bits]),
            length.eq(Mux(left < rest, left, rest)),
            reads.ready.eq((left == 0) | (issues & (left == length))),
            combiner.group.eq(address >> beat_bits),
            combiner.asked.eq(left != 0),
        ]
        with m.If(issues):
            m.d.sync += [
                address.eq(address + length),
                left.eq(left - length),
            ]
        with m.If(reads.valid & reads.ready):
            m.d.sync += [
                address.eq(reads.payload.address),
                left.eq(reads.payload.length),
            ]

        there, parts, asked_room, write_room, faults = [], [], [], [], [self.error]
        given = Signal()
        for k, axi in enumerate(self.axi):
            options = {**self._shape, "id_bits": ID_BITS, "address_bits": self._address_bits}
            m.submodules[f"reader{k}"] = reader = AxiReader(**options)
            m.submodules[f"writer{k}"] = writer = AxiWriter(most=WRITES, **options)
            m.submodules[f"asked{k}"] = asked = Queue(reader.command.payload.shape(), ASKED)
            connect(m, asked.o, reader.command)
            m.d.comb += [joined(half, axi) for half in (reader.axi, writer.axi)]
            m.d.comb += [
                asked.i.payload.address.eq(self._beat_address(address, k)),
                asked.i.payload.length.eq(length),
                asked.i.valid.eq(issues),
                reader.o.ready.eq(given),
                writer.command.payload.address.eq(
                    self._beat_address(combiner.command.payload.address, k)
                ),
                writer.command.payload.length.eq(combiner.command.payload.length),
                writer.command.valid.eq(combiner.command.valid),
                writer.beats.payload.eq(combiner.beats[k].payload),
                writer.beats.valid.eq(combiner.beats[k].valid),
                combiner.beats[k].ready.eq(writer.beats.ready),
                combiner.done[k].eq(writer.done & ~self.error),
            ]
            there.append(reader.o.valid)
            parts.append(reader.o.payload)
            asked_room.append(asked.i.ready)
            write_room.append(writer.command.ready)
            faults += [reader.error, writer.error]
        m.d.comb += [
            combiner.command.ready.eq(Cat(*write_room).all()),
            issues.eq((left != 0) & Cat(*asked_room).all() & ~combiner.waits),
            given.eq(Cat(*there).all() & ~self.error),
        ]
        m.d.sync += [
            self.error.eq(Cat(*faults).any()),
            port.read_data.valid.eq(given),
            port.read_data.payload.eq(Cat(*parts)),
        ]
        return m
