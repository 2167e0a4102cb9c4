"""Reads as much of an FST file as a test needs: names of its signals, and every change of a signal of one bit."""

import struct

HEADER, GEOMETRY, HIERARCHY_LZ4, WAVES = 0, 3, 6, 8
SCOPE, UPSCOPE, ATTRIBUTE, ATTRIBUTE_END = 254, 255, 252, 253


def lz4(block, size):
    """The ``size`` bytes of an LZ4 block."""
    out, at = bytearray(), 0

    def length(at, value):
        if value == 15:
            while True:
                value += block[at]
                at += 1
                if block[at - 1] != 255:
                    break
        return at, value

    while at < len(block):
        token, at = block[at], at + 1
        at, count = length(at, token >> 4)
        out += block[at:at + count]
        at += count
        if at < len(block):
            offset = int.from_bytes(block[at:at + 2], "little")
            at, count = length(at + 2, token & 15)
            for _ in range(count + 4):
                out.append(out[-offset])
    assert len(out) == size
    return bytes(out)


def number(data, at, signed=False):
    """(value, place behind it) of a LEB128 number."""
    value = shift = 0
    while True:
        byte, at = data[at], at + 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return (value - (1 << shift) if signed and byte & 64 else value), at


class Fst:
    """A file of waveforms.

    Attributes
    ----------
    end : int
        Its last time.
    names : dict of str to (int, int)
        Handle, from 1 on, and width of every signal by its path.
    """

    def __init__(self, path):
        data, at, self._waves = path.read_bytes(), 0, []
        while at < len(data):
            kind, size = data[at], int.from_bytes(data[at + 1:at + 9], "big")
            body = data[at + 9:at + 1 + size]
            assert len(body) == size - 8
            if kind == HEADER:
                _, self.end = struct.unpack(">2Q", body[:16])
            elif kind == HIERARCHY_LZ4:
                self._read_names(lz4(body[8:], int.from_bytes(body[:8], "big")))
            elif kind == WAVES:
                self._waves.append(body)
            at += 1 + size

    def _read_names(self, text):
        self.names, scopes, at, handle = {}, [], 0, 0

        def word(at):
            end = text.index(0, at)
            return text[at:end].decode(), end + 1

        while at < len(text):
            kind, at = text[at], at + 1
            if kind == SCOPE:
                name, at = word(at + 1)
                scopes.append(name)
                _, at = word(at)
            elif kind == UPSCOPE:
                scopes.pop()
            elif kind == ATTRIBUTE:
                _, at = word(at + 2)
                _, at = number(text, at)
            elif kind != ATTRIBUTE_END:
                name, at = word(at + 1)
                width, at = number(text, at)
                alias, at = number(text, at)
                handle += not alias
                self.names[".".join([*scopes, name.split(" ")[0]])] = (alias or handle, width)

    def changes(self, handle):
        """[(time, bit)] of a signal of one bit."""
        return [change for body in self._waves for change in self._of_block(body, handle)]

    @staticmethod
    def _of_block(body, handle):
        plain, packed, count = struct.unpack(">3Q", body[-24:])
        assert plain == packed  # nothing is packed by zlib
        times, at, time = [], len(body) - 24 - packed, 0
        places_end = at - 8
        places_at = places_end - int.from_bytes(body[places_end:at], "big")
        for _ in range(count):
            step, at = number(body, at)
            times.append(time := time + step)
        _, at = number(body, 24)  # behind begin, end and memory
        size, at = number(body, at)
        _, at = number(body, at)
        at += size
        _, at = number(body, at)
        chains = at  # the byte '4' of LZ4; the first chain is one behind it
        assert body[at:at + 1] == b"4"
        places, at, place, last, index = {}, places_at, 0, None, 1
        while at < places_end:
            value, at = number(body, at, signed=True)
            if value & 1:
                value >>= 1
                if value > 0:
                    places[index] = place = place + value
                else:
                    last = value or last
                    places[index] = places[-last]
                index += 1
            else:
                index += value >> 1
        if handle not in places:
            return
        size, at = number(body, chains + places[handle])
        ends = [p for p in places.values() if p > places[handle]]
        chain = body[at:chains + min(ends) if ends else places_at]
        if size:
            chain = lz4(chain, size)
        at, which = 0, 0
        while at < len(chain):
            value, at = number(chain, at)
            assert not value & 1  # neither 0 nor 1
            which += value >> 2
            yield times[which], value >> 1 & 1
