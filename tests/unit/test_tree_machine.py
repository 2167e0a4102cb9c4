"""Models with trees on the interpreter: programs of one slot and of several equal the golden model, bit for bit."""

import os
from dataclasses import replace

import numpy as np
import pytest
from sterna.firmware import isa
from sterna.firmware.layout import layout, memory_map
from sterna.firmware.program import build_program, inverse_temperature
from sterna.hw.config import Config
from sterna.sim.golden import fp24
from sterna.sim.golden.geometry import TreeGeometry
from sterna.sim.golden.model import GoldenModel
from sterna.sim.golden.packed import random_model
from sterna.sim.golden.trits import pack_matrix
from sterna.sim.machine.machine import Machine, MachineError

SEED = int(os.environ.get("STERNA_SEED", "1"))
LN2 = int(fp24.to_bits(fp24.LN2))
# batch, rows, columns, lanes, port_bytes, strip, code, H, K, D, A, L, V
CASES = [
    (1, 1, 10, 1, 2, 16, "trit5", 24, 1, 0, 0, 2, 19),
    (1, 3, 20, 4, 8, 36, "trit5", 131, 3, 2, 0, 2, 40),
    (1, 2, 10, 2, 4, 16, "bit2", 67, 1, 5, 0, 3, 35),
    (1, 8, 20, 4, 32, 64, "trit5", 45, 8, 1, 5, 2, 67),
    (1, 5, 40, 8, 32, 80, "trit5", 290, 40, 3, 3, 1, 130),
    (1, 3, 5, 1, 4, 6, "bit2", 13, 2, 3, 70, 2, 50),
    (1, 10, 40, 8, 64, 80, "bit2", 1, 1, 0, 0, 1, 3),
    (2, 1, 10, 1, 2, 16, "trit5", 24, 2, 3, 1, 2, 19),
    (4, 3, 20, 4, 8, 36, "trit5", 71, 5, 2, 4, 2, 37),
    (8, 4, 40, 8, 32, 8, "bit2", 45, 1, 6, 0, 2, 41),
]
QUICK = (1, 3, 5, 8)
ids = pytest.mark.parametrize("case", [
    case if number in QUICK else pytest.param(case, marks=pytest.mark.rest) for number, case in enumerate(CASES)],
    ids=lambda case: "-".join(map(str, case)))


class Board:
    """A machine with a random model of trees in it whose banks, registers and states hold anything at the start."""

    def __init__(self, case, *, seed=SEED, trace=None, words=None, change=lambda layer: layer, **changes):
        batch, rows, columns, lanes, port, strip, code, *shape = case
        self.config = replace(Config(
            name="test", batch=batch, rows=rows, columns=columns, lanes=lanes, port_bytes=port, memory_bytes=1 << 20,
            vector_words=2048, activation_words=256, strip=strip, clock_hz=1, weight_code=code, ring=64,
            tree_rows=min(1024, 256 * columns)), **changes)
        self.rng = np.random.default_rng([seed, *case[:6], *case[7:]])
        self.geometry = TreeGeometry(*shape)
        packed = random_model(self.rng, self.geometry)
        self.packed = replace(packed, layers=tuple(map(change, packed.layers)))
        self.golden, self.vocab = GoldenModel(self.packed), shape[-1]
        self.program = build_program(self.config, self.geometry)
        self.machine = Machine(self.config, self.memory(), trace)
        junk = self.rng.integers(0, 1 << 24, self.machine.banks.shape, dtype=np.uint32)
        self.machine.banks[:] = fp24.from_bits(junk)
        self.machine.scalars[2:] = self.rng.normal(size=self.machine.scalars[2:].shape).astype(np.float16)
        self.machine.load(self.program)
        if words:
            self.machine.load_program(words)

    def memory(self):
        """uint8 array: stream and tables as docs/image-format.md has them, junk elsewhere."""
        config, shape, packed = self.config, layout(self.config, self.geometry), self.packed
        where = memory_map(config, self.geometry)
        memory = self.rng.integers(0, 256, config.memory_bytes, dtype=np.uint8)

        def put(at, size, data):
            data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            memory[at:at + size] = 0
            memory[at:at + len(data)] = data
            return at + size

        for token in range(self.vocab):
            scale = fp24.to_bits(packed.embedding_scale[token:token + 1])
            at = put(where.row_bytes * token, shape.vector_bytes(1), scale)
            put(at, where.row_bytes - shape.vector_bytes(1), packed.embedding_codes[token])
        at = where.stream_address
        for part, layer in shape.order():
            source = packed if part in ("end", "head") else packed.layers[layer]
            for kind, name, *size in shape.sections(part):
                value = getattr(source, name)
                at = put(at, shape.vector_bytes(*size), fp24.to_bits(np.atleast_1d(value))) if kind == "vector" \
                    else put(at, shape.matrix_bytes(*size),
                             pack_matrix(value, config.rows, config.columns, config.weight_code))
        at = where.tree_address
        for layer in packed.layers:
            for row in np.concatenate([layer.tree_in, layer.tree_out]):  # a tile of a record: R C trits of one row
                at = put(at, shape.record_bytes,
                         pack_matrix(row[None], 1, config.rows * config.columns, config.weight_code))
        assert at == where.tree_address + where.tree_bytes
        return memory

    def text(self):
        """Options of a random text, as of ``begin``."""
        prompt = self.rng.integers(0, self.vocab, int(self.rng.integers(1, 6))).tolist()
        return {"prompt": prompt, "count": int(self.rng.integers(1, 7)), "seed": int(self.rng.integers(0, 1 << 32)),
                "temperature": float(self.rng.choice([0.0, 0.5, 1.2]))}

    def begin(self, slot, *, prompt, count, seed=0, temperature=0.0, chained=False):
        """Starts a text in a slot; chained ones take slot 0."""
        machine, registers = self.machine, self.machine.slots[slot]
        registers.ring[:len(prompt)] = prompt
        registers.position, registers.start, registers.prompt_end = 0, 0, len(prompt)
        registers.limit, registers.seed = len(prompt) + count - 1, seed
        registers.flags = int(temperature > 0) | 2 * chained
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
        where = self.program.memory_map
        base = [where.state_address + (layer * self.config.batch + slot) * where.layer_state_bytes
                for layer in range(self.geometry.num_hidden_layers)]
        return [self.machine.memory[at:at + 4 * self.geometry.hidden_size].view("<u4").tolist() for at in base]


