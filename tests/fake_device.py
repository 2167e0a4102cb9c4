"""A device in plain Python behind the transport interface: frames, registers and run control of docs/protocol.md."""

from crc32c import crc32c
from sterna.host import protocol
from sterna.host.protocol import DeviceInfo, Frame, Kind, Register

INFO = DeviceInfo(rows=1, columns=10, lanes=1, batch=1, weight_code="trit5", credits=2, port_bytes=2, strip=16,
                  memory_bytes=4096, vector_words=512, program_words=64, activation_words=16, ring=16,
                  clock_hz=24_000_000, build=0x12345678)


def next_token(token, state, seed):
    """The 'model': a token and the new state from the token before, the state and the seed."""
    state = (state * 31 + token + 7) & 0xFFFFFFFF
    return (state ^ seed * 0x9E3779B1) >> 3 & 0x3FF, state


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
    """Answers frames; processes ``tokens_per_call`` tokens per call of ``read``.

    ``replies`` collects the bytes for the host. ``silent`` makes it vanish, ``hang_at`` stops it inside that
    position.
    """

    name = "fake"
    baud = None

    def __init__(self, info=INFO, tokens_per_call=1):
        self.info = info
        self.tokens_per_call = tokens_per_call
        self.block = {r: 0 for r in range(0x40, 0x100, 4)}
        self.hello = bytearray(info.pack())
        self.memory = {}
        self.program, self.scalars = {}, {}
        self.ring = [None] * info.ring  # pairs (position, token)
        self.state = 0
        self.replies = bytearray()
        self.silent = False
        self.hang_at = None
        self.fault_at = None
        self.max_position = 0
        self.writes = 0
        self.hashed_bytes = 0
        self.closed = False
        self._decoder = protocol.FrameDecoder()

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
        self.replies += Frame(*fields).encode()

    def _nak(self, frame, reason):
        self._send(Kind.NAK, frame.sequence, frame.address, 4, reason.to_bytes(4, "little"))

    def _answer(self, frame):
        n = frame.length
        if frame.kind not in (Kind.READ, Kind.WRITE, Kind.HASH) or n % 4 or not 4 <= n <= 224 or \
                len(frame.data) != (n if frame.kind == Kind.WRITE else 0):
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

    def _running(self):
        return bool(self.block[Register.CONTROL] & 1 and self.block[Register.POSITION] < self.block[Register.LIMIT]
                    and not self.block[Register.STATUS] >> 8)

    def _store(self, address, value):
        page, offset = address & 0xF0000000, address & 0x0FFFFFFF
        if address < self.info.memory_bytes:
            self.memory[address] = value
        elif page == protocol.PROGRAM and offset < 16 * self.info.program_words:
            self.program[offset] = value
        elif page == protocol.REGISTERS and 0x40 <= offset < 0x80:
            if offset == Register.POSITION and self._running():
                raise AssertionError("position was written while running")
            if offset == Register.CONTROL and value & 2:
                self.block[Register.STATUS] = 0
                value = 0
            if offset != Register.STATUS:
                self.block[offset] = value
        elif page == protocol.SCALARS and offset < 4 * 32:
            self.scalars[offset // 4] = value
        elif page == protocol.RING and offset < 4 * self.info.ring:
            self.ring[offset // 4] = (None, value)
        else:
            raise KeyError(address)

    def _load(self, address):
        page, offset = address & 0xF0000000, address & 0x0FFFFFFF
        if address < self.info.memory_bytes:
            return self.memory.get(address, 0)
        if page == protocol.REGISTERS and offset < protocol.HELLO_BYTES:
            return int.from_bytes(self.hello[offset:offset + 4], "little")
        if page == protocol.REGISTERS and offset == Register.STATUS:
            return self.block[offset] | self._running() | (self.block[Register.CONTROL] & 1) << 1
        if page == protocol.REGISTERS and offset in self.block:
            return self.block[offset]
        if page == protocol.RING and offset < 4 * self.info.ring:
            return self.ring[offset // 4][1]
        raise KeyError(address)

    # One token

    def _token(self):
        position = self.block[Register.POSITION]
        if not self._running() or position == self.hang_at:
            return
        if position == self.fault_at:
            self.block[Register.STATUS] = 1 << 8
            return
        owner, token = self.ring[position % self.info.ring]
        if owner not in (None, position):
            raise AssertionError(f"position {position} found the token of position {owner} in the ring")
        if position == self.block[Register.START]:
            self.state = 0
        sampled, self.state = next_token(token, self.state, self.block[Register.SEED])
        if position + 1 >= self.block[Register.PROMPT_END]:
            self.ring[(position + 1) % self.info.ring] = (position + 1, sampled)
            if sampled == self.block[Register.STOP]:
                self.block[Register.LIMIT] = position + 1
            self._send(Kind.TOKEN, 0, position + 1, 4, sampled.to_bytes(4, "little"))
        self.block[Register.POSITION] = position + 1
        self.max_position = max(self.max_position, position + 1)
        self.block[0x9C] += 1
