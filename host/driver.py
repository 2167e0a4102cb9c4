"""Requests to a device: sliding window, retransmission, registers and bulk transfers (docs/protocol.md)."""

import time
from collections import deque

from sterna.host import protocol
from sterna.host.errors import HostError
from sterna.host.protocol import DeviceInfo, Kind, Register

CHUNK_BYTES = protocol.MAX_DATA_BYTES


class DeviceError(HostError):
    """The device does not answer, refuses a request or reports a fault."""


class _Request:
    """A frame of the window: when it was last sent, and its place in the order of sending."""

    __slots__ = ("frame", "order", "resend_at", "index")

    def __init__(self, frame, index):
        self.frame = frame
        self.index = index
        self.order = 0
        self.resend_at = 0.0


class Device:
    """One connected device.

    Every request is idempotent, so a request that is not answered within ``retry_s`` is sent again; replies come in
    the order of
    the requests, so a request that a later one overtakes is sent again at once.

    Parameters
    ----------
    transport : object with name, baud, read(timeout_s), write(data), close()
        See ``sterna.host.transport``.
    timeout_s : float
        Seconds without any undamaged frame after which the device counts as gone.
    retry_s : float or None
        Seconds after which a request is sent again; None: 0.25 s plus the time the line needs for a full window.
    poll_s : float
        Seconds without a TOKEN frame after which a run asks for the position.
    stall_s : float
        Seconds for one token after which a device that still answers counts as hung.

    Attributes
    ----------
    info : DeviceInfo

    Raises
    ------
    DeviceError
        Nothing answers.
    ProtocolError
        Not a Sterna device, or another version.
    """

    def __init__(self, transport, *, timeout_s=10.0, retry_s=None, poll_s=0.5, stall_s=120.0):
        self.transport = transport
        self.name = transport.name
        self.timeout_s = timeout_s
        self.poll_s = poll_s
        self.stall_s = stall_s
        self.requests_repeated = 0
        self._fixed_retry_s = retry_s
        self._window = 1
        self._decoder = protocol.FrameDecoder()
        self._tokens = deque()
        self._sequence = 0
        self._sent = 0
        self._last_frame_at = time.monotonic()
        transport.write(protocol.DELIMITER)  # ends what a program before this one may have left unfinished
        self.info = DeviceInfo.parse(self.read(protocol.REGISTERS, protocol.HELLO_BYTES), self.name)
        self._window = self.info.credits

    # Requests

    @property
    def retry_s(self):
        """Seconds after which an unanswered request is sent again."""
        if self._fixed_retry_s is not None:
            return self._fixed_retry_s
        line_s = 0.0
        if self.transport.baud:
            line_s = 10 * 2 * self._window * (protocol.MAX_FRAME_BYTES + 2) / self.transport.baud
        return 0.25 + line_s

    def _receive(self, wait_s):
        """Waits for bytes; keeps TOKEN frames, returns the replies (list of Frame)."""
        replies = []
        for frame in self._decoder.feed(self.transport.read(max(wait_s, 0.0))):
            self._last_frame_at = time.monotonic()
            if frame.kind == Kind.TOKEN:
                self._tokens.append((frame.address, frame.word))
            else:
                replies.append(frame)
        return replies

    def _exchange(self, frames, answered):
        """Sends requests (iterable of functions sequence -> Frame); calls answered(index, reply) as each is answered."""
        waiting = {}  # by sequence number, in the order of first sending
        frames = enumerate(frames)
        more = True
        self._last_frame_at = time.monotonic()  # the time before the first request does not count
        while more or waiting:
            while more and len(waiting) < self._window:
                index, make = next(frames, (None, None))
                more = make is not None
                if more:
                    self._sequence = (self._sequence + 1) % 256
                    while self._sequence in waiting:  # an old request that is repeated again and again
                        self._sequence = (self._sequence + 1) % 256
                    request = waiting[self._sequence] = _Request(make(self._sequence), index)
                    self._transmit(request)
            if not waiting:
                break
            now = time.monotonic()
            next_s = min(request.resend_at for request in waiting.values()) - now
            for reply in self._receive(next_s):
                request = waiting.get(reply.sequence)
                if request is None or not self._belongs(reply, request.frame):
                    continue  # the answer to a repeated request, or to one before an interruption
                del waiting[reply.sequence]
                if reply.kind == Kind.NAK:
                    self._refused(request.frame, reply)
                answered(request.index, reply)
                for overtaken in [r for r in waiting.values() if r.order < request.order]:
                    self._transmit(overtaken, again=True)
            now = time.monotonic()
            if waiting and now - self._last_frame_at > self.timeout_s:
                raise DeviceError(f"{self.name}: no answer for {self.timeout_s:g} s: check the cable and the baud rate, reset or "
                                  "program the board, then start again")
            for request in waiting.values():
                if request.resend_at <= now:
                    self._transmit(request, again=True)

    def _transmit(self, request, again=False):
        self.requests_repeated += again
        self._sent += 1
        request.order = self._sent
        request.resend_at = time.monotonic() + self.retry_s
        # A delimiter first keeps a repeated frame clear of a damaged one before it.
        self.transport.write((protocol.DELIMITER if again else b"") + request.frame.encode())

    @staticmethod
    def _belongs(reply, frame):
        if reply.address != frame.address:
            return False
        if reply.kind == Kind.NAK:
            return True
        wanted = Kind.DATA if frame.kind == Kind.READ else Kind.ACK
        return reply.kind == wanted and reply.length == frame.length and \
            len(reply.data) == (frame.length if wanted == Kind.DATA else 0)

    def _refused(self, frame, reply):
        what = "read from" if frame.kind == Kind.READ else "write to"
        reason = protocol.NAK_REASONS.get(reply.word, f"reason {reply.word}")
        raise DeviceError(f"{self.name} refused to {what} 0x{frame.address:08x} ({frame.length} bytes): {reason}; "
                          "check that the model and the program fit this device (`sterna info` shows its sizes)")

    # Memory

    def read(self, address, n_bytes, progress=None):
        """``n_bytes`` from ``address``, both multiples of 4 (bytes); ``progress(done, total)`` is called with byte counts."""
        self._aligned(address, n_bytes)
        chunks = [(k, min(CHUNK_BYTES, n_bytes - k)) for k in range(0, n_bytes, CHUNK_BYTES)]
        parts = [b""] * len(chunks)
        done = 0

        def answered(index, reply):
            nonlocal done
            parts[index] = reply.data
            done += len(reply.data)
            if progress:
                progress(done, n_bytes)

        self._exchange((lambda s, k=k, n=n: protocol.read(s, address + k, n) for k, n in chunks), answered)
        return b"".join(parts)

    def write(self, address, data, progress=None):
        """``data`` (bytes-like) to ``address``; address and length are multiples of 4. ``progress`` as for ``read``."""
        data = memoryview(data).cast("B")
        self._aligned(address, len(data))
        done = 0

        def answered(index, reply):
            nonlocal done
            done += reply.length
            if progress:
                progress(done, len(data))

        self._exchange((lambda s, k=k: protocol.write(s, address + k, data[k:k + CHUNK_BYTES])
                        for k in range(0, len(data), CHUNK_BYTES)), answered)

    @staticmethod
    def _aligned(address, n_bytes):
        if address % 4 or n_bytes % 4 or n_bytes < 0 or not 0 <= address <= (1 << 32) - n_bytes:
            raise ValueError(f"address {address:#x}, {n_bytes} bytes: both must be multiples of 4 within 32 bits")

    def read_state(self, address, n_bytes):
        """The state region of the model in device memory (bytes), to be written back by ``write_state``."""
        return self.read(address, n_bytes)

    def write_state(self, address, state):
        """Puts back what ``read_state`` returned; only while no token runs."""
        self.write(address, state)

    # Registers, program, scalars

    def read_register(self, register):
        """A register of the block at 0x90000000 by byte offset (int)."""
        return int.from_bytes(self.read(protocol.REGISTERS + register, 4), "little")

    def write_register(self, register, value):
        """Writes a register of the block at 0x90000000."""
        self.write(protocol.REGISTERS + register, int(value).to_bytes(4, "little"))

    def load_program(self, words):
        """Writes a program: ``words`` are its 96-bit instructions (sequence of int)."""
        if len(words) > self.info.program_words:
            raise DeviceError(f"{self.name}: the program has {len(words)} instructions and the device holds "
                              f"{self.info.program_words}: use a bitstream with a larger program memory")
        self.write(protocol.PROGRAM, b"".join(int(word).to_bytes(16, "little") for word in words))

    def write_scalars(self, values):
        """Writes scalar registers: {number: bits of an fp24 number}; only while no token runs."""
        for number, bits in values.items():
            self.write(protocol.SCALARS + 4 * number, int(bits).to_bytes(4, "little"))

    def status(self):
        """(running a token, enabled, fault, next position): bool, bool, int, int."""
        block = self.read(protocol.REGISTERS + Register.STATUS, 8)
        status = int.from_bytes(block[:4], "little")
        return bool(status & 1), bool(status & 2), status >> 8 & 0xFF, int.from_bytes(block[4:], "little")

    def counters(self):
        """All counters by name (dict of int, 32-bit, wrapping)."""
        block = self.read(protocol.REGISTERS + protocol.COUNTERS, 4 * len(protocol.COUNTER_NAMES))
        return {name: int.from_bytes(block[4 * k:4 * k + 4], "little") for k, name in enumerate(protocol.COUNTER_NAMES)}

    def reset(self):
        """Resets the sequencer and the engines, for instance after a fault; the memory stays."""
        self.write_register(Register.CONTROL, protocol.CONTROL_RESET)

    # Token ring

    def write_ring(self, position, tokens):
        """Puts tokens (sequence of int) into the ring at ``position`` and the positions behind it."""
        for place, part in self._ring_parts(position, len(tokens)):
            words = tokens[place - position:place - position + part]
            self.write(protocol.RING + 4 * (place % self.info.ring), b"".join(int(t).to_bytes(4, "little") for t in words))

    def read_ring(self, position, count):
        """``count`` tokens from the ring, from ``position`` on (list of int)."""
        words = b"".join(self.read(protocol.RING + 4 * (place % self.info.ring), 4 * part)
                         for place, part in self._ring_parts(position, count))
        return [int.from_bytes(words[k:k + 4], "little") for k in range(0, len(words), 4)]

    def _ring_parts(self, position, count):
        """Cuts positions where the ring ends: pairs (position, number)."""
        while count:
            part = min(count, self.info.ring - position % self.info.ring)
            yield position, part
            position, count = position + part, count - part

    # Events and runs

    def wait_token(self, wait_s):
        """The next TOKEN frame as (position, token), waiting up to ``wait_s``; None if none came."""
        deadline = time.monotonic() + wait_s
        while not self._tokens:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return None
            self._receive(left_s)
        return self._tokens.popleft()

    def forget_tokens(self):
        """Drops TOKEN frames of earlier runs."""
        self._tokens.clear()

    def halt(self):
        """Ends a run: the current token finishes, then nothing runs; returns the next position (int).

        DeviceError if a token does not finish within ``stall_s``.
        """
        self.write_register(Register.CONTROL, 0)
        deadline = time.monotonic() + self.stall_s
        while True:
            running, _, _, position = self.status()
            if not running:
                break
            if time.monotonic() > deadline:
                raise DeviceError(f"{self.name}: position {position} did not finish within {self.stall_s:g} s: reset the board")
            time.sleep(0.001)
        self.status()  # a TOKEN frame may leave behind the first reply, not behind the second
        self.forget_tokens()
        return position

    def run(self, prompt_ids, n, *, seed=0, sample=False, inverse_temperature_bits=None, stop=None, start_position=0,
            reset_state=True):
        """Runs a prompt and yields the ``n`` tokens that follow it, as they arrive.

        Prompt and generated tokens may be longer than the token ring: the prompt is written in pieces as positions
        are
        processed, and ``limit`` is raised as tokens are read. Once tokens are sampled, ``limit`` is raised only
        after the
        device has come to it, so a raise can never overtake the device's own lowering at the stop token.

        Parameters
        ----------
        prompt_ids : sequence of int
            At least one token; the first one belongs to ``start_position``.
        n : int
            Tokens to generate at most.
        seed : int
            32 bits; with ``sample``, the same seed gives the same tokens.
        sample : bool
            Sample; otherwise greedy.
        inverse_temperature_bits : int or None
            fp24 bits for scalar register 2; None leaves it.
        stop : int or None
            Token after which the run ends; it is yielded.
        start_position : int
            First position of the prompt. To go on with a sequence: the position of the last token that was yielded,
            with that
            token as the first of ``prompt_ids`` and ``reset_state=False``.
        reset_state : bool
            Start from a zero state; otherwise from the one that is in the device's memory.

        Yields
        ------
        (position, token) : (int, int)
            Positions are consecutive.

        Closing the generator (or Ctrl-C in it) lets the current token finish and leaves the device ready for the
        next run.

        Raises
        ------
        DeviceError
            The device stopped answering for ``timeout_s``, hangs in a token for ``stall_s``, or reports a fault.
        """
        prompt_ids = [int(token) for token in prompt_ids]
        if not prompt_ids or n < 0 or start_position < 0 or start_position + len(prompt_ids) + n >= protocol.NEVER:
            raise ValueError(f"{len(prompt_ids)} prompt tokens, {n} tokens from position {start_position}: "
                             "a run needs a prompt and positions below 2^32 - 1")
        self.halt()
        if inverse_temperature_bits is not None:
            self.write_scalars({2: inverse_temperature_bits})
        for register, value in (
                (Register.POSITION, start_position), (Register.START, start_position if reset_state else protocol.NEVER),
                (Register.LIMIT, start_position), (Register.PROMPT_END, start_position + len(prompt_ids)),
                (Register.SEED, seed), (Register.FLAGS, int(sample)),
                (Register.STOP, protocol.NEVER if stop is None else stop)):
            self.write_register(register, value)
        if n == 0:
            return
        try:
            yield from _Run(self, prompt_ids, n, stop, start_position).tokens()
        except HostError:
            raise  # the device does not answer or hangs: asking it again would only take as long again
        except BaseException:
            self.halt()
            raise
        self.halt()

    def close(self):
        """Closes the transport."""
        self.transport.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class _Run:
    """State of one run on the host: what was written into the ring, granted to the device and read back."""

    def __init__(self, device, prompt_ids, n, stop, start):
        self.device = device
        self.prompt_ids = prompt_ids
        self.stop = stop
        self.start = start
        self.prompt_end = start + len(prompt_ids)
        self.end = self.prompt_end + n  # positions from here on are not wanted
        self.position = start  # the device has processed everything below, as far as is known
        self.written = start  # prompt tokens below are in the ring
        self.limit = start
        self.next = self.prompt_end  # next token to yield
        self.moved_at = time.monotonic()

    def tokens(self):
        """Generator of (position, token)."""
        self._feed()
        self.device.write_register(Register.CONTROL, protocol.CONTROL_RUN)
        while True:
            for item in self._arrived():
                yield item
                if item[1] == self.stop or item[0] + 1 == self.end:
                    return
                self.moved_at = time.monotonic()  # the caller's time does not count
            self._feed()

    def _feed(self):
        """Writes what fits of the prompt and raises the limit as far as the ring has room."""
        ring = self.device.info.ring
        room = self.position + ring - self.written
        left = self.prompt_end - self.written
        if left and (room >= left or room >= ring // 2):  # not a frame for every token
            part = min(room, left)
            first = self.written - self.start
            self.device.write_ring(self.written, self.prompt_ids[first:first + part])
            self.written += part
        # Processing position p writes p + 1, so a limit uses the ring up to and including itself.
        limit = min(self.end - 1, min(self.position, self.next) + ring - 1)
        if self.written < self.prompt_end:
            limit = min(limit, self.written)
        sampling = self.limit >= self.prompt_end  # the device may have met the stop token below its limit
        if limit > self.limit and (not sampling or self.next == self.limit + 1):
            self.limit = limit
            self.device.write_register(Register.LIMIT, limit)

    def _arrived(self):
        """Tokens that have come since, in order; waits for a TOKEN frame and asks for the position if none comes."""
        device = self.device
        in_prompt = self.position + 1 < self.prompt_end
        event = device.wait_token(min(device.poll_s, 0.05) if in_prompt and self.written < self.prompt_end else device.poll_s)
        if event is not None:
            if not self.next <= event[0] <= self.limit:
                return []  # read from the ring already
            if event[0] == self.next:
                self._move(event[0] - 1)
                self.next += 1
                return [event]
            return self._read_up_to(event[0])  # frames before this one were lost
        running, enabled, fault, position = device.status()
        if fault:
            raise DeviceError(f"{device.name}: fault {protocol.FAULTS.get(fault, fault)!r} at position {position}: the program does "
                              "not fit this device; reset it and load the model again")
        self._move(position)
        if position >= self.next:
            return self._read_up_to(min(position, self.end - 1))
        if not enabled or time.monotonic() - self.moved_at > device.stall_s:
            state = f"no progress for {device.stall_s:g} s" if enabled else "the device was restarted or stopped"
            raise DeviceError(f"{device.name}: {state} at position {position} (limit {self.limit}): reset the board and load the "
                              "model again")
        return []

    def _read_up_to(self, last):
        tokens = self.device.read_ring(self.next, last + 1 - self.next)
        items = list(enumerate(tokens, self.next))
        self._move(last - 1)
        self.next = last + 1
        return items

    def _move(self, position):
        if position > self.position:
            self.position = position
            self.moved_at = time.monotonic()
