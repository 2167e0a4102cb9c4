"""Vector engine: V lanes of fp24 arithmetic that execute the VOP instructions of docs/isa.md."""

from amaranth.hdl import Cat, Const, EnableInserter, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out, connect, flipped

from sterna.hw.vector.float import FromInt
from sterna.hw.vector.issue import PASSED_STAGE, WRITE_STAGE, Command, Issue
from sterna.hw.vector.lane import LANE_CYCLES, Lane
from sterna.hw.vector.operands import SCALAR, A, D, Unpacker
from sterna.hw.vector.random import RandomUnit
from sterna.hw.vector.sampler import PRELUDE_CYCLES, Sampler
from sterna.hw.vector.serial import SerialFromInt
from sterna.hw.vector.store import Packer
from sterna.sim.golden import fp24, rng

ONE = 127 << 15
ROW_BITS = 24


class ScalarWrite(wiring.Signature):
    """Host write of a scalar register."""

    def __init__(self):
        super().__init__({"valid": Out(1), "address": Out(5), "data": Out(24)})


class Activation(wiring.Signature):
    """A beat of V codes for an activation buffer; always accepted. ``first``: the first beat of an operation."""

    def __init__(self, lanes):
        super().__init__({"valid": Out(1), "first": Out(1), "buffer": Out(1),
                          "codes": Out(data.ArrayLayout(signed(8), lanes))})


class Trace(wiring.Signature):
    """Each beat as it is written, for the simulated board: ``values``, or ``codes`` if ``is_code``."""

    def __init__(self, lanes):
        super().__init__({"valid": Out(1), "last": Out(1), "is_code": Out(1),
                          "values": Out(data.ArrayLayout(24, lanes)),
                          "codes": Out(data.ArrayLayout(signed(8), lanes))})


