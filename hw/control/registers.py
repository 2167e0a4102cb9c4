"""What the host sees: the address map of docs/protocol.md, the run control and the token ring."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from sterna.hw.config import VERSIONS
from sterna.hw.control.counters import EVENTS, OFFSETS
from sterna.hw.link.executor import Event, Request, Response
from sterna.hw.memory.port import burst_layout, write_layout

MAGIC = 0x4E525453
NEVER = 0xFFFFFFFF


class Registers(wiring.Component):
    """Executes the link's 32-bit requests one at a time, each with one response, and paces the sequencer
    token by token.

    Members
    -------
    request : In(stream of Request); response : Out(stream of Response); event : Out(stream of Event)
    host_bursts, host_words, host_write
        The arbiter's host side.
    program_write, scalar_write : Out
    values : In(ArrayLayout(32, 10)); frames_bad, frames_lost, line_errors : In(frame_counter_bits)
        Counters.
    running, halted, sample_done, fault : In; best : In(32)
        From the sequencer and the sampler.
    go, sample_taken, soft_reset : Out(1)
    token : Out(register_bits); token_valid : Out(1)
        The ring's entry of the present position; valid but in the cycle behind an access of the host to the ring.
    unwanted, at_start, greedy : Out(1)
        Conditions of the sequencer: position + 1 < prompt_end; position = start; flags.
    position : Out(register_bits); seed : Out(32)
    active : Out(1)
        A request is under way or an event waits.
    """

    def __init__(self, config):
        self._config = config
        address, port = config.word_address_bits, config.port_bytes
        if port < 2:
            raise ValueError(f"port_bytes {port}: at least 2")
        words, number, frames = Out(32), Out(config.register_bits), In(config.frame_counter_bits)
        super().__init__({
            "request": In(stream.Signature(Request)), "response": Out(stream.Signature(Response)),
            "event": Out(stream.Signature(Event)),
            "host_bursts": Out(stream.Signature(burst_layout(address))),
            "host_words": In(stream.Signature(8 * port)),
            "host_write": Out(stream.Signature(write_layout(address, port))),
            "program_write": Out(wiring.Signature({"valid": Out(1), "address": Out(10), "lane": Out(2),
                                                   "data": words})),
            "scalar_write": Out(wiring.Signature({"valid": Out(1), "address": Out(5), "data": Out(24)})),
            "values": In(data.ArrayLayout(32, len(EVENTS))),
            "frames_bad": frames, "frames_lost": frames, "line_errors": frames,
            "running": In(1), "halted": In(1), "sample_done": In(1), "fault": In(8), "best": In(32),
            "go": Out(1), "sample_taken": Out(1), "soft_reset": Out(1), "token": number, "token_valid": Out(1),
            "unwanted": Out(1), "at_start": Out(1), "greedy": Out(1), "position": number, "seed": words,
            "active": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        cfg = self._config
        request = self.request.payload
        address = Signal(32)
        value = Signal(32)
        is_write = Signal()
        m.d.comb += [address.eq(request.address), value.eq(request.data), is_write.eq(request.write)]

        enabled = Signal()
        bits = cfg.register_bits
        never = NEVER & ((1 << bits) - 1)
        start, stop, flags = Signal(bits), Signal(bits, init=never), Signal(1)
        # Bounds are kept inverted, as the carry chains that compare with them want them.
        limit_n, prompt_end_n = Signal(bits, init=never), Signal(bits, init=never)
        limit = Signal(bits)
        ring_bits = (cfg.ring - 1).bit_length()
        # What is read in the cycle of its write is read again before anybody uses it.
        m.submodules.ring = ring = Memory(shape=bits, depth=cfg.ring, init=[], attrs={"no_rw_check": 1})
        ring_read, ring_write = ring.read_port(), ring.write_port()

        following = Signal(bits)
        m.d.comb += [
            following.eq(self.position + 1),
            limit.eq(~limit_n),
            self.greedy.eq(~flags[0]),
            self.at_start.eq(self.position == start),
            self.unwanted.eq(following < ~prompt_end_n),
        ]
        with m.If(self.halted):
            m.d.sync += self.position.eq(following)

        # Pacing: whenever the host does not read the ring, its output is the token of the present position.
        moved = Signal()  # a reset or another position: what was decided before is worthless
        m.d.comb += self.token.eq(ring_read.data)
        m.d.sync += self.go.eq(enabled & ~self.running & ~self.halted & (self.position < limit) & (self.fault == 0)
                               & ~moved)

        # Recording a sample: event, ring entry, stop token.
        best = self.best[:bits]
        m.d.comb += ring_read.en.eq(1)
        if cfg.slow:
            # The sequencer waits until the link has taken the event; that takes every frame, heard or not.
            m.d.comb += [
                self.event.valid.eq(self.sample_done),
                self.event.payload.position.eq(following), self.event.payload.token.eq(best),
                self.sample_taken.eq(self.sample_done & self.event.ready),
            ]
        else:
            event_waits, event_position, event_token = Signal(), Signal(bits), Signal(bits)
            m.d.comb += [
                self.event.valid.eq(event_waits),
                self.event.payload.position.eq(event_position), self.event.payload.token.eq(event_token),
                self.sample_taken.eq(self.sample_done & ~event_waits),
            ]
            with m.If(self.event.ready):
                m.d.sync += event_waits.eq(0)
            with m.If(self.sample_taken):
                m.d.sync += [event_waits.eq(1), event_position.eq(following), event_token.eq(best)]
        with m.If(self.sample_taken & (best == stop)):
            m.d.sync += limit_n.eq(~following)

        readable = self._readable(start, limit, ~prompt_end_n, stop, flags, enabled)
        selected = Signal(32)
        with m.Switch(address[2:8]):
            for offset, source in readable.items():
                with m.Case(offset // 4):
                    m.d.comb += selected.eq(source)

        port = cfg.port_bytes
        parts = max(1, 4 // port)
        shift = (port - 1).bit_length()
        part = Signal(range(parts + 1))
        answer, failed = Signal(32), Signal()
        answered = Signal()
        word_address = Signal(cfg.word_address_bits)
        lane_bits = max(0, shift - 2)
        m.d.comb += [
            word_address.eq(address >> shift),
            self.host_bursts.payload.address.eq(word_address),
            self.host_bursts.payload.length.eq(parts),
            self.host_words.ready.eq(1),
            # Accesses are aligned: the parts of one differ in the low address bits.
            self.host_write.payload.address.eq(word_address | part[:parts.bit_length() - 1]),
            self.response.payload.data.eq(answer),
            self.response.payload.error.eq(failed),
            self.response.valid.eq(answered),
            self.program_write.address.eq(address[4:14]), self.program_write.lane.eq(address[2:4]),
            self.program_write.data.eq(value),
            self.scalar_write.address.eq(address[2:7]), self.scalar_write.data.eq(value),
        ]
        if parts == 1:
            lane = address[2:2 + lane_bits]
            m.d.comb += [
                self.host_write.payload.data.eq(value.replicate(port // 4)),
                self.host_write.payload.mask.eq(0xF << Cat(Const(0, 2), lane) if lane_bits else 0xF),
            ]
        else:
            m.d.comb += [self.host_write.payload.data.eq(value.word_select(part, 8 * port)),
                         self.host_write.payload.mask.eq(~0)]

        host_ring, host_reads_ring = Signal(), Signal()  # the host writes the ring, or reads it
        m.d.comb += [
            ring_read.addr.eq(Mux(host_reads_ring, address[2:2 + ring_bits], self.position[:ring_bits])),
            ring_write.addr.eq(Mux(self.sample_taken, following[:ring_bits], address[2:2 + ring_bits])),
            ring_write.data.eq(Mux(self.sample_taken, self.best, value)),
            ring_write.en.eq(self.sample_taken | host_ring),
            self.active.eq(self.request.valid | answered | self.event.valid),
        ]
        in_memory = ~address[31] & (address < cfg.memory_bytes)
        finish = Signal()
        idle_write = Signal()  # a register is written in this cycle
        with m.If(answered & self.response.ready):
            m.d.sync += answered.eq(0)
        m.d.comb += self.request.ready.eq(finish)
        with m.If(finish):
            m.d.sync += answered.eq(1)

        with m.FSM() as fsm:
            with m.State("IDLE"):
                with m.If(self.request.valid & ~answered):
                    m.d.sync += [failed.eq(0), part.eq(0)]
                    with m.Switch(Cat(is_write, address[28:32])):
                        with m.Case(0b1000_1):
                            m.d.comb += [self.program_write.valid.eq(1), finish.eq(1)]
                        with m.Case(0b1001_1):
                            self._write_registers(m, address, value, enabled,
                                                  {0x4C: start, 0x50: limit_n, 0x54: prompt_end_n, 0x58: self.seed,
                                                   0x5C: flags, 0x60: stop}, (limit_n, prompt_end_n))
                            m.d.comb += [finish.eq(1), idle_write.eq(1)]
                        with m.Case(0b1010_1):
                            m.d.comb += [self.scalar_write.valid.eq(1), finish.eq(1)]
                        with m.Case(0b1011_1):
                            with m.If(~self.sample_taken):
                                m.d.comb += [host_ring.eq(1), finish.eq(1)]
                        with m.Case(0b1001_0):
                            m.d.sync += answer.eq(selected)
                            m.d.comb += finish.eq(1)
                        with m.Case(0b1011_0):
                            m.d.comb += host_reads_ring.eq(1)
                            m.next = "RING"
                        with m.Default():
                            with m.If(~in_memory):
                                m.d.sync += failed.eq(1)
                                m.d.comb += finish.eq(1)
                            with m.Elif(is_write):
                                m.next = "WRITE"
                            with m.Else():
                                m.next = "COMMAND"
            with m.State("RING"):
                m.d.sync += answer.eq(ring_read.data)
                m.d.comb += finish.eq(1)
                m.next = "IDLE"
            with m.State("WRITE"):
                with m.If(self.host_write.ready):
                    m.d.sync += part.eq(part + 1)
                    with m.If(part == parts - 1):
                        m.d.comb += finish.eq(1)
                        m.next = "IDLE"
            with m.State("COMMAND"):
                with m.If(self.host_bursts.ready):
                    m.next = "READ"
            with m.State("READ"):
                with m.If(self.host_words.valid):
                    m.d.sync += part.eq(part + 1)
                    if parts == 1:
                        m.d.sync += answer.eq(self.host_words.payload.word_select(address[2:2 + lane_bits], 32)
                                              if lane_bits else self.host_words.payload)
                    else:
                        m.d.sync += answer.eq(Cat(answer[8 * port:], self.host_words.payload))
                    with m.If(part == parts - 1):
                        m.d.comb += finish.eq(1)
                        m.next = "IDLE"
        m.d.comb += [self.host_write.valid.eq(fsm.ongoing("WRITE")),
                     self.host_bursts.valid.eq(fsm.ongoing("COMMAND"))]

        m.d.comb += [
            self.token_valid.eq(~fsm.ongoing("RING")),
            moved.eq(self.soft_reset | (idle_write & (address[2:8] == 0x48 // 4))),
        ]
        return m

    def _readable(self, start, limit, prompt_end, stop, flags, enabled):
        """Register offset -> value."""
        cfg = self._config
        code = (cfg.weight_code == "bit2") | (cfg.memory == "onchip") << 1
        constants = {
            0x00: MAGIC,
            0x04: sum(VERSIONS[k] << (8 * n) for n, k in enumerate(("protocol", "isa", "numerics", "image"))),
            0x08: cfg.rows | cfg.columns << 16,
            0x0C: cfg.lanes | cfg.batch << 8 | code << 16 | cfg.credits << 24,
            0x10: cfg.port_bytes | cfg.strip << 16,
            0x14: cfg.memory_bytes,
            0x18: cfg.vector_words | cfg.program_words << 16,
            0x1C: cfg.activation_words | cfg.ring << 16,
            0x20: cfg.clock_hz,
            0x24: int(cfg.digest[:8], 16),
        }
        registers = {
            0x44: Cat(self.running, enabled, Const(0, 6), self.fault),
            0x48: self.position, 0xA0: self.frames_bad, 0xA4: self.frames_lost, 0xA8: self.line_errors,
        }
        if cfg.counters:  # a build without them keeps to what a host needs
            registers |= {0x40: enabled, 0x4C: start, 0x50: limit, 0x54: prompt_end, 0x58: self.seed, 0x5C: flags,
                          0x60: stop}
            registers |= {offset: self.values[k] for k, offset in enumerate(OFFSETS)}
        return constants | registers

    def _write_registers(self, m, address, value, enabled, plain, inverted):
        """Writes ``value`` to the register at ``address``; ``plain`` by offset, ``inverted`` kept inverted."""
        with m.Switch(address[2:8]):
            with m.Case(0x40 // 4):
                m.d.sync += enabled.eq(value[0])
                m.d.comb += self.soft_reset.eq(value[1])
            with m.Case(0x48 // 4):
                with m.If(~self.running):
                    m.d.sync += self.position.eq(value)
            for offset, register in plain.items():
                with m.Case(offset // 4):
                    m.d.sync += register.eq(~value if any(register is one for one in inverted) else value)
