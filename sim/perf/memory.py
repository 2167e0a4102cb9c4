"""When the words of reads and writes pass the memory: behind the port, or an SDR SDRAM with its controller.

Times are cycles of the accelerator's clock, absolute, and may be fractions.
"""

from bisect import bisect_right
from collections import deque
from math import ceil
from typing import NamedTuple

from sterna.hw.memory.chips import BANK_BITS, CHIPS, DATA_BYTES


class Timing(NamedTuple):
    """A memory behind the port, as the simulated board takes it.

    Attributes
    ----------
    latency : int
        Cycles from a command to its first word.
    interval, refresh : int
        Every `interval` cycles (0: never) nothing is transferred for `refresh` cycles.
    bandwidth : int
        Words per 256 cycles, 1 to 256.
    """

    latency: int = 20
    interval: int = 780
    refresh: int = 0
    bandwidth: int = 256


# Memories of the presets: one refresh per 7.8 us, of 66 ns for SDR SDRAM, 260 ns for a 4 Gb DDR3, 350 ns for an
# 8 Gb DDR4, and some cycles to close and open rows; on ecpix5-85 four together, as its controller
# does them: a linear stream loses 88 cycles by them (tests/rtl/test_ddr3_memory.py), a token of 370M counts 99
# (docs/ddr3.md); of LiteDRAM what a linear stream of reads loses of 7.8 us
# (tests/rtl/test_litedram.py). The memory of the demo's board has none.
TIMING = {"sim": Timing(20, 780, 0), "lanes10": Timing(10, 624, 12), "lanes40": Timing(24, 624, 23),
          "lanes160": Timing(40, 1560, 76), "lanes320": Timing(40, 1560, 76),
          "ecpix5-85": Timing(24, 2436, 99), "ecpix5-85-litedram": Timing(24, 390, 27),
          "kv260": Timing(40, 1950, 95)}


class Runs:
    """Words and their times, as runs of words that are equally far apart: times of words are asked for by number."""

    def __init__(self):
        self._starts, self._times, self._paces = [], [], []
        self.count = 0

    def add(self, words, time, pace):
        """``words`` more words, the first at ``time``, each ``pace`` cycles behind the one before."""
        if self._times and self._paces[-1] == pace:
            due = self._times[-1] + (self.count - self._starts[-1]) * pace
            if due == time:  # the run goes on
                self.count += words
                return
        self._starts.append(self.count)
        self._times.append(time)
        self._paces.append(pace)
        self.count += words

    def time(self, word):
        """Of a word that is there (number)."""
        starts = self._starts
        if word >= starts[-1]:
            k = len(starts) - 1
        else:
            k = bisect_right(starts, word) - 1
        return self._times[k] + (word - starts[k]) * self._paces[k]


