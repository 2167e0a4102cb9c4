"""Quality of the link: round trips, and the rate of writes and reads under several loads.

The line's own rate is fixed in a bitstream, so the loads are what varies: short and long frames, one request under
way and as many as the device has credits. They go to the token ring of slot 0, which no model lies in.
"""

import time
from dataclasses import dataclass

from sterna.host.device.frames import Frame
from sterna.host.doctor.check import judged, skipped
from sterna.hw import protocol
from sterna.hw.protocol import MAX_DATA_BYTES, Register

BITS_PER_BYTE = 10  # a start bit, eight of data, a stop bit
ROUND_TRIPS, SLOW_S = 32, 0.1
SIZES, LOAD_S, LEAST, MOST = (4, 56, MAX_DATA_BYTES), 0.25, 16, 4096
FRAME_BYTES = 13  # on the line besides the data
LOSSES = ("frames_bad", "frames_lost", "line_errors")
WRAP = 256  # those counters have 8 bits in the smallest builds
GOOD_SHARE = 0.5  # of what the rate with one request under way promises for several


@dataclass
class Load:
    """Requests of one kind and size, ``window`` of them under way at a time; what they took, and what went wrong."""

    kind: str
    size: int
    window: int
    requests: int = 0
    wrong: int = 0
    seconds: float = 0.0

    @property
    def bytes_per_second(self):
        """Bytes of data per second (float)."""
        return self.requests * self.size / self.seconds if self.seconds else 0.0

    def share(self, baud):
        """Share of the line's rate that carries data (float)."""
        return self.bytes_per_second * BITS_PER_BYTE / baud

    def most_share(self):
        """The share that a line which is never idle would have in the direction of the data."""
        return self.size / (self.size + FRAME_BYTES)

    def text(self, baud):
        """Its rate for people (str)."""
        rate = f"{self.bytes_per_second / 1e3:.1f} kB/s"
        return rate + (f" ({self.share(baud):.0%})" if baud else "")


def _pattern(place, salt, size):
    """Tokens of at most 16 bits, which the ring of every build keeps (bytes)."""
    words = ((place + k) * 40503 + salt * 2654435 & 0xFFFF for k in range(size // 4))
    return b"".join(word.to_bytes(4, "little") for word in words)


def run_load(device, load, salt, seconds=None, least=LEAST):
    """Fills in a Load. Every write is read back, every read compared with what was written before."""
    load.size = min(load.size, 4 * device.info.ring)
    places = range(0, 4 * device.info.ring - load.size + 1, load.size)
    base = protocol.ring_address(0, device.info.ring)
    wanted = {at: _pattern(at, salt, load.size) for at in places}
    if load.kind == "read":
        for at, data in wanted.items():
            device.write(base + at, data)
    device.read_register(Register.BUILD)  # what comes between this and the next one is the load
    begin = time.monotonic()
    seconds = LOAD_S if seconds is None else seconds

    def requests():
        number = 0
        while number < least or (number < MOST and time.monotonic() < begin + seconds):
            at = places[number % len(places)]
            number += 1
            if load.kind == "write":
                yield lambda s, at=at: Frame.write(s, base + at, wanted[at])
            else:
                yield lambda s, at=at: Frame.read(s, base + at, load.size)

    def answered(index, reply):
        load.requests += 1
        if load.kind == "read":
            load.wrong += reply.data != wanted[reply.address - base]

    with device.at_once(load.window):
        device.exchange(requests(), answered)
    load.seconds = time.monotonic() - begin
    device.read_register(Register.BUILD)
    if load.kind == "write":
        load.wrong = sum(device.read(base + at, load.size) != wanted[at] for at in places[:min(load.requests, LEAST)])
    return load


def losses(device):
    """Counters of damaged traffic, and requests that were sent again (dict)."""
    counters = device.counters()
    return {name: counters[name] for name in LOSSES} | {"repeated": device.requests_repeated}


def lost_check(before, after, name="losses"):
    """The Check of what ``losses`` has counted between two moments."""
    found = {key: (after[key] - before[key]) % WRAP if key in LOSSES else after[key] - before[key] for key in before}
    text = (f"{found['frames_bad']} bad frames, {found['frames_lost']} lost, {found['line_errors']} line errors, "
            f"{found['repeated']} requests repeated")
    if any(found.values()):
        text += ": the protocol repairs this, but a good line has none: check cable, ground and baud rate"
    return judged(name, not any(found.values()), text, **found)


def loads_check(single, several, baud, line=True):
    """The Check of two Loads of the same kind and size: one request under way, and several."""
    name = f"{several.kind} {several.size} bytes"
    text = f"1 under way: {single.text(baud)}; {several.window}: {several.text(baud)}" + " of the line" * bool(baud)
    values = {"bytes_per_second": [single.bytes_per_second, several.bytes_per_second],
              "window": [single.window, several.window]}
    wrong = single.wrong + several.wrong
    if wrong:
        return judged(name, False, f"{wrong} frames read back wrong; {text}", **values)
    if not baud:
        return judged(name, True, text + (" (wall clock, no serial line: not judged)" if line else ""), **values)
    values["share"] = [single.share(baud), several.share(baud)]
    promised = min(several.most_share(), several.window * single.share(baud))
    if several.share(baud) < GOOD_SHARE * promised:
        text += (f", where {promised:.0%} should be possible: the requests under way do not help; "
                 "look at losses, and at the USB bridge")
        return judged(name, False, text, **values)
    return judged(name, True, text, **values)


def round_trips(device, count=ROUND_TRIPS):
    """The Check of single reads of 4 bytes."""
    taken = []
    with device.at_once(1):
        for _ in range(count):
            begin = time.monotonic()
            device.read_register(Register.MAGIC)
            taken.append(time.monotonic() - begin)
    taken.sort()
    middle, worst = taken[len(taken) // 2], taken[-1]
    text = f"{1e3 * middle:.2f} ms median, {1e3 * worst:.2f} ms worst of {count}"
    if middle > SLOW_S and device.transport.baud:
        return judged("round trip", False, text + ": something holds answers back: check the port's latency timer",
                      median_s=middle, worst_s=worst)
    if device.transport.baud and 0.01 < middle:
        text += "; the USB bridge's latency timer seems to be at 16 ms, 1 ms would be better"
    return judged("round trip", True, text, median_s=middle, worst_s=worst)


def link_checks(device, sizes=SIZES):
    """Generator of the Checks of the link."""
    before = losses(device)
    yield round_trips(device)
    credits, salt = device.info.credits, 0
    for kind in ("write", "read"):
        for size in sizes:
            pair = []
            for window in (1, credits):
                salt += 1
                pair.append(run_load(device, Load(kind, size, window), salt))
            yield loads_check(*pair, device.transport.baud)
    yield lost_check(before, losses(device))


def no_rates(simulated):
    """Why the rate of the line is not varied."""
    return skipped("other rates", "no serial line in this simulation; --baud 1000000,3000000 adds lines" if simulated
                   else "the line's rate is fixed in the bitstream")
