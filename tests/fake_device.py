"""A device in plain Python behind the transport interface: frames, registers and run control of docs/protocol.md."""

import dataclasses

from crc32c import crc32c
from sterna.host.device.frames import Frame, FrameDecoder
from sterna.host.device.info import DeviceInfo
from sterna.hw import protocol
from sterna.hw.protocol import Kind, Register

INFO = DeviceInfo(rows=1, columns=10, lanes=1, batch=1, weight_code="trit5", credits=2, port_bytes=2, strip=16,
                  memory_bytes=4096, vector_words=512, program_words=64, activation_words=16, ring=16,
                  clock_hz=24_000_000, build=0x12345678)

NUMBERS = (Register.POSITION, Register.START, Register.LIMIT, Register.PROMPT_END, Register.STOP, Register.DRAFT_END)


def next_token(token, state, seed):
    """The 'model': a token and the new state from the token before, the state and the seed."""
    state = (state * 31 + token + 7) & 0xFFFFFFFF
    return next_token_of(state, seed), state


def next_token_of(state, seed):
    return (state ^ seed * 0x9E3779B1) >> 3 & 0x3FF


def expected(prompt, n, seed=0, state=0):
    """The tokens that a run must give."""
    out = []
    for token in prompt:
        sampled, state = next_token(token, state, seed)
    while len(out) < n:
        out.append(sampled)
        sampled, state = next_token(sampled, state, seed)
    return out


