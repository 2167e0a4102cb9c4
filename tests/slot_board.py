"""A board for tests of programs: the interpreter with a random model of any kind in any number of slots."""

import os
from dataclasses import replace

import numpy as np
from sterna.firmware.program import build_program, inverse_temperature
from sterna.host.model.image import Image, build_image
from sterna.hw.config import Config
from sterna.sim.golden import fp24
from sterna.sim.golden.geometry import Geometry, TreeGeometry
from sterna.sim.golden.model import GoldenModel
from sterna.sim.golden.packed import random_model
from sterna.sim.golden.toplist import p_code_of
from sterna.sim.machine.machine import Machine
from sterna.sim.machine.slots import NEVER

SEED = int(os.environ.get("STERNA_SEED", "1"))
LN2 = int(fp24.to_bits(fp24.LN2))


class Board:
    """A machine with a random model in it whose banks, scalar registers and states hold anything at the start.

    Parameters
    ----------
    case : tuple
        batch, rows, columns, lanes, port_bytes, strip and weight_code of the configuration; then what Geometry takes,
        or what TreeGeometry takes, without the eps.
    seed : int
    trace : callable, optional
        Of the Machine.
    change : callable
        Makes a layer that is put into the memory and into the golden model out of a packed one.
    changes : int or str
        Of the configuration.
    """

    def __init__(self, case, *, seed=SEED, trace=None, change=lambda layer: layer, **changes):
        batch, rows, columns, lanes, port, strip, code, *shape = case
        self.config = replace(Config(
            name="test", batch=batch, rows=rows, columns=columns, lanes=lanes, port_bytes=port, memory_bytes=1 << 20,
            vector_words=2048, activation_words=256, strip=strip, clock_hz=1, weight_code=code, ring=64,
            tree_rows=256 * columns if len(shape) == 6 else 0), **changes)
        self.rng = np.random.default_rng([seed, *case[:1]])
        packed = random_model(self.rng, (TreeGeometry if len(shape) == 6 else Geometry)(*shape))
        self.packed = replace(packed, layers=tuple(map(change, packed.layers)))
        self.golden, self.vocab = GoldenModel(self.packed), shape[-1]
        self.program = build_program(self.config, self.packed.geometry)
        memory = self.rng.integers(0, 256, self.config.memory_bytes, dtype=np.uint8)
        for address, data in Image(build_image(self.packed, self.config, "{}", "test", 0)).regions(self.config):
            memory[address:address + len(data)] = data
        self.machine = Machine(self.config, memory, trace)
        junk = self.rng.integers(0, 1 << 24, self.machine.banks.shape, dtype=np.uint32)
        self.machine.banks[:] = fp24.from_bits(junk)
        self.machine.scalars[2:] = self.rng.normal(size=self.machine.scalars[2:].shape).astype(np.float16)
        self.machine.load(self.program)

    def prompt(self, most=7):
        return self.rng.integers(0, self.vocab, int(self.rng.integers(1, most + 1))).tolist()

    def text(self):
        """Options of a random text, as of ``begin``."""
        sampled = self.rng.random() < 0.7
        return {"prompt": self.prompt(), "count": int(self.rng.integers(1, 9)),
                "seed": int(self.rng.integers(0, 1 << 32)),
                "temperature": float(self.rng.choice([0.3, 0.8, 1.5])) if sampled else 0.0}

    def begin(self, slot, *, prompt, count, seed=0, temperature=0.0, top_k=0, top_p=1.0, chained=False, stop=NEVER):
        """Starts a text in a slot; chained ones take slot 0."""
        machine, registers = self.machine, self.machine.slots[slot]
        registers.ring[:len(prompt)] = prompt
        registers.position, registers.start, registers.prompt_end = 0, 0, len(prompt)
        registers.limit, registers.seed, registers.stop = len(prompt) + count - 1, seed, stop
        registers.flags = int(temperature > 0) | 2 * chained
        registers.top = top_k | (p_code_of(top_p) << 16 if top_p < 1 else 0)
        machine.draft_end = 0
        for one in range(self.config.batch) if chained else [slot]:
            machine.write_scalar(2, inverse_temperature(temperature), one)
            machine.write_scalar(13, LN2 if temperature > 0 else 0, one)

    def expected(self, *, prompt, count, **options):
        """(tokens, state as bits [L, H]) of the golden model."""
        state = self.golden.start(1)
        tokens = self.golden.generate(prompt, count, start_state=state, **options)
        return tokens, fp24.to_bits(state[:, 0]).tolist()

    def state(self, slot):
        """What the state regions of a slot hold, as bits [L, H]."""
        where, geometry = self.program.memory_map, self.packed.geometry
        base = [where.state_address + (layer * self.config.batch + slot) * where.layer_state_bytes
                for layer in range(geometry.num_hidden_layers)]
        return [self.machine.memory[at:at + 4 * geometry.hidden_size].view("<u4").tolist() for at in base]


def tokens_of(reports, slot):
    """Tokens that a slot reported; their positions must follow each other."""
    own = [report for report in reports if report.slot == slot]
    assert [report.position for report in own] == list(range(own[0].position, own[0].position + len(own)))
    return [report.token for report in own]


def come_and_go(board, texts):
    """Options of texts, one after the other in any slot that is free, at any time; [(tokens, state)] of each."""
    waiting, running, done = list(range(len(texts))), {}, {}
    while waiting or running:
        free = [slot for slot in range(board.config.batch) if slot not in running]
        while waiting and free and (board.rng.random() < 0.6 or not running):
            slot = free.pop(int(board.rng.integers(len(free))))
            running[slot] = waiting.pop(0), []
            board.begin(slot, **texts[running[slot][0]])
        for report in board.machine.step():
            running[report.slot][1].append(report)
        for slot, (number, reports) in list(running.items()):
            if board.machine.slots[slot].position == board.machine.slots[slot].limit:
                done[number] = tokens_of(reports, slot), board.state(slot)
                del running[slot]
    assert board.machine.step() is None
    return [done[number] for number in range(len(texts))]
