"""Bench of the run control for several slots, against `run_model`, with a stand-in for sequencer and samplers."""

import os

import bench
import cocotb
from register_host import Host
from run_model import (CONTROL, DRAFT_END, FLAGS, LIMIT, NEVER, POSITION, PROMPT_END, REGISTERS, RING, SEED, SOURCE,
                       START, STATUS, STOP, TOP, RunModel)
from sterna.hw.config import Config
from sterna.hw.link.executor import Event, Request
from streams import StreamMonitor, unpack

CONFIG = Config(**eval(os.environ["CONFIG"]))  # repr of a dictionary by the launcher
STALL = float(os.environ.get("STALL", "0"))
ROUNDS = int(os.environ.get("ROUNDS", "36"))
B = CONFIG.batch
RESETTING = 40  # cycles in which nothing starts behind a reset
SLACK = 300     # cycles in which a run that may begin must have begun


class Device:
    """Stands for sequencer and samplers, keeps the model up to date and checks each run against it.

    Attributes
    ----------
    runs, resets, cuts : int
        Counts; a cut is a record that lowers a limit.
    writing, sampling : bool
        The host changes bounds; samples are being recorded. Neither begins while the other lasts, since the bench
        would not know which came first.
    """

    def __init__(self, dut, model, random, events):
        self.dut, self.model, self.random, self.events = dut, model, random, events
        self.runs = self.resets = self.cuts = self.seen = 0
        self.writing = self.sampling = self.running = self.fails = False
        self.expected, self.memory, self.kinds = [], {}, set()
        self.pulse = False
        cocotb.start_soon(self._watch())
        cocotb.start_soon(self._run())

    async def _watch(self):
        """Writes of the host take effect at the end of the cycle that takes them."""
        d = self.dut
        while True:
            await bench.settled(d)
            self.pulse = bool(int(d.pacing__soft_reset.value))
            request = unpack(Request, int(d.request__payload.value))
            if int(d.request__valid.value) and int(d.request__ready.value) and request["write"]:
                if request["address"] >= REGISTERS and not 0xA0000000 <= request["address"] < RING:
                    self.model.write(request["address"], request["data"])
            await bench.cycles(d)

    def best(self, run):
        """A sample for each slot that is asked again gives the same; of chained slots most drafts are right."""
        found = {}
        for k in run.slots:
            owner, position = 0 if run.chained else k, run.at[k] + 1
            draft = self.model.entry(owner, position)
            if (owner, position) not in self.memory:
                right = draft is not None and self.random.random() < 0.75
                self.memory[owner, position] = draft if right else self.random.randrange(6)
            found[k] = self.memory[owner, position]
        return found

    def check(self, run):
        """The run that the device begins is that of the model."""
        d = self.dut
        assert run is not None, "a run begins without a token"
        names = ("active", "reads", "writes", "first", "chained")
        given = {name: int(getattr(d, f"pacing__{name}").value) for name in names}
        assert given == {name: getattr(run, name) for name in given}, (given, run)
        conditions = [int(getattr(d, f"pacing__{name}").value) for name in ("unwanted", "greedy", "at_start")]
        assert conditions == [not run.wanted, run.greedy, run.first & 1], (conditions, run)
        for k in run.slots:
            assert int(d.pacing__positions.value) >> 32 * k & NEVER == run.at[k], (k, run)
            assert int(d.pacing__seeds.value) >> 32 * k & NEVER == run.seeds[k], (k, run)
            if CONFIG.top_k:
                top = run.tops[k]
                assert int(d.pacing__tops.value) >> 24 * k & 0xFFFFFF == top & 0xFF | top >> 16 << 8, (k, run)

    async def _run(self):
        d, waited, hold = self.dut, 0, 0
        while True:
            await bench.settled(d)
            hold = RESETTING if self.pulse else max(0, hold - 1)
            if not int(d.pacing__go.value) or hold:  # as behind a reset in the accelerator
                waited = waited + 1 if self.model.begin() and not hold and not int(d.pacing__fault.value) else 0
                assert waited < SLACK, "a run does not begin"
                await bench.cycles(d)
                continue
            waited = 0
            run = self.model.begin()
            self.check(run)
            await bench.cycles(d)
            d.pacing__running.value = 1
            self.running, self.model.held = True, run.active
            whole = await self._token(run)
            d.pacing__running.value = d.pacing__halted.value = d.pacing__sample_done.value = 0
            self.running = self.sampling = False
            if whole:
                self.model.finish(run)
                self.runs += 1
                self.kinds.add((run.chained, len(run.at), run.last))
                await bench.cycles(d, B)  # the positions are written one after the other
            else:
                hold = RESETTING
            self.model.held = 0

    async def _cycle(self):
        """One cycle; False as `_rest`."""
        await bench.settled(self.dut)
        return await self._rest()

    async def _rest(self):
        """The rest of a settled cycle; False if a reset ends the run: the engines stop two cycles after the pulse."""
        if self.pulse:
            await bench.cycles(self.dut, 2)
            self.resets += 1
            return False
        await bench.cycles(self.dut)
        return True

    async def _token(self, run):
        d = self.dut
        for _ in range(self.random.randint(0, 20)):
            if not await self._cycle():
                return False
        for k in self.random.sample(range(B), B):
            d.pacing__sequencer_slot.value = k
            if not await self._cycle():
                return False
            while True:
                await bench.settled(d)
                here = int(d.pacing__token_valid.value)
                if here and k in run.at:
                    expected = self.model.entry(0 if run.chained else k, run.at[k])
                    assert expected in (None, int(d.pacing__token.value)), (k, run)
                if not await self._rest():
                    return False
                if here:
                    break
        if self.fails:
            self.fails = False
            d.pacing__fault.value = 1
            return False
        if run.wanted:
            while self.writing:
                if not await self._cycle():
                    return False
            if not await self._sample(run):
                return False
        for _ in range(self.random.randint(0, 5)):
            if not await self._cycle():
                return False
        await bench.settled(d)
        self._same(run)
        if not await self._rest():
            return False
        d.pacing__halted.value = 1
        await bench.cycles(d)
        return True

    def _same(self, run):
        assert int(self.dut.pacing__active.value) == run.active and int(self.dut.pacing__first.value) == run.first
        assert int(self.dut.pacing__reads.value) == run.reads

    async def _sample(self, run):
        d, best = self.dut, self.best(run)
        d.pacing__best.value = sum(best.get(k, self.random.getrandbits(32)) << 32 * k for k in range(B))
        d.pacing__sample_done.value = 1
        self.sampling = True
        records = self.model.records(run, best)
        count = len(self.expected)
        while True:
            await bench.settled(d)
            taken = int(d.pacing__sample_taken.value)
            if not await self._rest():
                # Whole records of some slots are left. They become events, so those tell which.
                d.pacing__sample_done.value = d.pacing__running.value = 0
                await bench.cycles(d, 200)
                done = records[:len(self.events.items) - count]
                self._record(run, done)
                return False
            if taken:
                break
        d.pacing__sample_done.value = 0
        self._record(run, records)
        self.sampling = False
        return True

    def _record(self, run, records):
        for record in records:
            self.model.record(run, *record)
            self.expected.append({"slot": record[1], "position": record[2], "token": record[3]})
            self.cuts += record[4]