def tokens_of(reports, slot):
    return [report.token for report in reports if report.slot == slot]


@pytest.mark.parametrize("sampled", [False, True], ids=["greedy", "sampled"])
@ids
def test_equals_golden(case, sampled):
    """Slots come and go with texts of their own, so that each walks its own way, and some have no token."""
    print("seed", SEED)
    board = Board(case)
    texts = [board.text() | {"temperature": 0.9 if sampled else 0.0} for _ in range(board.config.batch + 1)]
    running, waiting, done = {}, list(range(len(texts))), {}
    while waiting or running:
        for slot in range(board.config.batch):
            if waiting and slot not in running and (not running or board.rng.random() < 0.7):
                running[slot] = waiting.pop(0), []
                board.begin(slot, **texts[running[slot][0]])
        reports = board.machine.step()
        for slot, (number, made) in list(running.items()):
            made += tokens_of(reports, slot)
            if board.machine.slots[slot].position == board.machine.slots[slot].limit:
                done[number] = made, board.state(slot)
                del running[slot]
    assert [done[number] for number in range(len(texts))] == [board.expected(**text) for text in texts]


@pytest.mark.parametrize("case", [CASES[7], pytest.param(CASES[9], marks=pytest.mark.rest)],
                         ids=lambda case: "-".join(map(str, case)))
def test_chained_slots_equal_golden(case):
    board = Board(case)
    prompt = board.rng.integers(0, board.vocab, 11).tolist()
    text = {"prompt": prompt, "count": 4, "seed": 9, "temperature": 0.8}
    board.begin(0, **text, chained=True)
    assert tokens_of(board.machine.run(), 0) == board.expected(**text)[0]


def test_slots_walk_their_own_ways():
    """Rows that are always on have the same places for all, some others do not; a slot without a token has none."""
    board = Board(CASES[8])
    for slot in (0, 1, 3):
        board.begin(slot, prompt=[slot + 1, 5 * slot, 7], count=1)
    board.machine.run()
    places, shape = board.machine.places, board.geometry
    always, trees, nodes = shape.tree_always, shape.trees, shape.nodes
    assert not places[2].any() and len({tuple(row) for row in places[[0, 1, 3]].tolist()}) == 3
    for row in places[[0, 1, 3]]:
        assert row[:always].tolist() == list(range(always))
        node = row[always:].reshape(shape.levels, trees) - always - nodes * np.arange(trees)
        assert not node[0].any() and np.isin(node[1:] - 2 * node[:-1], (1, 2)).all()


