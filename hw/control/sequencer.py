"""The sequencer: fetches microinstructions and issues them in order (docs/isa.md)."""

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from sterna.firmware import isa
from sterna.hw.array.control import Product
from sterna.hw.control import payloads
from sterna.hw.control.addresses import AddressRegisters
from sterna.hw.control.loop import SlotLoop
from sterna.hw.control.widths import Widths
from sterna.hw.memory.port import read_layout
from sterna.hw.protocol import FAULT_INSTRUCTION
from sterna.hw.vector.operands import Command


class Sequencer(wiring.Component):
    """Runs the microprogram, with B = 1 once per token.

    Three cycles per instruction, two with a slow clock but for NEXT, and as many more as the engine
    it addresses, or ``AddressRegisters``, makes it wait. In order: an instruction that cannot be
    accepted holds all behind it. HALT waits until the engines are idle.

    Parameters
    ----------
    config : Config

    Members
    -------
    program_write : In({valid, address, lane, data})
        Host writes to the program memory: 32-bit part ``lane`` (0..2) of instruction ``address``.
    program_ready : Out(1)
        A write is done without harm: the memory is not read in this cycle. Only with B > 1, where
        the host may write during a run.
    go : In(1)
        A run may start; sampled while ``running`` is low.
    token : In(register_bits); token_valid : In(1)
        The token at the present position, of the slot ``slot``; not valid in the cycle behind
        another access to the ring.
    unwanted, at_start, greedy : In(1)
        Conditions of JUMP.
    slot : Out(3)
        The slot of a slot loop. This and the next line: only with B > 1.
    active, reads, writes, first : In(B); chained : In(1)
        The slots that a loop may be for, as docs/isa.md has them; stable while ``running``.
    running, halted : Out(1)
        A run is under way; it ends in this cycle.
    sample_done : Out(1); sample_taken : In(1)
        The best rows of all slots are to be recorded; they have been.
    fault : Out(8)
    vector, product, fetch, store, section : Out(stream)
    vector_busy, array_busy, store_idle : In(1)
    """

    def __init__(self, config):
        self._config = config
        address = config.word_address_bits
        block = read_layout(address)
        masks = {name: In(config.batch) for name in isa.WHICH}
        super().__init__(
            {
                "program_write": In(
                    wiring.Signature(
                        {
                            "valid": Out(1),
                            "address": Out(10),
                            "lane": Out(2),
                            "data": Out(32),
                        }
                    )
                ),
                "go": In(1),
                "token": In(config.register_bits),
                "token_valid": In(1),
                "unwanted": In(1),
                "at_start": In(1),
                "greedy": In(1),
                **(
                    {
                        "slot": Out(3),
                        **masks,
                        "chained": In(1),
                        "program_ready": Out(1),
                    }
                    if config.batch > 1
                    else {}
                ),
                "running": Out(1),
                "halted": Out(1),
                "sample_done": Out(1),
                "sample_taken": In(1),
                "fault": Out(8),
                "vector": Out(stream.Signature(Command)),
                "product": Out(stream.Signature(Product)),
                "fetch": Out(stream.Signature(read_layout(address, config.tree_rows))),
                "store": Out(stream.Signature(block)),
                "section": Out(stream.Signature(1)),
                "vector_busy": In(1),
                "array_busy": In(1),
                "store_idle": In(1),
            }
        )

    def elaborate(self, platform):
        # Plan: the program memory and its read-ahead (`fetched`, `instruction`); the instruction's
        # fields and what they say to the engines; address registers; conditions of jumps; strips
        # (`left`, `rest`, `more`); slot loops (`passes`); then a state machine that issues an
        # instruction at a time and goes on when it is `done`; at the end the handshakes with the
        # engines, which depend on its states.
        m = Module()
        cfg = self._config
        # Synthesis need not care about a read of the word being written: with one slot the program
        # is not written while it runs, and with several the write waits for a cycle without a read.
        words = [
            Memory(shape=32, depth=cfg.program_words, init=[], attrs={"no_rw_check": 1})
            for _ in range(3)
        ]
        instruction = Signal(isa.INSTRUCTION_BITS)
        fetched = Signal(isa.INSTRUCTION_BITS)
        width = Widths.of(cfg)
        pc = Signal(width.pc_bits, init=-1)  # one before the first instruction
        next_pc = Signal(width.pc_bits)
        fetch_next = Signal()
        # A slow clock leaves time to decode behind the memory, which holds what it read while an
        # instruction waits.
        registered = not cfg.slow
        if not registered:
            m.d.comb += instruction.eq(fetched)
        # A fast clock leaves no time to find the next instruction's place and to read it there in
        # one cycle.
        advance = Signal()  # on to the next instruction
        following = "FETCH" if registered else "LOAD"
        for lane, memory in enumerate(words):
            m.submodules[f"program{lane}"] = memory
            read, write = memory.read_port(), memory.write_port()
            m.d.comb += [
                read.addr.eq(pc if registered else next_pc),
                read.en.eq(fetch_next),
                fetched[32 * lane : 32 * lane + 32].eq(read.data),
                write.addr.eq(self.program_write.address),
                write.data.eq(self.program_write.data),
                write.en.eq(self.program_write.valid & (self.program_write.lane == lane)),
            ]

        # Fields of the instruction, and the state that they change.
        def field(opcode, name):
            return payloads.field(instruction, opcode, name)

        opcode = instruction[isa.OPCODE_FIELD[0] : isa.OPCODE_FIELD[0] + isa.OPCODE_FIELD[1]]
        offset = Signal(width.offset_bits)
        vl = Signal(width.length_bits)
        loop = Signal(width.loop_bits)
        left = Signal(width.element_bits)
        # `vl` was set to the strip's length in the cycle before, and may be more than is left
        vl_fresh = Signal()
        announced = Signal()  # the section of this instruction is in the router's queue
        reads_stream = Signal()
        condition = Signal()
        issue = Signal()
        fresh = Signal(init=1)  # no token has ended since the last reset
        done = Signal()
        jump = Signal()
        kind = field(isa.VOP, "a_kind")
        is_op = [opcode == code for code in range(len(isa.OPCODE_NAMES))]
        sample_end = field(isa.SAMPLE, "end")
        # What goes to the array; what of a FETCH is not a linear read.
        walks = bool(cfg.tree_rows)
        is_product = is_op[isa.MATVEC] | (is_op[isa.WALK] if walks else 0)
        fetch_kind = field(isa.FETCH, "kind")
        skips, records = Signal(), Signal()
        m.d.comb += [
            skips.eq(is_op[isa.FETCH] & (fetch_kind == isa.KIND_SKIP)),
            records.eq(is_op[isa.FETCH] & (fetch_kind[0] ^ fetch_kind[1])),
            reads_stream.eq((kind == isa.A_STREAM32) | (kind == isa.A_STREAM8)),
            next_pc.eq(Mux(jump, field(isa.JUMP, "target"), pc + 1)),
            advance.eq(done),
            self.vector.payload.word.eq(instruction),
            self.vector.payload.count.eq(vl),
            self.vector.payload.offset.eq(offset),
            self.vector.payload.start.eq(opcode == isa.SAMPLE),
            self.section.payload.eq(is_product),
        ]

        # Address registers: set by SETA and ROWA, used by FETCH and STORE.
        m.submodules.addresses = addresses = AddressRegisters(
            cfg.word_address_bits, cfg.register_bits, cfg.slow
        )
        passed = payloads.passed(instruction, cfg.engines)
        m.d.comb += [
            addresses.set.eq(is_op[isa.SETA] | is_op[isa.ROWA]),
            addresses.row.eq(is_op[isa.ROWA]),
            addresses.areg.eq(field(isa.FETCH, "areg")),
            addresses.words.eq(Mux(records if walks else 0, 0, passed)),
            addresses.value.eq(field(isa.ROWA, "base")),
            addresses.stride.eq(field(isa.ROWA, "stride")),
            addresses.token.eq(self.token),
            addresses.token_valid.eq(self.token_valid),
            addresses.taken.eq(
                (self.fetch.valid & self.fetch.ready)
                | (self.store.valid & self.store.ready)
                | (skips & issue & addresses.ready)
            ),
        ]
        payloads.set_payloads(m, self, instruction, addresses.address, walks)

        # Conditions of jumps.
        conditions = [1, loop == 1, self.unwanted, self.greedy, self.at_start, fresh]
        if cfg.batch > 1:
            conditions.append(self.chained)
        with m.Switch(field(isa.JUMP, "condition")):
            for code, value in enumerate(conditions):
                with m.Case(code):
                    m.d.comb += condition.eq(value)

        # One subtraction: NEXT takes the strip off what is left, and when the instruction behind
        # STRIP and NEXT is loaded, a borrow tells that less is left than vl. A fast clock wants a
        # comparison of its own.
        strip = field(isa.NEXT, "strip")
        rest, more = Signal(width.element_bits + 1), Signal()
        compared = Signal()  # NEXT knows `more`
        m.d.comb += rest.eq(left - Mux(issue, strip[: width.length_bits], vl))
        if registered:
            m.d.comb += [
                more.eq(strip[: width.length_bits] < left),
                compared.eq(1),
            ]
        else:  # without a register behind the memory it takes a cycle of its own
            m.d.sync += [
                more.eq(~rest[-1] & rest[:-1].any()),
                compared.eq(issue),
            ]

        # Slot loops: no engine gets an instruction that is not for the present slot.
        acts = issue  # an instruction is issued that acts on an engine
        if cfg.batch == 1:
            m.d.comb += self.vector.payload.slots.eq(~0)
        else:
            m.d.comb += self.program_ready.eq(~fetch_next)
            passes = Signal()  # a slot loop is not for the present slot
            acts = issue & ~passes
            m.submodules.slots = slots = SlotLoop(cfg.batch)
            turns = issue & is_op[isa.SLOT]
            beyond = Const(255 >> cfg.batch, 8 - cfg.batch)
            m.d.comb += [
                slots.begin.eq(turns & ~field(isa.SLOT, "again")),
                slots.again.eq(turns & field(isa.SLOT, "again")),
                slots.which.eq(field(isa.SLOT, "which")),
                slots.prior.eq(field(isa.SLOT, "prior")),
                passes.eq(slots.skip & (is_op[isa.VOP] | is_op[isa.FETCH] | is_op[isa.STORE])),
                self.slot.eq(slots.slot),
                slots.chained.eq(self.chained),
                self.vector.payload.slots.eq(Cat(slots.slots, beyond)),
                self.vector.payload.slot.eq(slots.slot),
                self.vector.payload.prior.eq(slots.chains),
                *(getattr(slots, name).eq(getattr(self, name)) for name in isa.WHICH),
            ]

        # One instruction at a time.
        with m.FSM() as fsm:
            with m.State("IDLE"):
                with m.If(self.go):
                    m.d.comb += advance.eq(1)
                    m.d.sync += pc.eq(next_pc)
                    m.next = following
            with m.State("LOAD"):
                m.d.sync += [
                    announced.eq(0),
                    vl_fresh.eq(0),
                ]
                with m.If(vl_fresh & rest[-1]):
                    m.d.sync += vl.eq(left)
                if registered:
                    m.d.sync += instruction.eq(fetched)
                m.next = "ISSUE"
            with m.State("ISSUE"):
                with m.Switch(opcode):
                    with m.Case(isa.HALT):
                        with m.If(self.halted):
                            m.d.sync += [
                                pc.eq(-1),
                                fresh.eq(0),
                            ]
                            m.next = "IDLE"
                    with m.Case(isa.VOP):
                        m.d.comb += done.eq(self.vector.valid & self.vector.ready)
                    with m.Case(isa.MATVEC, *([isa.WALK] if walks else [])):
                        m.d.comb += done.eq(self.product.valid & self.product.ready)
                    with m.Case(isa.FETCH):
                        m.d.comb += done.eq(
                            Mux(skips, addresses.ready, self.fetch.valid & self.fetch.ready)
                        )
                        if not walks:
                            with m.If(records):
                                m.d.sync += self.fault.eq(FAULT_INSTRUCTION)
                                m.next = "FAULT"
                    with m.Case(isa.STORE):
                        m.d.comb += done.eq(self.store.valid & self.store.ready)
                    with m.Case(isa.SETA, isa.ROWA):
                        m.d.comb += done.eq(addresses.done)
                    with m.Case(isa.STRIP):
                        m.d.comb += done.eq(1)
                        m.d.sync += [
                            left.eq(field(isa.STRIP, "elements")),
                            offset.eq(0),
                        ]
                        m.d.sync += [
                            vl.eq(strip),
                            vl_fresh.eq(1),
                        ]
                    with m.Case(isa.NEXT):
                        m.d.comb += [
                            done.eq(compared),
                            jump.eq(more),
                        ]
                        with m.If(compared):
                            m.d.sync += [
                                left.eq(Mux(more, rest, 0)),
                                offset.eq(offset + field(isa.NEXT, "step")),
                            ]
                            with m.If(more):
                                m.d.sync += [
                                    vl.eq(strip),
                                    vl_fresh.eq(1),
                                ]
                    with m.Case(isa.LOOP):
                        m.d.comb += done.eq(1)
                        m.d.sync += loop.eq(field(isa.LOOP, "count"))
                    with m.Case(isa.AGAIN):
                        m.d.comb += [
                            done.eq(1),
                            jump.eq(loop[1:].any()),
                        ]
                        m.d.sync += loop.eq(loop - 1)
                    with m.Case(isa.JUMP):
                        m.d.comb += [
                            done.eq(field(isa.JUMP, "condition") <= len(conditions) - 1),
                            jump.eq(condition),
                        ]
                        with m.If(~done):
                            m.d.sync += self.fault.eq(FAULT_INSTRUCTION)
                            m.next = "FAULT"
                    with m.Case(isa.WAITM):
                        m.d.comb += done.eq(~self.vector_busy & self.store_idle)
                    with m.Case(isa.SAMPLE):
                        m.d.comb += done.eq(Mux(sample_end, self.sample_taken, self.vector.ready))
                    if cfg.batch > 1:
                        with m.Case(isa.SLOT):
                            m.d.comb += [
                                done.eq(1),
                                jump.eq(slots.again & slots.repeat),
                            ]
                    with m.Default():
                        m.d.sync += self.fault.eq(FAULT_INSTRUCTION)
                        m.next = "FAULT"
                if cfg.batch > 1:
                    with m.If(passes):
                        m.d.comb += [
                            done.eq(is_op[isa.VOP] | (addresses.ready & (walks | ~records))),
                            addresses.taken.eq(~is_op[isa.VOP]),
                        ]
                with m.If(self.section.valid & self.section.ready):
                    m.d.sync += announced.eq(1)
                with m.If(done):
                    m.d.sync += pc.eq(next_pc)
                    m.next = following
            with m.State("FAULT"):
                pass  # until a reset
            if registered:
                with m.State("FETCH"):
                    m.d.comb += fetch_next.eq(1)
                    m.next = "LOAD"
            else:
                m.d.comb += fetch_next.eq(advance)

        # Handshakes as plain expressions: they are defined from reset on, in every simulator.
        m.d.comb += issue.eq(fsm.ongoing("ISSUE"))
        section_first = ~announced & (is_product | (is_op[isa.VOP] & reads_stream))
        m.d.comb += [
            self.running.eq(
                fsm.ongoing("LOAD") | issue | (fsm.ongoing("FETCH") if registered else 0)
            ),
            addresses.valid.eq(issue & (addresses.set | is_op[isa.FETCH] | is_op[isa.STORE])),
            self.section.valid.eq(acts & section_first),
            self.vector.valid.eq(
                acts & ((is_op[isa.VOP] & ~section_first) | (is_op[isa.SAMPLE] & ~sample_end))
            ),
            # Codes still on their way through the vector engine would miss the product.
            self.product.valid.eq(issue & is_product & announced & ~self.vector_busy),
            self.fetch.valid.eq(
                acts & is_op[isa.FETCH] & ~skips & (1 if walks else ~records) & addresses.ready
            ),
            self.store.valid.eq(acts & is_op[isa.STORE] & addresses.ready),
            self.halted.eq(
                issue & is_op[isa.HALT] & ~self.vector_busy & ~self.array_busy & self.store_idle
            ),
            self.sample_done.eq(issue & is_op[isa.SAMPLE] & sample_end & ~self.vector_busy),
        ]
        return m