class Script:
    """The host: random writes and reads that a driver may do at any time."""

    def __init__(self, dut, model, device, random):
        self.host, self.model, self.device, self.random = Host(dut, CONFIG, STALL), model, device, random
        self.dut = dut

    async def set(self, slot, offset, value):
        """Writes a register."""
        await self.host.write(REGISTERS + 0x100 * slot + offset, value)

    async def bounds(self, slot, **values):
        """Writes `limit` and `stop` while no sample is being recorded."""
        while self.device.sampling:
            await bench.cycles(self.dut)
        self.device.writing = True
        for offset, value in values.items():
            await self.set(slot, {"limit": LIMIT, "stop": STOP}[offset], value)
        self.device.writing = False

    async def tokens(self, slot, position, count):
        """Writes tokens into a ring."""
        for p in range(position, position + count):
            await self.host.write(RING + 4 * (slot * CONFIG.ring + p % CONFIG.ring), self.random.randrange(6))

    async def look(self):
        """Reads a register or an entry of a ring: what it was, or what it has become."""
        slot = self.random.randrange(B)
        if self.random.random() < 0.5:
            offset = self.random.choice([CONTROL, STATUS, POSITION, START, LIMIT, PROMPT_END, SEED, FLAGS, STOP, TOP,
                                         DRAFT_END, SOURCE])

            def now():
                r = self.model.registers[slot][offset]
                busy = self.device.running and self.model.held >> slot & 1
                return r if offset != STATUS else busy | self.model.registers[slot][CONTROL] << 1
            address = REGISTERS + 0x100 * slot + offset
        else:
            p = self.random.randrange(CONFIG.ring)
            address, offset = RING + 4 * (slot * CONFIG.ring + p), None

            def now():
                return self.model.entry(slot, p)
        before = self.stamp()
        value, found = now(), await self.host.read(address)
        if offset == STATUS:
            assert found in range(4) and found >> 1 == self.model.registers[slot][CONTROL]
        elif before == self.stamp() and not self.device.sampling and not self.model.held and value is not None:
            assert found == value, (hex(address), found, value)

    def stamp(self):
        """Changes whenever the device changes registers."""
        return self.device.runs, self.device.resets, self.device.running, self.device.sampling

    async def rest(self):
        """Waits until nothing runs and nothing may."""
        quiet = 0
        for _ in range(100_000):
            await bench.cycles(self.dut)
            quiet = 0 if self.device.running or self.model.begin() else quiet + 1
            if quiet == SLACK:
                return
        raise AssertionError(f"it never rests: {self.model.begin()}")

    async def reset(self):
        """A soft reset, which also ends a fault."""
        await self.set(0, CONTROL, self.model.registers[0][CONTROL] | 2)
        self.dut.pacing__fault.value = 0
        await bench.cycles(self.dut, 4)


