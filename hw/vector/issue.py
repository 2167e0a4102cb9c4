"""Issue of vector operations: setup of operands and addresses, and when each beat starts. The
commands are those of `operands`.
"""

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from sterna.firmware import isa
from sterna.hw.vector.operands import SCALAR, VOP, A, Command, D, Fields
from sterna.hw.vector.stages import sum_words
from sterna.hw.vector.sums import turns
from sterna.hw.vector.tables import EXPONENT, NONE


class Issue(wiring.Component):
    """Turns commands into beats.

    Setup takes three cycles, one each for operand A, B and C (one shared address adder, one scalar
    read), while earlier beats drain; the first beat follows in the next cycle. An operation with
    operands from a queue pulls them some cycles before the issue. With ``wait``, or with RANDOM
    (the row counter must stand), setup begins when the pipeline is empty. Sums into partial sums
    (`mod`) come back after 64 / V beats; if that is too early for them, the beats pause (`turns`).

    Parameters
    ----------
    lanes, address_bits : int
        V; width of a bank address.
    stages : Stages
    lists : bool
        There are lists of the best rows, and operations with destination LIST wait for them.

    Members
    -------
    command : In(stream.Signature(Command))
        Taken in the cycle of the first possible beat.
    drained : In(1), key_busy : In(1), scalar_taken : In(1), queue_valid : In(1)
        No beat is under way; the random key is not ready; somebody else reads the scalar registers
        in this cycle; every queue that the present operation needs has a beat.
    fields : Out(Fields), tail : Out(V), d_address : Out, d_mod : Out(1)
        Of the present operation; valid from the issue of its first beat until that has been written
        (``d_address`` one cycle later). a_kind, b_kind and c_kind change as soon as the last beat
        has its operands.
    idle : Out(1)
        No operation is being issued.
    pulling, pull, pull_last : Out(1)
        The operation still needs beats of its queues, if it has any; take a beat from them.
    issue, issue_last, wrap : Out(1), addresses : Out(ArrayLayout(address, 3))
        A beat starts: read the banks; ``wrap``: the partial sums begin again after it.
    again : Out(1)
        That beat takes C from the adder, not from its bank.
    scalar_address : Out(5), loads : Out(3)
        Scalar read in setup; the data belongs to operand A, B or C (one hot) one cycle later.
    restart_random, start : Out(1)
        Rows begin at the row counter; a new sampling begins.
    first_passed : In(1)
        The first beat of the present operation has reached the stage `passed`.
    list_pending : In(1)
        A list has not taken all keys and scores that have been written.
    """

    def __init__(self, lanes, address_bits, stages, lists=False):
        self.lanes, self._stages, self._lists = lanes, stages, lists
        self.address_bits = address_bits
        address = unsigned(address_bits)
        super().__init__(
            {
                "command": In(stream.Signature(Command)),
                "drained": In(1),
                "key_busy": In(1),
                "scalar_taken": In(1),
                "queue_valid": In(1),
                "fields": Out(Fields),
                "tail": Out(lanes),
                "d_address": Out(address),
                "d_mod": Out(1),
                "idle": Out(1),
                "pulling": Out(1),
                "pull": Out(1),
                "pull_last": Out(1),
                "issue": Out(1),
                "issue_last": Out(1),
                "wrap": Out(1),
                "again": Out(1),
                "addresses": Out(data.ArrayLayout(address, 3)),
                "scalar_address": Out(5),
                "loads": Out(3),
                "restart_random": Out(1),
                "start": Out(1),
                "first_passed": In(1),
                "list_pending": In(1),
            }
        )

    def elaborate(self, platform):
        # Plan: the `address` of one operand per cycle, of `operand` and `addend`; how it gets to
        # its bank and moves on with every beat (`load_bank`, `sum_index`, `wrap`); the state of an
        # operation; a state machine, which sets up an operand in each of A, B and C and starts the
        # beats in ISSUE; what `operand` and `addend` are in each state, the beats on their way from
        # a queue (`pulled`), and last what makes an operation wait for a list (`list_waits`) or its
        # beats for partial sums (`turns`).
        m = Module()
        sum_bits = sum_words(self.lanes).bit_length() - 1
        lane_bits = self.lanes.bit_length() - 1
        command = self.command.p
        vop = Signal(VOP)
        m.d.comb += vop.eq(command.word)

        # Address of one operand per cycle.
        operand = Signal(16)
        base = Signal(self.address_bits)
        addend = Signal(self.address_bits)
        address = Signal(self.address_bits)
        rotates = Signal()
        m.d.comb += [
            base.eq(operand[: isa.MOD_BIT]),
            address.eq(base + addend),
        ]
        if self.address_bits > isa.ROTATE_LSB:
            with m.If(rotates):
                m.d.comb += base[isa.ROTATE_LSB :].eq(0)

        # The banks' addresses, from beat to beat.
        bank_mod = Signal(3)
        adds = Signal()
        sum_index = Signal(sum_bits)
        pausing = Signal()
        wrap = Signal()
        m.d.comb += [
            wrap.eq(sum_index.all()),
            self.wrap.eq(wrap),
        ]
        with m.If(self.issue):
            m.d.sync += sum_index.eq(sum_index + 1)
            for bank in range(3):
                # Back by sums - 1 after the last partial sum, otherwise on by one.
                step = Cat(1, *([(bank_mod[bank] & wrap)] * (self.address_bits - 1)))
                if sum_bits < self.address_bits:
                    step = Cat(
                        1,
                        *([0] * (sum_bits - 1)),
                        *([bank_mod[bank] & wrap] * (self.address_bits - sum_bits)),
                    )
                m.d.sync += self.addresses[bank].eq(self.addresses[bank] + step)

        def load_bank(kind):
            with m.If(kind != SCALAR):
                for bank in range(3):
                    with m.If(kind == bank):
                        m.d.sync += [
                            self.addresses[bank].eq(address),
                            bank_mod[bank].eq(operand[isa.MOD_BIT] & ~vop.one),
                        ]

        # State of the operation.
        uses_queue = Signal()
        uses_random = Signal()
        uses_fields = Signal()
        left = Signal(16 - lane_bits)
        pulled, pulled_last = (
            Signal(self._stages.pull, name=name) for name in ("pulled", "pulled_last")
        )
        pulled_all = Signal()
        young = Signal()
        # Beat b of an operation may read what beat b of the one before wrote: short operations keep
        # a distance for that.
        write_stage = self._stages.write
        hold = Signal(range(write_stage - 2))
        distance = Signal.like(hold)
        fresh = Signal()
        step = Signal()
        begin = Signal()
        list_waits = Signal()
        m.d.comb += [
            uses_random.eq((vop.a_kind == A.RANDOM.value) | (vop.c_kind == 4)),
            uses_fields.eq((vop.table == NONE) | (vop.table >= EXPONENT)),
        ]
        # Much begins anew with a sampling: with a fast clock in the cycle behind its command.
        registered = self._stages.registered
        starts = m.d.sync if registered else m.d.comb
        starts += self.start.eq(0)
        m.d.sync += [
            self.loads.eq(0),
            fresh.eq(0),
        ]
        with m.If(self.first_passed):
            m.d.sync += young.eq(0)
        with m.If(hold != 0):
            m.d.sync += hold.eq(hold - 1)
        kind_a = self.fields.a_kind
        m.d.comb += uses_queue.eq(kind_a[2] | (self.fields.c_kind == 4))

        # Setup, then beats.
        def takes(place):
            return [] if registered else [operand.eq(place)]

        with m.FSM() as fsm:
            with m.State("A"):
                m.d.comb += [
                    self.idle.eq(1),
                    *takes(vop.a),
                    self.scalar_address.eq(vop.a),
                    begin.eq(
                        self.command.valid
                        & ~young
                        & (hold == 0)
                        & ~self.scalar_taken
                        & (self.drained | ~(vop.wait | uses_random | command.start))
                        & ~(self.key_busy & uses_random)
                        & ~list_waits
                        & ~(self.start if registered else 0)
                    ),
                ]
                m.d.sync += sum_index.eq(Mux(vop.one, 0, command.offset))
                with m.If(begin & command.start):
                    m.d.comb += self.command.ready.eq(1)
                    starts += self.start.eq(1)
                with m.Elif(begin):
                    m.d.comb += self.restart_random.eq(uses_random)
                    m.d.sync += [
                        self.loads[0].eq(vop.a_kind == A.SCALAR.value),
                        kind_a.eq(vop.a_kind),
                    ]
                    load_bank(vop.a_kind)
                    m.next = "B"
            with m.State("B"):
                m.d.comb += [
                    *takes(vop.b),
                    self.scalar_address.eq(vop.b),
                ]
                with m.If(~self.scalar_taken):
                    m.d.sync += [
                        self.loads[1].eq(vop.b_kind == SCALAR),
                        self.fields.b_kind.eq(vop.b_kind),
                    ]
                    with m.If(uses_fields):
                        load_bank(vop.b_kind)
                    m.next = "C"
            with m.State("C"):
                m.d.comb += [
                    *takes(vop.c),
                    self.scalar_address.eq(vop.c),
                    rotates.eq(vop.one),
                ]
                with m.If(~self.scalar_taken):
                    m.d.sync += [
                        self.loads[2].eq(vop.c_kind == SCALAR),
                        self.fields.c_kind.eq(vop.c_kind),
                        self.fields.table.eq(vop.table),
                        self.fields.negate_product.eq(vop.negp),
                        self.fields.negate_c.eq(vop.negc),
                        self.fields.one.eq(vop.one),
                        self.fields.peak.eq(vop.peak),
                        self.fields.scalar.eq(vop.k),
                        self.fields.d_kind.eq(vop.d_kind),
                        self.fields.d_banks.eq(vop.d_banks),
                        self.fields.rotate.eq(
                            Mux(vop.one, vop.c[isa.ROTATE_LSB :][: isa.ROTATE_BITS], 0)
                        ),
                        self.fields.slots.eq(command.slots),
                        self.fields.slot.eq(command.slot),
                        self.fields.prior.eq(command.prior & (vop.c_kind < SCALAR)),
                        left.eq(Mux(vop.one, 0, (command.count - 1)[lane_bits:16])),
                        pulled_all.eq(0),
                        fresh.eq(1),
                        young.eq(1),
                        # A and B go round no sums; C is written over, in every slot.
                        adds.eq(
                            vop.c[isa.MOD_BIT]
                            & (vop.c == vop.d)
                            & (vop.d_kind == D.VECTOR.value)
                            & ((1 << vop.c_kind)[:3] & vop.d_banks).any()
                            & uses_fields
                            & command.slots.all()
                            & ~(vop.one | vop.negc | kind_a[2] | command.prior | bank_mod.any())
                        ),
                    ]
                    # An operation of n beats is followed `write_stage` - 2 - n cycles later than
                    # setup alone would have it.
                    far = write_stage - 3
                    beats = Mux(vop.one, 0, (command.count - 1)[lane_bits:16])
                    few = beats[: far.bit_length()]
                    near = (
                        beats[len(few) :].any()
                        if far & far + 1 == 0
                        else beats[len(few) :].any() | (few > far)
                    )
                    m.d.sync += distance.eq(Mux(near, 0, far - few))
                    if self.lanes > 1:
                        rest = command.count[:lane_bits]
                        for lane in range(self.lanes):
                            m.d.sync += self.tail[lane].eq(
                                Mux(vop.one, lane == 0, (rest == 0) | (rest > lane))
                            )
                    else:
                        m.d.sync += self.tail.eq(1)
                    with m.If(
                        uses_fields
                        & (vop.d_kind != D.ACTIVATION0.value)
                        & (vop.d_kind != D.ACTIVATION1.value)
                    ):
                        load_bank(vop.c_kind)
                    m.next = "ISSUE"
            with m.State("ISSUE"):
                m.d.comb += [
                    *takes(vop.d),
                    self.command.ready.eq(fresh),
                    self.pulling.eq(~pulled_all),
                    self.pull.eq(uses_queue & self.queue_valid & ~pulled_all & ~pausing),
                    self.pull_last.eq(left == 0),
                    step.eq(Mux(uses_queue, self.pull, ~pausing)),
                    self.issue.eq(Mux(uses_queue, pulled[-1], ~pausing)),
                    self.issue_last.eq(Mux(uses_queue, pulled_last[-1], left == 0)),
                ]
                with m.If(fresh):
                    m.d.sync += [
                        self.d_address.eq(address),
                        self.d_mod.eq(operand[isa.MOD_BIT] & ~vop.one),
                    ]
                with m.If(step):
                    m.d.sync += left.eq(left - 1)
                with m.If(self.pull & self.pull_last):
                    m.d.sync += pulled_all.eq(1)
                with m.If(self.issue & self.issue_last):
                    m.d.sync += hold.eq(distance)
                    m.next = "A"
        # What is added is chosen for each operand by itself, beside the choice of the operand
        if registered:
            odd, late = (
                fsm.ongoing("B") | fsm.ongoing("ISSUE"),
                fsm.ongoing("C") | fsm.ongoing("ISSUE"),
            )

            def present(values):
                return Mux(late, Mux(odd, values[3], values[2]), Mux(odd, values[1], values[0]))

            places = vop.a, vop.b, vop.c, vop.d
            # Within the partial sums.
            adds_low = present(
                [~vop.one & (place[isa.MOD_BIT] | place[isa.PLUS_BIT]) for place in places]
            )
            adds_high = present(
                [~vop.one & ~place[isa.MOD_BIT] & place[isa.PLUS_BIT] for place in places]
            )
            m.d.comb += [
                operand.eq(present(places)),
                addend.eq(
                    Cat(
                        command.offset[:sum_bits] & adds_low.replicate(sum_bits),
                        command.offset[sum_bits:] & adds_high.replicate(16 - sum_bits),
                    )
                ),
            ]
        else:
            m.d.comb += addend.eq(
                Mux(
                    vop.one,
                    0,
                    Mux(
                        operand[isa.MOD_BIT],
                        command.offset[:sum_bits],
                        Mux(operand[isa.PLUS_BIT], command.offset, 0),
                    ),
                )
            )

        # A beat from a queue is pulled before it is issued, as its operand has to be converted.
        m.d.sync += [
            pulled.eq(Cat(self.pull, pulled)),
            pulled_last.eq(Cat(self.pull_last, pulled_last)),
        ]

        if self._lists:
            # The keys of the last strip have been written by now, as its scores have been issued
            # since. They are pending until all scores have been written and taken.
            m.d.comb += list_waits.eq((vop.d_kind == D.LIST.value) & self.list_pending)

        # The turns of the partial sums; which operands go round is known by the first beat.
        pauses, again = turns(
            m, self.lanes, self._stages, self.idle, step, bank_mod != 0, adds
        )
        m.d.comb += [
            pausing.eq(pauses),
            self.again.eq(again),
        ]
        with m.If(begin):
            m.d.sync += bank_mod.eq(0)
            load_bank(vop.a_kind)
        return m
