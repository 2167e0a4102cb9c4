"""Puts data into a device's memory, sending only what is not there yet: blocks are compared by their hashes."""

from dataclasses import dataclass

from crc32c import crc32c

BLOCK_BYTES = 4096  # compared as a whole; a cut or a damaged word costs the sending of one
STEP_BYTES = 256  # sizes of blocks that a device can hash are multiples of it


def differences(device, address, data, progress=None):
    """Where the memory of a device differs from ``data``.

    The device computes a CRC-32C per block; what is left behind the last multiple of 256 bytes is read back.

    Parameters
    ----------
    device : sterna.host.driver.Device
    address : int
        Byte address, a multiple of 4.
    data : bytes-like
        Its length is a multiple of 4.
    progress : callable(done, total), optional
        Bytes compared so far.

    Returns
    -------
    list of (int, int)
        Begin and end within ``data`` in bytes, ascending, apart from each other. A block that differs is missed with a
        chance of 2^-32.
    """
    data = memoryview(data).cast("B")
    whole, hashed = len(data) // BLOCK_BYTES * BLOCK_BYTES, len(data) // STEP_BYTES * STEP_BYTES

    def report(base):
        return progress and (lambda done, _: progress(base + done, len(data)))

    found = []
    blocks = [(0, whole, BLOCK_BYTES), (whole, hashed, hashed - whole)]
    for begin, end, size in blocks:
        if begin < end:
            sums = device.hashes(address + begin, end - begin, size, report(begin))
            found += [(at, at + size) for at, theirs in zip(range(begin, end, size), sums, strict=True)
                      if theirs != crc32c(data[at:at + size])]
    if hashed < len(data) and device.read(address + hashed, len(data) - hashed, report(hashed)) != data[hashed:]:
        found.append((hashed, len(data)))
    merged = []
    for begin, end in found:
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


def upload(device, regions, *, compare=True, bars=None):
    """Brings regions into a device's memory; may be cut off at any point and called again.

    Parameters
    ----------
    device : sterna.host.driver.Device
        At rest.
    regions : sequence of (name, byte address, bytes-like)
    compare : bool
        False sends everything, as for a memory that is known to hold nothing.
    bars : rich.progress.Progress, optional

    Returns
    -------
    Upload
    """
    result = Upload()
    for name, address, data in regions:
        data = memoryview(data).cast("B")
        parts = [(0, len(data))]
        if compare:
            task = bars and bars.add_task(f"comparing the {name}", total=len(data))
            parts = differences(device, address, data, bars and (lambda done, _, task=task: bars.update(
                task, completed=done)))
        total = sum(end - begin for begin, end in parts)
        task = bars and bars.add_task(f"uploading the {name}", total=total)
        before = 0
        for begin, end in parts:
            device.write(address + begin, data[begin:end], bars and (
                lambda done, _, base=before: bars.update(task, completed=base + done)))
            before += end - begin
        result.total_bytes += len(data)
        result.sent_bytes += total
    return result
