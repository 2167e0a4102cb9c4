"""Vector engine: V lanes of fp24 arithmetic per slot that execute the VOP instructions of
docs/isa.md.
"""

from amaranth.hdl import Array, Cat, EnableInserter, Module, Mux, Signal, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from sterna.hw.array.activations import activation_signature
from sterna.hw.config import ROW_BITS
from sterna.hw.stream import SKID_DEPTH, Queue, delayed
from sterna.hw.vector.issue import Issue
from sterna.hw.vector.operands import A, Command, D, Unpacker
from sterna.hw.vector.slot import Slot
from sterna.hw.vector.slot_control import SlotControl, Top
from sterna.hw.vector.stages import Stages
from sterna.hw.vector.store import Packer
from sterna.hw.vector.writeback import WriteBack


class ScalarWrite(wiring.Signature):
    """Host write of a scalar register of a slot."""

    def __init__(self):
        super().__init__(
            {
                "valid": Out(1),
                "address": Out(5),
                "data": Out(24),
                "slot": Out(3),
            }
        )


class Trace(wiring.Signature):
    """Each beat as it is written, for the simulated board: ``values``, or ``codes`` if ``is_code``,
    slot by slot.
    """

    def __init__(self, numbers):
        super().__init__(
            {
                "valid": Out(1),
                "last": Out(1),
                "is_code": Out(1),
                "values": Out(data.ArrayLayout(24, numbers)),
                "codes": Out(data.ArrayLayout(signed(8), numbers)),
            }
        )


def _members(config):
    """Members of the engine with and without its store."""
    numbers, word = config.lanes * config.batch, 8 * config.port_bytes
    per_slot = data.ArrayLayout(32, config.batch)
    top = {"top": In(data.ArrayLayout(Top, config.batch))} if config.top_k else {}
    return top | {
        "command": In(stream.Signature(Command)),
        "rows": In(stream.Signature(data.ArrayLayout(signed(24), numbers))),
        "stream": In(stream.Signature(word)),
        "activation": Out(activation_signature(config.lanes, config.batch)),
        "trace": Out(Trace(numbers)),
        "best": Out(per_slot),
        "seed": In(per_slot),
        "position": In(per_slot),
        "scalar_write": In(ScalarWrite()),
        "scalar_ready": Out(1),
        "busy": Out(1),
        "stream_done": Out(1),
    }


