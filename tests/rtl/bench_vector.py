"""Bench of the vector engine: random sequences of vector operations, compared beat by beat with vop_model."""

import os

import bench
import cocotb
import numpy as np
from amaranth.hdl import signed
from amaranth.lib import data
from sterna.firmware.isa import BEST_SCALAR
from sterna.hw.vector.operands import Command
from sterna.hw.vector.slot_control import Top
from sterna.sim.golden import fp24
from streams import StreamDriver, StreamMonitor, pack, unpack
from vop_model import (
    CODES0,
    CODES1,
    LIST,
    MEM,
    MOD,
    PLUS,
    RANDOM,
    ROW,
    SAMPLE,
    SCALAR,
    STREAM8,
    STREAM32,
    VECTOR,
    Model,
    Vop,
)

LANES, PORT, WORDS, ROW_BITS, BATCH, TOP_K, STRIP = (
    int(os.environ[name]) for name in ("LANES", "PORT", "WORDS", "ROW_BITS", "BATCH", "TOP_K", "STRIP"))
SUMS = 64 // LANES
PULL, WAIT = int(os.environ["PULL"]), int(os.environ["WAIT"])  # cycles, by `Stages`
NUMBERS, CODES = data.ArrayLayout(24, LANES * BATCH), data.ArrayLayout(signed(8), LANES * BATCH)
PER_SLOT = data.ArrayLayout(32, BATCH)
TOPS = data.ArrayLayout(Top, BATCH)
SCALAR_OPERAND = 3  # kind of an operand
SPAN = 40  # words of a bank that a vector operand may begin in; lengths and offsets stay below WORDS - SPAN


