"""When the words of the stream can be taken: the fetch engine's read-ahead, and direct reads of memory on chip."""

from collections import deque

from sterna.sim.perf.memory import Runs
from sterna.sim.perf.walker import Walker

BURST_WORDS = 32
OUTSTANDING = 8
SKID_WORDS = 2  # of each half of the FIFO
FIFO_CYCLES, SKID_CYCLES = 2, 1  # of a word through FIFO and skid buffer
COMMAND_CYCLES = 1  # from the cycle in which a read is taken to its first burst
BURST_CYCLES = 1  # from a burst to the memory's command
DIRECT_CYCLES = 3  # of memory on chip, from a FETCH to its first word


class ReadAhead:
    """Reads that run ahead into the FIFO as far as it has room.

    Words have numbers, in the order of the stream, over all runs of the program.

    Parameters
    ----------
    config : Config
    memory : PortMemory or SdramMemory

    Attributes
    ----------
    full, empty, wait : float
        Cycles without a word, for want of room, of a fetch, and for other causes.
    signs : list of int
        As of the `Walker`.
    """

    def __init__(self, config, memory):
        self._memory, walker = memory, Walker(config.batch)
        self._burst = min(BURST_WORDS, config.fifo_words // 4)
        self._aligned = config.axi_ports > 0
        if self._aligned:
            self._burst = 1 << self._burst.bit_length() - 1
        fast = not config.slow
        self._room = config.fifo_words + (SKID_WORDS * (1 + config.pairs) if fast else 0)
        self.latency = FIFO_CYCLES + (SKID_CYCLES if fast else 0)
        self._hop = BURST_CYCLES if fast else 0
        self._walker, self.signs = walker, walker.signs
        self._read = None  # the one that is cut into bursts: cycle of the first one, address, words left, `empty`
        self._issued = 0  # cycle of the last burst
        self._promised = 0
        self._ends = deque(maxlen=OUTSTANDING)  # last words of the bursts under way
        self.taken = Runs()
        self.full = self.empty = self.wait = 0.0

    def stolen(self, begin, end):
        """Nothing: writes show in the times of the words."""
        del begin, end
        return 0

    def accept(self, time):
        """When a FETCH offered at a time is accepted: at once, as programs keep fewer of them than there is room."""
        return time

    def command(self, time, kind, address, words, trees, levels, always):
        """A FETCH accepted at a time."""
        self._walker.add(time, kind, address, words, trees, levels, always)

    def available(self, word):
        """When a word (number) can be taken (float)."""
        while self._promised <= word:
            self._next()
        return self._memory.arrivals.time(word) + self.latency

    def run_until(self, time):
        """Commands the bursts that reach the memory before a time."""
        while (when := self._when()) is not None and self._asked(when) < time:
            self._next()

    def _asked(self, time):
        """When a burst that begins at a time reaches the memory."""
        time += self._hop
        return max(time, self._ends[0] + 1) if len(self._ends) == OUTSTANDING else time

    def _when(self):
        """Cycle of the next burst, None if it depends on what is not known yet or there is none."""
        if not self._read:
            read = self._walker.next(self._issued)
            if read is None:
                return None
            time, address, words = read
            # Nothing is left to be read until then, but for a walker that waits.
            empty = 0 if self._walker.walks else time + COMMAND_CYCLES
            self._read = [time + COMMAND_CYCLES, address, words, empty]
        needed = self._promised + self._burst - self._room
        if needed > self.taken.count:
            return None
        room = self.taken.time(needed - 1) + 1 if needed > 0 else 0
        ready = max(self._read[0], self._issued + 1)
        self._short = room if room > ready else 0
        return max(ready, room)

    def _next(self):
        """The next burst."""
        time = self._when()
        if time is None:
            raise RuntimeError("a burst waits for words that nobody takes, or for a sign that nobody gives")
        command = self._read
        words = min(self._burst - (command[1] % self._burst if self._aligned else 0), command[2])
        self._issued = time
        before = self._memory.last
        first = self._memory.read(self._asked(time), command[1], words)
        self._causes(before, first, command[3])
        self._ends.append(self._memory.last)
        self._promised += words
        command[1] += words
        command[2] -= words
        if not command[2]:
            self._read = None

    def _causes(self, before, first, ready):
        """Why no word came between two bursts."""
        gap = first - before - 1
        gap -= self._memory.refreshes(before + 1, first)
        if gap <= 0:
            return
        empty = min(gap, max(0, ready - before - 1))
        full = min(gap - empty, max(0, self._short - max(before, ready) - 1))
        self.empty += empty
        self.full += full
        self.wait += gap - empty - full


class DirectReads:
    """Reads of a memory that answers in the next cycle, a word at a time: a FETCH waits for the one before."""

    full = empty = wait = 0.0
    signs = ()

    def __init__(self):
        self._starts, self._times = [], []
        self._writes = []  # (first cycle, words) of stores, which go before reads
        self.announced = 0
        self.taken = Runs()
        self.latency = 0

    def accept(self, time):
        """When a FETCH offered at a time is accepted."""
        left = self.announced - 2  # places behind the memory
        return max(time, self.taken.time(left - 1) + 1) if left > 0 else time

    def command(self, time, kind, address, words, trees, levels, always):
        """A linear FETCH accepted at a time."""
        del kind, address, trees, levels, always
        self._starts.append(self.announced)
        self._times.append(time + DIRECT_CYCLES)
        self.announced += words

    def available(self, word):
        """When a word (number) can be taken (int), if those before it are taken in time."""
        k = len(self._starts) - 1
        while self._starts[k] > word:
            k -= 1
        return self._times[k] + word - self._starts[k]

    def run_until(self, time):
        """Nothing runs ahead."""

    def write(self, time, words):
        """Words of a store, from a time on a word a cycle."""
        self._writes.append((time, words))

    def stolen(self, begin, end):
        """Cycles (int) between two times in which no word could be read, since others were written; told once."""
        found = 0
        while self._writes and self._writes[0][0] <= end + found:
            time, words = self._writes.pop(0)
            found += max(0, time + words - max(time, begin))
        return found
