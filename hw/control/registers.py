"""What the host sees: the address map of docs/protocol.md, in front of the run control."""

from amaranth import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from sterna.hw import protocol
from sterna.hw.control.counters import EVENTS
from sterna.hw.control.run import Pacing, RunControl
from sterna.hw.control.slots import SlotControl
from sterna.hw.link.executor import Event, Request, Response
from sterna.hw.memory.port import burst_layout, write_layout
from sterna.hw.protocol import Register


def _access(region, write):
    """What tells an access of the host: the region's bits of an address behind whether it is a
    write (int).
    """
    return region >> protocol.REGION_BIT << 1 | write


class Registers(wiring.Component):
    """Executes the link's 32-bit requests one at a time, each with one response, and paces the
    sequencer.

    Members
    -------
    request : In(stream of Request); response : Out(stream of Response); event : Out(stream of
    Event) host_bursts, host_words, host_write
        The arbiter's host side.
    program_write, scalar_write : Out; scalar_ready : In(1)
        A write of a scalar register stays until a cycle with ``scalar_ready``.
    program_ready : In(1)
        Only with B > 1: a write of the program is given in a cycle with it.
    values : In(ArrayLayout(32, 10)); frames_bad, frames_lost, line_errors : In(frame_counter_bits)
        Counters.
    pacing : Out(Pacing)
        Of the run control.
    memory_fault : In(1)
        Only with AXI ports: the memory gives no more words. Every access to it, that under way too,
        is answered with an error.
    busy : Out(1)
        A request is under way, an event waits, or the run control is doing something.
    """

    def __init__(self, config):
        self._config = config
        address, port = config.all_address_bits, config.port_bytes
        if port < 2:
            raise ValueError(f"port_bytes {port}: at least 2")
        frames = In(config.frame_counter_bits)
        self._run = RunControl(config) if config.batch == 1 else SlotControl(config)
        super().__init__(
            {
                "request": In(stream.Signature(Request)),
                "response": Out(stream.Signature(Response)),
                "host_bursts": Out(stream.Signature(burst_layout(address))),
                "host_words": In(stream.Signature(8 * port)),
                "host_write": Out(stream.Signature(write_layout(address, port))),
                "program_write": Out(
                    wiring.Signature(
                        {
                            "valid": Out(1),
                            "address": Out(10),
                            "lane": Out(2),
                            "data": Out(32),
                        }
                    )
                ),
                "scalar_write": Out(
                    wiring.Signature(
                        {
                            "valid": Out(1),
                            "address": Out(5),
                            "data": Out(24),
                            "slot": Out(3),
                        }
                    )
                ),
                "scalar_ready": In(1),
                **({"program_ready": In(1)} if config.batch > 1 else {}),
                **({"memory_fault": In(1)} if config.axi_ports else {}),
                "values": In(data.ArrayLayout(32, len(EVENTS))),
                "frames_bad": frames,
                "frames_lost": frames,
                "line_errors": frames,
                "busy": Out(1),
                "event": Out(stream.Signature(Event)),
                "pacing": Out(Pacing(config)),
            }
        )

    def elaborate(self, platform):
        # Plan: what the run control sees of any request (`host`); the registers that are read here
        # (`selected`); how an access of 32 bits becomes `parts` words of the memory port, and which
        # addresses are `in_memory`; then a state machine with a request at a time: `finish` ends
        # it, and `answered` keeps its response until the link takes that.
        m = Module()
        cfg = self._config
        many = cfg.batch > 1
        m.submodules.run = run = self._run
        host = run.host
        connect(m, run.event, flipped(self.event))
        connect(m, run.pacing, flipped(self.pacing))

        request = self.request.payload
        # Bits above 31: an address of the memory alone, in a memory that needs it.
        wide = protocol.wide(cfg.memory_bytes)
        address = Signal(36 if wide else 32)
        value = Signal(32)
        is_write = Signal()
        m.d.comb += [
            address.eq(request.address),
            value.eq(request.data),
            is_write.eq(request.write),
            host.offset.eq(address[2:8]),
            host.value.eq(value),
            host.entry.eq(address[2:]),
        ]
        if many:
            m.d.comb += host.slot.eq(address[8 : 8 + (cfg.batch - 1).bit_length()])

        # Registers to be read, but for those that a run control for B > 1 answers for itself.
        selected = Signal(32)
        if cfg.slow:
            with m.Switch(address[2:8]):
                for offset, source in self._readable().items():
                    with m.Case(offset // 4):
                        m.d.comb += selected.eq(source)
        else:  # within groups of 16, and in the next cycle among the groups
            groups = [Signal(32, name=f"group{k}") for k in range(4)]
            m.d.sync += [group.eq(0) for group in groups]
            with m.Switch(address[2:6]):
                for place in range(16):
                    with m.Case(place):
                        m.d.sync += [
                            groups[offset // 64].eq(source)
                            for offset, source in self._readable().items()
                            if offset // 4 % 16 == place
                        ]
            m.d.comb += selected.eq(Array(groups)[address[6:8]])

        # Accesses to the memory, and what goes everywhere straight from the request.
        port = cfg.port_bytes
        parts = max(1, 4 // port)
        shift = (port - 1).bit_length()
        part = Signal(range(parts + 1))
        answer, failed, of_memory = Signal(32), Signal(), Signal()
        answered = Signal()
        word_address = Signal(cfg.all_address_bits)
        lane_bits = max(0, shift - 2)
        m.d.comb += [
            word_address.eq(address >> shift),
            self.host_bursts.payload.address.eq(word_address),
            self.host_bursts.payload.length.eq(parts),
            self.host_words.ready.eq(1),
            # Accesses are aligned: the parts of one differ in the low address bits.
            self.host_write.payload.address.eq(word_address | part[: parts.bit_length() - 1]),
            self.response.payload.data.eq(answer),
            self.response.payload.error.eq(failed),
            self.response.payload.memory.eq(of_memory),
            self.response.valid.eq(answered),
            self.program_write.address.eq(address[4:14]),
            self.program_write.lane.eq(address[2:4]),
            self.program_write.data.eq(value),
            self.scalar_write.address.eq(address[2:7]),
            self.scalar_write.data.eq(value),
            self.scalar_write.slot.eq(address[7:10]),
            self.busy.eq(
                self.request.valid | answered | self.event.valid | (run.busy if many else 0)
            ),
        ]
        if parts == 1:
            lane = address[2 : 2 + lane_bits]
            m.d.comb += [
                self.host_write.payload.data.eq(value.replicate(port // 4)),
                self.host_write.payload.mask.eq(
                    0xF << Cat(Const(0, 2), lane) if lane_bits else 0xF
                ),
            ]
        else:
            m.d.comb += [
                self.host_write.payload.data.eq(value.word_select(part, 8 * port)),
                self.host_write.payload.mask.eq(~0),
            ]

        size = cfg.memory_bytes
        # Without the carry chain that synthesis makes of any comparison.
        below = (
            ~address[size.bit_length() - 1 : 35 if wide else 31].any()
            if size & (size - 1) == 0
            else address[:35] < size
        )
        in_memory = ~address[31] & below
        region = address[28:32]
        if wide:
            low = ~address[32:].any()
            in_memory = Mux(address[35], below, low & ~address[31])
            region = region & low.replicate(4)

        def gives_up():
            """What the request waits for does not come any more: the port is left as it is."""
            if cfg.axi_ports:
                with m.If(self.memory_fault):
                    m.d.sync += [
                        failed.eq(1),
                        of_memory.eq(1),
                    ]
                    m.d.comb += finish.eq(1)
                    m.next = "IDLE"

        # The end of a request, then the requests by region.
        finish = Signal()
        with m.If(answered & self.response.ready):
            m.d.sync += answered.eq(0)
        m.d.comb += self.request.ready.eq(finish)
        with m.If(finish):
            m.d.sync += answered.eq(1)

        with m.FSM() as fsm:
            with m.State("IDLE"):
                with m.If(self.request.valid & ~answered):
                    m.d.sync += [
                        failed.eq(0),
                        of_memory.eq(0),
                        part.eq(0),
                    ]
                    with m.Switch(Cat(is_write, region)):
                        with m.Case(_access(protocol.PROGRAM, write=True)):
                            goes = self.program_ready if many else 1
                            m.d.comb += [
                                self.program_write.valid.eq(goes),
                                finish.eq(goes),
                            ]
                        with m.Case(_access(protocol.REGISTERS, write=True)):
                            m.d.comb += [
                                host.write.eq(host.ready),
                                finish.eq(host.ready),
                            ]
                        with m.Case(_access(protocol.SCALARS, write=True)):
                            m.d.comb += [
                                self.scalar_write.valid.eq(1),
                                finish.eq(self.scalar_ready),
                            ]
                        with m.Case(_access(protocol.RING, write=True)):
                            with m.If(host.ring_ready):
                                m.d.comb += [
                                    host.ring_write.eq(1),
                                    finish.eq(1),
                                ]
                        with m.Case(_access(protocol.REGISTERS, write=False)):
                            of_run = address[6:8] == protocol.RUN_OFFSET >> 6
                            if many:
                                with m.If(of_run):
                                    m.d.comb += host.read.eq(host.ready)
                                    with m.If(host.ready):
                                        m.next = "REGISTER"
                            with m.If(~of_run if many else 1):
                                if cfg.slow:
                                    m.d.sync += answer.eq(selected)
                                    m.d.comb += finish.eq(1)
                                else:
                                    m.next = "SELECT"
                        with m.Case(_access(protocol.RING, write=False)):
                            m.d.comb += host.ring_read.eq(host.ring_ready if many else 1)
                            with m.If(host.ring_read):
                                m.next = "RING"
                        with m.Default():
                            with m.If(~in_memory):
                                m.d.sync += failed.eq(1)
                                m.d.comb += finish.eq(1)
                            with m.Elif(is_write):
                                m.next = "WRITE"
                            with m.Else():
                                m.next = "COMMAND"
            if not cfg.slow:
                with m.State("SELECT"):
                    m.d.sync += answer.eq(selected)
                    m.d.comb += finish.eq(1)
                    m.next = "IDLE"
            with m.State("RING"):
                m.d.sync += answer.eq(host.ring_answer)
                m.d.comb += finish.eq(1)
                m.next = "IDLE"
            if many:
                with m.State("REGISTER"):
                    m.d.sync += answer.eq(host.answer)
                    m.d.comb += finish.eq(1)
                    m.next = "IDLE"
            with m.State("WRITE"):
                with m.If(self.host_write.ready):
                    m.d.sync += part.eq(part + 1)
                    with m.If(part == parts - 1):
                        m.d.comb += finish.eq(1)
                        m.next = "IDLE"
                gives_up()
            with m.State("COMMAND"):
                with m.If(self.host_bursts.ready):
                    m.next = "READ"
                gives_up()
            with m.State("READ"):
                with m.If(self.host_words.valid):
                    m.d.sync += part.eq(part + 1)
                    if parts == 1:
                        m.d.sync += answer.eq(
                            self.host_words.payload.word_select(address[2 : 2 + lane_bits], 32)
                            if lane_bits
                            else self.host_words.payload
                        )
                    else:
                        m.d.sync += answer.eq(Cat(answer[8 * port :], self.host_words.payload))
                    with m.If(part == parts - 1):
                        m.d.comb += finish.eq(1)
                        m.next = "IDLE"
                gives_up()
        if not many:
            m.d.comb += run.ring_answers.eq(fsm.ongoing("RING"))
        m.d.comb += [
            self.host_write.valid.eq(fsm.ongoing("WRITE")),
            self.host_bursts.valid.eq(fsm.ongoing("COMMAND")),
        ]
        return m

    def _readable(self):
        """Register offset -> value, of those that a run control for B > 1 does not answer for
        itself.
        """
        cfg = self._config
        code = (
            protocol.WEIGHT_CODES.index(cfg.weight_code) | protocol.MEMORIES.index(cfg.memory) << 1
        )
        constants = {
            Register.MAGIC: protocol.MAGIC,
            Register.VERSIONS: protocol.version_word(),
            Register.ARRAY: cfg.rows | cfg.columns << 16,
            Register.LANES: cfg.lanes
            | cfg.batch << 8
            | code << 16
            | cfg.register_bits << 18
            | cfg.credits << 24,
            Register.PORT_BYTES: cfg.port_bytes | cfg.strip << 16,
            Register.MEMORY_UNITS: cfg.memory_bytes // protocol.MEMORY_UNIT_BYTES,
            Register.VECTOR_WORDS: cfg.vector_words | cfg.program_words << 16,
            Register.ACTIVATION_WORDS: cfg.activation_words | cfg.ring << 16,
            Register.CLOCK_HZ: cfg.clock_hz,
            Register.BUILD: int(cfg.digest[:8], 16),
        }
        if cfg.top_k or cfg.memory_hz:
            constants[Register.LIST] = cfg.top_k | cfg.memory_hz // 1000 << 8
        if cfg.tree_rows or cfg.engines > 1:
            constants[Register.TREE] = cfg.tree_rows | cfg.engines - 1 << 16
        registers = self._run.readable() if cfg.batch == 1 else {}
        counted = {
            "frames_bad": self.frames_bad,
            "frames_lost": self.frames_lost,
            "line_errors": self.line_errors,
        }
        if cfg.counters:
            counted |= {name: self.values[k] for k, name in enumerate(EVENTS)}
        registers |= {protocol.counter_offset(name): value for name, value in counted.items()}
        return constants | registers
