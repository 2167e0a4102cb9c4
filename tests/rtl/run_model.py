"""What docs/protocol.md, "Running", says about several slots: registers, rings, and what a run reads and leaves."""

from dataclasses import dataclass

REGISTERS, RING = 0x90000000, 0xB0000000
CONTROL, STATUS, POSITION, START, LIMIT, PROMPT_END, SEED, FLAGS, STOP, TOP, DRAFT_END, SOURCE = range(0x40, 0x70, 4)
NEVER = 0xFFFFFFFF


@dataclass
class Run:
    """One run: positions by slot, masks, the slots that are sampled, and the last that counts."""

    chained: int
    at: dict
    active: int
    reads: int
    writes: int
    first: int
    greedy: bool
    wanted: list
    seeds: dict
    tops: dict
    last: int

    @property
    def slots(self):
        """Numbers of the active slots."""
        return list(self.at)


def mask(slots):
    """Mask of slots."""
    return sum(1 << k for k in slots)


class RunModel:
    """Registers by slot and offset, rings by slot and entry."""

    def __init__(self, config):
        self.batch, self.ring_words, self.top_k = config.batch, config.ring, config.top_k
        self.registers = [{offset: 0 for offset in range(CONTROL, SOURCE + 4, 4)} | {STOP: NEVER}
                          for _ in range(self.batch)]
        self.rings = [{} for _ in range(self.batch)]
        self.held = 0  # slots whose position is in use

    def entry(self, owner, position):
        """The token of a position, as far as the model knows it."""
        return self.rings[owner].get(position % self.ring_words)

    def write(self, address, value):
        """A write of the host."""
        if address >= RING:
            entry = address - RING >> 2
            self.rings[entry // self.ring_words][entry % self.ring_words] = value
            return
        slot, offset = divmod(address - REGISTERS, 0x100)
        keeps = {CONTROL: 1, FLAGS: 1 if slot else 3, TOP: 0xFFFF00FF if self.top_k else 0, SOURCE: self.batch - 1}
        held = offset == POSITION and self.held >> slot & 1
        absent = offset not in self.registers[0] or (slot and offset in (DRAFT_END, SOURCE))
        if offset == STATUS or held or absent:
            return
        self.registers[slot][offset] = value & keeps.get(offset, NEVER)

    def begin(self):
        """The run that begins now (Run), or None."""
        r = self.registers
        chained = r[0][FLAGS] >> 1
        if chained:
            position, limit = r[0][POSITION], r[0][LIMIT]
            if not r[0][CONTROL] or position >= limit:
                return None
            n = max(1, min(self.batch, limit - position, max(r[0][PROMPT_END], r[0][DRAFT_END]) - position))
            if position < r[0][START] < position + n:
                n = r[0][START] - position
            at = {k: position + k for k in range(n)}
            first = mask([0] * (position == r[0][START]))
            reads = 0 if first else mask([r[0][SOURCE]])
            writes = mask([n - 1]) if position + n <= r[0][PROMPT_END] else mask(at)
        else:
            at = {k: r[k][POSITION] for k in range(self.batch) if r[k][CONTROL] and r[k][POSITION] < r[k][LIMIT]}
            if not at:
                return None
            first = mask(k for k in at if at[k] == r[k][START])
            reads, writes = mask(at) & ~first, mask(at)
        owner = {k: 0 if chained else k for k in at}
        return Run(chained, at, mask(at), reads, writes, first, not any(r[owner[k]][FLAGS] & 1 for k in at),
                   [k for k in at if at[k] + 1 >= r[owner[k]][PROMPT_END]], {k: r[owner[k]][SEED] for k in at},
                   {k: r[owner[k]][TOP] for k in at}, max(at))

    def records(self, run, best):
        """What becomes of the samples ``best`` (by slot), in order: (slot, owner, position, token, cut)."""
        found = []
        for k in run.wanted:
            owner, position = 0 if run.chained else k, run.at[k] + 1
            wrong = run.chained and k != max(run.at) and self.entry(owner, position) != best[k]
            cut = wrong or best[k] == self.registers[owner][STOP]
            found.append((k, owner, position, best[k], cut))
            if run.chained and cut:
                break
        return found

    def record(self, run, slot, owner, position, token, cut):
        """One of the records takes effect."""
        self.rings[owner][position % self.ring_words] = token
        if cut:
            self.registers[owner][LIMIT] = position
            if run.chained:
                run.last = slot

    def finish(self, run):
        """HALT."""
        if run.chained:
            self.registers[0][POSITION] = run.at[run.last] + 1
            self.registers[0][SOURCE] = run.last
        else:
            for k, position in run.at.items():
                self.registers[k][POSITION] = position + 1