class _Core(wiring.Component):
    """The engine without its store: everything here stands still together while a beat for memory
    cannot be taken and ``move`` is low.
    """

    def __init__(self, config):
        self.config = config
        super().__init__(
            _members(config)
            | {
                "move": In(1),
                "beat": Out(data.ArrayLayout(24, config.lanes)),
                "mem_valid": Out(1),
                "last": Out(1),
            }
        )

    def elaborate(self, platform):
        m = Module()
        cfg = self.config
        lanes = cfg.lanes
        address_bits = max(1, (cfg.vector_words - 1).bit_length())
        row_bits = min(ROW_BITS, cfg.register_bits)  # a row that is sampled is a token
        stages = Stages.of(cfg)
        m.submodules.issue = issue = Issue(lanes, address_bits, stages, lists=cfg.top_k > 0)
        m.submodules.unpacker = unpacker = Unpacker(lanes, cfg.port_bytes)
        m.submodules.write_back = write_back = WriteBack(lanes, address_bits, stages)
        slots = [Slot(cfg, row_bits, follows=k > 0) for k in range(cfg.batch)]
        control = SlotControl(lanes, address_bits).create()
        for k, slot in enumerate(slots):
            m.submodules[f"slot_{k}"] = slot
        connect(m, control, *(slot.control for slot in slots))
        connect(m, flipped(self.command), issue.command)
        connect(m, flipped(self.stream), unpacker.words)

        # Valid and last bits of the beats; index 0 is the issue.
        valid, last, wrap = [issue.issue], [issue.issue_last], [issue.wrap]
        again = delayed(m, issue.again, stages.turns, "again")
        for stage in range(1, stages.write + 1):
            for name, bits in (("valid", valid), ("last", last), ("wrap", wrap)):
                bit = Signal(name=f"{name}_{stage}")
                m.d.sync += bit.eq(bits[-1])
                bits.append(bit)
        drained = Signal()
        sampler_busy = Cat(*(slot.sampler_busy for slot in slots)).any()
        if stages.registered:  # with the beat that is issued now
            m.d.sync += drained.eq(~(Cat(*valid).any() | sampler_busy))
        else:
            m.d.comb += drained.eq(~(Cat(*valid[1:]).any() | sampler_busy))
        m.d.comb += [
            issue.drained.eq(drained),
            issue.key_busy.eq(slots[0].key_busy),
            issue.scalar_taken.eq(slots[0].sampler_reads),
            issue.list_pending.eq(Cat(*(slot.list_pending for slot in slots)).any()),
            self.busy.eq(
                self.command.valid
                | ~issue.idle
                | ~drained
                | (issue.start if stages.registered else 0)
                | Cat(*(slot.list_busy for slot in slots)).any()
            ),
            write_back.valid.eq(Cat(*valid)),
            write_back.last.eq(Cat(*last)),
            write_back.wrap.eq(Cat(*wrap)),
            issue.first_passed.eq(write_back.first_passed),
            control.move.eq(self.move),
            control.read.eq(valid[stages.load]),
            control.read_last.eq(last[stages.load]),
            control.again.eq(again),
            control.write.eq(valid[-1]),
            control.write_last.eq(last[-1]),
        ]
        for name in (
            "fields",
            "tail",
            "addresses",
            "scalar_address",
            "loads",
            "start",
            "restart_random",
        ):
            m.d.comb += getattr(control, name).eq(getattr(issue, name))
        for name in ("fields", "tail", "d_address", "d_mod"):
            m.d.comb += getattr(write_back, name).eq(getattr(issue, name))
        for name in ("begin", "mask", "count", "address"):
            m.d.comb += getattr(control, name).eq(getattr(write_back, name))
        self._queues(m, issue, unpacker, slots, control)
        for k, (slot, before) in enumerate(zip(slots, slots[-1:] + slots, strict=False)):
            m.d.comb += [
                slot.rows.eq(Cat(*(self.rows.payload[k * lanes + lane] for lane in range(lanes)))),
                slot.stream.eq(unpacker.beat),
                slot.prior_c.eq(before.c),
                slot.seed.eq(self.seed[k]),
                slot.position.eq(self.position[k]),
                self.best[k].eq(slot.best),
            ]
            if cfg.top_k:
                m.d.comb += slot.top.eq(self.top[k])
        self._write(m, write_back, valid[-1], last[-1], slots, control)
        return m

    def _queues(self, m, issue, unpacker, slots, control):
        """Operands of row queue, stream and random numbers. All slots take theirs in the same
        cycle.
        """
        fields = issue.fields
        from_rows, from_random = fields.a_kind == A.ROW.value, fields.a_kind == A.RANDOM.value
        from_stream = (fields.a_kind == A.STREAM32.value) | (fields.a_kind == A.STREAM8.value)
        needs_random = from_random | (fields.c_kind == 4)
        random_valid = slots[0].random_valid
        offered = (
            (self.rows.valid | ~from_rows)
            & (unpacker.valid | ~from_stream)
            & (random_valid | ~needs_random)
        )
        takes = Signal()  # the A operand of a beat leaves its queue
        if self.config.compact:
            from_queue = fields.a_kind[2]
            numbers_valid = Cat(*(slot.number_valid for slot in slots)).all()
            m.d.comb += [
                # Behind the last operand nothing is free before it has been pulled: no word of the
                # next section is touched.
                unpacker.active.eq(issue.pulling & from_stream & slots[0].free),
                control.offered.eq(issue.pulling & from_queue & offered),
                takes.eq(slots[0].takes),
                issue.queue_valid.eq(Mux(from_queue, numbers_valid, random_valid)),
                control.takes_random.eq(Mux(from_queue, takes & needs_random, issue.pull)),
            ]
        else:
            m.d.comb += [
                unpacker.active.eq(issue.pulling & from_stream),
                issue.queue_valid.eq(offered),
                takes.eq(issue.pull),
                control.takes_random.eq(issue.pull & needs_random),
            ]
        m.d.comb += [
            control.pull.eq(issue.pull),
            self.rows.ready.eq(takes & from_rows),
            unpacker.bytes.eq(fields.a_kind == A.STREAM8.value),
            unpacker.take.eq(takes & from_stream),
            unpacker.last.eq(issue.pull_last),
            self.stream_done.eq(takes & from_stream & issue.pull_last),
        ]

    def _write(self, m, write_back, valid, last, slots, control):
        """Destinations."""
        kind = write_back.kind
        to_banks = kind == D.VECTOR
        if self.config.top_k:
            to_banks = to_banks | (kind == D.LIST)
            m.d.comb += [
                control.keys.eq(valid & (kind == D.LIST)),
                control.scores.eq(valid & (kind == D.SAMPLE)),
            ]
        is_code = (kind == D.ACTIVATION0) | (kind == D.ACTIVATION1)
        values, codes = (
            Cat(*(getattr(slot, name).as_value() for slot in slots)) for name in ("values", "codes")
        )
        host = self.scalar_write
        if len(slots) == 1:
            # The host writes while nothing runs.
            m.d.comb += [
                self.scalar_ready.eq(1),
                slots[0].writes.eq(1),
                slots[0].host_valid.eq(host.valid),
                self.beat.eq(slots[0].values),
            ]
        else:
            m.d.comb += [
                self.scalar_ready.eq(
                    ~(control.scalar | Cat(*(slot.sampler_writes for slot in slots)).any())
                ),
                self.beat.eq(Array([slot.values.as_value() for slot in slots])[write_back.slot]),
            ]
            for k, slot in enumerate(slots):
                m.d.comb += [
                    slot.writes.eq(write_back.slots[k]),
                    slot.host_valid.eq(host.valid & self.scalar_ready & (host.slot == k)),
                ]
        for slot in slots:
            m.d.comb += [
                slot.host_address.eq(host.address),
                slot.host_data.eq(host.data),
            ]
        m.d.comb += [
            control.banks.eq(write_back.banks & (valid & to_banks).replicate(3)),
            control.scalar.eq(valid & last & (kind == D.SCALAR)),
            self.mem_valid.eq(valid & (kind == D.MEM)),
            self.last.eq(last),
            self.activation.valid.eq(valid & is_code),
            self.activation.first.eq(write_back.first),
            self.activation.buffer.eq(kind == D.ACTIVATION1),
            self.activation.codes.as_value().eq(codes),
            self.trace.valid.eq(valid),
            self.trace.last.eq(last),
            self.trace.is_code.eq(is_code),
            self.trace.values.as_value().eq(values),
            self.trace.codes.as_value().eq(codes),
        ]


