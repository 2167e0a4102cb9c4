"""Bench of the memory units: fetch, arbiter, store, gearbox, router and on-chip memory, on a model memory."""

import os
from collections import deque

import bench
import cocotb
from amaranth.lib import data
from cocotb.triggers import Timer
from sterna.hw.memory.port import MAX_BURST_WORDS, burst_layout, write_layout
from streams import StreamDriver, StreamMonitor, pack

ADDRESS_BITS, PORT = int(os.environ.get("ADDRESS_BITS", "12")), int(os.environ.get("PORT", "4"))
STALL = float(os.environ.get("STALL", "0"))
BURST = burst_layout(ADDRESS_BITS)
WRITE = write_layout(ADDRESS_BITS, PORT)
BLOCK = data.StructLayout({"address": ADDRESS_BITS, "words": 24})
WORD = 1 << 8 * PORT
MASK = (1 << ADDRESS_BITS) - 1


def mixed(address):
    """A word that tells its address."""
    return (address * 0x9E3779B97F4A7C15 + 0x5DEECE66D) % (1 << 64) * ((1 << 448) | 1) % WORD


def masked(old, new, mask):
    """`old` with the bytes of `new` that `mask` enables."""
    for k in range(PORT):
        if mask >> k & 1:
            old = old & ~(0xFF << 8 * k) | new & 0xFF << 8 * k
    return old


class ModelMemory:
    """Answers bursts taken from `bursts` (a StreamMonitor) in order, `latency` cycles later or more, with gaps.

    The words of a burst are read when it is commanded, so a write accepted before is seen.
    """

    def __init__(self, dut, bursts, data_name, latency, writes=None):
        self.dut, self.bursts, self.latency, self.writes = dut, bursts, latency, writes
        self.valid, self.payload = getattr(dut, f"{data_name}__valid"), getattr(dut, f"{data_name}__payload")
        self.words, self.queue, self.random = {}, deque(), bench.rng("memory")
        self.valid.value = 0
        cocotb.start_soon(self._run())

    def read(self, address):
        """The word at `address`."""
        return self.words.get(address & MASK, mixed(address & MASK))

    async def _run(self):
        cycle = seen = written = 0
        while True:
            await bench.cycles(self.dut)
            cycle += 1
            # Reads before writes: of the cycle that has just ended, a write may or may not be seen; here it is not.
            for burst in self.bursts.items[seen:]:
                due = cycle + self.random.randint(self.latency, 2 * self.latency)
                self.queue.extend((due, self.read(burst["address"] + k)) for k in range(burst["length"]))
            seen = len(self.bursts.items)
            if self.writes is not None:
                for write in self.writes.items[written:]:
                    old = self.read(write["address"])
                    self.words[write["address"]] = masked(old, write["data"], write["mask"])
                written = len(self.writes.items)
            give = self.queue and self.queue[0][0] <= cycle and self.random.random() >= STALL
            self.valid.value = int(bool(give))
            self.payload.value = self.queue.popleft()[1] if give else self.random.randrange(WORD)


async def idle_cycles(dut, count=40):
    """Lets the device settle."""
    await bench.cycles(dut, count)


