"""Requests to a device (docs/protocol.md): a sliding window with retransmission and the TOKEN frames between the
replies, and reads and writes of memory cut into frames.
"""

import time
from collections import deque
from contextlib import contextmanager

from sterna.host.device.frames import Frame, FrameDecoder
from sterna.host.errors import DeviceError
from sterna.hw import protocol
from sterna.hw.protocol import Kind

MOST_TOKENS = 1 << 14  # TOKEN frames of a slot that are kept until somebody asks for them
SOCKET_RETRY_S = 2.0
CHUNK_BYTES = protocol.MAX_DATA_BYTES
QUEUE_TOLD_S = 0.5  # a board needs some milliseconds to see that the host before this one has left
REQUESTS = (Kind.READ, Kind.WRITE, Kind.HASH)


class _Request:
    """A frame of the window: when it was last sent, and its place in the order of sending."""

    __slots__ = ("frame", "order", "resend_at", "index")

    def __init__(self, frame, index):
        self.frame = frame
        self.index = index
        self.order = 0
        self.resend_at = 0.0


class RequestWindow:
    """Sends requests, several at a time, until each is answered.

    Every request is idempotent, so a request is sent again after ``retry_s`` without an answer to it or to one before
    it; replies come in the order of the requests, so a request that a later one overtakes is sent again at once.

    Parameters
    ----------
    transport : object with name, baud, read(timeout_s), write(data)
        See ``sterna.host.device.transport``.
    timeout_s : float
        Seconds without a reply to a request, or a TOKEN frame, after which the device counts as gone.
    retry_s : float or None
        Seconds after which a request is sent again; None: 0.25 s plus the time the line needs for a full window, or
        2 s where there is no line: a socket loses nothing, but a simulation behind it may be slow.

    Attributes
    ----------
    size : int
        Requests that may be unanswered at once: 1 until the device has told its credits.
    chained : bool
        All TOKEN frames belong to slot 0.
    simulated : bool
        A simulated board has said that it is one.
    requests_repeated : int
    """

    def __init__(self, transport, timeout_s, retry_s, tell=lambda line: None):
        self.transport = transport
        self.name = transport.name
        self.timeout_s = timeout_s
        self.fixed_retry_s = retry_s
        self.size = 1
        self.chained = False
        self.simulated = False
        self.requests_repeated = 0
        self._tell = tell
        self._queued = False  # whether other hosts have the board
        self._decoder = FrameDecoder()
        # Of each slot; the oldest go first: they can be read from the ring again.
        self._tokens = [deque(maxlen=MOST_TOKENS) for _ in range(protocol.MOST_SLOTS)]
        self._sequence = 0
        self._sent = 0
        self._life_at = time.monotonic()  # the device has answered something, or sent a token
        self._echoed = False  # a request has come back since
        transport.write(protocol.DELIMITER)  # ends what a program before this one may have left unfinished

    @property
    def retry_s(self):
        """Seconds after which an unanswered request is sent again."""
        if self.fixed_retry_s is not None:
            return self.fixed_retry_s
        if not self.transport.baud:
            return SOCKET_RETRY_S
        return 0.25 + 10 * 2 * self.size * (protocol.MAX_FRAME_BYTES + 2) / self.transport.baud

    def _receive(self, wait_s):
        """Waits for bytes; keeps TOKEN frames, returns the replies (list of Frame)."""
        replies = []
        for frame in self._decoder.feed(self.transport.read(max(wait_s, 0.0))):
            if frame.kind == Kind.TOKEN:
                self._alive()
                slot = 0 if self.chained else frame.sequence
                if slot < len(self._tokens):
                    self._tokens[slot].append((frame.address, frame.word))
            elif frame.kind == Kind.SIMULATED:
                self._alive()
                self.simulated = True
                self._queued = bool(frame.word)
            elif frame.kind in REQUESTS:
                self._echoed = True  # no device sends these
            else:
                replies.append(frame)
        return replies

    def _alive(self):
        """Notes that the device has shown a sign of life."""
        self._life_at, self._echoed = time.monotonic(), False

    def _gone(self):
        """The DeviceError for a device that shows no sign of life."""
        if self._echoed:
            return DeviceError(f"{self.name}: the port echoes: what is sent comes back, and no "
                               "device answers: take the loopback or the other end's echo away, or "
                               "give the port of the board, then start again")
        return DeviceError(f"{self.name}: no answer for {self.timeout_s:g} s: check the cable and "
                           "the baud rate, reset or program the board, then start again")

    def exchange(self, frames, answered):
        """Sends requests and returns when all are answered.

        Parameters
        ----------
        frames : iterable of functions (sequence number) -> Frame
            Pulled when there is room for another request. It may give None while a request of this exchange is
            unanswered: nothing to send until the next reply.
        answered : callable
            Called with (index of the request, reply) as each is answered, in any order.

        Raises
        ------
        DeviceError
            A request is refused, or the device shows no sign of life for ``timeout_s``, perhaps
            because the port echoes.
        """
        waiting = {}  # by sequence number, in the order of first sending
        frames, done, index = iter(frames), object(), -1
        more = True
        self._alive()  # the time before the first request does not count
        while more or waiting:
            while more and len(waiting) < self.size:
                make = next(frames, done)
                more = make is not done
                if make is None:
                    break
                if more:
                    index += 1
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
                self._alive()
                del waiting[reply.sequence]
                # Replies come in order: what waits behind this one may take its time from now on.
                overdue_at = time.monotonic() + self.retry_s
                for other in waiting.values():
                    other.resend_at = max(other.resend_at, overdue_at)
                if reply.kind == Kind.NAK:
                    self._refused(request.frame, reply)
                answered(request.index, reply)
                for overtaken in [r for r in waiting.values() if r.order < request.order]:
                    self._transmit(overtaken, again=True)
            now = time.monotonic()
            if self._queued:
                self._wait_in_queue(now)
                now = time.monotonic()
                self._alive()
            if waiting and now - self._life_at > self.timeout_s:
                raise self._gone()
            for request in waiting.values():
                if request.resend_at <= now:
                    self._transmit(request, again=True)

    def _wait_in_queue(self, since):
        """Returns when the simulated board has no host before this one; what was sent waits in the connection."""
        told = False
        while self._queued:
            if not told and time.monotonic() - since > QUEUE_TOLD_S:
                told = True
                self._tell(f"{self.name}: another program uses this simulated board; waiting until it ends")
            self._receive(QUEUE_TOLD_S)

    def _transmit(self, request, again=False):
        self.requests_repeated += again
        self._sent += 1
        request.order = self._sent
        request.resend_at = time.monotonic() + self.retry_s
        # A delimiter first keeps a repeated frame clear of a damaged one before it.
        self.transport.write((protocol.DELIMITER if again else b"") + request.frame.encode())

    @staticmethod
    def _belongs(reply, frame):
        if reply.address != frame.address & 0xFFFFFFFF:
            return False
        if reply.kind == Kind.NAK:
            return True
        wanted, length, data = {
            Kind.READ: (Kind.DATA, frame.length, frame.length), Kind.WRITE: (Kind.ACK, frame.length, 0),
            Kind.HASH: (Kind.SUM, 4, 4)}[frame.kind]
        return reply.kind == wanted and reply.length == length and len(reply.data) == data

    def _refused(self, frame, reply):
        what = {Kind.READ: "read from", Kind.WRITE: "write to", Kind.HASH: "hash from"}[frame.kind]
        n_bytes = frame.length * (protocol.HASH_UNIT_BYTES if frame.kind == Kind.HASH else 1)
        reason = protocol.NAK_REASONS.get(reply.word, f"reason {reply.word}")
        address = frame.address & ~protocol.FLAT
        way_out = ("program the board again, and check where its memory lies"
                   if reply.word == protocol.NAK_MEMORY else
                   "check that the model and the program fit this device (`sterna devices` shows its sizes)")
        raise DeviceError(f"{self.name} refused to {what} 0x{address:08x} ({n_bytes} bytes): {reason}; {way_out}")

    def wait_token(self, wait_s, slot=0):
        """The next TOKEN frame of a slot as (position, token), waiting up to ``wait_s``; None if none came."""
        return self._tokens[slot].popleft() if self._await(wait_s, lambda: self._tokens[slot]) else None

    def wait_any(self, wait_s, slots):
        """Waits up to ``wait_s`` for a TOKEN frame of one of the slots, which it leaves there."""
        self._await(wait_s, lambda: any(self._tokens[slot] for slot in slots))

    def _await(self, wait_s, there):
        deadline = time.monotonic() + wait_s
        while not there():
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            self._receive(left_s)
        return True

    def forget_tokens(self, slot=0):
        """Drops TOKEN frames of earlier runs of a slot."""
        self._tokens[slot].clear()


