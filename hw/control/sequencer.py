"""The sequencer: fetches microinstructions and issues them, in order, to the engines (docs/isa.md)."""

from amaranth import Array, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from sterna.firmware import isa
from sterna.hw.array.array import Product
from sterna.hw.vector.issue import Command

FAULT_INSTRUCTION = 1
SLOW_HZ = 40_000_000  # up to this clock the instruction register is left out (96 flip-flops)


class Sequencer(wiring.Component):
    """Runs the microprogram once per token.

    Two cycles per instruction and as many more as the engine it addresses makes it wait; ROWA takes one cycle per bit of the
    token. In order: an instruction that cannot be accepted holds all behind it. HALT waits until the engines are idle.

    Parameters
    ----------
    config : Config

    Members
    -------
    program_write : In({valid, address, lane, data})
        Host writes to the program memory: 32-bit part ``lane`` (0..2) of instruction ``address``.
    go : In(1)
        A token may start; sampled while ``running`` is low.
    token, position, start, prompt_end : In(32)
    greedy : In(1)
    running, halted : Out(1)
        A token is under way; it ends in this cycle.
    sample_done : Out(1); sample_taken : In(1)
        The best row is to be recorded; it has been.
    fault : Out(8)
    vector, product, fetch, store, section : Out(stream)
    vector_busy, array_busy, store_idle : In(1)
    """

    def __init__(self, config):
        self._config = config
        address = config.word_address_bits
        block = data.StructLayout({"address": address, "words": 24})
        super().__init__({
            "program_write": In(wiring.Signature({"valid": Out(1), "address": Out(10), "lane": Out(2), "data": Out(32)})),
            "go": In(1), "token": In(32), "position": In(32), "start": In(32), "prompt_end": In(32), "greedy": In(1),
            "running": Out(1), "halted": Out(1), "sample_done": Out(1), "sample_taken": In(1), "fault": Out(8),
            "vector": Out(stream.Signature(Command)),
            "product": Out(stream.Signature(Product)),
            "fetch": Out(stream.Signature(block)),
            "store": Out(stream.Signature(block)),
            "section": Out(stream.Signature(1)),
            "vector_busy": In(1), "array_busy": In(1), "store_idle": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        cfg = self._config
        address_bits = cfg.word_address_bits
        # The program is never written while it runs, so synthesis need not care about a read of the word being written.
        words = [Memory(shape=32, depth=cfg.program_words, init=[], attrs={"no_rw_check": 1}) for _ in range(3)]
        instruction = Signal(isa.INSTRUCTION_BITS)
        fetched = Signal(isa.INSTRUCTION_BITS)
        next_pc = Signal(10)
        # A slow clock leaves time to decode behind the memory, whose address stands still while an instruction waits.
        registered = cfg.clock_hz > SLOW_HZ
        if not registered:
            m.d.comb += instruction.eq(fetched)
        for lane, memory in enumerate(words):
            m.submodules[f"program{lane}"] = memory
            read, write = memory.read_port(), memory.write_port()
            m.d.comb += [
                read.addr.eq(next_pc), read.en.eq(1), fetched[32 * lane:32 * lane + 32].eq(read.data),
                write.addr.eq(self.program_write.address), write.data.eq(self.program_write.data),
                write.en.eq(self.program_write.valid & (self.program_write.lane == lane)),
            ]

        def field(opcode, name):
            lsb, width = isa.FIELDS[opcode][name]
            return instruction[lsb:lsb + width]

        opcode = instruction[isa.OPCODE_FIELD[0]:isa.OPCODE_FIELD[0] + isa.OPCODE_FIELD[1]]
        pc = Signal(10)
        offset, vl, loop = Signal(16), Signal(16), Signal(16)
        left = Signal(24)
        aregs = Array(Signal(address_bits, name=f"a{k}") for k in range(4))
        areg = Signal(2)
        words_field = field(isa.FETCH, "words")
        value_field = field(isa.SETA, "value")
        announced = Signal()  # the section of this instruction is in the router's queue
        reads_stream = Signal()
        condition = Signal()
        done = Signal()
        jump = Signal()
        kind = field(isa.VOP, "a_kind")
        is_op = [opcode == code for code in range(len(isa.OPCODE_NAMES))]
        sample_end = field(isa.SAMPLE, "end")
        m.d.comb += [
            areg.eq(field(isa.FETCH, "areg")),
            reads_stream.eq((kind == isa.A_STREAM32) | (kind == isa.A_STREAM8)),
            next_pc.eq(pc),
            self.vector.payload.word.eq(instruction),
            self.vector.payload.count.eq(vl),
            self.vector.payload.offset.eq(offset),
            self.vector.payload.start.eq(opcode == isa.SAMPLE),
            self.product.payload.buffer.eq(field(isa.MATVEC, "buffer")),
            self.product.payload.rows.eq(field(isa.MATVEC, "rows")),
            self.product.payload.chunks.eq(field(isa.MATVEC, "chunks")),
            self.section.payload.eq(opcode == isa.MATVEC),
        ]
        for port in (self.fetch, self.store):
            m.d.comb += [port.payload.address.eq(aregs[areg]), port.payload.words.eq(words_field)]
        with m.Switch(field(isa.JUMP, "condition")):
            for code, value in ((isa.ALWAYS, 1), (isa.LAST_LAYER, loop == 1),
                                (isa.NOT_WANTED, (self.position + 1)[:32] < self.prompt_end), (isa.GREEDY, self.greedy),
                                (isa.AT_START, self.position == self.start)):
                with m.Case(code):
                    m.d.comb += condition.eq(value)

        # STRIP and NEXT share the subtraction and the comparison; the step back by 0 makes STRIP a NEXT that just begins.
        strip = field(isa.NEXT, "strip")
        rest, more, shorter = Signal(25), Signal(), Signal(16)
        m.d.comb += [
            rest.eq(Mux(is_op[isa.STRIP], field(isa.STRIP, "elements"), left) - Mux(is_op[isa.STRIP], 0, strip)),
            more.eq(~rest[24] & rest[:24].any()),
            shorter.eq(Mux(rest[:24] < strip, rest, strip)),
        ]

        # The product only counts modulo the address space, and so do the bits of the token.
        multiplier = Signal(min(32, address_bits))
        multiplicand = Signal(address_bits)
        multiplying = Signal()
        advanced = Signal(address_bits)  # one adder for FETCH, STORE and ROWA
        m.d.comb += advanced.eq(aregs[areg] + Mux(multiplying, multiplicand, words_field))

        with m.FSM() as fsm:
            with m.State("IDLE"):
                m.d.sync += pc.eq(0)
                with m.If(self.go):
                    m.d.comb += next_pc.eq(0)
                    m.next = "LOAD"
            with m.State("LOAD"):
                m.d.sync += announced.eq(0)
                if registered:
                    m.d.sync += instruction.eq(fetched)
                m.next = "ISSUE"
            with m.State("ISSUE"):
                with m.Switch(opcode):
                    with m.Case(isa.HALT):
                        with m.If(self.halted):
                            m.next = "IDLE"
                    with m.Case(isa.VOP):
                        m.d.comb += done.eq(self.vector.valid & self.vector.ready)
                    with m.Case(isa.MATVEC):
                        m.d.comb += done.eq(self.product.valid & self.product.ready)
                    with m.Case(isa.FETCH):
                        m.d.comb += done.eq(self.fetch.ready)
                    with m.Case(isa.STORE):
                        m.d.comb += done.eq(self.store.ready)
                    with m.Case(isa.SETA):
                        m.d.comb += done.eq(1)
                        m.d.sync += aregs[areg].eq(value_field)
                    with m.Case(isa.ROWA):
                        m.d.sync += [aregs[areg].eq(value_field), multiplier.eq(self.token),
                                     multiplicand.eq(field(isa.ROWA, "stride"))]
                        m.next = "MULTIPLY"
                    with m.Case(isa.STRIP):
                        m.d.comb += done.eq(1)
                        m.d.sync += [left.eq(rest), offset.eq(0), vl.eq(shorter)]
                    with m.Case(isa.NEXT):
                        m.d.comb += [done.eq(1), jump.eq(more)]
                        m.d.sync += [left.eq(Mux(more, rest, 0)), offset.eq(offset + field(isa.NEXT, "step"))]
                        with m.If(more):
                            m.d.sync += vl.eq(shorter)
                    with m.Case(isa.LOOP):
                        m.d.comb += done.eq(1)
                        m.d.sync += loop.eq(field(isa.LOOP, "count"))
                    with m.Case(isa.AGAIN):
                        m.d.comb += [done.eq(1), jump.eq(loop > 1)]
                        m.d.sync += loop.eq(loop - 1)
                    with m.Case(isa.JUMP):
                        m.d.comb += [done.eq(field(isa.JUMP, "condition") <= isa.AT_START), jump.eq(condition)]
                        with m.If(~done):
                            m.d.sync += self.fault.eq(FAULT_INSTRUCTION)
                            m.next = "FAULT"
                    with m.Case(isa.WAITM):
                        m.d.comb += done.eq(~self.vector_busy & self.store_idle)
                    with m.Case(isa.SAMPLE):
                        m.d.comb += done.eq(Mux(sample_end, self.sample_taken, self.vector.ready))
                    with m.Default():
                        m.d.sync += self.fault.eq(FAULT_INSTRUCTION)
                        m.next = "FAULT"
                with m.If(self.section.valid & self.section.ready):
                    m.d.sync += announced.eq(1)
                with m.If((self.fetch.valid & self.fetch.ready) | (self.store.valid & self.store.ready)):
                    m.d.sync += aregs[areg].eq(advanced)
                with m.If(done):
                    m.d.comb += next_pc.eq(Mux(jump, field(isa.JUMP, "target"), pc + 1))
                    m.d.sync += pc.eq(next_pc)
                    m.next = "LOAD"
            with m.State("MULTIPLY"):
                with m.If(multiplier[0]):
                    m.d.sync += aregs[areg].eq(advanced)
                m.d.sync += [multiplier.eq(multiplier >> 1), multiplicand.eq(multiplicand << 1)]
                with m.If(multiplier == 0):
                    m.d.comb += next_pc.eq(pc + 1)
                    m.d.sync += pc.eq(next_pc)
                    m.next = "LOAD"
            with m.State("FAULT"):
                pass  # until a reset

        # Handshakes as plain expressions: they are defined from reset on, in every simulator.
        m.d.comb += multiplying.eq(fsm.ongoing("MULTIPLY"))
        issue = fsm.ongoing("ISSUE")
        section_first = ~announced & (is_op[isa.MATVEC] | (is_op[isa.VOP] & reads_stream))
        m.d.comb += [
            self.running.eq(fsm.ongoing("LOAD") | issue | fsm.ongoing("MULTIPLY")),
            self.section.valid.eq(issue & section_first),
            self.vector.valid.eq(issue & ((is_op[isa.VOP] & ~section_first) | (is_op[isa.SAMPLE] & ~sample_end))),
            # Codes still on their way through the vector engine would miss the product.
            self.product.valid.eq(issue & is_op[isa.MATVEC] & announced & ~self.vector_busy),
            self.fetch.valid.eq(issue & is_op[isa.FETCH]),
            self.store.valid.eq(issue & is_op[isa.STORE]),
            self.halted.eq(issue & is_op[isa.HALT] & ~self.vector_busy & ~self.array_busy & self.store_idle),
            self.sample_done.eq(issue & is_op[isa.SAMPLE] & sample_end & ~self.vector_busy),
        ]
        return m