class VectorEngine(wiring.Component):
    """Executes vector operations: r = (+-) A B + (+-) C, V elements of each of B slots per beat, in
    program order.

        command -> setup (A, B, C) -> issue -> operands -> lane: tables, product, sum -> write
        rows, stream, random -> FromInt ----------^     banks, scalars, peak, codes, memory, sampler

    The slots run in step: one setup and issue for all, and a ``Slot`` for each with its memories
    and lanes. Where numbers of all slots stand side by side, those of a slot are together: lane v
    of slot s at s V + v.

    One beat per cycle, with three cycles of setup between operations; a beat is written
    `Stages.write` = 15 cycles after its issue. A dependent operation (``wait``) issues 20 cycles
    after the one it waits for, 21 + log2 V after a peak. An operation of few beats is followed by
    the next after 16 cycles at the earliest. RANDOM gives a beat every 2 V cycles. Sums into the
    partial sums pause after every 64 / V beats if that is less than 16, or, with 16 lanes and more,
    less than 6 (`turns`). With a slow clock the pipeline is shorter: 10 and 14 cycles, 11 where it
    is 16 and 5 where it is 6. With a `compact` configuration an operand from a queue takes 3 cycles
    at least (`SerialFromInt`). Back-pressure: without an operand no beat is issued; if the store
    takes no beat, the whole engine stands still in that cycle.

    Parameters
    ----------
    config : sterna.hw.config.Config
        lanes, batch, top_k, strip, vector_words, port_bytes, register_bits and compact are used.

    Members
    -------
    command : In(stream.Signature(Command))
        ``word`` the instruction, ``count`` the elements (at least 1; ignored with `one`),
        ``offset`` the strip offset; or ``start``: a new sampling (row counter 0, no best row, key
        from ``seed`` and ``position``). ``slots``, ``slot`` and ``prior`` have no effect with B =
        1.
    rows : In(stream.Signature(ArrayLayout(signed(24), V * B)))
        Row queue: V accumulators of each slot per word.
    stream : In(stream.Signature(8 * P))
        Memory words for the STREAM operands, the same for all slots; a section begins at a word.
    store : Out(stream.Signature(8 * P))
        Memory words of destination MEM, of one slot.
    activation : Out(activation_signature(V, B))
        Codes; always accepted. Codes of lanes beyond the end are 0.
    best : Out(ArrayLayout(32, B))
        Index of each slot's best row, when not ``busy``.
    top : In(ArrayLayout(Top, B))
        Only if the configuration has `top_k`; of each slot, as ``TopList`` has them, when a
        sampling starts.
    seed, position : In(ArrayLayout(32, B))
        Stable while a sampling starts and until its key is done (10 cycles).
    scalar_write : In(ScalarWrite()), scalar_ready : Out(1)
        Host write of a scalar register, done in a cycle in which both are high; writes of
        operations go first. Registers 0 and 1 are constants and ignore it. With B = 1
        ``scalar_ready`` is always high, and the host writes only while the engine is not ``busy``.
    busy : Out(1)
        A command is queued or under way, or a memory word waits for the store.
    stream_done : Out(1)
        High in the cycle in which an operation takes the last word of its section of the stream.
    trace : Out(Trace(V * B))
    """

    def __init__(self, config):
        self.config = config
        super().__init__(_members(config) | {"store": Out(stream.Signature(8 * config.port_bytes))})

    def elaborate(self, platform):
        m = Module()
        core = _Core(self.config)
        move = Signal()
        m.submodules.core = EnableInserter(move)(core)
        m.submodules.packer = packer = Packer(self.config.lanes, self.config.port_bytes)
        if self.config.slow:
            connect(m, packer.words, flipped(self.store))
        else:
            # So that `move`, which everything waits for, does not depend on the memory in the same
            # cycle.
            m.submodules.places = places = Queue(8 * self.config.port_bytes, SKID_DEPTH)
            connect(m, packer.words, places.i)
            connect(m, places.o, flipped(self.store))
        m.d.comb += [
            move.eq(~core.mem_valid | packer.ready),
            core.move.eq(move),
            packer.valid.eq(core.mem_valid),
            packer.beat.eq(core.beat),
            packer.last.eq(core.last),
            core.seed.eq(self.seed),
            core.position.eq(self.position),
            self.best.eq(core.best),
            self.scalar_ready.eq(core.scalar_ready & move if self.config.batch > 1 else 1),
            self.busy.eq(core.busy | packer.words.valid | self.store.valid),
            self.stream_done.eq(core.stream_done & move),
        ]
        if self.config.top_k:
            m.d.comb += core.top.eq(self.top)
        for name in ("command", "rows", "stream"):
            inner, outer = getattr(core, name), getattr(self, name)
            m.d.comb += [
                inner.payload.eq(outer.payload),
                inner.valid.eq(outer.valid),
                outer.ready.eq(inner.ready & move),
            ]
        for name in ("activation", "trace"):
            inner, outer = getattr(core, name), getattr(self, name)
            for member in outer.signature.members:
                value = getattr(inner, member)
                m.d.comb += getattr(outer, member).eq(value & move if member == "valid" else value)
        for member in self.scalar_write.signature.members:
            m.d.comb += getattr(core.scalar_write, member).eq(getattr(self.scalar_write, member))
        return m