class _Core(wiring.Component):
    """The engine without its store: everything here stands still together while a beat for memory cannot be taken."""

    def __init__(self, config):
        self.config = config
        lanes = config.lanes
        super().__init__({
            "command": In(stream.Signature(Command)),
            "rows": In(stream.Signature(data.ArrayLayout(signed(24), lanes))),
            "stream": In(stream.Signature(8 * config.port_bytes)),
            "beat": Out(data.ArrayLayout(24, lanes)), "mem_valid": Out(1), "last": Out(1),
            "activation": Out(Activation(lanes)), "trace": Out(Trace(lanes)),
            "best": Out(32), "seed": In(32), "position": In(32), "scalar_write": In(ScalarWrite()), "busy": Out(1),
            "stream_done": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        lanes = self.config.lanes
        address_bits = max(1, (self.config.vector_words - 1).bit_length())
        row_bits = min(ROW_BITS, self.config.register_bits)  # a row that is sampled is a token
        m.submodules.issue = issue = Issue(lanes, address_bits)
        m.submodules.unpacker = unpacker = Unpacker(lanes, self.config.port_bytes)
        m.submodules.random = random = RandomUnit(lanes, row_bits)
        m.submodules.sampler = sampler = Sampler(lanes, row_bits)
        connect(m, flipped(self.command), issue.command)
        connect(m, flipped(self.stream), unpacker.words)
        fields = issue.fields

        # Valid and last bits of the beats; index 0 is the issue.
        valid, last, wrap = [issue.issue], [issue.issue_last], [issue.wrap]
        for stage in range(1, WRITE_STAGE + 1):
            for name, bits in (("valid", valid), ("last", last), ("wrap", wrap)):
                bit = Signal(name=f"{name}_{stage}")
                m.d.sync += bit.eq(bits[-1])
                bits.append(bit)
        drained = Signal()
        m.d.comb += [
            drained.eq(~(Cat(*valid[1:]).any() | sampler.busy)),
            issue.drained.eq(drained), issue.key_busy.eq(random.key_busy), issue.scalar_taken.eq(sampler.read),
            self.busy.eq(self.command.valid | ~issue.idle | ~drained),
        ]

        # Queues.
        from_rows, from_random = fields.a_kind == A.ROW.value, fields.a_kind == A.RANDOM.value
        from_stream = (fields.a_kind == A.STREAM32.value) | (fields.a_kind == A.STREAM8.value)
        takes = Signal()         # the A operand of a beat leaves its queue
        takes_random = Signal()  # the same for a random number, of A or C
        m.d.comb += [
            self.rows.ready.eq(takes & from_rows),
            unpacker.bytes.eq(fields.a_kind == A.STREAM8.value),
            unpacker.take.eq(takes & from_stream), unpacker.last.eq(issue.pull_last),
            self.stream_done.eq(takes & from_stream & issue.pull_last),
            random.take.eq(takes_random), random.row.eq(sampler.row),
            random.restart.eq(issue.restart_random), random.rekey.eq(issue.start), sampler.start.eq(issue.start),
            random.seed.eq(self.seed), random.position.eq(self.position), self.best.eq(sampler.best),
        ]
        integers = []
        for lane in range(lanes):
            integer = Signal(24, name=f"integer_{lane}")
            with m.Switch(fields.a_kind):
                with m.Case(A.ROW.value):
                    m.d.comb += integer.eq(self.rows.payload[lane])
                with m.Case(A.RANDOM.value):
                    m.d.comb += integer.eq(Cat(Const(1, 1), random.beat[lane].fraction))
                with m.Default():
                    m.d.comb += integer.eq(unpacker.beat[lane])
            integers.append(integer)
        needs_random = from_random | (fields.c_kind == 4)
        offered = (self.rows.valid | ~from_rows) & (unpacker.valid | ~from_stream) & (random.valid | ~needs_random)
        if self.config.compact:
            m.submodules.from_int = from_int = SerialFromInt()
            converted = [from_int]
            from_queue = fields.a_kind[2]
            m.d.comb += [
                # Behind the last operand nothing is free before it has been pulled: no word of the next
                # section is touched.
                unpacker.active.eq(issue.pulling & from_stream & from_int.free),
                from_int.offered.eq(issue.pulling & from_queue & offered),
                from_int.pull.eq(issue.pull), from_int.release.eq(valid[1] & from_queue), takes.eq(from_int.take),
                issue.queue_valid.eq(Mux(from_queue, from_int.valid, random.valid)),
                takes_random.eq(Mux(from_queue, takes & needs_random, issue.pull)),
            ]
        else:
            converted = [FromInt() for _ in range(lanes)]
            m.d.comb += [
                unpacker.active.eq(issue.pulling & from_stream), issue.queue_valid.eq(offered), takes.eq(issue.pull),
                takes_random.eq(issue.pull & needs_random),
            ]
            for lane, from_int in enumerate(converted):
                m.submodules[f"from_int_{lane}"] = from_int
        for from_int, integer in zip(converted, integers, strict=True):
            m.d.comb += [from_int.x.eq(integer), from_int.raw.eq(fields.a_kind == A.STREAM32.value),
                         from_int.fraction.eq(from_random)]

        # Memories. No operation reads what is being written (docs/isa.md), so such a read may return anything.
        banks = []
        for bank in range(3):
            memory = Memory(shape=unsigned(24 * lanes), depth=self.config.vector_words, init=[],
                            attrs={"no_rw_check": 1})
            m.submodules[f"bank{bank}"] = memory
            read, write = memory.read_port(), memory.write_port()
            m.d.comb += read.addr.eq(issue.addresses[bank])
            banks.append((read, write))
        m.submodules.scalars = scalars = Memory(shape=unsigned(24), depth=32, init=[0, ONE], attrs={"no_rw_check": 1})
        scalar_read, scalar_port = scalars.read_port(), scalars.write_port()
        m.d.comb += [
            scalar_read.addr.eq(Mux(sampler.read, sampler.read_address, issue.scalar_address)),
            sampler.read_data.eq(scalar_read.data),
        ]

        # Operands and lanes.
        a, b, c = ([Signal(24, name=f"{name}_{lane}") for lane in range(lanes)] for name in "abc")
        b_next, c_next = ([Signal(24, name=f"{name}_next_{lane}") for lane in range(lanes)] for name in "bc")
        results = []
        zeros_ln2 = Const(sum(int(bits) << 24 * n for n, bits in enumerate(fp24.to_bits(rng.ZEROS_LN2))), 16 * 24)
        zeros = [Signal(4, name=f"zeros_{lane}") for lane in range(lanes)]
        zeros_next = [Signal(4, name=f"zeros_next_{lane}") for lane in range(lanes)]
        for lane in range(lanes):
            m.submodules[f"lane_{lane}"] = unit = Lane(self.config.compact)
            # Of a random number the count of zeros takes the way to C that its fraction takes to A.
            with m.If(takes_random | ~fields.a_kind[2]):
                m.d.sync += zeros[lane].eq(random.beat[lane].zeros)
            m.d.sync += zeros_next[lane].eq(zeros[lane])

            word = slice(24 * lane, 24 * lane + 24)
            stored = [read.data[word] for read, _ in banks]
            masked = Const(0) if lane == 0 else last[1] & ~fields.one & ~issue.tail[lane]
            a_bank = Mux(fields.a_kind[1], Mux(fields.a_kind[0], scalar_read.data, stored[2]),
                         Mux(fields.a_kind[0], stored[1], stored[0]))
            with m.If(issue.loads[0] | (valid[1] & ((fields.a_kind != SCALAR) | masked))):
                m.d.sync += a[lane].eq(Mux(masked & ~issue.loads[0], 0,
                                           Mux(fields.a_kind[2], converted[lane].y, a_bank)))
            with m.If(issue.loads[1] | (valid[1] & (fields.b_kind != SCALAR))):
                m.d.sync += b[lane].eq(Mux(fields.b_kind[1], Mux(fields.b_kind[0], scalar_read.data, stored[2]),
                                           Mux(fields.b_kind[0], stored[1], stored[0])))
            with m.If(issue.loads[2] | (valid[1] & (fields.c_kind != SCALAR))):
                m.d.sync += c[lane].eq(Mux(fields.c_kind[1], Mux(fields.c_kind[0], scalar_read.data, stored[2]),
                                           Mux(fields.c_kind[0], stored[1], stored[0])))
                with m.If(fields.c_kind[2]):
                    m.d.sync += c[lane].eq(zeros_ln2.word_select(zeros_next[lane], 24))
            m.d.sync += b_next[lane].eq(b[lane])
            m.d.comb += [
                unit.a.eq(a[lane]), unit.b.eq(b_next[lane]), unit.c.eq(c_next[lane]), unit.table.eq(fields.table),
                unit.negate_product.eq(fields.negate_product), unit.negate_c.eq(fields.negate_c),
                unit.quantise.eq((fields.d_kind == D.ACTIVATION0.value) | (fields.d_kind == D.ACTIVATION1.value)),
            ]
            results.append(unit.r)
        rotated = c
        for bit in range(lanes.bit_length() - 1):
            rotated = [Mux(fields.rotate[bit], rotated[(lane + (1 << bit)) % lanes], rotated[lane])
                       for lane in range(lanes)]
        m.d.sync += [c_next[lane].eq(rotated[lane]) for lane in range(lanes)]
        assert LANE_CYCLES + 2 == WRITE_STAGE
        self._write_back(m, issue, sampler, valid, last, wrap, results, [write for _, write in banks], scalar_port)
        return m

    def _write_back(self, m, issue, sampler, valid, last, wrap, results, bank_writes, scalar_port):
        """Destinations: fields of the operation whose beats are at the write stage, taken over
        with its first beat.
        """
        lanes = self.config.lanes
        fields = issue.fields
        end = WRITE_STAGE
        # Whether the next beat at a stage is the first of its operation.
        awaits = {}
        for stage in (PASSED_STAGE, end - PRELUDE_CYCLES, end - 1):
            awaits[stage] = Signal(name=f"awaits_first_{stage}", init=1)
            with m.If(valid[stage]):
                m.d.sync += awaits[stage].eq(last[stage])
        m.d.comb += issue.first_passed.eq(valid[PASSED_STAGE] & awaits[PASSED_STAGE])
        d_kind, d_banks, tail = Signal(3), Signal(3), Signal(lanes, init=1)
        d_mod, first = Signal(), Signal()
        address = Signal(len(issue.d_address))
        scalar_address = Signal(5)
        opens = valid[end - 1] & awaits[end - 1]
        m.d.sync += first.eq(opens)
        with m.If(opens):
            m.d.sync += [
                d_kind.eq(fields.d_kind), d_banks.eq(fields.d_banks),
                tail.eq(issue.tail), d_mod.eq(issue.d_mod), address.eq(issue.d_address),
            ]
        with m.Elif(valid[end]):
            sum_bits = 6 - (lanes.bit_length() - 1)
            step = Cat(Const(1, min(sum_bits, len(address))),
                       (d_mod & wrap[end]).replicate(max(0, len(address) - sum_bits)))
            m.d.sync += address.eq(address + step)
        m.d.comb += scalar_address.eq(address)

        written = Cat(*results)
        mask = tail | ~last[end].replicate(lanes)
        codes = []
        for lane, result in enumerate(results):
            code = Signal(signed(8), name=f"code_{lane}")
            magnitude = result[8:15]
            m.d.comb += code.eq(((magnitude ^ result[23].replicate(8)) + result[23])
                                & (mask[lane].replicate(8) if lanes > 1 else 0xFF))
            codes.append(code)
        for bank, write in enumerate(bank_writes):
            m.d.comb += [write.addr.eq(address), write.data.eq(written),
                         write.en.eq(valid[end] & (d_kind == D.VECTOR.value) & d_banks[bank])]

        to_scalar = valid[end] & last[end] & (d_kind == D.SCALAR.value)
        host = self.scalar_write
        m.d.comb += [
            sampler.write_ready.eq(~to_scalar),
            scalar_port.addr.eq(Mux(to_scalar, scalar_address,
                                    Mux(sampler.write, sampler.write_address, host.address))),
            scalar_port.data.eq(Mux(to_scalar, results[0], Mux(sampler.write, sampler.write_data, host.data))),
            # Registers 0 and 1 are constants.
            scalar_port.en.eq((to_scalar | sampler.write | host.valid) & scalar_port.addr[1:].any()),
        ]

        full = Signal(range(lanes + 1))
        m.d.comb += full.eq(sum(mask[lane] for lane in range(lanes)) if lanes > 1 else 1)
        is_code = (d_kind == D.ACTIVATION0.value) | (d_kind == D.ACTIVATION1.value)
        m.d.comb += [
            sampler.valid.eq(valid[end]), sampler.last.eq(last[end]), sampler.mask.eq(mask),
            sampler.values.as_value().eq(written), sampler.count.eq(full),
            sampler.begin.eq(valid[end - PRELUDE_CYCLES] & awaits[end - PRELUDE_CYCLES]),
            sampler.peak.eq(fields.peak), sampler.scalar.eq(fields.scalar),
            sampler.sample.eq(fields.d_kind == D.SAMPLE.value),
            self.beat.as_value().eq(written), self.mem_valid.eq(valid[end] & (d_kind == D.MEM.value)),
            self.last.eq(last[end]),
            self.activation.valid.eq(valid[end] & is_code), self.activation.first.eq(first),
            self.activation.buffer.eq(d_kind == D.ACTIVATION1.value),
            self.activation.codes.as_value().eq(Cat(*codes)),
            self.trace.valid.eq(valid[end]), self.trace.last.eq(last[end]), self.trace.is_code.eq(is_code),
            self.trace.values.as_value().eq(written), self.trace.codes.as_value().eq(Cat(*codes)),
        ]


class VectorEngine(wiring.Component):
    """Executes vector operations: r = (+-) A B + (+-) C, V elements per beat, in program order.

        command -> setup (A, B, C) -> issue -> operands (2) -> lane (8): tables, product, sum -> write
        rows, stream, random -> FromInt (1) --------^                     banks, scalars, peak, codes, memory, sampler

    One beat per cycle, with three cycles of setup between operations; a beat is written ``WRITE_STAGE`` = 10 cycles
    after its issue. A dependent operation (``wait``) issues 14 cycles after the one it waits for, 15 + log2 V after a
    peak. An operation of few beats is followed by the next after 10 cycles at the earliest. RANDOM gives a beat every
    2 V cycles. Sums into the partial sums pause after every 64 / V beats if that is less than 11. With a `compact`
    configuration an operand from a queue takes 3 cycles at least (`SerialFromInt`).
    Back-pressure: without an operand no beat is issued; if the store takes no beat, the whole engine stands still
    in that cycle.

    Parameters
    ----------
    config : sterna.hw.config.Config
        lanes, vector_words and port_bytes are used.

    Members
    -------
    command : In(stream.Signature(Command))
        ``word`` the instruction, ``count`` the elements (at least 1; ignored with `one`), ``offset`` the strip
        offset; or ``start``: a new sampling (row counter 0, no best row, key from ``seed`` and ``position``).
    rows : In(stream.Signature(ArrayLayout(signed(24), V)))
        Row queue: V accumulators per word.
    stream : In(stream.Signature(8 * P))
        Memory words for the STREAM operands; a section begins at a word.
    store : Out(stream.Signature(8 * P))
        Memory words of destination MEM.
    activation : Out(Activation(V))
        Codes; always accepted. Codes of lanes beyond the end are 0.
    best : Out(32)
        Index of the best row, when not ``busy``.
    seed, position : In(32)
        Stable while a sampling starts and until its key is done (10 cycles).
    scalar_write : In(ScalarWrite())
        Host write of a scalar register, while not ``busy``; registers 0 and 1 are constants and ignore it.
    busy : Out(1)
        A command is queued or under way, or a memory word waits for the store.
    stream_done : Out(1)
        High in the cycle in which an operation takes the last word of its section of the stream.
    trace : Out(Trace(V))
    """

    def __init__(self, config):
        self.config = config
        lanes = config.lanes
        super().__init__({
            "command": In(stream.Signature(Command)),
            "rows": In(stream.Signature(data.ArrayLayout(signed(24), lanes))),
            "stream": In(stream.Signature(8 * config.port_bytes)),
            "store": Out(stream.Signature(8 * config.port_bytes)),
            "activation": Out(Activation(lanes)), "best": Out(32), "seed": In(32), "position": In(32),
            "scalar_write": In(ScalarWrite()), "busy": Out(1), "stream_done": Out(1), "trace": Out(Trace(lanes)),
        })

    def elaborate(self, platform):
        m = Module()
        core = _Core(self.config)
        move = Signal()
        m.submodules.core = EnableInserter(move)(core)
        m.submodules.packer = packer = Packer(self.config.lanes, self.config.port_bytes)
        connect(m, packer.words, flipped(self.store))
        m.d.comb += [
            move.eq(~core.mem_valid | packer.ready),
            packer.valid.eq(core.mem_valid), packer.beat.eq(core.beat), packer.last.eq(core.last),
            core.seed.eq(self.seed), core.position.eq(self.position), self.best.eq(core.best),
            self.busy.eq(core.busy | packer.words.valid), self.stream_done.eq(core.stream_done & move),
        ]
        for name in ("command", "rows", "stream"):
            inner, outer = getattr(core, name), getattr(self, name)
            m.d.comb += [inner.payload.eq(outer.payload), inner.valid.eq(outer.valid),
                         outer.ready.eq(inner.ready & move)]
        for name in ("activation", "trace"):
            inner, outer = getattr(core, name), getattr(self, name)
            for member in outer.signature.members:
                value = getattr(inner, member)
                m.d.comb += getattr(outer, member).eq(value & move if member == "valid" else value)
        for member in self.scalar_write.signature.members:
            m.d.comb += getattr(core.scalar_write, member).eq(getattr(self.scalar_write, member))
        return m