def quiet_inputs(dut):
    """Inputs of the registers that this bench does not use, or not yet."""
    pacing = ("running", "halted", "sample_done", "fault", "best", "sequencer_slot")
    for name in ("values", "frames_bad", "frames_lost", "line_errors", *(f"pacing__{name}" for name in pacing)):
        getattr(dut, name).value = 0
    dut.scalar_ready.value = dut.program_ready.value = 1


async def begin(dut, salt):
    """(random, model, device, script)"""
    random = bench.rng(salt)
    quiet_inputs(dut)
    events = StreamMonitor(dut, "event", Event, stall=max(STALL, 0.5))
    model = RunModel(CONFIG)
    device = Device(dut, model, random, events)
    script = Script(dut, model, device, random)
    await bench.start(dut)
    return random, model, device, script


async def end(dut, device, script):
    """All that was recorded was told, and the registers and rings are those of the model."""
    await script.rest()
    assert device.events.items == device.expected
    for slot in range(B):
        for offset, value in script.model.registers[slot].items():
            expected = value if offset != STATUS else script.model.registers[slot][CONTROL] << 1
            assert await script.host.read(REGISTERS + 0x100 * slot + offset) == expected, (slot, hex(offset))
        for entry, value in script.model.rings[slot].items():
            assert await script.host.read(RING + 4 * (slot * CONFIG.ring + entry)) == value, (slot, entry)


@cocotb.test()
async def independent(dut):
    """Sequences of their own start, go on and stop at random; stops, resets, faults and accesses in between."""
    random, model, device, script = await begin(dut, "independent")

    async def sequence(slot):
        position = random.choice([0, random.randrange(3000), NEVER - 8])
        prompt = random.randint(0, 5)
        await script.set(slot, CONTROL, 0)
        # As a host does, for a position in use stays.
        while await script.host.read(REGISTERS + 0x100 * slot + STATUS) & 1:
            await bench.cycles(dut)
        await script.bounds(slot, limit=0, stop=random.choice([NEVER, random.randrange(6)]))
        await script.set(slot, POSITION, position)
        device.memory = {key: token for key, token in device.memory.items() if key[0] != slot}
        await script.tokens(slot, position, max(1, prompt))
        for offset, value in ((START, random.choice([position, position + 1, NEVER])),
                              (PROMPT_END, position + prompt), (SEED, random.getrandbits(32)),
                              (FLAGS, random.randrange(2)), (TOP, random.getrandbits(32))):
            await script.set(slot, offset, value)
        await script.bounds(slot, limit=position + random.randint(0, 7))
        await script.set(slot, CONTROL, 1)

    for _ in range(ROUNDS):
        slot, pick = random.randrange(B), random.random()
        if pick < 0.25:
            await sequence(slot)
        elif pick < 0.4:
            await script.bounds(slot, limit=min(NEVER, model.registers[slot][LIMIT] + random.randint(0, 4)))
        elif pick < 0.5:
            await script.set(slot, CONTROL, random.randrange(2) or model.registers[slot][CONTROL])
        elif pick < 0.6:
            offset = random.choice([SEED, START, 0x70, 0x00, FLAGS, POSITION])
            # A position far below the limit would run for ever.
            near = max(0, model.registers[slot][LIMIT] - random.randrange(3))
            await script.set(slot, offset, near if offset == POSITION else random.randrange(2))
        elif pick < 0.65:
            await script.reset()
        elif pick < 0.68:
            device.fails = True
            for _ in range(100):
                await bench.cycles(dut)
                if not device.fails:
                    break
            assert not int(dut.pacing__running.value) or device.fails
            device.fails = False
            await script.reset()
        elif pick < 0.8:
            await bench.cycles(dut, random.randrange(150))
        else:
            await script.look()
    await end(dut, device, script)
    assert device.runs > ROUNDS // 4 and device.resets and (device.cuts or B == 8)
    assert max(n for _, n, _ in device.kinds) > 1