class Engine:
    """The device with its drivers and its model."""

    def __init__(self, dut, stall):
        self.dut = dut
        self.random = bench.rng(f"vector/{stall}")
        self.numbers = np.random.default_rng(bench.SEED)
        dut.scalar_write__valid.value = 0
        self.key([0] * BATCH, [0] * BATCH)
        self.command = StreamDriver(dut, "command", Command.as_shape(), stall=stall)
        self.rows = StreamDriver(dut, "rows", data.ArrayLayout(signed(24), LANES * BATCH), stall=stall)
        self.stream = StreamDriver(dut, "stream", stall=stall)
        self.store = StreamMonitor(dut, "store", stall=stall)
        self.model = Model(LANES, PORT, WORDS, BATCH)
        self.trace, self.codes, self.issues, self.sources = [], [], [], []
        self.cycle = 0
        self.wild = 0.05  # chance of a number of any size

    async def start(self):
        await bench.start(self.dut)
        cocotb.start_soon(self._watch())

    async def _watch(self):
        dut = self.dut
        while True:
            await bench.settled(dut)
            self.cycle += 1
            if int(dut.command__valid.value) and int(dut.command__ready.value):
                self.issues.append(self.cycle)
            if int(dut.trace__valid.value):
                if int(dut.trace__is_code.value):
                    self.trace.append(unpack(CODES, int(dut.trace__codes.value)))
                else:
                    self.trace.append(unpack(NUMBERS, int(dut.trace__values.value)))
            if int(dut.activation__valid.value):
                self.codes.append((int(dut.activation__first.value), int(dut.activation__buffer.value),
                                   unpack(CODES, int(dut.activation__codes.value))))
            await bench.cycles(dut)

    async def scalar(self, k, value, slot=0):
        """Host write. Returns how many cycles it waited."""
        dut, waited = self.dut, 0
        dut.scalar_write__valid.value, dut.scalar_write__address.value, dut.scalar_write__slot.value = 1, k, slot
        dut.scalar_write__data.value = int(fp24.to_bits(np.array(value)))
        await bench.settled(dut)
        while not int(dut.scalar_ready.value):
            waited += 1
            await bench.cycles(dut)
            await bench.settled(dut)
        await bench.cycles(dut)
        dut.scalar_write__valid.value = 0
        for name in ("address", "slot", "data"):
            getattr(dut, f"scalar_write__{name}").value = self.random.getrandbits(3)
        if k > 1:
            self.model.states[slot].scalars[k] = value
        return waited

    def key(self, seeds, positions, tops=((0, 0),) * BATCH):
        """Drives seed, position, k and p of each slot."""
        self.seeds, self.positions, self.tops = seeds, positions, tops
        if TOP_K:
            self.dut.top.value = pack(TOPS, [{"k": k, "p": p} for k, p in tops])
        self.dut.seed.value, self.dut.position.value = pack(PER_SLOT, seeds), pack(PER_SLOT, positions)

    def begin(self):
        self.model.start(self.seeds, self.positions, self.tops)
        self.command.send({"word": self.random.getrandbits(96), "count": 7, "offset": 3, "start": 1,
                           "slots": 255, "slot": 0, "prior": 0})

    def best(self):
        """Best row of each slot."""
        return unpack(PER_SLOT, int(self.dut.best.value))

    def number(self, low=120, high=135):
        """One fp24 value as float."""
        if self.random.random() < 0.05:
            return 0.0
        exponent = self.random.randint(*((low, high) if self.random.random() >= self.wild else (1, 255)))
        bits = self.random.getrandbits(1) << 23 | exponent << 15 | self.random.getrandbits(15)
        return float(fp24.from_bits(np.array(bits)))

    def feed(self, vop, count):
        """Queue what the operation takes from the row queue or the stream."""
        beats = 1 if vop.one else -(-count // LANES)
        if vop.a == ROW:
            for _ in range(beats):
                limit = 1 << min(ROW_BITS - 1, self.random.choice((0, 4, 12, 17, 23)))
                beat = [self.random.randrange(-limit, limit) for _ in range(LANES * BATCH)]
                self.model.rows.append(beat)
                self.rows.send(beat)
        elif vop.a in (STREAM32, STREAM8):
            if vop.a == STREAM32:
                values = fp24.to_bits(np.array([self.number() for _ in range(beats * LANES)])).astype("<u4")
                section = bytearray(values.tobytes())
            else:
                section = bytearray(self.random.randbytes(beats * LANES))
            section += self.random.randbytes(-len(section) % PORT)  # padding must not matter
            self.model.stream += section
            self.stream.send(*(int.from_bytes(section[k:k + PORT], "little") for k in range(0, len(section), PORT)))

    def send(self, vop, count=1, offset=0):
        """Queue an operation for the device and run it in the model."""
        self.feed(vop, count)
        self.command.send({"word": vop.word(), "count": count, "offset": offset, "start": 0,
                           "slots": vop.slots, "slot": vop.slot, "prior": vop.prior})
        self.model.run(vop, count, offset)
        self.sources += [(vop, count, offset)] * (len(self.model.trace) - len(self.sources))

    async def finish(self):
        """Wait for the device and compare everything."""
        await bench.until(self.dut, lambda: not self.command.items and not int(self.dut.busy.value), 60_000, "idle")
        await bench.cycles(self.dut, 2)
        for name, got, expected in (("beat", self.trace, self.model.trace), ("codes", self.codes, self.model.codes),
                                    ("memory word", self.store.items, self.model.store)):
            for k, (x, y) in enumerate(zip(got, expected)):
                assert x == y, f"{name} {k}: {x} instead of {y}" + (f", {self.sources[k]}" if name == "beat" else "")
            assert len(got) == len(expected), f"{name}: {len(got)} instead of {len(expected)}"
        if self.model.row:
            assert self.best() == [state.chosen() for state in self.model.states], self.best()
        assert not self.rows.items and not self.stream.items
        self.trace.clear(), self.codes.clear(), self.store.items.clear(), self.sources.clear()
        self.model.trace.clear(), self.model.codes.clear(), self.model.store.clear()

    async def fill(self):
        """Fill the banks through the stream, slot by slot, and the scalar registers."""
        for bank in range(3):
            for slot in range(BATCH):
                self.send(Vop(a=STREAM32, ba=1, d=VECTOR, banks=1 << bank, wait=0, slots=1 << slot), WORDS * LANES)
        await self.finish()
        for slot in range(BATCH):
            for k in range(32):
                await self.scalar(k, self.number(), slot)

    def show(self):
        """Operations that bring all scalars and all banks to the trace."""
        for k in range(BEST_SCALAR):
            self.send(Vop(one=1, aa=k, ba=1, wait=1))
        for bank in range(3):
            self.send(Vop(a=bank, ba=1, wait=0), WORDS * LANES)


def random_vop(engine):
    """A random operation that the instruction set allows."""
    r = engine.random
    vop = Vop(one=int(r.random() < 0.3), negp=r.getrandbits(1), negc=r.getrandbits(1))
    vop.a, vop.b, vop.c = r.randrange(8), r.randrange(4), r.randrange(5)
    vop.d = r.choice((0, 0, 0, VECTOR, VECTOR, SCALAR, CODES0, CODES1, MEM, SAMPLE))
    if vop.d == SCALAR:
        vop.one = 1
    if r.random() < 0.35:
        vop.table = r.randrange(1, 7)
        if vop.table == 6 and vop.a in (ROW, STREAM8, RANDOM):
            vop.table = 0
    if 1 <= vop.table <= 5:
        vop.negc = vop.negp
        if vop.d in (CODES0, CODES1):
            vop.d = VECTOR
    if vop.d in (0, VECTOR, SCALAR, MEM):
        vop.peak, vop.k = r.choice((0, 0, 1, 2)), r.randrange(BEST_SCALAR)
    vop.banks = r.randrange(8)
    # One address per bank; the flags belong to it.
    flags = r.choice((0, PLUS, MOD))
    addresses = [r.randrange(SPAN) | (flags if r.random() < 0.7 else 0) for _ in range(3)]
    turn = r.randrange(LANES.bit_length()) if vop.one and r.random() < 0.5 else 0
    for kind, field in ((vop.a, "aa"), (vop.b, "ba"), (vop.c, "ca")):
        setattr(vop, field, addresses[kind] if kind < 3 else r.randrange(BEST_SCALAR) if kind == 3 else 0)
    if vop.one and vop.c < 3:
        # Rotation bits; another operand of the same bank names the same word.
        vop.ca |= turn << 11
    # The order of two writes to one scalar register is not defined.
    vop.da = ((vop.k + 1 + r.randrange(BEST_SCALAR - 1)) % BEST_SCALAR if vop.d == SCALAR
              else r.randrange(SPAN) | r.choice((0, PLUS, MOD)))
    # A bank that is read may be written at the address of the read only.
    reads = sorted({kind for kind in (vop.a, vop.b, vop.c) if kind < 3})
    if vop.d == VECTOR and reads:
        own = r.choice(reads)
        if r.random() < 0.5:
            vop.da = addresses[own]
            reads.remove(own)
        for bank in reads:
            vop.banks &= ~(1 << bank)
    if vop.d in (CODES0, CODES1) and vop.b == 3 and r.random() < 0.5:
        vop.ba = 1
    # What a slot loop adds. Of `slots` the low B bits count.
    vop.slots, vop.slot = r.getrandbits(8) | (1 << BATCH) - 1, r.randrange(BATCH)
    vop.prior = r.getrandbits(1)
    outside = vop.peak or vop.d in (CODES0, CODES1, SAMPLE) or vop.a in (ROW, RANDOM) or vop.c == 4
    if r.random() < 0.5 and not outside:
        vop.slots &= ~((1 << BATCH) - 1) | 1 << vop.slot
    return vop


def written(vop):
    """What an operation leaves under way: banks, scalar registers, a buffer of codes, the row counter (set)."""
    found = {("bank", bank) for bank in range(3) if vop.d == VECTOR and vop.banks >> bank & 1}
    found |= {("scalar", k) for k in (*[vop.da] * (vop.d == SCALAR), *[vop.k] * (vop.peak != 0))}
    return found | ({("codes", vop.d)} if vop.d in (CODES0, CODES1) else {"row"} if vop.d == SAMPLE else set())


def touched(vop):
    """What must not be under way when an operation begins without `wait` (docs/isa.md); SAMPLE keeps its order."""
    operands = ((vop.a, vop.aa), (vop.b, vop.ba), (vop.c, vop.ca))
    found = {("bank", kind) for kind, _ in operands if kind < 3}
    found |= {("scalar", k) for kind, k in operands if kind == SCALAR_OPERAND}
    return found | written(vop) - {"row"} | ({"row"} if vop.a == RANDOM or vop.c == 4 else set())


@cocotb.test()
async def sequences(dut):
    """Random operations. Those that need nothing of the ones before mostly follow at once, with fields of any kind
    behind fields of any other.
    """
    engine = Engine(dut, float(os.environ["STALL"]))
    await engine.start()
    await engine.fill()
    for part in range(int(os.environ["PARTS"])):
        engine.key(*([engine.random.getrandbits(32) for _ in range(BATCH)] for _ in range(2)))
        await bench.cycles(dut)
        engine.begin()
        under_way, at_once = set(), 0
        for _ in range(30):
            few, many = engine.random.randrange(1, 5 * LANES), engine.random.randrange(1, 80)
            # Behind an operation that is longer than the pipeline the next one follows without a pause.
            beats = LANES * engine.random.randrange(14, 20)
            count = engine.random.choice((1, LANES, few, many, beats, beats))
            vop = random_vop(engine)
            vop.wait = int(bool(touched(vop) & under_way) or engine.random.random() < 0.1)
            at_once += 1 - vop.wait
            under_way = written(vop) | (set() if vop.wait else under_way)
            count = min(count, (WORDS - SPAN - 40) * LANES)
            engine.send(vop, count, engine.random.randrange(40))
        await engine.finish()
        assert at_once > 5, at_once
    engine.show()
    await engine.finish()


@cocotb.test()
async def reductions(dut):
    """Sum of squares with 64 partial sums, the fold, and its independence of the number of lanes."""
    engine = Engine(dut, 0.0)
    engine.wild = 0.0  # no sum is beyond the range
    await engine.start()
    await engine.fill()
    for k in range(SUMS):
        engine.send(Vop(one=1, d=VECTOR, banks=4, da=k, wait=0))
    values = [state.banks[0, :30].reshape(-1).copy() for state in engine.model.states]
    half = 24 * LANES  # a strip that is no multiple of the sums, then the rest
    engine.send(Vop(a=0, b=0, c=2, aa=PLUS, ba=PLUS, ca=MOD, d=VECTOR, banks=4, da=MOD), half - 8 * LANES, 0)
    engine.send(Vop(a=0, b=0, c=2, aa=PLUS, ba=PLUS, ca=MOD, d=VECTOR, banks=4, da=MOD), 14 * LANES, 16)
    partial = np.zeros((BATCH, 64))
    for sums, numbers in zip(partial, values, strict=True):
        for j, v in enumerate(numbers):
            sums[j % 64] = fp24.mac(v, v, sums[j % 64])
    fold = SUMS // 2
    while fold:
        for k in range(fold):
            engine.send(Vop(one=1, a=2, aa=k + fold, b=3, ba=1, d=VECTOR, banks=1, da=0))
            engine.send(Vop(one=1, a=2, aa=k, b=3, ba=1, c=0, ca=0, d=VECTOR, banks=4, da=k))
        fold //= 2
    turn = LANES // 2
    while turn:
        engine.send(Vop(one=1, a=2, b=3, ba=1, c=2, ca=turn.bit_length() << 11, d=VECTOR, banks=4))
        turn //= 2
    step = 32
    while step:
        for k in range(step):
            partial[:, k] = fp24.add(partial[:, k], partial[:, k + step])
        step //= 2
    assert [state.banks[2, 0, 0] for state in engine.model.states] == list(partial[:, 0])
    await engine.finish()


def accumulating(engine):
    """An operation that adds to partial sums, or one that differs from such in a single point."""
    r = engine.random
    bank, other = r.sample(range(3), 2)
    at = r.randrange(SPAN) | MOD
    from_bank = r.choice((other, 3))
    vop = Vop(a=from_bank, aa=r.randrange(SPAN) | PLUS if from_bank < 3 else r.randrange(2, 30), c=bank, ca=at,
              d=VECTOR, banks=1 << bank, da=at, negp=r.getrandbits(1), wait=1)
    vop.b, vop.ba = r.choice(((vop.a, vop.aa), (3, r.randrange(2, 30))))
    odd = r.choice(("", "", "", "place", "flag", "banks", "sign", "sums", "queue", "table", "exponent", "slots",
                    "prior", "peak"))
    if odd == "place":  # D goes round other words, the sums stay
        vop.da = (r.randrange(SUMS) + SPAN + 1) | MOD
    elif odd == "flag":
        vop.da = SPAN + SUMS + r.randrange(20)
    elif odd == "banks":
        vop.banks |= 1 << 3 - bank - other
    elif odd == "sign":
        vop.negc = 1
    elif odd == "sums":  # A is the sum as well
        vop.a, vop.aa, vop.b, vop.ba = bank, at, 3, 1
    elif odd == "queue":
        vop.a = r.choice((ROW, STREAM32))
        vop.b, vop.ba = 3, r.randrange(2, 30)
    elif odd in ("table", "exponent"):
        vop.table = 6 if odd == "exponent" else r.randrange(1, 6)
        vop.negp = 0
    elif odd == "slots":
        vop.slots = ~1 & 255 if BATCH > 1 else 255
    elif odd == "prior":
        vop.prior = 1
    elif odd == "peak":
        vop.peak, vop.k = r.choice((1, 2)), r.randrange(2, BEST_SCALAR)
    return vop


@cocotb.test()
async def sums(dut):
    """Operations on partial sums, one behind the other, with stores between them that make the engine stand still."""
    engine = Engine(dut, float(os.environ["STALL"]))
    engine.wild = 0.01
    await engine.start()
    await engine.fill()
    random = engine.random
    for _ in range(int(os.environ["PARTS"])):
        for _ in range(30):
            count = random.choice((1, 64, 65, 128, 20 * LANES, random.randrange(1, 20 * LANES)))
            vop = accumulating(engine)
            if random.random() < 0.3:
                engine.send(Vop(a=0, aa=random.randrange(SPAN), ba=1, d=MEM, slot=random.randrange(BATCH)), 8 * LANES)
                vop.wait = 0
            engine.send(vop, count, random.randrange(40))
        engine.show()
        await engine.finish()


@cocotb.test()
async def turns(dut):
    """Cycles of a sum of squares: 64 sums come back from the adder after 6 cycles with 16 lanes and more, through the
    banks after 16 otherwise, and never sooner than their turn.
    """
    engine = Engine(dut, 0.0)
    engine.wild = 0.0
    await engine.start()
    await engine.fill()
    engine.issues.clear()
    beats = 24
    for _ in range(3):
        engine.send(Vop(a=0, b=0, c=2, aa=PLUS, ba=PLUS, ca=MOD, d=VECTOR, banks=4, da=MOD), beats * LANES)
    await engine.finish()
    turn = max(SUMS, 6 if LANES >= 16 else WAIT - 4)
    assert list(np.diff(engine.issues)) == [(beats - 1) // SUMS * turn + (beats - 1) % SUMS + WAIT] * 2, engine.issues


@cocotb.test()
async def chains(dut):
    """Element-wise operations one after the other without `wait`: each beat meets what the same beat wrote before."""
    engine = Engine(dut, float(os.environ["STALL"]))
    await engine.start()
    await engine.fill()
    random = engine.random
    for _ in range(30):
        count = random.choice((1, LANES, random.randrange(1, 12 * LANES), 12 * LANES))
        offset = random.randrange(8)
        flag = random.choice((0, PLUS))
        at, source = [random.randrange(16) | flag for _ in range(3)], 0
        # A slow row queue leaves bubbles between the beats of the first operation.
        engine.send(Vop(a=ROW, ba=1, d=VECTOR, banks=1, da=at[0], wait=1), count, offset)
        for _ in range(3):
            target = random.choice([b for b in range(3) if b != source])
            engine.send(Vop(a=source, aa=at[source], b=source, ba=at[source], d=VECTOR, banks=1 << target,
                            da=at[target], table=random.choice((0, 1)), wait=0), count, offset)
            source = target
    await engine.finish()


@cocotb.test()
async def stores(dut):
    """Long stores of banks to a memory that takes few words: the engine stands still while the banks are read, and
    while an operation behind them writes one.
    """
    engine = Engine(dut, float(os.environ["STALL"]))
    await engine.start()
    await engine.fill()
    for k in range(3 * BATCH):
        bank = k % 3
        engine.send(Vop(a=bank, ba=1, b=3, d=MEM, slot=k % BATCH, wait=1), 40 * LANES, 0)
        engine.send(Vop(a=bank, ba=1, d=VECTOR, banks=1 << (bank + 1) % 3, wait=0), 40 * LANES, 0)
    engine.show()
    await engine.finish()


@cocotb.test()
async def rates(dut):
    """One beat per cycle, three cycles of setup, and the distances that docs promise."""
    engine = Engine(dut, 0.0)
    await engine.start()
    await engine.fill()
    engine.issues.clear()
    count = 30 * LANES
    engine.send(Vop(a=0, b=1, c=2, wait=0), count)
    engine.send(Vop(a=1, b=1, c=0, wait=0), count)
    engine.send(Vop(a=ROW, b=1, c=0, wait=0), count)
    engine.send(Vop(a=0, wait=0), count)
    engine.send(Vop(one=1, ba=1, d=SCALAR, da=5, wait=0))
    engine.send(Vop(one=1, aa=5, ba=1, d=SCALAR, da=6, wait=1))
    engine.send(Vop(one=1, aa=6, ba=1, d=SCALAR, da=7, wait=1))
    engine.send(Vop(one=1, aa=6, ba=1, peak=1, k=8, wait=1))
    engine.send(Vop(one=1, aa=8, ba=1, d=SCALAR, da=9, wait=1))
    await engine.finish()
    steps = np.diff(engine.issues)
    assert list(steps[:5]) == [33, 33, 33 + PULL, 33, WAIT], steps
    assert steps[5] == WAIT, steps
    assert steps[7] == WAIT + LANES.bit_length(), steps  # the lanes meet, and the register is written


@cocotb.test()
async def ties(dut):
    """Equal scores: the first row wins, in a beat, between beats and between operations; a larger one wins later."""
    engine = Engine(dut, 0.0)
    await engine.start()
    for slot in range(BATCH):
        await engine.scalar(5, -3.0, slot)
        await engine.scalar(6, -2.5, slot)
    for scores, best in (((5, 5), 0), ((5, 6, 6, 5), 3 * LANES + 1), ((6, 5), 0)):
        engine.begin()
        for k in scores:
            engine.send(Vop(aa=k, ba=1, d=SAMPLE, wait=0), 3 * LANES + 1)
        await engine.finish()
        assert engine.best() == [best] * BATCH, (scores, engine.best())


@cocotb.test()
async def host_writes(dut):
    """The host writes scalar registers while operations, peaks and SAMPLE write others: none is lost."""
    engine = Engine(dut, float(os.environ["STALL"]))
    await engine.start()
    await engine.fill()
    engine.begin()
    random, own = engine.random, range(20, BEST_SCALAR)  # registers of the host
    waits = []

    async def host():
        for _ in range(150):
            waits.append(await engine.scalar(random.choice(own), engine.number(), random.randrange(BATCH)))
            await bench.cycles(dut, random.randrange(3))

    task = cocotb.start_soon(host())
    while not task.done():
        slot = random.randrange(BATCH)
        for _ in range(8):
            engine.send(Vop(one=1, aa=random.randrange(20), b=0, ba=random.randrange(SPAN), c=1, wait=0, d=SCALAR,
                            da=random.randrange(2, 20), slots=random.choice((255, 1 << slot))))
            engine.send(Vop(a=0, aa=random.randrange(SPAN), ba=1, peak=random.choice((1, 2)),
                            k=random.randrange(2, 20)), random.choice((1, 2 * LANES)))
            # Several memory words: the engine stands still while the store is not ready.
            engine.send(Vop(a=1, aa=random.randrange(SPAN), ba=1, d=MEM, slot=slot), 4 * LANES)
            # The score of the last beat is written when the result of the next operation comes, with 8 lanes.
            engine.send(Vop(a=0, aa=random.randrange(SPAN), ba=1, d=SAMPLE), 12 * LANES)
        await bench.until(dut, lambda: not engine.command.items, 2_000, "operations")
    await task
    assert max(waits) > 0 or not BATCH > 1, "no write of the host met one of an operation"
    engine.show()
    await engine.finish()


@cocotb.test()
async def lists(dut):
    """Keys and scores of strips, one straight after the other, with another k and p in each slot."""
    engine = Engine(dut, float(os.environ["STALL"]))
    await engine.start()
    await engine.fill()
    random = engine.random
    for _ in range(int(os.environ["PARTS"])):
        engine.key(*([random.getrandbits(32) for _ in range(BATCH)] for _ in range(2)),
                   [(random.choice((0, 1, 2, TOP_K)), random.choice((0, 0, random.randrange(1 << 16))))
                    for _ in range(BATCH)])
        engine.begin()
        for _ in range(random.randrange(1, 6)):
            count = random.choice((1, LANES, STRIP, STRIP, STRIP, random.randrange(1, STRIP)))
            one = int(count == 1 and random.random() < 0.5)
            # As a program has them: a strip's keys may be at the engine before its scores and those of the last.
            engine.send(Vop(one=one, a=random.choice((0, ROW)), aa=random.randrange(SPAN), ba=1, d=LIST,
                            banks=random.choice((2, 4, 6)), da=random.randrange(SPAN), wait=0), count)
            for _ in range(random.choice((0, 0, 3))):
                engine.send(Vop(a=0, aa=random.randrange(SPAN), ba=1, wait=0), count)
            engine.send(Vop(one=one, a=random.choice((0, RANDOM)), aa=random.randrange(SPAN), ba=1, d=SAMPLE, wait=0),
                        count)
        await engine.finish()
        engine.key([0] * BATCH, [0] * BATCH, [(0, 0)] * BATCH)
    engine.show()
    await engine.finish()