class Link:
    """What every device answers.

    Parameters
    ----------
    transport : object with name, baud, read(timeout_s), write(data), close()
        See ``sterna.host.device.transport``.
    timeout_s : float
        Seconds without a reply to a request, or a TOKEN frame, after which the device counts as gone.
    retry_s : float or None
        Seconds after which a request is sent again; None: as ``RequestWindow`` finds right for the transport.
    tell : callable(str)
        Takes a line for the user where something takes long.
    """

    def __init__(self, transport, timeout_s, retry_s, tell=lambda line: None):
        self.transport = transport
        self.name = transport.name
        self._window = RequestWindow(transport, timeout_s, retry_s, tell)

    @property
    def simulated(self):
        """Whether a simulated board has said that it is one (bool): its cycles take no time of a clock."""
        return self._window.simulated

    @property
    def requests_repeated(self):
        """Requests that were sent again since the device was opened (int)."""
        return self._window.requests_repeated

    def read(self, address, n_bytes, progress=None):
        """``n_bytes`` from ``address``, both multiples of 4 (bytes); calls ``progress(done, total)`` in bytes."""
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

        self._window.exchange((lambda s, k=k, n=n: Frame.read(s, address + k, n) for k, n in chunks), answered)
        return b"".join(parts)

    def write(self, address, data, progress=None):
        """``data`` (bytes-like) to ``address``, address and length multiples of 4; ``progress`` as for ``read``."""
        data = memoryview(data).cast("B")
        self._aligned(address, len(data))
        done = 0

        def answered(index, reply):
            nonlocal done
            done += reply.length
            if progress:
                progress(done, len(data))

        self._window.exchange((lambda s, k=k: Frame.write(s, address + k, data[k:k + CHUNK_BYTES])
                               for k in range(0, len(data), CHUNK_BYTES)), answered)

    def exchange(self, frames, answered):
        """Requests of any kind; see ``RequestWindow.exchange``."""
        self._window.exchange(frames, answered)

    @contextmanager
    def at_once(self, requests):
        """Within it at most so many requests are unanswered at a time (int)."""
        kept, self._window.size = self._window.size, min(requests, self._window.size)
        try:
            yield
        finally:
            self._window.size = kept

    @staticmethod
    def _aligned(address, n_bytes):
        if address % 4 or n_bytes % 4 or n_bytes < 0 or not 0 <= address <= (1 << 36) - n_bytes:
            raise ValueError(f"address {address:#x}, {n_bytes} bytes: both must be multiples of 4 within 36 bits")

    def wait_token(self, wait_s, slot=0):
        """The next TOKEN frame of a slot as (position, token), waiting up to ``wait_s``; None if none came."""
        return self._window.wait_token(wait_s, slot)

    def wait_any(self, wait_s, slots):
        """Waits up to ``wait_s`` until a TOKEN frame of one of the slots is there for ``wait_token``."""
        self._window.wait_any(wait_s, slots)

    def forget_tokens(self, slot=0):
        """Drops TOKEN frames of earlier runs of a slot."""
        self._window.forget_tokens(slot)

    def close(self):
        """Closes the transport."""
        self.transport.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
