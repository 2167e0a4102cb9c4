"""A read master of AXI4: bursts that are asked for ahead, beats in the order of the commands."""

from amaranth import Array, Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from sterna.hw.memory.axi.bus import (
    ADDRESS_BITS,
    LENGTH_BITS,
    Axi4Read,
    Burst,
    burst_command,
)
from sterna.hw.memory.axi.layout import beats


class AxiReader(wiring.Component):
    """Asks for bursts and gives their beats, in the order of the commands.

    Each burst that is under way has an ID of its own and a place for a block of beats, taken before
    ARVALID rises: RREADY stays 1, and the memory may answer in any order and mix the beats of
    several bursts; only those of one burst keep their order, as AXI has it.

        command -> (AR register) -> AR      R -> (register) -> place of the ID -> o

    Throughput: a beat and a burst per cycle, while the bursts under way cover the latency: 2^id_bits
    bursts of a block's beats. Latency: a cycle to AR, and three from a beat to ``o``. Back-pressure:
    of ``o``, which fills the places, and of ARREADY.

    Parameters
    ----------
    beat_bytes, block_bytes : int
    id_bits : int
        2^id_bits bursts may be under way.
    address_bits : int

    Members
    -------
    command : In(stream of burst_command)
    o : Out(stream of 8 * beat_bytes)
    axi : Out(Axi4Read)
    error : Out(1)
        Once a beat had a response other than OKAY, or came that nobody had asked for, or ended the
        burst at a wrong place. It stays; the beats behind it are not offered.
    """

    def __init__(self, *, beat_bytes, block_bytes, id_bits, address_bits=ADDRESS_BITS):
        self._beat_bytes, self._block = beat_bytes, beats(1, beat_bytes, block_bytes)
        self._id_bits = id_bits
        super().__init__(
            {
                "command": In(
                    stream.Signature(burst_command(address_bits, beat_bytes, block_bytes))
                ),
                "o": Out(stream.Signature(8 * beat_bytes)),
                "axi": Out(
                    Axi4Read(address_bits=address_bits, data_bytes=beat_bytes, id_bits=id_bits)
                ),
                "error": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        axi, command = self.axi, self.command
        slots, block = 1 << self._id_bits, self._block
        count_bits = block.bit_length()
        # Bursts under way, from the oldest to the next: an ID is its place.
        oldest, newest = Signal(self._id_bits), Signal(self._id_bits)
        used = Signal(range(slots + 1))
        wanted = Array(Signal(count_bits, name=f"wanted{k}") for k in range(slots))
        there = Array(Signal(count_bits, name=f"there{k}") for k in range(slots))

        begins, ends = Signal(), Signal()
        m.d.comb += [
            command.ready.eq((~axi.arvalid | axi.arready) & (used != slots)),
            begins.eq(command.valid & command.ready),
            axi.arsize.eq((self._beat_bytes - 1).bit_length()),
            axi.arburst.eq(Burst.INCR),
            axi.rready.eq(1),
        ]
        m.d.sync += used.eq(used + begins - ends)
        with m.If(axi.arready):
            m.d.sync += axi.arvalid.eq(0)
        with m.If(begins):
            m.d.sync += [
                axi.arvalid.eq(1),
                axi.arid.eq(newest),
                axi.araddr.eq(command.payload.address << (self._beat_bytes - 1).bit_length()),
                axi.arlen.eq((command.payload.length - 1)[:LENGTH_BITS]),
                wanted[newest].eq(command.payload.length),
                there[newest].eq(0),
                newest.eq(newest + 1),
            ]

        # A beat goes to the place of its ID.
        arrived, identity = Signal(), Signal(self._id_bits)
        last, bad = Signal(), Signal()
        beat = Signal(8 * self._beat_bytes, reset_less=True)
        m.d.sync += [
            arrived.eq(axi.rvalid),
            identity.eq(axi.rid),
            last.eq(axi.rlast),
            bad.eq(axi.rresp != 0),
            beat.eq(axi.rdata),
        ]
        m.submodules.places = places = Memory(
            shape=8 * self._beat_bytes, depth=slots * block, init=[]
        )
        write, read = places.write_port(), places.read_port()
        number = Signal(count_bits)
        known = Signal()  # the burst of this ID is under way and lacks a beat
        m.d.comb += [
            number.eq(there[identity]),
            # IDs under way are those from the oldest on, `used` of them.
            known.eq(((identity - oldest)[: self._id_bits] < used) & (number != wanted[identity])),
            write.addr.eq(Cat(number[: (block - 1).bit_length()], identity)),
            write.data.eq(beat),
            write.en.eq(arrived),
        ]
        wrong = bad | ~known | (last != (number + 1 == wanted[identity]))
        with m.If(arrived):
            m.d.sync += self.error.eq(self.error | wrong)
            with m.If(known & ~self.error & ~wrong):
                m.d.sync += there[identity].eq(number + 1)

        # Beats leave in the order of the bursts.
        next_beat = Signal(range(block + 1))
        takes, offered = Signal(), Signal()
        m.d.comb += [
            offered.eq((used != 0) & (there[oldest] > next_beat)),
            takes.eq(offered & (~self.o.valid | self.o.ready)),
            ends.eq(takes & (next_beat + 1 == wanted[oldest])),
            read.addr.eq(Cat(next_beat[: (block - 1).bit_length()], oldest)),
            read.en.eq(~self.o.valid | self.o.ready),
            self.o.payload.eq(read.data),
        ]
        with m.If(read.en):
            m.d.sync += self.o.valid.eq(offered)
        with m.If(takes):
            m.d.sync += next_beat.eq(Mux(ends, 0, next_beat + 1))
        with m.If(ends):
            m.d.sync += oldest.eq(oldest + 1)
        return m