class PortMemory:
    """The memory of a simulated board: bursts in order, a fixed latency, pauses for refreshes; a word a cycle is
    read or written, and a waiting write goes before every other read.

    Attributes
    ----------
    arrivals : Runs
        Words that were read, as they reach the accelerator.
    last : float
        Time of the last of them.
    """

    def __init__(self, timing):
        self._timing, self._pace = timing, 256 / timing.bandwidth
        self.arrivals, self.last = Runs(), -1
        self._written = -2

    def _pause(self, time):
        """The first cycle from ``time`` on that is not in a refresh, and the beginning of the next refresh."""
        t = self._timing
        if not t.interval or not t.refresh:
            return time, float("inf")
        number, within = divmod(time, t.interval)
        if within < t.refresh and number > 0:
            time = number * t.interval + t.refresh
        return time, (time // t.interval + 1) * t.interval

    def refreshes(self, begin, end):
        """Cycles of refreshes from ``begin`` to ``end`` (float)."""
        t = self._timing
        if not t.interval or not t.refresh:
            return 0

        def upto(time):
            number, within = divmod(time, t.interval)
            return (number - 1) * t.refresh + min(within, t.refresh) if number > 0 else 0
        return upto(end) - upto(begin)

    def read(self, command, address, words):
        """A burst commanded at a time; returns the time of its first word."""
        del address
        time = max(command + self._timing.latency, self.last + self._pace)
        begun = None
        while words:
            time, stop = self._pause(time)
            count = words
            if stop < time + words * self._pace:
                count = max(1, ceil((stop - time) / self._pace))
            self.arrivals.add(count, time, self._pace)
            begun = time if begun is None else begun
            self.last = time + (count - 1) * self._pace
            words -= count
            time = self.last + self._pace
        return begun

    def write(self, time, address):
        """A word that is offered from a time on; the cycle in which it is taken."""
        del address
        if self.last <= time:
            self.last = time = self._pause(max(time, self._written + 1))[0]
        else:  # reads take every other cycle
            time = self._pause(max(time, self._written + 2))[0]
            self.last += self._pace
        self._written = time
        return time


class SdramMemory:
    """An SDR SDRAM behind its controller (``hw/memory/sdram.py``) and the crossings (``hw/memory/crossing.py``).

    Requests are carried out in order: cut into runs within a page, whose rows are opened while the run before is
    under way if they lie in another bank, and a word of 16 bits a cycle of its own clock. Inside, times are cycles of
    that clock.

    Parameters
    ----------
    config : Config

    Attributes
    ----------
    arrivals : Runs
        Words that were read, as they reach the accelerator.
    last : float
        Time of the last of them.
    """

    REFRESH_GROUP, REFRESH_CYCLES = 4, 12  # REFRESHes at a time; cycles beside those of the chip's times
    AHEAD = 3  # cycles of its clock from the crossing to a run that may be looked at
    LOOK = 3  # from there until it may start, its row open
    CROSSING = 10  # requests between the port and the controller
    ROOM = 1  # cycles from there until the accelerator sees the place

    def __init__(self, config):
        chip = CHIPS[config.sdram]
        hz = config.memory_hz
        self._ratio = hz / config.clock_hz  # of its cycles and the accelerator's
        self._own = config.own_memory_clock
        self._halves = config.port_bytes // DATA_BYTES
        self._columns = 1 << chip.column_bits
        self._cas = chip.cas_latency(hz)
        cycles = {name: chip.cycles(name, hz) for name in ("t_rcd", "t_rp", "t_ras", "t_rc", "t_rfc", "t_wr")}
        self._rcd, self._rp, self._wr = cycles["t_rcd"], cycles["t_rp"], cycles["t_wr"]
        self._stays = max(cycles["t_ras"], cycles["t_rc"] - cycles["t_rp"])
        self._interval = self.REFRESH_GROUP * int(chip.t_refresh * hz * 1e-9)
        self._refresh = self.REFRESH_GROUP * cycles["t_rfc"] + cycles["t_rp"] + cycles["t_rcd"] + self.REFRESH_CYCLES
        self._due = self._interval
        self._rows = {}  # of open banks
        self._end = 0  # first cycle behind the current run
        self._begin = 0  # where the next run may be looked at: the current one has started
        self._opened = self._written = -100
        self._bank = None
        self._reads = True
        self._takes = deque(maxlen=self.CROSSING)  # cycles in which the last requests were looked at
        self._stored = -1
        self.arrivals, self.last = Runs(), -1

    def refreshes(self, begin, end):
        """Cycles in which a refresh keeps reads from going on, as they are counted."""
        return (end - begin) / (self._interval / self._ratio) * (self._refresh + 16) / self._ratio

    def _run(self, ready, address, count, writes):
        """A run within a page that the controller could look at from ``ready`` on; the cycle of its first word."""
        page = address // self._columns
        bank, row = page % (1 << BANK_BITS), page >> BANK_BITS
        self._look = look = max(ready, self._begin)
        while look > self._due + self._refresh and self._end <= self._due:  # refreshes that held nothing up
            self._due += self._interval
            self._rows.clear()
        if self._rows.get(bank) == row:
            start = look + self.LOOK
        else:
            decide = look + 2
            if bank in self._rows:
                if bank == self._bank:
                    decide = max(decide, self._end + 1)
                decide = max(decide, self._opened + self._stays + 1, self._written + self._wr + 1)
                opens = decide + self._rp
                self._end += decide < self._end  # PRECHARGE takes a cycle from the run before, and ACTIVATE one
            else:
                opens = decide + 1
            self._end += opens < self._end
            self._opened = opens
            start = opens + self._rcd
        start = max(start, self._end - 1)
        if start >= self._due:
            start = max(self._due, self._end) + self._refresh
            self._rows.clear()
            self._due += self._interval
            self._opened = start - self._rcd
        first = start + 1
        if writes and self._reads:
            first = max(first, self._end + self._cas + 1)
        self._rows[bank], self._bank, self._reads = row, bank, not writes
        self._begin, self._end = start + 1, first + count
        if writes:
            self._written = self._end
        return first

    def _runs(self, command, address, count, writes):
        """Carries out a request of the accelerator's time ``command``; yields (first cycle, words) of its runs."""
        ready = command * self._ratio + (self.AHEAD + 3 if self._own else self.AHEAD)
        at = address * self._halves
        while count:
            part = min(count, self._columns - at % self._columns)
            yield self._run(ready, at, part, writes), part
            at, count, ready = at + part, count - part, self._begin
        self._takes.append(self._look)

    def _room(self, time):
        """The cycle from ``time`` on in which the crossing takes a request."""
        if len(self._takes) < self._takes.maxlen:
            return time
        return max(time, (self._takes[0] + self.ROOM) / self._ratio)

    def _back(self, cycle):
        """When a word of the controller's cycle ``cycle`` of its READ reaches the accelerator."""
        return (cycle + self._cas + 4) / self._ratio + (2.5 if self._own else 0)

    def read(self, command, address, words):
        """A burst commanded at a time; returns the time of its first word."""
        halves, begun, odd = self._halves, None, 0
        command = max(self._room(command), self._stored + 1)
        for first, count in self._runs(command, address, words * halves, False):
            whole, odd = divmod(count + odd, halves)
            if whole:
                time = self._back(first + count - odd - (whole - 1) * halves - 1)
                self.arrivals.add(whole, time, halves / self._ratio)
                begun = time if begun is None else begun
                self.last = time + (whole - 1) * halves / self._ratio
        return begun

    def write(self, time, address):
        """A word that is offered from a time on; the cycle in which it is taken."""
        time = self._room(time)
        for _ in self._runs(time, address, self._halves, True):
            pass
        self._stored = time
        return time
