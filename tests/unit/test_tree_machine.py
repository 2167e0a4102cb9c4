"""Models with trees on the interpreter: programs of one slot and of several equal the golden model, bit for bit."""

from dataclasses import replace

import numpy as np
import pytest
from slot_board import SEED, Board, come_and_go, tokens_of
from sterna.firmware import isa
from sterna.sim.machine.machine import Machine, MachineError

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
QUICK = (1, 3, 8)
ids = pytest.mark.parametrize("case", [
    case if number in QUICK else pytest.param(case, marks=pytest.mark.rest) for number, case in enumerate(CASES)],
    ids=lambda case: "-".join(map(str, case)))


@pytest.mark.parametrize("sampled", [pytest.param(False, marks=pytest.mark.rest), True],
                         ids=["greedy", "sampled"])
@ids
def test_equals_golden(case, sampled):
    """Slots come and go with texts of their own, so that each walks its own way, and some have no token."""
    print("seed", SEED)
    board = Board(case)
    texts = [board.text() | {"temperature": 0.9 if sampled else 0.0} for _ in range(board.config.batch + 1)]
    assert come_and_go(board, texts) == [board.expected(**text) for text in texts]


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
    board = Board((4, 3, 20, 4, 8, 36, "trit5", 71, 30, 2, 4, 1, 37))
    for slot in (0, 1, 3):
        board.begin(slot, prompt=[slot + 1, 5 * slot, 7], count=1)
    board.machine.run()
    places, shape = board.machine.places, board.packed.geometry
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
    ((isa.FETCH, 0, {"trees": 2048}), "2048 trees of 3 levels, 0 rows always, 5 words each: the device walks"),
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