class FakeDevice:
    """Answers frames; runs its program ``tokens_per_call`` times per call of ``read``.

    ``replies`` collects the bytes for the host. ``silent`` makes it vanish, ``hang_at`` stops it inside the run that
    reads this position of slot 0, ``fault_at`` lets that run fail. ``blocks``, ``scalars_of`` and ``rings`` are per
    slot; ``block``, ``scalars`` and ``ring`` those of slot 0. ``reads_per_run`` lists the tokens of every run.
    """

    name = "fake"
    baud = None

    def __init__(self, info=INFO, tokens_per_call=1):
        self.info = info
        self.tokens_per_call = tokens_per_call
        self.blocks = [{r: 0 for r in range(0x40, 0x100, 4)} for _ in range(info.batch)]
        self.hello = bytearray(info.pack())
        self.memory = {}
        self.program = {}
        self.scalars_of = [{} for _ in self.blocks]
        self.rings = [[None] * info.ring for _ in self.blocks]  # pairs (position, token)
        self.block, self.scalars, self.ring = self.blocks[0], self.scalars_of[0], self.rings[0]
        self.states = [0] * info.batch
        self.replies = bytearray()
        self.silent = False
        self.hang_at = None
        self.fault_at = None
        self.max_position = 0
        self.writes = 0
        self.hashed_bytes = 0
        self.reads_per_run = []
        self.closed = False
        self._decoder = FrameDecoder()

    @property
    def mask(self):
        """Bits that registers of positions and tokens keep."""
        return (1 << self.info.register_bits) - 1

    # Transport

    def write(self, data):
        for frame in self._decoder.feed(data):
            if not self.silent:
                self._answer(frame)

    def read(self, timeout_s):
        for _ in range(self.tokens_per_call):
            self._token()
        data, self.replies = bytes(self.replies), bytearray()
        return b"" if self.silent else data

    def close(self):
        self.closed = True

    # Frames

    def _send(self, *fields):
        kind, sequence, address, *rest = fields
        self.replies += Frame(kind, sequence, address & 0xFFFFFFFF, *rest).encode()

    def _nak(self, frame, reason):
        self._send(Kind.NAK, frame.sequence, frame.address, 4, reason.to_bytes(4, "little"))

    def _answer(self, frame):
        n = frame.length
        high = frame.address >> 32 and not protocol.wide(self.info.memory_bytes)
        if high or frame.kind not in (Kind.READ, Kind.WRITE, Kind.HASH):
            return self._nak(frame, 1)
        if frame.address % 4:
            return self._nak(frame, 2)
        if n % 4 or not 4 <= n <= 224 or len(frame.data) != (n if frame.kind == Kind.WRITE else 0):
            return self._nak(frame, 1)
        n_bytes = n * protocol.HASH_UNIT_BYTES if frame.kind == Kind.HASH else n
        addresses = range(frame.address, frame.address + n_bytes, 4)
        try:
            if frame.kind == Kind.WRITE:
                self.writes += 1
                for k, address in enumerate(addresses):
                    self._store(address, int.from_bytes(frame.data[4 * k:4 * k + 4], "little"))
                self._send(Kind.ACK, frame.sequence, frame.address, n)
            else:
                data = b"".join(self._load(address).to_bytes(4, "little") for address in addresses)
                if frame.kind == Kind.HASH:
                    self.hashed_bytes += n_bytes
                    self._send(Kind.SUM, frame.sequence, frame.address, 4, crc32c(data).to_bytes(4, "little"))
                else:
                    self._send(Kind.DATA, frame.sequence, frame.address, n, data)
        except KeyError:
            self._nak(frame, 2)

    @property
    def chained(self):
        return self.info.batch > 1 and bool(self.block[Register.FLAGS] & protocol.FLAG_CHAINED)

    def _running(self, slot=0):
        block = self.blocks[slot]
        return bool(block[Register.CONTROL] & 1 and block[Register.POSITION] < block[Register.LIMIT]
                    and not self.block[Register.STATUS] >> 8 and not (self.chained and slot))

    def _slot(self, offset, size):
        """(slot, offset inside of it); KeyError behind the last slot."""
        slot, offset = divmod(offset, size)
        if slot >= self.info.batch:
            raise KeyError(slot)
        return slot, offset

    def _place(self, address):
        """Of an address of the memory: the byte; None of another one."""
        if address & protocol.FLAT or address < protocol.PROGRAM:
            address &= ~protocol.FLAT
            if address < self.info.memory_bytes:
                return address
        return None

    def _store(self, address, value):
        page, offset = address & ~0x0FFFFFFF, address & 0x0FFFFFFF
        if (place := self._place(address)) is not None:
            self.memory[place] = value
        elif page == protocol.PROGRAM and offset < 16 * self.info.program_words:
            self.program[offset] = value
        elif page == protocol.REGISTERS:
            self._set_register(*self._slot(offset, 0x100), value)
        elif page == protocol.SCALARS:
            slot, offset = self._slot(offset, 0x80)
            if self._running(slot) or (self.chained and self._running()):
                raise AssertionError("scalars were written while running")
            self.scalars_of[slot][offset // 4] = value
        elif page == protocol.RING:
            slot, offset = self._slot(offset, 4 * self.info.ring)
            self.rings[slot][offset // 4] = (None, value & self.mask)
        else:
            raise KeyError(address)

    def _set_register(self, slot, offset, value):
        if not 0x40 <= offset < 0x80 or (slot and offset > Register.TOP):
            raise KeyError(offset)
        if offset == Register.POSITION and self._running(slot):
            raise AssertionError("position was written while running")
        chains = offset == Register.FLAGS and not slot and (value ^ self.block[offset]) & protocol.FLAG_CHAINED
        if chains and any(map(self._running, range(self.info.batch))):
            raise AssertionError("chained while running")
        if offset == Register.CONTROL and value & 2 and not slot:
            for block in self.blocks:
                block[Register.STATUS] = block[Register.CONTROL] = 0
        elif offset != Register.STATUS:
            self.blocks[slot][offset] = value & (self.mask if offset in NUMBERS else 0xFFFFFFFF)

    def _load(self, address):
        page, offset = address & ~0x0FFFFFFF, address & 0x0FFFFFFF
        if (place := self._place(address)) is not None:
            return self.memory.get(place, 0)
        if page == protocol.REGISTERS and offset < protocol.HELLO_BYTES:
            return int.from_bytes(self.hello[offset:offset + 4], "little")
        if page == protocol.REGISTERS:
            slot, offset = self._slot(offset, 0x100)
            if offset == Register.STATUS:
                block = self.blocks[slot]
                return block[offset] | self._running(slot) | (block[Register.CONTROL] & 1) << 1
            return self.blocks[slot][offset]
        if page == protocol.RING:
            slot, offset = self._slot(offset, 4 * self.info.ring)
            return self.rings[slot][offset // 4][1]
        raise KeyError(address)

    # One run of the program

    def _token(self):
        active = [slot for slot in range(self.info.batch) if self._running(slot)]
        if not active:
            return
        begin = self.block[Register.POSITION]
        jobs = [(slot, slot, self.blocks[slot][Register.POSITION]) for slot in active]
        if self.chained:
            n = max(1, min(self.info.batch, self.block[Register.LIMIT] - begin,
                           max(self.block[Register.PROMPT_END], self.block[Register.DRAFT_END]) - begin))
            jobs = [(k, 0, begin + k) for k in range(n)]
        positions = [position for _, slot, position in jobs if slot == 0]
        if self.hang_at in positions:
            return
        if self.fault_at in positions:
            self.block[Register.STATUS] = 1 << 8
            return
        heads, states, state = [], [], None
        for k, slot, position in jobs:
            owner, token = self.rings[slot][position % self.info.ring]
            if owner not in (None, position):
                raise AssertionError(f"position {position} found the token of position {owner} in the ring")
            if position == self.blocks[slot][Register.START]:
                state = self.zero_state()
            elif not (self.chained and k):
                state = self.load_state(self.block[Register.SOURCE] if self.chained else slot)
            head, state = self.step(token, state)
            heads.append(head)
            states.append(state)
        self._finish(jobs, heads, states)
        self.block[0x9C] += 1
        self.reads_per_run.append(len(jobs))
        self.count()

    def _finish(self, jobs, heads, states):
        """Keeps the states, samples, and moves on."""
        n, reading = len(jobs), self.chained and jobs[-1][2] + 1 <= self.block[Register.PROMPT_END]
        for (k, slot, position), head, state in zip(jobs, heads, states, strict=True):
            if not reading or k == n - 1:
                self.store_state(k, state)
        for (k, slot, position), head in zip(jobs, heads, strict=True):
            block, ring = self.blocks[slot], self.rings[slot]
            last = not self.chained or k == n - 1
            following = position + 1 & self.mask
            if following >= block[Register.PROMPT_END]:
                token = self.sample(head, position, slot) & self.mask
                place = following % self.info.ring
                wrong = not last and ring[place][1] != token
                ring[place] = (following, token)
                if wrong or token == block[Register.STOP]:
                    last = True
                    self.lower_limit(slot, following)
                self._send(Kind.TOKEN, slot, following, 4, token.to_bytes(4, "little"))
            if last:
                block[Register.POSITION] = following
                self.max_position = max(self.max_position, following)
                if self.chained:
                    self.block[Register.SOURCE] = k
                    return

    def lower_limit(self, slot, limit):
        self.blocks[slot][Register.LIMIT] = limit

    # The model

    def zero_state(self):
        return 0

    def load_state(self, slot):
        return self.states[slot]

    def store_state(self, slot, state):
        self.states[slot] = state

    def step(self, token, state):
        """(what ``sample`` needs, new state) of a token."""
        return next_token(token, state, 0)[1], next_token(token, state, 0)[1]

    def sample(self, head, position, slot):
        return next_token_of(head, self.blocks[slot][Register.SEED])

    def count(self):
        """Moves the other counters."""


def info_of(config):
    """The DeviceInfo of a Config."""
    names = {field.name for field in dataclasses.fields(DeviceInfo)} - {"build"}
    return DeviceInfo(build=int(config.digest[:8], 16), **{name: getattr(config, name) for name in names})


def refused_requests(memory_bytes):
    """(Frame, reason) of requests that every device answers with a NAK, gateware and fake alike."""
    for sequence, length in enumerate((0, 1, 2, 3, 5, 222, 225, 226, 228, 252, 255)):
        yield Frame(Kind.READ, sequence, 0, length), 1
        yield Frame(Kind.HASH, sequence, 0, length), 1
        if length <= 229:
            yield Frame(Kind.WRITE, sequence, 0, length, bytes(length)), 1
    yield Frame(0x33, 20, 0, 4), 1
    yield Frame(Kind.WRITE, 21, 0, 8, b"four"), 1
    yield Frame(Kind.WRITE, 22, 0, 4, b"behind it"), 1
    yield Frame(Kind.READ, 23, 0, 4, b"data"), 1
    for sequence, address in enumerate((1, 2, 3, memory_bytes - 2), 30):
        yield Frame(Kind.READ, sequence, address, 4), 2
        yield Frame(Kind.HASH, sequence, address, 4), 2
        yield Frame(Kind.WRITE, sequence, address, 4, b"four"), 2
    for sequence, address in enumerate((memory_bytes, 0x7FFFFFFC, 0xC0000000, 0xFFFFFFFC), 40):
        yield Frame(Kind.READ, sequence, address, 4), 2
        yield Frame(Kind.HASH, sequence, address, 4), 2
        yield Frame(Kind.WRITE, sequence, address, 4, b"four"), 2
    yield Frame(Kind.WRITE, 50, memory_bytes - 4, 8, b"at the end"[:8]), 2
    yield Frame(Kind.READ, 51, protocol.PROGRAM, 4), 2
    yield Frame(Kind.READ, 52, protocol.SCALARS, 4), 2
