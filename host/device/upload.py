"""Puts data into a device's memory, sending only what is not there yet: blocks are compared by their hashes."""

from collections import deque
from dataclasses import dataclass

import numpy as np
from crc32c import crc32c

from sterna.host.device.frames import Frame
from sterna.host.errors import DeviceError
from sterna.hw import protocol
from sterna.hw.protocol import Kind

BLOCK_BYTES = 16 * protocol.MAX_DATA_BYTES  # compared as a whole; a cut or a damaged word costs the sending of one
STEP_BYTES = 256  # what a device hashes is a multiple of it
AHEAD = 2  # blocks whose hash is asked for before what differs has been sent: the line is never idle meanwhile


@dataclass(frozen=True)
class Block:
    """``data`` belongs at byte ``address``; ``hashed`` is data and perhaps some bytes before it: whole steps."""

    address: int
    data: memoryview
    hashed: memoryview

    @property
    def hash_address(self):
        return self.address + len(self.data) - len(self.hashed)


def _blocks(address, data):
    """The blocks of a region of at least STEP_BYTES."""
    steps_end = len(data) // STEP_BYTES * STEP_BYTES
    for at in range(0, steps_end, BLOCK_BYTES):
        part = data[at:min(at + BLOCK_BYTES, steps_end)]
        yield Block(address + at, part, part)
    if steps_end < len(data):
        yield Block(address + steps_end, data[steps_end:], data[-STEP_BYTES:])


class _Exchange:
    """The requests that compare blocks and, if ``send``, write those that differ; ``different`` collects these."""

    def __init__(self, blocks, send, progress):
        self.waiting = deque(blocks)
        self.send, self.progress = send, progress
        self.total = sum(len(block.data) for block in self.waiting)
        self.asked = {}  # by the address of the hash
        self.writes = deque()
        self.different = []
        self.compared_bytes = self.sent_bytes = self.found_bytes = 0

    def requests(self):
        """Generator for ``Device.exchange``."""
        while True:
            if self.waiting and (len(self.asked) < AHEAD or not self.writes):
                block = self.waiting.popleft()
                self.asked[block.hash_address & 0xFFFFFFFF] = block
                yield lambda s, b=block: Frame.hash(s, b.hash_address, len(b.hashed))
            elif self.writes:
                yield lambda s, part=self.writes.popleft(): Frame.write(s, *part)
            elif self.asked:
                yield None
            else:
                return

    def answered(self, index, reply):
        """Takes a reply."""
        if reply.kind == Kind.ACK:
            self.sent_bytes += reply.length
        else:
            block = self.asked.pop(reply.address)
            self.compared_bytes += len(block.data)
            if reply.word != crc32c(block.hashed):
                self.found(block)
        if self.progress:
            self.progress(self)

    def found(self, block):
        """A block that differs."""
        self.different.append(block)
        self.found_bytes += len(block.data)
        if self.send:
            step = protocol.MAX_DATA_BYTES
            self.writes.extend((block.address + k, block.data[k:k + step]) for k in range(0, len(block.data), step))


def _run(device, regions, send, progress, compare=True):
    hashed, tiny = [], []
    for address, data in regions:
        address, data = device.at(address), memoryview(data).cast("B")
        if len(data) < STEP_BYTES:
            tiny.append(Block(address, data, data))
        else:
            hashed += _blocks(address, data)
    exchange = _Exchange(hashed if compare else (), send, progress)
    exchange.total += sum(len(block.data) for block in tiny)
    for block in tiny if compare else [*hashed, *tiny]:
        if not compare or device.read(block.address, len(block.data)) != block.data:
            exchange.found(block)
        exchange.compared_bytes += len(block.data)
    if progress and tiny:
        progress(exchange)
    device.exchange(exchange.requests(), exchange.answered)
    return exchange


def differences(device, address, data, progress=None):
    """Where the memory of a device differs from ``data``.

    Parameters
    ----------
    device : sterna.host.device.driver.Device
    address : int
        Byte address, a multiple of 4.
    data : bytes-like
        Its length is a multiple of 4. What is shorter than 256 bytes is read back, anything else is hashed by the
        device.
    progress : callable(done, total), optional
        Bytes compared so far.

    Returns
    -------
    list of (int, int)
        Begin and end within ``data`` in bytes, ascending, apart from each other. A block that differs is missed
        with a chance of 2^-32.
    """
    found = _run(device, [(address, data)], False, progress and (lambda e: progress(e.compared_bytes, e.total)))
    merged = []
    for block in sorted(found.different, key=lambda block: block.address):
        begin = block.address - device.at(address)
        end = begin + len(block.data)
        if merged and merged[-1][1] == begin:
            begin = merged.pop()[0]
        merged.append((begin, end))
    return merged


@dataclass
class Upload:
    """What an upload did: ``total_bytes`` of data, ``sent_bytes`` of which were not in the memory yet."""

    total_bytes: int = 0
    sent_bytes: int = 0

    def line(self):
        """One line for the user (str)."""
        if self.sent_bytes == self.total_bytes:
            return f"sent {self.sent_bytes:,} bytes"
        if not self.sent_bytes:
            return f"nothing to send: the memory holds all {self.total_bytes:,} bytes already"
        return f"sent {self.sent_bytes:,} of {self.total_bytes:,} bytes, the others were in the memory already"


def upload(device, regions, *, compare=True, progress=None):
    """Brings regions into a device's memory; may be cut off at any point and called again.

    Comparing and sending go on at the same time: the device hashes while the line carries what it found before.

    Parameters
    ----------
    device : sterna.host.device.driver.Device
        At rest.
    regions : sequence of (byte address, bytes-like)
        Addresses and lengths are multiples of 4.
    compare : bool
        False sends everything, as for a memory that is known to hold nothing.
    progress : callable(done, total), optional
        Bytes that are known to be there.

    Returns
    -------
    Upload
    """
    regions = list(regions)
    total = sum(memoryview(data).nbytes for _, data in regions)

    def moved(state):
        progress(state.compared_bytes - state.found_bytes + state.sent_bytes, total)

    return Upload(total, _run(device, regions, True, progress and moved, compare).found_bytes)


def verify(device, regions, progress=None):
    """Compare the hashes of (address, uint8 array) pairs; DeviceError, which names a byte, if one differs.

    Parameters
    ----------
    device : sterna.host.device.driver.Device
    regions : sequence of (int, uint8 array)
    progress : callable(done, total), optional
        Bytes compared so far.
    """
    regions = list(regions)
    total, before = sum(len(data) for _, data in regions), 0
    for address, data in regions:
        parts = differences(device, address, data,
                            progress and (lambda done, _, before=before: progress(before + done, total)))
        if parts:
            begin, end = parts[0]
            _wrong_byte(device, address + begin, data[begin:min(end, begin + BLOCK_BYTES)])
        before += len(data)


def _wrong_byte(device, address, wanted):
    """Name the first byte that differs, in a block whose hash does."""
    found = np.frombuffer(device.read(device.at(address), len(wanted)), np.uint8)
    wrong = np.flatnonzero(found != wanted).tolist()
    what = f"the hash of {len(wanted)} bytes from 0x{address:08x} is wrong, but they read back right"
    if wrong:
        what = (f"byte 0x{address + wrong[0]:08x} of the memory is 0x{found[wrong[0]]:02x} instead of "
                f"0x{wanted[wrong[0]]:02x}")
    raise DeviceError(f"{device.name}: {what}: upload again, then check the memory's timing")
