"""The whole link against the host's frame encoder and a memory behind the request port."""

import os
from dataclasses import dataclass, field

import cocotb
import crc32c
from bench import cycles, rng, settled, start
from sterna.host.device.frames import Frame, FrameDecoder, FrameError
from sterna.hw import protocol
from sterna.hw.link.executor import Event, Request, Response
from sterna.hw.protocol import Kind
from streams import StreamDriver, StreamMonitor

STALL = float(os.environ.get("STALL", "0"))
CREDITS = int(os.environ.get("CREDITS", "2"))
NUMBER_BITS = int(os.environ.get("NUMBER_BITS", "32"))  # of an event's position and token
BATCH = int(os.environ.get("BATCH", "1"))
MEMORY_BYTES = 4096
BASE = int(os.environ.get("BASE", "0"))  # of these bytes; with a wide link behind 4 GiB


@dataclass
class Board:
    """Drives the link: a memory with random latency, the host's line and the events."""

    dut: object
    latency: int = 12
    memory: dict = field(default_factory=dict)
    writes: list = field(default_factory=list)

    async def begin(self, tx_stall=STALL):
        dut = self.dut
        self.random = rng("board")
        self.line = StreamDriver(dut, "rx", stall=STALL)
        self.tx = StreamMonitor(dut, "tx", stall=tx_stall)
        self.event = StreamDriver(dut, "event", Event, stall=STALL)
        self.response = StreamDriver(dut, "response", Response, stall=STALL)
        self.requests = StreamMonitor(dut, "request", Request, stall=STALL)
        cocotb.start_soon(self._serve())
        await start(dut)
        return self

    async def _serve(self):
        done = 0
        while True:
            await cycles(self.dut)
            if len(self.requests.items) == done:
                continue
            request = self.requests.items[done]
            done += 1
            await cycles(self.dut, self.random.randrange(self.latency + 1) or 1)
            address = request["address"] - BASE
            error = address >= MEMORY_BYTES
            assert address % 4 == 0
            if request["write"] and not error:
                self.memory[address] = request["data"]
                self.writes.append(address)
            self.response.send({"data": 0xDEAD if error else self.memory.get(address, 0), "error": int(error),
                                "memory": of_memory(address)})

    def count(self, name):
        return int(getattr(self.dut, name).value)

    async def quiet(self, limit_cycles=60_000):
        """Waits until nothing has moved for a while."""
        calm, last = 0, None
        for _ in range(limit_cycles):
            now = (len(self.tx.items), len(self.line.items), len(self.event.items), len(self.requests.items))
            calm = calm + 1 if now == last else 0
            last = now
            if calm > 150 and not self.line.items:
                return
            await cycles(self.dut)
        raise AssertionError("the link does not come to rest")

    def frames(self):
        decoder = FrameDecoder()
        frames = decoder.feed(bytes(self.tx.items))
        assert decoder.frames_bad == 0
        self.tx.items.clear()
        return frames

    async def exchange(self, line):
        """Sends bytes, waits for rest, returns the frames that came."""
        self.line.send(*line)
        await self.quiet()
        return self.frames()


