"""Tests of the model memory: address lines, data lines, byte masks, and patterns that the device hashes itself.

What was in the memory is lost.
"""

from dataclasses import dataclass

import numpy as np

from sterna.host.console import progress_bar
from sterna.host.device.frames import Frame
from sterna.host.device.upload import differences
from sterna.host.doctor.check import judged, skipped
from sterna.host.errors import UsageError

WORD = 4  # bytes, what the link writes at least
CHIP_BITS = 16  # of an SDRAM
BLOCK_BYTES, PIECE_BYTES = 4096, 1 << 16  # of the quick and of the full test
QUICK_BLOCKS = 16
SEED = 20  # of the patterns
NAMES = ("address lines", "data lines", "byte masks", "pattern")


@dataclass(frozen=True)
class Extent:
    """Which part of the memory the pattern covers: (address, bytes) pairs, and what people call it."""

    parts: tuple
    name: str

    @property
    def total(self):
        """Bytes (int)."""
        return sum(size for _, size in self.parts)


def extent(text, memory_bytes):
    """The Extent of ``--memory``: "quick", "full" or "BEGIN:END" in bytes.

    Raises
    ------
    UsageError
        Anything else, or a region that is not in the memory.
    """
    if text == "quick":
        count = memory_bytes // BLOCK_BYTES
        rng = np.random.default_rng(SEED)
        inner = rng.choice(np.arange(1, count - 1), min(QUICK_BLOCKS, count) - 2, replace=False) if count > 2 else []
        blocks = sorted({0, *map(int, inner), max(count - 1, 0)})
        size = min(BLOCK_BYTES, memory_bytes)
        parts = tuple((k * BLOCK_BYTES, size) for k in blocks)
        return Extent(parts, f"{len(parts)} blocks of {size >> 10} KiB all over the memory")
    if text == "full":
        return Extent(_pieces(0, memory_bytes), "all of the memory")
    try:
        begin, end = (int(part, 0) for part in text.split(":"))
    except ValueError:
        raise UsageError(f"--memory {text}: use quick, full, none, or BEGIN:END in bytes") from None
    if not 0 <= begin < end <= memory_bytes or begin % 256 or end % 256:
        raise UsageError(f"--memory {text}: use multiples of 256 within the {memory_bytes} bytes of the memory")
    return Extent(_pieces(begin, end), f"bytes {begin:#x} to {end:#x}")


def _pieces(begin, end):
    return tuple((at, min(PIECE_BYTES, end - at)) for at in range(begin, end, PIECE_BYTES))


def pattern(address, size, inverted):
    """Pseudo-random bytes that belong to an address (uint8 array)."""
    data = np.random.default_rng([SEED, address]).integers(0, 256, size, dtype=np.uint8)
    return ~data if inverted else data


def _write_words(device, words):
    """{address: value} of 32 bits, in this order."""
    device.exchange((lambda s, at=at, value=value: Frame.write(s, device.at(at), value.to_bytes(WORD, "little"))
                     for at, value in words.items()), lambda index, reply: None)


def _read_words(device, addresses):
    found = {}
    device.exchange((lambda s, at=at: Frame.read(s, device.at(at), WORD) for at in addresses),
                    lambda index, reply: found.__setitem__(addresses[index], reply.word))
    return found


def address_lines(device):
    """Words at 0, at every power of two and at the end: two of them that are the same word show a line that is stuck
    or tied to another one.
    """
    size = device.info.memory_bytes
    places = sorted({0, size - WORD, *(1 << k for k in range(2, (size - 1).bit_length()))})
    for flip in (0, 0xFFFFFFFF):
        words = {at: (at * 0x9E3779B1 + 0x5BD1E995 & 0xFFFFFFFF) ^ flip for at in places}
        _write_words(device, words)
        found = _read_words(device, places)
        for at in places:
            if found[at] != words[at]:
                other = next((other for other in places if other != at and words[other] == found[at]), None)
                why = (f"instead of 0x{words[at]:08x}" if other is None else
                       f"which belongs to 0x{other:x}: an address line is stuck or tied to another")
                return judged(NAMES[0], False, f"0x{at:x} holds 0x{found[at]:08x}, {why}", address=at)
    return judged(NAMES[0], True, f"{len(places)} words at powers of two, twice", words=len(places))


