"""Instruction-level interpreter of the whole device (docs/isa.md), exact in its values, without any notion of time.

It also checks what a program must guarantee: no read of a result under way without ``wait``, no bank read at two
addresses, nothing in a slot loop that is not allowed there, no fetch, product, walk or row that an in-order device
would wait for forever.
"""

from typing import NamedTuple

import numpy as np

from sterna.firmware import isa
from sterna.sim.golden import fp24
from sterna.sim.machine.errors import MachineError
from sterna.sim.machine.slots import Slot, admit
from sterna.sim.machine.stream import Stream
from sterna.sim.machine.vector import Context, VectorEngine

__all__ = ["Machine", "MachineError", "Report"]
_WRAP = 1 << 32


class Report(NamedTuple):
    """A sampled token, as in a TOKEN frame: the slot, the position it stands at, and the token."""

    slot: int
    position: int
    token: int


def _of_slot_0(name):
    return property(lambda self: getattr(self.slots[0], name),
                    lambda self, value: setattr(self.slots[0], name, value), doc=f"`{name}` of slot 0.")


class Machine:
    """The device, one run of the program at a time.

    Parameters
    ----------
    config : hw.config.Config
    memory : bytearray or uint8 array
        Model memory; the state regions are written.
    trace : callable, optional
        ``trace(pc, fields, r_bits, codes, slots)`` after each VOP: r as uint32 [beats, B, V], codes int8 [B, N] or
        None, and the slots whose results count: those with a token, in a slot loop those that are written.

    Attributes
    ----------
    slots : list of Slot
        Registers and rings (docs/protocol.md). Those of slot 0 are attributes of the machine too.
    draft_end, source : int
        The registers of chained slots.
    banks, scalars, codes : array
        [3, words, B, V], [32, B] and [2, B, n].
    places : int64 [B, N] or None
        The record of every row of the last walk; 0 for a slot without a token.
    fault : int
        1 after an illegal instruction.
    """

    ring, position, start, limit = map(_of_slot_0, ("ring", "position", "start", "limit"))
    prompt_end, seed, flags, stop, top, enabled = map(
        _of_slot_0, ("prompt_end", "seed", "flags", "stop", "top", "enabled"))

    def __init__(self, config, memory, trace=None):
        self.config, self.trace = config, trace
        self.memory = memory if isinstance(memory, np.ndarray) else np.frombuffer(memory, np.uint8)
        self._stream = Stream(config, self.memory)
        self._vector = VectorEngine(config, self._stream)
        self.banks, self.scalars, self.codes = self._vector.banks, self._vector.scalars, self._stream.codes
        self.kept = (1 << config.register_bits) - 1  # of positions and tokens
        self.slots = [Slot(np.zeros(config.ring, np.uint32), self.kept) for _ in range(config.batch)]
        self.draft_end = self.source = self.fault = 0
        self.program = []
        self.address = [0] * 4
        self._fresh = True  # no run has ended yet

    @property
    def places(self):
        return self._stream.places

    def load(self, program):
        """Write the program memory and every slot's constant registers of a ``firmware.program.Program``."""
        self.load_program(program.words)
        for slot in range(self.config.batch):
            for number, bits in program.scalars.items():
                self.write_scalar(number, bits, slot)

    def load_program(self, words):
        """Write the program memory. MachineError: too long."""
        if len(words) > self.config.program_words:
            raise MachineError(f"program of {len(words)} instructions: the device holds {self.config.program_words}")
        self.program = [isa.decode(word) for word in words]

    def write_scalar(self, number, bits, slot=0):
        """Write a slot's scalar register with fp24 bits; registers 0 and 1 keep their constants."""
        if number > 1:
            self.scalars[number, slot] = fp24.from_bits(np.uint32(bits))

    def run(self):
        """Run the program while a slot has a token. Returns every Report, in order."""
        out = []
        while not self.fault and (found := self.step()) is not None:
            out += found
        return out

    def step(self):
        """Run the program once. Returns its Reports, or None if no slot has a token.

        MachineError names the instruction that breaks a rule.
        """
        self._run = admit(self)
        if self._run is None:
            return None
        self._vector.keys[:] = self._run.keys
        self._stream.active = self._run.active
        self._loop = self._off = self._left = self._vl = 0
        self._slot = None  # SLOT that has begun the present slot loop, and its slot
        self._reports, pc = [], 0
        while pc is not None:
            try:
                pc = self._execute(pc)
            except MachineError as error:
                raise MachineError(f"instruction {pc}: {error}") from None
        return self._reports

    def _execute(self, pc):
        """One instruction. Returns the next one, or None at the end of the run."""
        if pc >= len(self.program):
            raise MachineError(f"the program has {len(self.program)} instructions")
        opcode, f = self.program[pc]
        if opcode == isa.HALT:
            if not self._stream.idle or self._slot:
                raise MachineError("the token ends with products, records, announced words or a slot loop left")
            self._run.advance()
            self._fresh = False
            return None
        if opcode == isa.VOP:
            if self._meant():
                self._vop(pc, f)
        elif isa.is_walk(opcode, f) and self.config.tree_rows:
            self._walk(opcode, f)
        elif opcode in (isa.FETCH, isa.STORE) and not isa.is_walk(opcode, f):
            first = self.address[f["areg"]]
            if self._meant() and not f.get("kind"):
                (self._stream.fetch if opcode == isa.FETCH else self._stream.announce)(first, f["words"])
            words = f["words"] if opcode == isa.FETCH else -(-f["words"] // self.config.engines)
            self.address[f["areg"]] = (first + words) % _WRAP
        elif opcode == isa.SETA:
            self.address[f["areg"]] = f["value"]
        elif opcode == isa.ROWA:
            token = self._run.tokens[self._slot[1] if self._slot else 0]
            self.address[f["areg"]] = (f["base"] + token * f["stride"]) % _WRAP
        elif opcode == isa.MATVEC:
            self._stream.product(f["buffer"], f["rows"], f["chunks"])
        elif opcode == isa.STRIP:
            self._left, self._off = f["elements"], 0
            self._vl = min(f["strip"], self._left)
        elif opcode == isa.NEXT:
            self._left -= f["strip"]
            self._off += f["step"]
            if self._left > 0:
                self._vl = min(f["strip"], self._left)
                return f["target"]
        elif opcode == isa.LOOP:
            self._loop = f["count"]
        elif opcode == isa.AGAIN:
            self._loop -= 1
            if self._loop > 0:
                return f["target"]
        elif opcode == isa.JUMP and f["condition"] <= (isa.FRESH if self.config.batch == 1 else isa.CHAINED):
            run = self._run
            holds = (True, self._loop == 1, run.unwanted, run.greedy, run.at_start, self._fresh, run.chained)
            if holds[f["condition"]]:
                return f["target"]
        elif opcode == isa.SLOT and self.config.batch > 1:
            return self._slot_loop(pc, f)
        elif opcode == isa.SAMPLE:
            if not f["end"]:
                self._vector.begin_sampling()
            else:
                self._reports += (Report(*found) for found in self._run.record(self._vector.chosen))
        elif opcode != isa.WAITM:
            self.fault = 1
            return None
        return pc + 1

    def _walk(self, opcode, f):
        if self._slot:
            raise MachineError("a walk in a slot loop")
        if opcode == isa.WALK:
            self._stream.walk(f)
        else:
            self._stream.fetch_records(f["kind"] == isa.KIND_WALK, self.address[f["areg"]], f)

    def _slot_loop(self, pc, f):
        if not f["again"]:
            if self._slot:
                raise MachineError("a slot loop in a slot loop")
            self._slot = f, 0
            return pc + 1
        if not self._slot:
            raise MachineError("the end of a slot loop that has not begun")
        begin, slot = self._slot
        self._slot = (begin, slot + 1) if slot + 1 < self.config.batch else None
        return f["target"] if self._slot else pc + 1

    def _meant(self):
        """Whether VOP, FETCH and STORE do anything here."""
        return not self._slot or self._run.which(self._slot[0]["which"])[self._slot[1]]

    def _vop(self, pc, f):
        run, writes, slot, prior = self._run, np.ones(self.config.batch, bool), None, False
        if self._slot:
            begin, slot = self._slot
            prior = bool(begin["prior"] and run.chained)
            if not (begin["which"] == isa.READS and run.chained):
                writes = np.arange(self.config.batch) == slot
        r_bits, codes = self._vector.execute(f, Context(self._vl, self._off, writes, slot, prior))
        if self.trace:
            self.trace(pc, f, r_bits, codes, np.flatnonzero(writes & run.active).tolist())
