"""A build with slots on the simulated board beside the instruction interpreter, in step.

Which slots join a run of the program depends on when the host's writes arrive. Where vectors are compared, a gate
makes this certain: an instruction before the program jumps to itself until the host opens it. Slots are started while
the first of them waits there; that one has the first run for itself, and all the others join at the second.
"""

import time
from dataclasses import replace

import numpy as np
from soc import Expected, Session, first_difference
from sterna.firmware import isa
from sterna.firmware.program import inverse_temperature
from sterna.hw import protocol
from sterna.hw.boards import preset
from sterna.hw.presets import PRESETS
from sterna.hw.protocol import Register
from sterna.sim.golden import fp24
from sterna.sim.golden.model import GoldenModel
from sterna.sim.golden.toplist import p_code_of
from sterna.sim.machine.slots import FLAG_CHAINED, FLAG_SAMPLE, NEVER

LN2 = int(fp24.to_bits(fp24.LN2))
REGISTERS = {"position": Register.POSITION, "start": Register.START, "limit": Register.LIMIT,
             "prompt_end": Register.PROMPT_END, "seed": Register.SEED, "flags": Register.FLAGS, "stop": Register.STOP,
             "top": Register.TOP, "draft_end": Register.DRAFT_END, "source": Register.SOURCE}
PATIENCE_S = 60
# Builds with slots, by their number. Those with more of them are narrow, so that they compile soon: with an array
# wider than the port, and one as wide. All walk trees too, so that the tests of these need no others.
_NARROW = replace(PRESETS["lanes40"], name="four", batch=4, rows=3, columns=10, lanes=2, port_bytes=4, strip=18,
                  vector_words=512, activation_words=16, fifo_words=128, memory_bytes=1 << 20, tree_rows=100, top_k=0)
SLOTS = {"2": preset("lanes40,batch=2,top_k=8"), "4": _NARROW,
         "8": replace(_NARROW, name="eight", batch=8, rows=2, lanes=1, strip=16, row_words=64, ring=64, top_k=4)}


def gate(is_open):
    """The instruction before the program."""
    return isa.encode(isa.JUMP, condition=isa.ALWAYS, target=int(is_open))


def behind_gate(words):
    """The program one instruction further on, behind an open gate."""
    def moved(word):
        opcode, fields = isa.decode(word)
        if "target" in fields and (opcode != isa.SLOT or fields["again"]):
            fields["target"] += 1
        return isa.encode(opcode, **fields)
    return [gate(True), *map(moved, words)]


def random_text(rng, vocab, config, most=6):
    """Options of ``Both.begin``."""
    text = {"prompt": rng.integers(0, vocab, int(rng.integers(1, most + 1))).tolist(),
            "count": int(rng.integers(1, 7)), "seed": int(rng.integers(1 << 32)),
            "temperature": float(rng.choice([0.0, 0.7, 1.3]))}
    if config.top_k and rng.random() < 0.6:
        text |= {"top_k": int(rng.integers(1, config.top_k + 1)), "top_p": float(rng.choice([0.3, 0.8, 1.0]))}
    return text