def data_lines(device):
    """A one, and then a zero, that walks through every bit of a word of the port."""
    width = max(device.info.port_bytes, WORD)
    walking = np.frombuffer(b"".join((1 << k).to_bytes(width, "little") for k in range(8 * width)), np.uint8)
    wrong = np.zeros(width, np.uint8)
    for data in (walking, ~walking):
        device.write(0, data.tobytes())
        found = np.frombuffer(device.read(0, len(data)), np.uint8)
        wrong |= np.bitwise_or.reduce((found ^ data).reshape(-1, width))
    bits = np.flatnonzero(np.unpackbits(wrong, bitorder="little")).tolist()
    if bits:
        text = f"bits {', '.join(map(str, bits[:8]))}{' ...' * (len(bits) > 8)} of {8 * width} are wrong"
        if device.info.memory_hz:
            text += f": lines DQ{', DQ'.join(map(str, sorted({k % CHIP_BITS for k in bits})))} of the chip"
        return judged(NAMES[1], False, text, bits=bits)
    return judged(NAMES[1], True, f"walking one and walking zero over {8 * width} bits", bits=8 * width)


def byte_masks(device):
    """Words of the link written one by one into words of the port: their neighbours must stay."""
    width = device.info.port_bytes
    if width <= WORD:
        return skipped(NAMES[2], f"the link writes {WORD} bytes at least, and a word of the port has {width}")
    expected = bytearray(pattern(0, 2 * width, False).tobytes())
    device.write(0, expected)
    for at in range(0, 2 * width, WORD):
        expected[at:at + WORD] = bytes(~b & 0xFF for b in expected[at:at + WORD])
        device.write(at, expected[at:at + WORD])
        found = device.read(0, 2 * width)
        if found != expected:
            byte = next(k for k in range(2 * width) if found[k] != expected[k])
            return judged(NAMES[2], False, f"writing 4 bytes at 0x{at:x} left 0x{found[byte]:02x} instead of "
                          f"0x{expected[byte]:02x} at 0x{byte:x}", address=byte)
    return judged(NAMES[2], True, f"{2 * width // WORD} writes of {WORD} bytes leave their neighbours alone")


def pattern_test(device, where, bars=None):
    """Writes a pattern to the Extent ``where`` and lets the device hash it, then the same with every bit inverted."""
    bars = bars or progress_bar()
    with bars:
        task = bars.add_task("testing the memory", total=4 * where.total)
        for inverted in (False, True):
            for address, size in where.parts:
                device.write(device.at(address), pattern(address, size, inverted).tobytes())
                bars.advance(task, size)
            wrong = []
            for address, size in where.parts:
                data = pattern(address, size, inverted)
                wrong += [(address + begin, address + end)
                          for begin, end in differences(device, address, data.tobytes())]
                bars.advance(task, size)
            if wrong:
                return judged(NAMES[3], False, f"{where.name}: {_first(device, where, wrong, inverted)}",
                              bytes=where.total, address=wrong[0][0])
    return judged(NAMES[3], True, f"{where.name}, {where.total:,} bytes, every bit both ways", bytes=where.total)


def _first(device, where, wrong, inverted):
    """Names the first byte that differs."""
    begin, end = wrong[0]
    end = min(end, begin + BLOCK_BYTES)
    address, size = next(part for part in where.parts if part[0] <= begin < sum(part))
    wanted = pattern(address, size, inverted)[begin - address:end - address]
    found = np.frombuffer(device.read(device.at(begin), end - begin), np.uint8)
    places = np.flatnonzero(found != wanted).tolist()
    count = f"{len(wrong)} region{'s' * (len(wrong) > 1)} with a wrong hash"
    if not places:
        return f"{count}, first at 0x{begin:x}, which reads back right: check the memory's timing"
    k = places[0]
    bits = [b for b in range(8) if (found[k] ^ wanted[k]) >> b & 1]
    return (f"{count}; byte 0x{begin + k:x} is 0x{found[k]:02x} instead of 0x{wanted[k]:02x} (bit "
            f"{', '.join(map(str, bits))})")


def memory_checks(device, where):
    """Generator of the Checks of the memory."""
    yield address_lines(device)
    yield data_lines(device)
    yield byte_masks(device)
    yield pattern_test(device, where)
