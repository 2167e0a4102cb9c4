"""The data path of a slot: banks, scalar registers, V lanes, random numbers, peaks, best row."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from sterna.hw.memory.ultra import UltraRam, in_ultra
from sterna.hw.stream import delayed
from sterna.hw.vector.convert import FromInt
from sterna.hw.vector.lane import Lane
from sterna.hw.vector.operands import SCALAR, A, D
from sterna.hw.vector.random import RandomUnit
from sterna.hw.vector.sampler import Sampler
from sterna.hw.vector.serial import SerialFromInt
from sterna.hw.vector.slot_control import SlotControl, Top
from sterna.hw.vector.stages import Stages
from sterna.hw.vector.toplist import TopList
from sterna.sim.golden import fp24, rng

ONE = 127 << 15
ZEROS_LN2 = Const(
    sum(int(bits) << 24 * n for n, bits in enumerate(fp24.to_bits(rng.ZEROS_LN2))), 16 * 24
)


class Slot(wiring.Component):
    """Operands, lanes, registers and memories of one slot; when anything happens is the same for
    all slots.

        rows, stream, random -> FromInt -+
        banks, scalars ----------------> operands -> lane -> values, codes, banks, scalars, sampler

    One beat per cycle; `Stages` says how many cycles each part takes.

    Parameters
    ----------
    config : sterna.hw.config.Config
    row_bits : int
        Width of a row index.
    follows : bool
        Takes C of the slot before where `prior` is set.

    Members
    -------
    control : In(SlotControl(V, address bits))
    rows : In(ArrayLayout(signed(24), V)), stream : In(ArrayLayout(24, V))
        The next beats of the row queue and of the stream.
    c : Out(ArrayLayout(24, V)), prior_c : In(ArrayLayout(24, V))
        Operand C on its way to the lanes, and that of the slot before.
    random_valid, key_busy : Out(1)
        Of the random numbers.
    takes : Out(1), free : Out(1), number_valid : Out(1)
        With a `compact` configuration: `SerialFromInt` takes an operand, may take one, and holds a
        complete one.
    values : Out(ArrayLayout(24, V)), codes : Out(ArrayLayout(signed(8), V))
        Results at the write stage; the codes of lanes beyond the end are 0.
    row, best : Out(row_bits)
        Row counter; index of the best row, or, if the list has rows, of its choice.
    list_pending, list_busy : Out(1)
        As those of ``TopList``.
    sampler_reads, sampler_writes, sampler_busy : Out(1)
        The sampler reads or writes a scalar register in this cycle, or is at work.
    writes : In(1)
        Banks and scalar registers of this slot are written.
    host_valid : In(1), host_address : In(5), host_data : In(24)
        Write of a scalar register; goes behind every other one.
    seed, position : In(32)
    top : In(Top)
        With `top_k` only.
    """

    def __init__(self, config, row_bits, follows=False):
        self._config, self._row_bits, self._follows = config, row_bits, follows
        lanes = config.lanes
        numbers = data.ArrayLayout(24, lanes)
        address_bits = max(1, (config.vector_words - 1).bit_length())
        super().__init__(
            ({"top": In(Top)} if config.top_k else {})
            | {
                "control": In(SlotControl(lanes, address_bits)),
                "rows": In(data.ArrayLayout(signed(24), lanes)),
                "stream": In(numbers),
                "c": Out(numbers),
                "prior_c": In(numbers),
                "random_valid": Out(1),
                "key_busy": Out(1),
                "takes": Out(1),
                "free": Out(1),
                "number_valid": Out(1),
                "values": Out(numbers),
                "codes": Out(data.ArrayLayout(signed(8), lanes)),
                "row": Out(row_bits),
                "best": Out(row_bits),
                "list_pending": Out(1),
                "list_busy": Out(1),
                "sampler_reads": Out(1),
                "sampler_writes": Out(1),
                "sampler_busy": Out(1),
                "writes": In(1),
                "host_valid": In(1),
                "host_address": In(5),
                "host_data": In(24),
                "seed": In(32),
                "position": In(32),
            }
        )

    def elaborate(self, platform):
        m = Module()
        control = self.control
        self._stages = Stages.of(self._config)
        m.submodules.random = random = RandomUnit(self._config.lanes, self._row_bits)
        m.submodules.sampler = sampler = Sampler(self._config.lanes, self._row_bits)
        m.d.comb += [
            random.take.eq(control.takes_random),
            random.row.eq(sampler.row),
            random.restart.eq(control.restart_random),
            random.rekey.eq(control.start),
            random.seed.eq(self.seed),
            random.position.eq(self.position),
            self.random_valid.eq(random.valid),
            self.key_busy.eq(random.key_busy),
        ]
        converted = self._queue_operands(m, random)
        stored = self._banks(m, platform)
        scalar = self._scalars(m, sampler)
        self._lanes(m, random, converted, stored, scalar)
        self._write(m, sampler)
        return m

    def _queue_operands(self, m, random):
        """Units that convert the operands of the queues, one per lane."""
        control, fields = self.control, self.control.fields
        if self._config.compact:
            converted = [SerialFromInt()]
            m.submodules.from_int = from_int = converted[0]
            m.d.comb += [
                from_int.offered.eq(control.offered),
                from_int.pull.eq(control.pull),
                from_int.release.eq(control.read & fields.a_kind[2]),
                self.free.eq(from_int.free),
                self.takes.eq(from_int.take),
                self.number_valid.eq(from_int.valid),
            ]
        else:
            converted = [FromInt(not self._config.slow) for _ in range(self._config.lanes)]
            for lane, from_int in enumerate(converted):
                m.submodules[f"from_int_{lane}"] = from_int
        for lane, from_int in enumerate(converted):
            with m.Switch(fields.a_kind):
                with m.Case(A.ROW.value):
                    m.d.comb += from_int.x.eq(self.rows[lane])
                with m.Case(A.RANDOM.value):
                    m.d.comb += from_int.x.eq(Cat(Const(1, 1), random.beat[lane].fraction))
                with m.Default():
                    m.d.comb += from_int.x.eq(self.stream[lane])
            m.d.comb += [
                from_int.raw.eq(fields.a_kind == A.STREAM32.value),
                from_int.fraction.eq(fields.a_kind == A.RANDOM.value),
            ]
        return converted

    def _banks(self, m, platform):
        """What the banks read. No operation reads what is being written (docs/isa.md), so such a
        read may return anything.
        """
        control, stored = self.control, []
        for bank in range(3):
            if in_ultra(platform, self._config.vector_words):
                ultra = UltraRam(width=24 * self._config.lanes, depth=self._config.vector_words)
                m.submodules[f"bank{bank}"] = ultra
                m.d.comb += [
                    ultra.read_enable.eq(control.move),
                    ultra.read_address.eq(control.addresses[bank]),
                    ultra.write_enable.eq(control.banks[bank] & self.writes & control.move),
                    ultra.write_address.eq(control.address),
                    ultra.write_data.eq(self.values.as_value()),
                ]
                stored.append(ultra.read_data)
                continue
            memory = Memory(
                shape=unsigned(24 * self._config.lanes),
                depth=self._config.vector_words,
                init=[],
                attrs={"no_rw_check": 1},
            )
            m.submodules[f"bank{bank}"] = memory
            read, write = memory.read_port(), memory.write_port()
            m.d.comb += [
                read.addr.eq(control.addresses[bank]),
                write.addr.eq(control.address),
                write.data.eq(self.values.as_value()),
                write.en.eq(control.banks[bank] & self.writes),
            ]
            stored.append(read.data)
        return stored

    def _scalars(self, m, sampler):
        """What the scalar registers read; writes of the operation go before those of the sampler
        and the host.
        """
        control = self.control
        m.submodules.scalars = scalars = Memory(
            shape=unsigned(24), depth=32, init=[0, ONE], attrs={"no_rw_check": 1}
        )
        read, write = scalars.read_port(), scalars.write_port()
        address = Signal(5)
        m.d.comb += [
            read.addr.eq(Mux(sampler.read, sampler.read_address, control.scalar_address)),
            sampler.read_data.eq(read.data),
            self.sampler_reads.eq(sampler.read),
            sampler.write_ready.eq(~control.scalar),
            self.sampler_writes.eq(sampler.write),
            address.eq(control.address),
            write.addr.eq(
                Mux(
                    control.scalar,
                    address,
                    Mux(sampler.write, sampler.write_address, self.host_address),
                )
            ),
            write.data.eq(
                Mux(
                    control.scalar,
                    self.values[0],
                    Mux(sampler.write, sampler.write_data, self.host_data),
                )
            ),
            # Registers 0 and 1 are constants.
            write.en.eq(
                Mux(control.scalar, self.writes, sampler.write | self.host_valid)
                & write.addr[1:].any()
            ),
        ]
        return read.data

    def _lanes(self, m, random, converted, stored, scalar):
        """Operands and lanes."""
        control, fields = self.control, self.control.fields
        lanes = self._config.lanes
        # A next operation may set its kinds before the last beat of the present one loads its
        # operands.
        late = self._stages.load - 1
        kind_a, kind_b, kind_c, loading = (
            delayed(m, value, late, name)
            for name, value in (
                ("kind_a", fields.a_kind),
                ("kind_b", fields.b_kind),
                ("kind_c", fields.c_kind),
                ("loading", control.loads),
            )
        )
        stored = [delayed(m, word, late, f"stored{k}") for k, word in enumerate(stored)]
        scalar = delayed(m, scalar, late, "scalar")
        a, b, c = ([Signal(24, name=f"{name}_{lane}") for lane in range(lanes)] for name in "abc")
        b_next, c_next = (
            [Signal(24, name=f"{name}_next_{lane}") for lane in range(lanes)] for name in "bc"
        )
        zeros = [Signal(4, name=f"zeros_{lane}") for lane in range(lanes)]

        def loads(operand, kind, masked=0):
            """Operand 0, 1 or 2 takes its scalar in setup, or its part of a beat."""
            return loading[operand] | (control.read & ((kind != SCALAR) | masked))

        for lane in range(lanes):
            m.submodules[f"lane_{lane}"] = unit = Lane(
                self._config.compact, not self._config.slow, self._stages.forwards(lanes)
            )
            # Of a random number the count of zeros takes the way to C that its fraction takes to A.
            with m.If(control.takes_random | ~fields.a_kind[2]):
                m.d.sync += zeros[lane].eq(random.beat[lane].zeros)
            zeros_next = delayed(m, zeros[lane], self._stages.convert - 1, f"zeros_{lane}")

            word = [bank[24 * lane : 24 * lane + 24] for bank in stored]

            def pick(kind):
                high = Mux(kind[0], scalar, word[2])  # noqa: B023 (called in this turn of the loop)
                return Mux(kind[1], high, Mux(kind[0], word[1], word[0]))  # noqa: B023

            masked = (
                Const(0) if lane == 0 else control.read_last & ~fields.one & ~control.tail[lane]
            )
            with m.If(loads(0, kind_a, masked)):
                m.d.sync += a[lane].eq(
                    Mux(masked & ~loading[0], 0, Mux(kind_a[2], converted[lane].y, pick(kind_a)))
                )
            with m.If(loads(1, kind_b)):
                m.d.sync += b[lane].eq(pick(kind_b))
            with m.If(loads(2, kind_c)):
                m.d.sync += c[lane].eq(pick(kind_c))
                with m.If(kind_c[2]):
                    m.d.sync += c[lane].eq(ZEROS_LN2.word_select(zeros_next, 24))
            m.d.sync += b_next[lane].eq(b[lane])
            m.d.comb += [
                unit.a.eq(a[lane]),
                unit.b.eq(b_next[lane]),
                unit.c.eq(c_next[lane]),
                unit.table.eq(fields.table),
                unit.negate_product.eq(fields.negate_product),
                unit.negate_c.eq(fields.negate_c),
                unit.again.eq(control.again),
                unit.quantise.eq(
                    (fields.d_kind == D.ACTIVATION0.value) | (fields.d_kind == D.ACTIVATION1.value)
                ),
                self.values[lane].eq(unit.r),
            ]
        # By one power of two or none: one choice of log2 V + 1, not a choice for each
        rotated = [Signal(24, name=f"rotated_{lane}") for lane in range(lanes)]
        for lane in range(lanes):
            with m.Switch(fields.rotate):
                for turn in range(1, lanes.bit_length()):
                    with m.Case(turn):
                        m.d.comb += rotated[lane].eq(c[(lane + (1 << turn - 1)) % lanes])
                with m.Default():
                    m.d.comb += rotated[lane].eq(c[lane])
            m.d.comb += self.c[lane].eq(rotated[lane])
            m.d.sync += c_next[lane].eq(
                Mux(fields.prior, self.prior_c[lane], rotated[lane])
                if self._follows
                else rotated[lane]
            )
        assert (unit.latency, unit.again_latency) == (self._stages.lane, self._stages.again)

    def _write(self, m, sampler):
        """Codes, peaks and best row."""
        control, fields = self.control, self.control.fields
        several = self._config.lanes > 1
        for lane, code in enumerate(self.codes):
            result = self.values[lane]
            m.d.comb += code.eq(
                ((result[8:15] ^ result[23].replicate(8)) + result[23])
                & (control.mask[lane].replicate(8) if several else 0xFF)
            )
        m.d.comb += [
            sampler.valid.eq(control.write),
            sampler.last.eq(control.write_last),
            sampler.mask.eq(control.mask),
            sampler.values.eq(self.values),
            sampler.count.eq(control.count),
            sampler.begin.eq(control.begin),
            sampler.peak.eq(fields.peak),
            sampler.scalar.eq(fields.scalar),
            sampler.start.eq(control.start),
            sampler.sample.eq(fields.d_kind == D.SAMPLE.value),
            self.row.eq(sampler.row),
            self.best.eq(sampler.best),
            self.sampler_busy.eq(sampler.busy),
        ]
        if self._config.top_k:
            m.submodules.list = top = TopList(
                self._config.lanes,
                self._row_bits,
                self._config.top_k,
                self._config.strip // self._config.lanes,
            )
            m.d.comb += [
                top.start.eq(control.start),
                top.k.eq(self.top.k),
                top.p.eq(self.top.p),
                top.keys.eq(control.keys),
                top.scores.eq(control.scores),
                top.mask.eq(control.mask),
                top.values.eq(self.values),
                self.list_pending.eq(top.pending),
                self.list_busy.eq(top.busy),
            ]
            with m.If(top.holds):
                m.d.comb += self.best.eq(top.best)
