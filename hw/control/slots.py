"""Run control of a build for several sequences: which slots are in a run, and its samples."""

from amaranth import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Out

from sterna.hw.control.run import RunSignature, ring_bits
from sterna.hw.protocol import NEVER, RUN_BYTES, RUN_OFFSET, Register

SLOT_WORDS = RUN_BYTES // 4


def _word(register):
    """Place of a register among those of its slot (int)."""
    return (register - RUN_OFFSET) // 4


class SlotControl(wiring.Component):
    """Paces the sequencer run by run, for B > 1 (docs/protocol.md, "Running").

    The registers of all slots lie in one memory, and one state machine goes through them slot by
    slot, so a slot takes little more than what the engines want to see of it in every cycle. What a
    run is about (slots, positions, bounds, seeds, the list) is read when it begins and stays. The
    registers are read anew after each run and each write of a register, in at most 8 B + 1 cycles,
    and then a run begins if any slot has a token. The host's accesses to registers wait for both,
    so a host that writes without end does not keep a run from beginning.

    Sampled tokens are recorded in two or three cycles per slot when the link has taken the event
    before. A reset or a fault leaves the position as it was; a slot whose token is being recorded
    is finished. So what a reset leaves are whole records of some slots, in the ring and as `limit`,
    and the run that is repeated makes the same ones again.

    Members
    -------
    Those of `RunSignature`, and
    busy : Out(1)
        Something is being done without the sequencer.
    """

    def __init__(self, config):
        self._config = config
        super().__init__(
            wiring.Signature(
                {
                    **RunSignature(config).members,
                    "busy": Out(1),
                }
            )
        )

    def elaborate(self, platform):
        # Plan: the state of all slots and what the sequencer sees of it (`pacing`); accesses of the
        # host to the `file` of registers; the rings; the event; what the registers of slot `k` say
        # (`fields`, `takes`); then the state machine: SCAN reads them, RUN waits, RECORD, COMPARE
        # and CUT note samples, FINISH moves positions; at the end what its states mean outside.
        m = Module()
        cfg = self._config
        host, pacing = self.host, self.pacing
        batch, bits = cfg.batch, cfg.register_bits
        slot_bits = (batch - 1).bit_length()
        never = NEVER & ((1 << bits) - 1)
        # Nobody uses what is read in the cycle of its write.
        m.submodules.file = file = Memory(
            shape=32, depth=SLOT_WORDS * batch, init=[], attrs={"no_rw_check": 1}
        )
        m.submodules.ring = ring = Memory(
            shape=bits, depth=batch * cfg.ring, init=[], attrs={"no_rw_check": 1}
        )
        file_read, file_write = file.read_port(), file.write_port()
        ring_read, ring_write = ring.read_port(), ring.write_port()

        # Of every slot: registers that act at once, and what the present run is about.
        enabled, sampling = Signal(batch), Signal(batch)
        chains, source = Signal(), Signal(slot_bits)
        at = Array(Signal(bits, name=f"at{k}") for k in range(batch))
        wanted, random = Signal(batch), Signal(batch)
        last = Signal(slot_bits)  # the last slot that counts
        in_prompt = Signal()  # the token of the last active slot is of the prompt
        ended = Signal()  # chained: no further sample counts

        k = Signal(slot_bits)
        owner = Signal(slot_bits)  # whose registers and ring count for slot k
        scanning, in_run = Signal(), Signal()
        here, following = Signal(bits), Signal(bits)
        position = Signal(bits)  # of slot k, while the registers are read
        final = k == batch - 1
        m.d.comb += [
            owner.eq(Mux(pacing.chained, 0, k)),
            here.eq(Mux(scanning, position, at[k])),
            following.eq(here + 1),
            pacing.unwanted.eq(~wanted.any()),
            pacing.greedy.eq(~random.any()),
            pacing.at_start.eq(pacing.first[0]),
            *(pacing.positions[n].eq(at[n]) for n in range(batch)),
        ]
        one_hot = Array(Const(1 << n, batch) for n in range(batch))
        m.d.comb += [
            pacing.reads.eq(
                Mux(
                    pacing.chained,
                    Mux(pacing.first[0] | ~pacing.active[0], 0, one_hot[source]),
                    pacing.active & ~pacing.first,
                )
            ),
            pacing.writes.eq(Mux(pacing.chained & in_prompt, one_hot[last], pacing.active)),
        ]

        # Accesses of the host, unless the state machine uses the memory or a run is to begin.
        reading, writing = Signal(), Signal()
        own_read, own_write, own_value = (
            Signal(slot_bits + 4, name="own_read"),
            Signal(slot_bits + 4, name="own_write"),
            Signal(32),
        )
        kept = Signal(32)  # bits of the value that the register has
        asked = Cat(host.offset[:4], host.slot[:slot_bits])
        is_register = host.offset[4:] == 1
        host_write = Signal()
        moves = Signal()  # a position that is in use now must stay
        m.d.comb += [
            host.ready.eq(~reading & ~writing & ~pacing.go),
            host_write.eq(host.write & is_register),
            moves.eq(
                (host.offset == Register.POSITION // 4)
                & in_run
                & pacing.active.bit_select(host.slot[:slot_bits], 1)
            ),
            file_read.en.eq(1),
            file_read.addr.eq(Mux(reading, own_read, asked)),
            file_write.en.eq(writing | (host_write & ~moves)),
            file_write.addr.eq(Mux(writing, own_write, asked)),
            file_write.data.eq(Mux(writing, own_value, kept)),
        ]
        with m.Switch(host.offset):
            with m.Case(Register.SEED // 4):
                m.d.comb += kept.eq(host.value)
            with m.Case(Register.TOP // 4):
                m.d.comb += kept.eq(host.value & (0xFFFF00FF if cfg.top_k else 0))
            with m.Default():
                m.d.comb += kept.eq(host.value[:bits])
        first_slot = host.slot[:slot_bits] == 0
        kept_in_file = (
            Register.POSITION,
            Register.START,
            Register.LIMIT,
            Register.PROMPT_END,
            Register.SEED,
            Register.STOP,
            Register.TOP,
        )
        slot_index = host.slot[:slot_bits]
        with m.If(host_write), m.Switch(host.offset):
            with m.Case(Register.CONTROL // 4):
                m.d.sync += enabled.bit_select(slot_index, 1).eq(host.value[0])
                m.d.comb += pacing.soft_reset.eq(host.value[1] & first_slot)
            with m.Case(Register.FLAGS // 4):
                m.d.sync += sampling.bit_select(slot_index, 1).eq(host.value[0])
                with m.If(first_slot):
                    m.d.sync += chains.eq(host.value[1])
            with m.Case(Register.SOURCE // 4):
                with m.If(first_slot):
                    m.d.sync += source.eq(host.value)
        with m.Switch(host.offset):
            with m.Case(Register.CONTROL // 4):
                m.d.comb += host.answer.eq(enabled.bit_select(slot_index, 1))
            with m.Case(Register.STATUS // 4):
                m.d.comb += host.answer.eq(
                    Cat(
                        in_run & pacing.active.bit_select(slot_index, 1),
                        enabled.bit_select(slot_index, 1),
                        Const(0, 6),
                        pacing.fault,
                    )
                )
            with m.Case(Register.FLAGS // 4):
                m.d.comb += host.answer.eq(
                    Cat(sampling.bit_select(slot_index, 1), chains & first_slot)
                )
            with m.Case(Register.DRAFT_END // 4):
                m.d.comb += host.answer.eq(Mux(first_slot, file_read.data, 0))
            with m.Case(Register.SOURCE // 4):
                m.d.comb += host.answer.eq(Mux(first_slot, source, 0))
            with m.Case(*(offset // 4 for offset in kept_in_file)):
                m.d.comb += host.answer.eq(file_read.data)

        # The rings: what neither the host nor a draft reads is for the sequencer's slot.
        reads_draft, records = Signal(), Signal()
        token = Signal(bits)
        sequencer_slot = pacing.sequencer_slot[:slot_bits]
        entry_bits = ring_bits(cfg) - slot_bits
        other_read = Signal()

        def entry(slot, number):
            return Cat(number[:entry_bits], Mux(pacing.chained, 0, slot))

        m.d.comb += [
            host.ring_ready.eq(~reads_draft & ~records),
            ring_read.en.eq(1),
            ring_read.addr.eq(
                Mux(
                    reads_draft,
                    entry(k, following),
                    Mux(host.ring_read, host.entry, entry(sequencer_slot, at[sequencer_slot])),
                )
            ),
            ring_write.en.eq(records | host.ring_write),
            ring_write.addr.eq(Mux(records, entry(k, following), host.entry)),
            ring_write.data.eq(Mux(records, token, host.value)),
            host.ring_answer.eq(ring_read.data),
            pacing.token.eq(ring_read.data),
            pacing.token_valid.eq(~other_read),
        ]
        m.d.sync += other_read.eq(reads_draft | host.ring_read)

        event_waits = Signal()
        m.d.comb += self.event.valid.eq(event_waits)
        with m.If(self.event.ready):
            m.d.sync += event_waits.eq(0)

        # Reading the registers: cycle s of a slot asks for `fields[s]` and has `fields[s - 1]`.
        fields = [
            Register.POSITION,
            Register.LIMIT,
            Register.START,
            Register.PROMPT_END,
            Register.DRAFT_END,
            Register.SEED,
            *([Register.TOP] if cfg.top_k else []),
        ]
        step = Signal(range(len(fields) + 1))
        number = file_read.data[:bits]
        below, equal, ahead = here < number, here == number, following == number
        allowed, starts, prompt, drafted, sampled = (
            Signal(name=name) for name in ("allowed", "starts", "prompt", "drafted", "sampled")
        )
        before = Signal()  # the slot before is active
        takes = Signal()  # slot k has a token
        m.d.comb += takes.eq(
            allowed
            & enabled.bit_select(owner, 1)
            & (~pacing.chained | (k == 0) | (before & (prompt | drafted) & ~starts))
        )
        clear = Signal(slot_bits + 4)

        # A run: its registers are read, it runs, its samples are recorded, and positions move on.
        with m.FSM() as fsm:
            with m.State("CLEAR"):  # behind a reset of the whole device
                m.d.comb += own_write.eq(clear)
                m.d.comb += own_value.eq(Mux(clear[:4] == _word(Register.STOP), never, 0))
                m.d.sync += clear.eq(clear + 1)
                with m.If(clear.all()):
                    m.next = "BEGIN"
            with m.State("BEGIN"):
                m.d.sync += [
                    pacing.chained.eq(chains),
                    k.eq(0),
                    step.eq(0),
                    before.eq(0),
                    ended.eq(0),
                ]
                m.next = "SCAN"
            with m.State("SCAN"):
                m.d.sync += step.eq(step + 1)
                with m.Switch(step):
                    for s, field in enumerate(fields):
                        with m.Case(s):
                            m.d.comb += own_read.eq(Cat(Const(_word(field), 4), owner))
                with m.Switch(step):
                    with m.Case(1):
                        m.d.sync += position.eq(number + Mux(pacing.chained, k, 0))
                    with m.Case(2):
                        m.d.sync += allowed.eq(below)
                    with m.Case(3):
                        m.d.sync += starts.eq(equal)
                    with m.Case(4):
                        m.d.sync += [
                            prompt.eq(below),
                            sampled.eq(~below | ahead),
                        ]
                    with m.Case(5):
                        m.d.sync += drafted.eq(below)
                    with m.Case(6):
                        with m.Switch(k):
                            for n in range(batch):
                                with m.Case(n):
                                    m.d.sync += pacing.seeds[n].eq(file_read.data)
                with m.If(step == len(fields)):
                    with m.Switch(k):
                        for n in range(batch):
                            with m.Case(n):
                                m.d.sync += [
                                    at[n].eq(position),
                                    pacing.active[n].eq(takes),
                                    pacing.first[n].eq(takes & starts),
                                    wanted[n].eq(takes & sampled),
                                    random[n].eq(takes & sampling.bit_select(owner, 1)),
                                ]
                                if cfg.top_k:
                                    m.d.sync += [
                                        pacing.tops[n].k.eq(file_read.data[:8]),
                                        pacing.tops[n].p.eq(file_read.data[16:]),
                                    ]
                    with m.If(takes):
                        m.d.sync += [
                            last.eq(k),
                            in_prompt.eq(prompt),
                        ]
                    m.d.sync += [
                        before.eq(takes),
                        k.eq(k + 1),
                        step.eq(0),
                    ]
                    with m.If(final):
                        m.next = "READY"
            with m.State("READY"):
                with m.If(pacing.running):
                    m.next = "RUN"
                with m.Elif(host_write):
                    m.next = "BEGIN"
            with m.State("RUN"):
                m.d.sync += k.eq(0)
                with m.If(pacing.halted):
                    m.next = "FINISH"
                with m.Elif(pacing.sample_done):
                    m.next = "RECORD"
                with m.Elif(~pacing.running):
                    m.next = "BEGIN"
            with m.State("RECORD"):
                with m.If(~pacing.sample_done):  # a reset
                    m.next = "BEGIN"
                with m.Elif(~wanted.bit_select(k, 1) | ended):
                    m.d.sync += k.eq(k + 1)
                    with m.If(final):
                        m.next = "TAKEN"
                with m.Elif(~event_waits):
                    m.d.comb += [
                        reads_draft.eq(1),
                        own_read.eq(Cat(Const(_word(Register.STOP), 4), owner)),
                    ]
                    m.d.sync += token.eq(Array(pacing.best)[k][:bits])
                    m.next = "COMPARE"
            with m.State("COMPARE"):
                m.d.comb += records.eq(1)
                m.d.sync += [
                    event_waits.eq(1),
                    self.event.payload.slot.eq(owner),
                    self.event.payload.position.eq(following),
                    self.event.payload.token.eq(token),
                ]
                wrong = pacing.chained & (k != last) & (ring_read.data != token)
                with m.If((token == number) | wrong):
                    m.next = "CUT"
                with m.Else():
                    m.d.sync += k.eq(k + 1)
                    m.next = "RECORD"
                    with m.If(final):
                        m.next = "TAKEN"
            with m.State("CUT"):
                m.d.comb += [
                    own_write.eq(Cat(Const(_word(Register.LIMIT), 4), owner)),
                    own_value.eq(following),
                ]
                with m.If(pacing.chained):
                    m.d.sync += [
                        ended.eq(1),
                        last.eq(k),
                    ]
                m.d.sync += k.eq(k + 1)
                m.next = "RECORD"
                with m.If(final):
                    m.next = "TAKEN"
            with m.State("TAKEN"):
                m.next = "RUN"
            with m.State("FINISH"):
                m.d.comb += [
                    own_write.eq(Cat(Const(_word(Register.POSITION), 4), owner)),
                    own_value.eq(following),
                ]
                m.d.sync += k.eq(k + 1)
                with m.If(pacing.chained):
                    m.d.sync += source.eq(last)
                with m.If(final):
                    m.next = "BEGIN"

        advances = pacing.active.bit_select(k, 1) & (~pacing.chained | (k == last))
        m.d.comb += [
            scanning.eq(fsm.ongoing("SCAN")),
            in_run.eq(pacing.running | fsm.ongoing("FINISH")),
            reading.eq(fsm.ongoing("BEGIN") | scanning | reads_draft),
            writing.eq(
                fsm.ongoing("CLEAR") | fsm.ongoing("CUT") | (fsm.ongoing("FINISH") & advances)
            ),
            pacing.go.eq(
                fsm.ongoing("READY") & pacing.active.any() & (pacing.fault == 0) & ~pacing.running
            ),
            pacing.sample_taken.eq(fsm.ongoing("TAKEN") & pacing.sample_done),
            self.busy.eq(~(fsm.ongoing("READY") | fsm.ongoing("RUN")) | pacing.go),
        ]
        return m