def random_request(random, sequence):
    n = 4 * random.choice([1, 2, 56, random.randrange(1, 57)])
    address = BASE + 4 * random.randrange((MEMORY_BYTES - n) // 4 + 1)
    if BASE and random.random() < 0.5:  # across the middle, where a carry is
        address = BASE + MEMORY_BYTES // 2 - 4 * random.randrange(n // 4)
    if random.random() < 0.05:
        return Frame.hash(sequence, BASE + 4 * random.randrange((MEMORY_BYTES - 256) // 4 + 1), 256)
    if random.random() < 0.5:
        return Frame.read(sequence, address, n)
    return Frame.write(sequence, address, bytes(random.choice((0, random.randrange(256))) for _ in range(n)))


def of_memory(address):
    """Whether an error there is one of the memory (int): every other word."""
    return address // 4 % 2


def execute(memory, frame):
    """Model of the device: the reply, after changing `memory`."""
    n = frame.length
    reply = (frame.sequence, frame.address & 0xFFFFFFFF)
    if frame.kind not in (Kind.READ, Kind.WRITE, Kind.HASH):
        return Frame(Kind.NAK, *reply, 4, b"\1\0\0\0")
    if frame.address % 4:
        return Frame(Kind.NAK, *reply, 4, b"\2\0\0\0")
    if n % 4 or not 4 <= n <= 224 or len(frame.data) != (n if frame.kind == Kind.WRITE else 0):
        return Frame(Kind.NAK, *reply, 4, b"\1\0\0\0")
    words = []
    for k in range(0, n * protocol.HASH_UNIT_BYTES if frame.kind == Kind.HASH else n, 4):
        address = frame.address - BASE + k
        if address >= MEMORY_BYTES:
            return Frame(Kind.NAK, *reply, 4, bytes((2 + of_memory(address), 0, 0, 0)))
        if frame.kind == Kind.WRITE:
            memory[address] = int.from_bytes(frame.data[k:k + 4], "little")
        words.append(memory.get(address, 0))
    if frame.kind == Kind.WRITE:
        return Frame(Kind.ACK, *reply, n)
    data = b"".join(word.to_bytes(4, "little") for word in words)
    if frame.kind == Kind.HASH:
        return Frame(Kind.SUM, *reply, 4, crc32c.crc32c(data).to_bytes(4, "little"))
    return Frame(Kind.DATA, *reply, n, data)


@cocotb.test(timeout_time=40, timeout_unit="ms")
async def windowed_requests(dut):
    """Random requests, `credits` at a time, with events in between: every reply, in order, and nothing lost."""
    board = await Board(dut).begin()
    random = rng("requests")
    model, wanted, events, seen = {}, [], [], []
    for k in range(0, 36, CREDITS):
        line = b""
        for sequence in range(k, k + CREDITS):
            request = random_request(random, sequence)
            wanted.append(execute(model, request))
            line += request.encode() + bytes(random.randrange(3))
        for _ in range(random.choice([0, 0, 1, 3])):
            events.append({"slot": random.randrange(BATCH), "position": random.getrandbits(NUMBER_BITS),
                           "token": random.choice([0, random.getrandbits(NUMBER_BITS)])})
            board.event.send(events[-1])
        seen += await board.exchange(line)
    assert [f for f in seen if f.kind != Kind.TOKEN] == wanted
    assert [f for f in seen if f.kind == Kind.TOKEN] == \
        [Frame(Kind.TOKEN, e["slot"], e["position"], 4, e["token"].to_bytes(4, "little")) for e in events]
    assert {a: w for a, w in board.memory.items() if w} == {a: w for a, w in model.items() if w}
    assert board.count("frames_bad") == 0 and board.count("frames_lost") == 0


@cocotb.test(timeout_time=40, timeout_unit="ms")
async def damaged_frames(dut):
    """Bytes changed, lost, doubled, cut off: the link answers exactly the intact frames and writes nothing else."""
    board = await Board(dut, latency=2).begin()
    random = rng("damage")
    model, wanted, seen, bad = {}, [], [], 0
    for sequence in range(50):
        code = bytearray(random_request(random, sequence).encode()[:-1])
        place = random.randrange(len(code))
        kind = random.randrange(7)
        if kind == 0:
            code[place] ^= 1 << random.randrange(8)
        elif kind == 1:
            del code[place]
        elif kind == 2:
            code.insert(place, code[place])
        elif kind == 3:
            del code[place:]
        elif kind == 4:
            code += bytes(random.randrange(1, 256) for _ in range(random.randrange(1, 600)))
        for piece in bytes(code).split(b"\0"):
            if piece:
                try:
                    wanted.append(execute(model, Frame.decode(piece)))
                except FrameError:
                    bad += 1
        seen += await board.exchange(code + b"\0")
    assert seen == wanted and len(wanted) >= 10
    assert board.count("frames_bad") == bad and bad >= 10 and board.count("frames_lost") == 0
    assert {a: w for a, w in board.memory.items() if w} == {a: w for a, w in model.items() if w}


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def refused_frames(dut):
    """NAK for form and address; a WRITE that runs over the end stops there; the link goes on."""
    board = await Board(dut).begin()
    model = {}
    body = bytes(range(1, 225))
    cases = [Frame(0x03, 1, 8, 4), Frame(0x00, 2, 0, 4), Frame(0x82, 3, 0, 4), Frame(1, 4, 0, 0), Frame(1, 5, 0, 6),
             Frame(1, 6, 0, 228), Frame(1, 7, 0, 4, b"abcd"), Frame(2, 8, 0, 8, b"abcd"),
             Frame(2, 9, 0, 4, b"abcdefgh"),
             Frame(1, 10, 2, 4), Frame(2, 11, 5, 4, b"abcd"), Frame.read(12, MEMORY_BYTES, 4),
             Frame.read(13, MEMORY_BYTES - 100, 224), Frame.write(14, MEMORY_BYTES - 100, body),
             Frame.write(15, 0xFFFFFFFC, b"abcd"), Frame(2, 16, 0, 229, bytes(229)), Frame(2, 17, 0, 224, body),
             Frame.read(18, 0, 224), Frame.read(19, MEMORY_BYTES - 224, 224),
             Frame(4, 21, 0, 0), Frame(4, 22, 0, 3), Frame(4, 23, 0, 228), Frame(4, 24, 2, 4),
             Frame(4, 25, 0, 4, b"abcd"), Frame(6, 26, 0, 4), Frame.hash(27, MEMORY_BYTES - 252, 256),
             Frame.hash(28, MEMORY_BYTES, 256), Frame.hash(29, MEMORY_BYTES - 256, 256),
             Frame.read(30, 0, 4), Frame.hash(31, 4, 512), Frame.read(32, MEMORY_BYTES + 4, 8),
             Frame.write(33, MEMORY_BYTES + 4, b"abcdefgh"), Frame.hash(34, MEMORY_BYTES + 4, 256)]
    for case in cases:
        assert await board.exchange(case.encode()) == [execute(model, case)], case
    assert board.memory == model
    await board.exchange(Frame(2, 20, 0, 0, bytes(230)).encode())  # 241 bytes
    assert board.count("frames_bad") == 1 and board.count("frames_lost") == 0


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def empty_frames_noise_and_a_vanished_host(dut):
    board = await Board(dut).begin()
    random = rng("noise")
    probe = Frame.write(1, 16, b"wxyz")
    assert await board.exchange(bytes(20)) == [] and board.count("frames_bad") == 0
    for line in (probe.encode()[:9], bytes(random.randrange(1, 256) for _ in range(1000)), random.randbytes(2000),
                 b"\1", bytes([255]) * 700, bytes([1]) * 700):
        assert await board.exchange(line) == []
        assert await board.exchange(b"\0" + probe.encode()) == [execute({}, probe)]
    assert board.count("frames_bad") > 5 and board.count("frames_lost") == 0
    assert set(board.memory) == {16}


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def stalled_line_and_too_many_frames(dut):
    """While nothing leaves, frames beyond the buffers are dropped and counted; when the line moves all is well."""
    board = await Board(dut, latency=1).begin()
    for e in range(4):
        board.event.send({"position": e, "token": 100 + e})
    board.tx.stall = 1.0
    sent = 3 * CREDITS + 8
    board.line.send(*b"".join(Frame.read(k, 4 * k, 64).encode() for k in range(sent)))
    await board.quiet()
    lost = board.count("frames_lost")
    assert lost > 0
    await cycles(dut, 2000)
    board.tx.stall = STALL
    await board.quiet()
    frames = board.frames()
    replies = [f.sequence for f in frames if f.kind == Kind.DATA]
    assert replies == sorted(set(replies)) and replies[:CREDITS] == list(range(CREDITS))
    assert len(replies) + lost == sent
    assert [f.word for f in frames if f.kind == Kind.TOKEN] == [100, 101, 102, 103]
    probe = Frame.read(99, 0, 224)
    assert await board.exchange(probe.encode()) == [execute({}, probe)]
    assert board.count("frames_lost") == lost and board.count("frames_bad") == 0


@cocotb.test(timeout_time=20, timeout_unit="ms")
async def events_and_requests_take_turns(dut):
    board = await Board(dut, latency=1).begin()
    for e in range(30):
        board.event.send({"position": e, "token": e})
    for k in range(10):
        board.line.send(*Frame.read(k, 0, 4).encode())
    await board.quiet()
    frames = board.frames()
    assert len([f for f in frames if f.kind == Kind.TOKEN]) == 30
    replies = [k for k, f in enumerate(frames) if f.kind == Kind.DATA]
    sequences = [frames[k].sequence for k in replies]
    assert sequences == sorted(set(sequences))
    assert len(replies) + board.count("frames_lost") == 10 and len(replies) >= CREDITS
    assert all(b - a <= 5 for a, b in zip(replies, replies[1:]))


@cocotb.test(skip=STALL > 0, timeout_time=20, timeout_unit="ms")
async def throughput(dut):
    """Bytes come at one per cycle and none is refused; frames leave without gaps inside."""
    board = await Board(dut, latency=1).begin()
    board.line.send(*b"".join(Frame.write(k, 0, bytes(range(224))).encode() for k in range(8)))
    total = len(board.line.items)
    before = 0
    while board.line.items:
        await cycles(dut)
        before += 1
    assert before <= total + 4
    await board.quiet()
    answered = len(board.frames())
    assert answered + board.count("frames_lost") == 8 and answered >= 4
    board.line.send(*Frame.read(1, 0, 224).encode())
    gaps = 0
    while not len(board.tx.items):
        await cycles(dut)
    while board.tx.items[-1] != 0:
        await settled(dut)
        gaps += not int(dut.tx__valid.value)
        await cycles(dut)
    assert gaps <= 1