@cocotb.test()
async def chained(dut):
    """One sequence by prompts of any length and drafts, right and wrong; stops, resets and accesses in between."""
    random, model, device, script = await begin(dut, "chained")
    await script.set(0, FLAGS, 2)
    await script.set(0, CONTROL, 1)
    for _ in range(ROUNDS):
        await script.rest()
        if random.random() < 0.1:  # nothing is chained: the slots are sequences again
            await script.set(0, FLAGS, random.randrange(2))
            await script.bounds(0, limit=model.registers[0][LIMIT] + 1)
            await script.rest()
            await script.set(0, FLAGS, 2)
        device.memory.clear()
        slot0 = model.registers[0]
        position = slot0[POSITION]
        if random.random() < 0.2 or position > NEVER - 4 * B:
            position = random.choice([0, random.randrange(3000), NEVER - 3 * B])
            await script.bounds(0, limit=0)
            await script.set(0, POSITION, position)
            await script.set(0, START, random.choice([position, position, position + 1, position + 3, NEVER]))
            await script.set(0, SOURCE, random.randrange(B))
            await script.set(0, SEED, random.getrandbits(32))
            await script.set(0, FLAGS, 2 | random.randrange(2))
        prompt = random.choice([0, 1, random.randint(1, 3 * B)])
        drafts = random.choice([0, B, random.randrange(2 * B)])
        await script.tokens(0, position, max(1, prompt + drafts))
        await script.bounds(0, stop=random.choice([NEVER, NEVER, random.randrange(6)]))
        await script.set(0, PROMPT_END, position + prompt)
        await script.set(0, DRAFT_END, position + prompt + drafts)
        await script.bounds(0, limit=position + random.randint(1, 3 * B))
        for _ in range(random.randint(0, 6)):
            pick = random.random()
            if pick < 0.15:
                await script.reset()
            elif pick < 0.3:
                await script.bounds(0, limit=model.registers[0][LIMIT] + 1)
            elif pick < 0.4:
                await script.set(random.randrange(1, B), random.choice([SEED, LIMIT, CONTROL]), 1)
            else:
                await script.look()
    await end(dut, device, script)
    assert device.runs > ROUNDS and device.resets and device.cuts
    kinds = {(n, last) for is_chained, n, last in device.kinds if is_chained}
    counts = {n for n, _ in kinds}
    assert {1, B} <= counts and len(counts) > B // 2, f"numbers of tokens that came: {counts}"
    assert len({last for n, last in kinds if n == B}) > 1, "wrong drafts at several places"


@cocotb.test()
async def scalar_waits(dut):
    """A write of a scalar register waits until it is taken, and goes to its slot; one of the program waits until it
    may go.
    """
    random, _, _, script = await begin(dut, "scalar")
    taken, offered, programmed, held = [], 0, [], 0
    ready = bench.rng("ready")

    async def engine():
        nonlocal offered, held
        while True:
            dut.scalar_ready.value = int(ready.random() < 0.3)
            dut.program_ready.value = goes = int(ready.random() < 0.3)
            await bench.settled(dut)
            held += int(dut.busy.value) & (1 - goes)
            if int(dut.program_write__valid.value):
                assert goes, "a write of the program in a cycle that is not for it"
                programmed.append(tuple(int(getattr(dut, f"program_write__{name}").value)
                                        for name in ("address", "lane", "data")))
            offered += int(dut.scalar_write__valid.value)
            if int(dut.scalar_write__valid.value) and int(dut.scalar_ready.value):
                taken.append(tuple(int(getattr(dut, f"scalar_write__{name}").value)
                                   for name in ("slot", "address", "data")))
            await bench.cycles(dut)

    cocotb.start_soon(engine())
    expected = []
    for _ in range(30):
        write = random.randrange(B), random.randrange(32), random.getrandbits(24)
        expected.append(write)
        await script.host.write(0xA0000000 + 128 * write[0] + 4 * write[1], write[2])
    assert taken == expected and offered > len(taken)
    expected, held = [], 0
    for _ in range(30):
        write = random.randrange(CONFIG.program_words), random.randrange(4), random.getrandbits(32)
        expected.append(write)
        await script.host.write(0x80000000 + 16 * write[0] + 4 * write[1], write[2])
    assert programmed == expected and held
