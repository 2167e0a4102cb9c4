"""Run control of the interpreter's machine (docs/protocol.md, "Running"): who has a token, and what follows."""

from dataclasses import dataclass

import numpy as np

from sterna.firmware import isa
from sterna.hw.protocol import FLAG_CHAINED, FLAG_SAMPLE, NEVER
from sterna.sim.golden import rng


NUMBERS = ("position", "start", "limit", "prompt_end", "stop")  # registers of positions and tokens


@dataclass
class Slot:
    """Registers and token ring of one slot.

    ``mask`` has the bits that positions and tokens keep, as the device's registers do.
    """

    ring: np.ndarray
    mask: int = NEVER
    position: int = 0
    start: int = NEVER
    limit: int = 0
    prompt_end: int = 0
    seed: int = 0
    flags: int = 0
    stop: int = NEVER
    top: int = 0
    enabled: bool = True

    def __setattr__(self, name, value):
        super().__setattr__(name, value & self.mask if name in NUMBERS else value)


class Run:
    """One run of the program.

    Parameters
    ----------
    machine : Machine
    active : bool [B]
    chained : bool
    owners, positions : list
        Slot whose registers and ring count for slot k, and its position.

    Attributes
    ----------
    tokens : list of int
        The token of every slot; that of an inactive slot means nothing.
    keys : uint32 [B]
    unwanted, greedy, at_start : bool
        Conditions of JUMP.
    """

    def __init__(self, machine, active, chained, owners, positions):
        self._machine, self.active, self.chained = machine, active, chained
        self._owners, self._positions = owners, positions
        self._count = int(np.count_nonzero(active))  # n of chained slots
        self._last = self._count - 1
        used = [(owner, position) for owner, position, on in zip(owners, positions, active, strict=True) if on]
        self.tokens = [self._read(owner, position) for owner, position in zip(owners, positions, strict=True)]
        self.keys = rng.key([owner.seed for owner in owners], positions)
        self.unwanted = all((position + 1 & owner.mask) < owner.prompt_end for owner, position in used)
        self.greedy = not any(owner.flags & FLAG_SAMPLE for owner, _ in used)
        self.at_start = positions[0] == owners[0].start

    @staticmethod
    def _read(owner, position):
        return int(owner.ring[position % len(owner.ring)]) & owner.mask

    def which(self, code):
        """bool [B]: the slots that a slot loop is for."""
        at_start = np.array([position == owner.start
                             for owner, position in zip(self._owners, self._positions, strict=True)])
        numbers = np.arange(len(self.active))
        if code == isa.ACTIVE:
            return self.active
        if not self.chained:
            return self.active & {isa.READS: ~at_start, isa.WRITES: True, isa.FIRST: at_start}[code]
        if code == isa.READS:
            return (numbers == self._machine.source) & ~self.at_start
        if code == isa.FIRST:
            return (numbers == 0) & self.at_start
        prompt = self._positions[0] + self._count <= self._owners[0].prompt_end
        return numbers == self._count - 1 if prompt else self.active

    def record(self, chosen):
        """SAMPLE 1: [(slot, position, token)] that are reported; ``chosen(slot, k, p_code)`` gives a slot's row."""
        reports = []
        for slot in np.flatnonzero(self.active).tolist():
            owner = self._owners[slot]
            where = self._positions[slot] + 1 & owner.mask
            if where < owner.prompt_end:
                continue
            token = chosen(slot, owner.top & 0xFF, owner.top >> 16) & owner.mask
            wrong = self.chained and slot + 1 < self._count and self._read(owner, where) != token
            owner.ring[where % len(owner.ring)] = token
            reports.append((0 if self.chained else slot, where, token))
            if token == owner.stop or wrong:
                owner.limit = where
                self._last = slot
                if self.chained:
                    break
        return reports

    def advance(self):
        """HALT."""
        if self.chained:
            self._owners[0].position += self._last + 1
            self._machine.source = self._last
            return
        for slot in np.flatnonzero(self.active):
            self._owners[slot].position += 1


def admit(machine):
    """The Run that begins now, or None if no slot has a token."""
    slots, first = machine.slots, machine.slots[0]
    batch = len(slots)
    if batch > 1 and first.flags & FLAG_CHAINED:
        if not first.enabled or first.position >= first.limit:
            return None
        known = max(first.prompt_end, machine.draft_end & machine.kept) - first.position
        count = max(1, min(batch, first.limit - first.position, known))
        if first.position < first.start:  # no slot behind another is at its start
            count = min(count, first.start - first.position)
        positions = [first.position + k for k in range(batch)]
        return Run(machine, np.arange(batch) < count, True, [first] * batch, positions)
    active = np.array([slot.enabled and slot.position < slot.limit for slot in slots])
    return Run(machine, active, False, slots, [slot.position for slot in slots]) if active.any() else None
