"""Words that are written one by one, made into bursts, and what reads have to wait for."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from sterna.hw.memory.axi.bus import burst_command
from sterna.hw.memory.axi.writer import beat_layout
from sterna.hw.memory.port import write_layout

WAIT_CYCLES = 32  # of a word for the one behind it


class Combiner(wiring.Component):
    """Makes bursts of words that follow one another within a block, the same for each of n writers,
    and remembers which blocks are not written yet.

    A word waits until the next one comes, then it joins the burst. The burst ends with its block,
    before a word that does not follow, after ``WAIT_CYCLES`` without one, or when a read wants a
    word of its group. Bursts end in the order in which they began; a group is free when each writer
    has had its response.

    Throughput: a word per cycle. Latency: the wait for the next word. Back-pressure: while a writer
    has no room, or ``most`` bursts are not answered.

    Parameters
    ----------
    address_bits : int
        Of a word of the port.
    ports, beat_bytes, block_bytes, most : int

    Members
    -------
    write : In(stream of write_layout)
    command : Out(stream of burst_command)
        Address: that of the first word. In the cycle of the last beat.
    beats : Out(stream of beat_layout), an array of n
        All of these are offered only in a cycle in which all are taken.
    done : In(1), an array of n
        A writer's burst, in order, is answered.
    group, asked : In; waits : Out(1)
        Whether a word of that group, the address less the beat, has been accepted and may not be
        seen by a read yet. If it is ``asked`` for, the burst ends.
    """

    def __init__(self, *, address_bits, ports, beat_bytes, block_bytes, most):
        self._ports, self._beat_bytes, self._most = ports, beat_bytes, most
        self._beat_bits = (block_bytes // beat_bytes - 1).bit_length()
        self._address_bits = address_bits
        byte_bits = (beat_bytes - 1).bit_length()
        super().__init__(
            {
                "write": In(stream.Signature(write_layout(address_bits, ports * beat_bytes))),
                "command": Out(
                    stream.Signature(
                        burst_command(address_bits + byte_bits, beat_bytes, block_bytes)
                    )
                ),
                "beats": Out(stream.Signature(beat_layout(beat_bytes))).array(ports),
                "done": In(1).array(ports),
                "group": In(address_bits - self._beat_bits),
                "asked": In(1),
                "waits": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        write, most, beat_bits = self.write, self._most, self._beat_bits
        held = Signal(write.payload.shape())
        valid, full_block = Signal(), Signal()
        following = Signal(self._address_bits)  # the address behind the held one
        length = Signal(range((1 << beat_bits) + 1))  # beats of the burst before the held one
        patience = Signal(range(WAIT_CYCLES + 1))

        # Groups of bursts that are not answered, the oldest first.
        groups = [Signal(self._address_bits - beat_bits, name=f"group{k}") for k in range(most)]
        taken = Signal(most)
        answers = [Signal(range(most + 1), name=f"answers{k}") for k in range(self._ports)]
        retires = Signal()
        here = held.address >> beat_bits
        matches = [taken[k] & (groups[k] == self.group) for k in range(most)]
        in_burst = Signal()
        m.d.comb += [
            in_burst.eq(valid & (here == self.group)),
            self.waits.eq(Cat(*matches, in_burst).any()),
        ]

        room, pushes, ends, continues = Signal(), Signal(), Signal(), Signal()
        ready = [beat.ready for beat in self.beats]
        m.d.comb += [
            room.eq(Cat(*ready).all() & self.command.ready & ~taken[-1]),
            full_block.eq(held.address[:beat_bits].all() if beat_bits else 1),
            continues.eq(write.valid & (write.payload.address == following)),
            ends.eq(full_block | (patience == 0) | (self.asked & in_burst)),
            write.ready.eq(~valid | room),
            pushes.eq(valid & room & (write.valid | ends)),
            self.command.valid.eq(pushes & ~(continues & ~ends)),
            self.command.payload.length.eq(length + 1),
            self.command.payload.address.eq(held.address - length),
        ]
        for port, beat in enumerate(self.beats):
            m.d.comb += [
                beat.valid.eq(pushes),
                beat.payload.data.eq(held.data.word_select(port, 8 * self._beat_bytes)),
                beat.payload.mask.eq(held.mask.word_select(port, self._beat_bytes)),
                beat.payload.last.eq(self.command.valid),
            ]
        with m.If(pushes):
            m.d.sync += [
                valid.eq(0),
                length.eq(length + 1),
            ]
        with m.If(self.command.valid):
            m.d.sync += length.eq(0)
        with m.If(patience != 0):
            m.d.sync += patience.eq(patience - 1)
        with m.If(write.valid & write.ready):
            m.d.sync += [
                valid.eq(1),
                held.eq(write.payload),
                following.eq(write.payload.address + 1),
                patience.eq(WAIT_CYCLES),
            ]

        # As a `Queue`, whose items move down when the oldest leaves, but each of them is compared.
        m.d.comb += retires.eq(Cat(*(count != 0 for count in answers)).all())
        for count, done in zip(answers, self.done, strict=True):
            m.d.sync += count.eq(count + done - retires)
        enters = self.command.valid
        for k, group in enumerate(groups):
            above, behind = (groups[k + 1], taken[k + 1]) if k + 1 < most else (here, 0)
            with m.If(retires | ~taken[k]):
                m.d.sync += group.eq(Mux(behind, above, here))
        with m.If(enters & ~retires):
            m.d.sync += taken.eq(Cat(1, taken[:-1]))
        with m.Elif(retires & ~enters):
            m.d.sync += taken.eq(taken >> 1)
        return m