@cocotb.test()
async def fetch(dut):
    """Random reads in queue order; the FIFO is never promised more than it has; QUEUED wait; idle means idle."""
    random, depth, queued = bench.rng("fetch"), int(os.environ["DEPTH"]), int(os.environ["QUEUED"])
    command = StreamDriver(dut, "command", BLOCK, STALL)
    bursts = StreamMonitor(dut, "bursts", BURST, STALL)
    words = StreamMonitor(dut, "words", None, STALL)
    memory = ModelMemory(dut, bursts, "arriving", int(os.environ["LATENCY"]))
    await bench.start(dut)
    limit = min(MAX_BURST_WORDS, depth // 4)
    expected, asked = [], []
    outstanding_most = 0
    for part in range(3):
        if part == 1:
            done = command.sent
            words.stall = 1.0  # nobody takes words: the FIFO fills up to the brim and no further
            command.send({"address": 0, "words": 2 * depth})
            asked.append((0, 2 * depth))
            expected += [mixed(k) for k in range(2 * depth)]
        for _ in range(queued + 4):
            address = random.randrange(MASK + 1)
            count = random.choice([1, 2, limit, limit + 1, random.randint(1, 3 * depth)])
            command.send({"address": address, "words": count})
            asked.append((address, count))
            expected += [mixed((address + k) & MASK) for k in range(count)]
        if part == 1:
            await idle_cycles(dut, 30 * depth // 4 + 400)
            promised = sum(b["length"] for b in bursts.items) - len(words.items)
            least = depth - limit * (2 if os.environ.get("ALIGNED") else 1)  # a burst may be a part of one
            assert least < promised <= depth, f"{promised} words of a FIFO of {depth}"
            await bench.settled(dut)
            assert not int(dut.idle.value) and command.sent == done + 1 + queued
            await bench.cycles(dut)
            words.stall = STALL
        while len(words.items) < len(expected):
            await bench.settled(dut)
            assert not int(dut.idle.value) or command.items
            outstanding_most = max(outstanding_most, sum(b["length"] for b in bursts.items) - len(words.items))
            await bench.cycles(dut)
        await idle_cycles(dut, 4)
        await bench.settled(dut)
        assert int(dut.idle.value)
        await bench.cycles(dut)
    assert words.items == expected and outstanding_most <= depth
    covered = [(b["address"], b["length"]) for b in bursts.items]
    for address, count in asked:  # bursts follow each other, end with their read, and are as long as they can be
        while count:
            length = min(limit - address % limit if os.environ.get("ALIGNED") else limit, count)
            assert covered.pop(0) == (address, length)
            address, count = (address + length) & MASK, count - length
    assert not covered and not memory.queue


@cocotb.test()
async def pairs(dut):
    """One word or two per cycle, in order, none lost at the depth's limit; two whenever two are there and wanted."""
    random, depth = bench.rng("pairs"), int(os.environ["DEPTH"])
    command, bursts = StreamDriver(dut, "command", BLOCK, STALL), StreamMonitor(dut, "bursts", BURST, STALL)
    ModelMemory(dut, bursts, "arriving", int(os.environ["LATENCY"]))
    words, second = StreamMonitor(dut, "words", None, passive=True), StreamMonitor(dut, "second", None, passive=True)
    dut.words__ready.value = dut.both.value = 0
    dut.second__ready.value = 1
    await bench.start(dut)
    expected, got, twice = [], [], 0
    for _ in range(25):
        address, count = random.randrange(MASK + 1), random.choice([1, 2, 3, random.randint(1, 3 * depth)])
        command.send({"address": address, "words": count})
        expected += [mixed((address + k) & MASK) for k in range(count)]
    pause = 40 * depth  # so that the FIFO fills up once
    while len(got) < len(expected):
        pause -= 1
        dut.words__ready.value = int(pause < 0 and random.random() >= STALL)
        dut.both.value = random.randrange(2)
        before = len(words.items), len(second.items)
        await bench.cycles(dut)
        got += words.items[before[0]:] + second.items[before[1]:]
        twice += len(second.items) - before[1]
        assert pause > -2000 * depth, f"{len(got)} of {len(expected)} words came"
        assert sum(b["length"] for b in bursts.items) - len(got) <= depth
    assert got == expected and twice > len(expected) // 8
    await bench.settled(dut)
    assert int(dut.idle.value)


@cocotb.test()
async def arbiter(dut):
    """Fetch and host reads, stores and host writes at random: order, owner, data, priority-free stability, quiet."""
    random = bench.rng("arbiter")
    fetch = StreamDriver(dut, "fetch_bursts", BURST, STALL)
    host = StreamDriver(dut, "host_bursts", BURST, max(STALL, 0.6))
    store = StreamDriver(dut, "store", WRITE, STALL)
    host_write = StreamDriver(dut, "host_write", WRITE, max(STALL, 0.6))
    fetched, answers = StreamMonitor(dut, "fetch_words"), StreamMonitor(dut, "host_words")
    bursts = StreamMonitor(dut, "port__read_command", BURST, STALL)
    writes = StreamMonitor(dut, "port__write", WRITE, STALL)
    ModelMemory(dut, bursts, "port__read_data", int(os.environ["LATENCY"]), writes)
    await bench.start(dut)
    half = (MASK + 1) // 2  # reads below, writes above: what a read sees is then certain
    expected = {"fetch": [], "host": []}
    written = {"store": [], "host": []}
    for _ in range(150):
        for name, driver, most in (("fetch", fetch, MAX_BURST_WORDS), ("host", host, 2)):
            length, address = random.randint(1, most), random.randrange(half - MAX_BURST_WORDS)
            driver.send({"address": address, "length": length})
            expected[name] += [mixed(address + k) for k in range(length)]
        for name, driver in (("store", store), ("host", host_write)):
            write = {"address": half + random.randrange(half), "data": random.randrange(WORD),
                     "mask": random.randrange(1 << PORT)}
            driver.send(write)
            written[name].append(write)
    await fetched.receive(len(expected["fetch"]))
    await answers.receive(len(expected["host"]))
    await writes.receive(300)
    assert fetched.items == expected["fetch"] and answers.items == expected["host"]
    for name in written:  # each source keeps its order
        left = deque(written[name])
        for write in writes.items:
            if left and write == left[0]:
                left.popleft()
        assert not left
    await idle_cycles(dut, 3)
    await bench.settled(dut)
    assert int(dut.quiet.value)
    await bench.cycles(dut)
    # A read behind a write sees it.
    for name, driver, monitor in (("fetch", fetch, fetched), ("host", host, answers)):
        for _ in range(10):
            write = {"address": random.randrange(MASK), "data": random.randrange(WORD), "mask": (1 << PORT) - 1}
            (store if name == "host" else host_write).send(write)
            before = len(writes.items)
            await writes.receive(before + 1)
            await bench.cycles(dut)
            driver.send({"address": write["address"], "length": 1})
            count = len(monitor.items) + 1
            assert (await monitor.receive(count))[-1] == write["data"]
    assert all(1 <= b["length"] <= MAX_BURST_WORDS for b in bursts.items)


@cocotb.test()
async def arbiter_depth(dut):
    """A memory that answers nothing gets eight bursts; while one is under way the arbiter is not quiet."""
    fetch = StreamDriver(dut, "fetch_bursts", BURST)
    bursts = StreamMonitor(dut, "port__read_command", BURST)
    for name in ("host_bursts__valid", "store__valid", "host_write__valid", "port__read_data__valid"):
        getattr(dut, name).value = 0
    await bench.start(dut)
    fetch.send(*({"address": k, "length": 1} for k in range(20)))
    await idle_cycles(dut)
    assert len(bursts.items) == 8
    for k in range(1, 9):
        await bench.settled(dut)
        assert not int(dut.quiet.value)
        await bench.cycles(dut)
        dut.port__read_data__valid.value = 1
        await bench.cycles(dut)
        dut.port__read_data__valid.value = 0
        await idle_cycles(dut, 5)
        assert len(bursts.items) == min(20, 8 + k)


@cocotb.test()
async def store(dut):
    """Blocks of words to rising addresses; the next command waits until the words of the one before are through."""
    random = bench.rng("store")
    command, words = StreamDriver(dut, "command", BLOCK, STALL), StreamDriver(dut, "words", None, STALL)
    writes = StreamMonitor(dut, "write", WRITE, STALL)
    await bench.start(dut)
    await bench.settled(dut)
    assert int(dut.idle.value)
    await bench.cycles(dut)
    expected = []
    for _ in range(30):
        address, count = random.randrange(MASK + 1), random.randint(1, 20)
        values = [random.randrange(WORD) for _ in range(count)]
        command.send({"address": address, "words": count})
        words.send(*values)
        expected += [{"address": (address + k) & MASK, "data": v, "mask": (1 << PORT) - 1}
                     for k, v in enumerate(values)]
    while len(writes.items) < len(expected):
        await bench.settled(dut)
        announced = sum(1 for _ in command.items)
        assert not int(dut.idle.value) or announced or int(dut.command__valid.value)
        await bench.cycles(dut)
    await idle_cycles(dut, 3)
    assert writes.items == expected
    await bench.settled(dut)
    assert int(dut.idle.value)
    words.send(5)  # nobody announced this word
    await idle_cycles(dut, 10)
    assert len(writes.items) == len(expected) and words.items


@cocotb.test()
async def gearbox(dut):
    """Sections of whole tiles padded to words; `drop` comes with the last tile. The next section is not touched.

    Where a section has many records each is padded to words, and the next one may begin in the cycle of its drop.
    The words come from a list, the second one beside the first where the gearbox has a place for it.
    """
    random, tile = bench.rng("gearbox"), int(os.environ["TILE"])
    tiles = StreamMonitor(dut, "o", None, passive=True)
    pairs, many = hasattr(dut, "i_second__valid"), hasattr(dut, "ends")
    dut.o__ready.value = dut.drop.value = dut.i__valid.value = 0
    if pairs:
        dut.i_second__valid.value = 0
    await bench.start(dut)
    records, words = [], []
    for _ in range(60 if many else 25):
        count = random.randint(1, 40)
        record = bytes(random.randrange(256) for _ in range(count * tile))
        padded = record + bytes(random.randrange(256) for _ in range(-len(record) % PORT))
        words += [int.from_bytes(padded[k:k + PORT], "little") for k in range(0, len(padded), PORT)]
        records.append((count, record, len(words), not many or random.random() < 0.3))
    sent, cycles = 0, 0
    offered = 0  # words at the input; what has been offered stays
    for count, record, used, ends in records:
        first = len(tiles.items)
        while len(tiles.items) - first < count:
            while offered < min(2 if pairs else 1, len(words) - sent) and random.random() >= STALL:
                offered += 1
            dut.i__valid.value, dut.i__payload.value = int(offered > 0), words[sent] if offered else 0
            if pairs:
                dut.i_second__valid.value = int(offered > 1)
                dut.i_second__payload.value = words[sent + 1] if offered > 1 else random.randrange(WORD)
            # Like the array: the handshake of the last tile and `drop` are one event.
            dut.o__ready.value = ready = int(random.random() >= STALL)
            dut.drop.value = 0
            if many:
                dut.ends.value = 0
            await Timer(1, "ns")
            at_last = len(tiles.items) - first == count - 1
            dut.drop.value = drops = int(at_last and ready and int(dut.o__valid.value))
            if many:
                dut.ends.value = drops & ends
            await bench.settled(dut)
            taken = (offered > 0 and int(dut.i__ready.value)) + (pairs and int(dut.i_second__take.value))
            assert taken <= offered
            sent, offered, cycles = sent + taken, offered - taken, cycles + 1
            await bench.cycles(dut)
        if ends:
            dut.o__ready.value = dut.drop.value = dut.i__valid.value = 0
            if many:
                dut.ends.value = 0
            if pairs:
                dut.i_second__valid.value = 0
            await bench.settled(dut)
            assert sent <= used, "a word of the next section was taken"
            await bench.cycles(dut)
        assert b"".join(v.to_bytes(tile, "little") for v in tiles.items[first:first + count]) == record
    assert sent == len(words)
    if not STALL and tile <= PORT * (1 + pairs):
        per_tile = 1 if pairs or tile == PORT else 1 + 1 / (PORT // tile)
        sections = sum(ends for *_, ends in records)
        most = per_tile * len(tiles.items) + 2 * sections + len(records) * (per_tile > 1)
        assert cycles <= most, "not a tile per cycle"


@cocotb.test()
async def router(dut):
    """Sections to two consumers in the announced order; each says when it has its last word."""
    random = bench.rng("router")
    section, words = StreamDriver(dut, "section", None, STALL), StreamDriver(dut, "words", None, STALL)
    names = ("vector", "array")
    outputs = {n: StreamMonitor(dut, f"to_{n}", passive=True) for n in names}
    for n in names:
        getattr(dut, f"to_{n}__ready").value = getattr(dut, f"{n}_done").value = 0
    await bench.start(dut)
    plan, value = [], 0
    expected = {n: [] for n in names}
    for _ in range(120):
        who, count = random.randrange(2), random.randint(1, 6)
        plan.append((names[who], count))
        section.send(who)
        for _ in range(count):
            words.send(value)
            expected[names[who]].append(value)
            value += 1
    for who, count in plan:
        got = 0
        while got < count:
            ready = {n: int(random.random() >= STALL) for n in names}
            for n in names:
                getattr(dut, f"to_{n}__ready").value = ready[n]
                getattr(dut, f"{n}_done").value = 0
            await Timer(1, "ns")
            moves = ready[who] and int(getattr(dut, f"to_{who}__valid").value)
            getattr(dut, f"{who}_done").value = int(moves and got == count - 1)
            await bench.settled(dut)
            got += bool(moves)
            await bench.cycles(dut)
        for n in names:
            getattr(dut, f"{n}_done").value = getattr(dut, f"to_{n}__ready").value = 0
    await idle_cycles(dut, 5)
    assert {n: outputs[n].items for n in names} == expected
    await words.drain(10)


@cocotb.test()
async def fetch_direct(dut):
    """Reads in order, no more than two places hold; the next command waits for the last read; idle means idle."""
    random = bench.rng("fetch_direct")
    command = StreamDriver(dut, "command", BLOCK, STALL)
    reads = StreamMonitor(dut, "reads", None, STALL)
    words = StreamMonitor(dut, "words", None, STALL)
    dut.arriving__valid.value = 0
    await bench.start(dut)

    async def answer():
        seen = 0
        while True:
            await bench.cycles(dut)
            due, seen = reads.items[seen:], len(reads.items)
            dut.arriving__valid.value = len(due)
            dut.arriving__payload.value = mixed(due[0]) if due else random.randrange(WORD)

    cocotb.start_soon(answer())
    expected, taken_at = [], []
    for part in range(3):
        words.stall = 1.0 if part == 1 else STALL
        for _ in range(12):
            address, count = random.randrange(MASK + 1), random.choice([1, 1, 2, 3, random.randint(4, 60)])
            command.send({"address": address, "words": count})
            expected += [(address + k) & MASK for k in range(count)]
            taken_at.append(len(expected) - count)
        if part == 1:  # nobody takes words: two are read and no more
            before = len(reads.items)
            await idle_cycles(dut)
            assert len(reads.items) == before + 2
            words.stall = STALL
        while len(words.items) < len(expected):
            await bench.settled(dut)
            assert len(reads.items) - len(words.items) <= 3
            assert not int(dut.idle.value) or command.items or int(dut.command__valid.value)
            if command.sent:
                assert len(reads.items) >= taken_at[command.sent - 1], "accepted before the last read"
            await bench.cycles(dut)
        await idle_cycles(dut, 4)
        await bench.settled(dut)
        assert int(dut.idle.value)
        await bench.cycles(dut)
    assert reads.items == expected and words.items == [mixed(a) for a in expected]


class Host:
    """Reads of one or two words, one after the other; the address stays until the words have come."""

    def __init__(self, dut):
        self.dut, self.words = dut, StreamMonitor(dut, "host_words")
        dut.host_bursts__valid.value = 0

    async def read(self, address, length):
        """The words at `address`."""
        dut, before = self.dut, len(self.words.items)
        dut.host_bursts__valid.value = 1
        dut.host_bursts__payload.value = pack(BURST, {"address": address, "length": length})
        await bench.until(dut, lambda: int(dut.host_bursts__ready.value))
        dut.host_bursts__valid.value = 0
        await self.words.receive(before + length)
        await bench.cycles(dut, 2)
        assert len(self.words.items) == before + length
        return self.words.items[before:]


@cocotb.test()
async def onchip(dut):
    """Reads and byte writes of all users: a word comes in the next cycle and tells all writes before it."""
    random, depth = bench.rng("onchip"), int(os.environ["DEPTH"])
    reads = StreamDriver(dut, "fetch_reads", None, STALL)
    writers = [StreamDriver(dut, name, WRITE, STALL or 0.5) for name in ("store", "host_write")]
    taken = [StreamMonitor(dut, name, WRITE, passive=True) for name in ("store", "host_write")]
    asked = StreamMonitor(dut, "fetch_reads", None, passive=True)
    host, model = Host(dut), [0] * depth
    await bench.start(dut)
    for address in range(depth):
        model[address] = random.randrange(WORD)
        writers[address % 2].send({"address": address, "data": model[address], "mask": (1 << PORT) - 1})
    for writer in writers:
        await writer.drain()
    await bench.cycles(dut, 3)
    for monitor in (*taken, asked):
        monitor.items.clear()

    async def check():
        due = []
        while True:
            await bench.settled(dut)
            await Timer(1, "ns")  # behind the monitors
            assert int(dut.fetch_words__valid.value) == len(due)
            assert not due or int(dut.fetch_words__payload.value) == due[0]
            assert int(dut.quiet.value) or due or host_reads
            accesses = sum(len(monitor.items) for monitor in (*taken, asked))
            assert accesses <= 1, "two accesses in a cycle"
            due = [model[address] for address in asked.items]
            for monitor in taken:
                for write in monitor.items:
                    model[write["address"]] = masked(model[write["address"]], write["data"], write["mask"])
                monitor.items.clear()
            asked.items.clear()

    host_reads, own = True, 3 * depth // 4  # what the host reads while others write is written by nobody
    cocotb.start_soon(check())
    for _ in range(60):
        reads.send(*(random.randrange(own) for _ in range(random.randint(0, 12))))
        for writer in writers:
            for _ in range(random.randint(0, 5)):
                writer.send({"address": random.randrange(own), "data": random.randrange(WORD),
                             "mask": random.randrange(1 << PORT)})
        length = random.randint(1, 2)
        address = random.randrange(own, depth, length)
        assert await host.read(address, length) == model[address:address + length]
    for driver in (*writers, reads):
        await driver.drain()
    await bench.cycles(dut, 2)
    host_reads = False
    for _ in range(40):  # the read right behind the write
        write = {"address": random.randrange(depth), "data": random.randrange(WORD), "mask": (1 << PORT) - 1}
        writer = random.choice(writers)
        writer.send(write)
        await writer.drain()
        host_reads = True
        assert await host.read(write["address"], 1) == [write["data"]]
        host_reads = False
    reads.stall = 0
    await bench.cycles(dut, 3)
    reads.send(*(k % depth for k in range(50)))
    await reads.drain(60)  # one per cycle


@cocotb.test()
async def blocks(dut):
    """Blocks of RAM side by side: a write changes the word of its own block alone, and each is read."""
    random, model = bench.rng("blocks"), {}
    writers = [StreamDriver(dut, name, WRITE) for name in ("store", "host_write")]
    reads, words, host = StreamDriver(dut, "fetch_reads"), StreamMonitor(dut, "fetch_words"), Host(dut)
    await bench.start(dut)
    places = [place | block << 14 for place in (0, (1 << 14) - 1, *random.sample(range(1 << 14), 4))
              for block in range(1 << ADDRESS_BITS - 14)]
    for number in range(3):
        for address in random.sample(places, len(places)):
            mask = 3 if number == 0 else random.randrange(4)
            write = {"address": address, "data": random.randrange(WORD), "mask": mask}
            writer = random.choice(writers)
            writer.send(write)
            await writer.drain()
            model[address] = masked(model.get(address, 0), write["data"], mask)
        await bench.cycles(dut, 3)
        for address in random.sample(places, 6):
            assert await host.read(address, 1) == [model[address]], hex(address)
        words.items.clear()
        order = random.sample(places, len(places))
        reads.send(*order)
        assert await words.receive(len(order)) == [model[address] for address in order]


@cocotb.test()
async def onchip_path(dut):
    """Fetch and memory together: a word per cycle, in order among stores and the host; no old word after a reset."""
    random = bench.rng("onchip_path")
    command = StreamDriver(dut, "command", BLOCK)
    store, host_write = StreamDriver(dut, "store", WRITE, 0.7), StreamDriver(dut, "host_write", WRITE, 0.8)
    words, host = StreamMonitor(dut, "words", None), Host(dut)
    dut.reset.value = 0
    await bench.start(dut)
    half = (MASK + 1) // 2  # reads below, writes above
    store.stall = 0
    store.send(*({"address": k, "data": mixed(k), "mask": (1 << PORT) - 1} for k in range(half)))
    await store.drain()
    store.stall = 0.7

    command.send({"address": 3, "words": half - 3})
    await words.receive(1)
    cycles = await bench.until(dut, lambda: len(words.items) == half - 3)
    assert half - 4 >= 0.95 * cycles, f"{half - 4} words in {cycles} cycles"

    for stall in (0, STALL):
        words.stall = stall
        words.items.clear()
        expected = []
        for _ in range(20):
            count = random.randint(1, 25)
            address = random.randrange(half - count)
            command.send({"address": address, "words": count})
            expected += [mixed(address + k) for k in range(count)]
        for driver in (store, host_write):
            for _ in range(40):
                driver.send({"address": half + random.randrange(half), "data": random.randrange(WORD), "mask": 1})
        for _ in range(15):
            address = random.randrange(0, half, 2)
            assert await host.read(address, 2) == [mixed(address), mixed(address + 1)]
        await words.receive(len(expected))
        await store.drain()
        await host_write.drain()
        assert words.items == expected

    words.stall = 0
    for delay in range(30):  # a reset in the middle of a read lasts until no word is on its way
        words.stall = delay % 3 / 3
        command.send({"address": 0, "words": 100})
        await command.drain()
        await bench.cycles(dut, delay)
        words.stall = 0  # the monitor would miss the words that the reset takes back
        await bench.cycles(dut)
        dut.reset.value = 1
        await bench.until(dut, lambda: int(dut.quiet.value))
        dut.reset.value = 0
        words.items.clear()
        command.send({"address": half // 2, "words": 3})
        assert await words.receive(3) == [mixed(half // 2 + k) for k in range(3)]
        await idle_cycles(dut, 4)
        assert len(words.items) == 3