class Both(Session):
    """A board and the interpreter with the same model; what is written goes to both.

    Attributes
    ----------
    machine : Machine
    vectors : list
        What the interpreter's trace has so far; see ``difference``.
    """

    def __init__(self, config, image, folder, **board):
        super().__init__(config, image, folder, **board)
        self.vectors = []

    def load(self, image, addresses=None, upload=True):
        super().load(image, addresses, upload)
        golden = Expected(self.config, image, addresses)
        golden.vectors = self.vectors  # those of all models, one behind the other
        self.machine = golden.machine
        self.golden = GoldenModel(image.unpack())
        words = behind_gate(self.program.words)
        self.device.load_program(words)
        self.machine.load_program(words)
        for slot in self.machine.slots:
            slot.enabled = False

    def put(self, slot=0, **registers):
        """Writes registers of a slot by their names, in the order given."""
        for name, value in registers.items():
            self.device.write_register(REGISTERS[name], value, slot)
            setattr(self.machine if name in ("draft_end", "source") else self.machine.slots[slot], name, value)

    def put_tokens(self, position, tokens, slot=0):
        """Writes tokens into a ring."""
        self.device.write_ring(position, tokens, slot)
        for where, token in enumerate(tokens, position):
            self.machine.slots[slot].ring[where % self.config.ring] = token

    def put_temperature(self, temperature, slot):
        """Scalar registers 2 and 13."""
        bits = {2: inverse_temperature(temperature), 13: LN2 if temperature else 0}
        self.device.write_scalars(bits, slot)
        for number, value in bits.items():
            self.machine.write_scalar(number, value, slot)

    def begin(self, slot, *, prompt, count, seed=0, temperature=0.0, top_k=0, top_p=1.0, stop=NEVER, chained=False,
              tokens=None):
        """Sets a text up in a slot, at its start; ``tokens`` positions of it are allowed, by default all.

        Chained ones take slot 0, and the scalar registers of all.
        """
        for one in range(self.config.batch) if chained else [slot]:
            self.put_temperature(temperature, one)
        self.put_tokens(0, prompt, slot)
        end = len(prompt) + count - 1
        self.put(slot, position=0, start=0, prompt_end=len(prompt), seed=seed, stop=stop, draft_end=0,
                 flags=(FLAG_SAMPLE if temperature else 0) | (FLAG_CHAINED if chained else 0),
                 top=top_k | (p_code_of(top_p) << 16 if top_p < 1 else 0),
                 limit=end if tokens is None else min(tokens, end))

    def _gate(self, is_open):
        self.device.write(protocol.PROGRAM, gate(is_open).to_bytes(16, "little"))

    def start(self, slots, meanwhile=lambda: None):
        """Runs until every slot has come to its limit: the first of ``slots`` alone in the first run, then all.

        ``meanwhile`` is called when the first one waits. Returns {slot: [(position, token)]}, the same on both sides.
        """
        first, *others = slots
        self._gate(False)
        self._enable(first)
        deadline = time.monotonic() + PATIENCE_S
        while not self.device.status(first)[0]:
            assert time.monotonic() < deadline, "the first slot does not begin"
        reports = []
        self.machine.slots[first].enabled = True
        reports += self.machine.step()
        meanwhile()
        for slot in others:
            self._enable(slot)
            self.machine.slots[slot].enabled = True
        self._gate(True)
        reports += self.machine.run()
        wanted = {slot: [(r.position, r.token) for r in reports if r.slot == slot] for slot in slots}
        assert self.wait(slots) == wanted
        for slot in slots:
            registers = self.machine.slots[slot]
            assert self.device.status(slot) == (False, True, 0, registers.position)
            assert self.device.read_register(Register.LIMIT, slot) == registers.limit
            self.device.write_register(Register.CONTROL, 0, slot)
            registers.enabled = False
        if self.machine.flags & FLAG_CHAINED:
            assert self.device.read_register(Register.SOURCE) == self.machine.source
        return wanted

    def _enable(self, slot):
        self.device.write_register(Register.CONTROL, protocol.CONTROL_RUN, slot)

    def wait(self, slots):
        """Waits until every slot has come to its limit; {slot: [(position, token)]} of the TOKEN frames."""
        deadline = time.monotonic() + PATIENCE_S
        while not all(self._rests(slot) for slot in slots):
            assert time.monotonic() < deadline, f"status {[self.device.status(slot) for slot in slots]}"
        for slot in slots:
            self.device.status(slot)  # a TOKEN frame may leave behind the first reply, not behind the second
        found = {}
        for slot in slots:
            found[slot] = list(iter(lambda slot=slot: self.device.wait_token(0, slot), None))
        return found

    def _rests(self, slot):
        running, _, fault, position = self.device.status(slot)
        assert not fault, "a fault"
        return not running and position >= self.device.read_register(Register.LIMIT, slot)

    def expected(self, *, prompt, count, **options):
        """(tokens, state as bits [L, H]) of a text on the golden model."""
        state = self.golden.start(1)
        tokens = self.golden.generate(prompt, count, start_state=state, **options)
        return tokens, fp24.to_bits(state[:, 0]).tolist()

    def states(self):
        """State regions of the device as bits, [L][B][H]; they must be those of the interpreter."""
        where, geometry = self.program.memory_map, self.image.geometry
        data = self.device.read(where.state_address, where.state_bytes)
        assert data == self.machine.memory[where.state_address:where.state_address + where.state_bytes].tobytes()
        words = np.frombuffer(data, "<u4").reshape(geometry.num_hidden_layers, self.config.batch, -1)
        return words[:, :, :geometry.hidden_size]

    def state_of(self, slot):
        """Bits [L, H] of a slot's state."""
        return self.states()[:, slot].tolist()

    def difference(self):
        """``first_difference`` of both sides, after the board has been left."""
        return first_difference(self.vectors, self.trace())