def test_zero_goes_left():
    """Rows of zeros: every sum is zero."""
    board = Board(CASES[1], change=lambda layer: replace(layer, tree_in=np.zeros_like(layer.tree_in)))
    text = {"prompt": [1, 2], "count": 2}
    board.begin(0, **text)
    assert tokens_of(board.machine.run(), 0) == board.expected(**text)[0]
    assert board.machine.places.tolist() == [[k * 7 + (1 << level) - 1 for level in range(3) for k in range(3)]]


def changed(program, opcode, number=0, **values):
    """The words of a program with some fields of an instruction changed: that of an opcode and number."""
    words = list(program.words)
    found = [at for at, word in enumerate(words) if isa.decode(word)[0] == opcode
             and (opcode != isa.FETCH or isa.decode(word)[1]["kind"])]
    words[found[number]] = isa.encode(opcode, **isa.decode(words[found[number]])[1] | values)
    return words


@pytest.mark.parametrize("change, message", [
    ((isa.WALK, 0, {"out": 1}), "WALK out=1: the next records are those of a walk"),
    ((isa.WALK, 1, {"out": 0}), "WALK out=0: the next records are those of a gather"),
    ((isa.WALK, 0, {"rows": 10}), "WALK of 10 rows of 3 tiles: FETCH has brought 9 of 5 words"),
    ((isa.WALK, 0, {"chunks": 4}), "WALK of 9 rows of 4 tiles: FETCH has brought 9 of 5 words"),
    ((isa.WALK, 0, {"length": 130}), "a record has trits behind its 130"),
    ((isa.WALK, 1, {"length": 181}), "a record 180 trits"),
    ((isa.FETCH, 0, {"kind": isa.KIND_LINEAR}), "WALK: the next words of the stream are not the records of a walk"),
    ((isa.FETCH, 0, {"trees": 1024}), "1024 trees of 3 levels, 0 rows always, 5 words each: the device walks 1024 rows"),
    ((isa.FETCH, 0, {"levels": 31}), "outside the memory"),
    ((isa.FETCH, 0, {"levels": 0}), "3 trees of 0 levels"),
    ((isa.FETCH, 2, {"kind": isa.KIND_WALK}), "WALK out=1: the next records are those of a walk"),
    ((isa.MATVEC, -1, {"rows": 100}), "waits for rows|next words of the stream|behind the records"),
])
def test_broken_walks_are_noticed(change, message):
    opcode, number, values = change
    board = Board(CASES[1])
    board.machine.load_program(changed(board.program, opcode, number, **values))
    board.begin(0, prompt=[1], count=1)
    with pytest.raises(MachineError, match=message):
        board.machine.run()


def test_sections_stand_in_front_of_the_walk_behind_them():
    """WALK one place earlier would wait for ever for the vector in front of its records, and the vector for WALK."""
    board = Board(CASES[1])
    words = list(board.program.words)
    at = next(number for number, word in enumerate(words) if isa.decode(word)[0] == isa.WALK)
    words[at - 1:at + 1] = words[at], words[at - 1]
    board.machine.load_program(words)
    board.begin(0, prompt=[1], count=1)
    with pytest.raises(MachineError, match="next words of the stream are not the records|behind the records"):
        board.machine.run()


@pytest.mark.parametrize("word, faults", [
    (isa.encode(isa.WALK), True), (isa.encode(isa.FETCH, kind=isa.KIND_WALK), True),
    (isa.encode(isa.FETCH, kind=isa.KIND_GATHER), True), (isa.encode(isa.FETCH, kind=isa.KIND_SKIP, words=9), False)])
def test_builds_without_walks_raise_the_fault(word, faults):
    config = Board(CASES[1]).config
    machine = Machine(replace(config, tree_rows=0), np.zeros(config.memory_bytes, np.uint8))
    machine.load_program([isa.encode(isa.SETA, areg=0, value=3), word, isa.encode(isa.HALT)])
    machine.limit = 1
    assert machine.run() == [] and machine.fault == faults and machine.position == (not faults)
    assert machine.address[0] == (3 if faults else 12)


def test_walks_of_slot_loops_are_noticed():
    board = Board(CASES[7])
    loop = [isa.encode(isa.SLOT), isa.encode(isa.WALK, rows=1, chunks=1), isa.encode(isa.SLOT, again=1, target=1)]
    board.machine.load_program([*loop, isa.encode(isa.HALT)])
    board.begin(0, prompt=[1], count=1)
    with pytest.raises(MachineError, match="instruction 1: a walk in a slot loop"):
        board.machine.run()
