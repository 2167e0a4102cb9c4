"""Slots on the interpreter: each sequence comes out as the golden model gives it alone, independent or chained."""

import pytest
from slot_board import Board, come_and_go, tokens_of
from sterna.firmware import isa
from sterna.sim.machine.machine import Machine, MachineError
from sterna.sim.machine.slots import NEVER

# batch, rows, columns, lanes, port_bytes, strip, code, H, I, L, V
CASES = [
    (2, 1, 10, 1, 2, 16, "trit5", 24, 33, 2, 19),
    (2, 4, 20, 2, 8, 32, "trit5", 1, 1, 1, 3),
    (4, 2, 20, 4, 8, 32, "trit5", 71, 90, 1, 37),
    (4, 3, 5, 1, 4, 6, "bit2", 13, 39, 3, 50),
    (8, 8, 20, 4, 32, 32, "bit2", 45, 70, 2, 67),
    (8, 4, 40, 8, 32, 8, "trit5", 19, 77, 2, 41),
]
ids = pytest.mark.parametrize("case", [
    case if number in (1, 5) else pytest.param(case, marks=pytest.mark.rest) for number, case in enumerate(CASES)],
    ids=lambda case: "-".join(map(str, case)))


@ids
def test_sequences_start_and_stop_independently(case):
    """Texts of any length and kind come and go in any slot while others run; each is the golden model's."""
    board = Board(case)
    texts = [board.text() for _ in range(2 * board.config.batch + 1)]
    assert come_and_go(board, texts) == [board.expected(**text) for text in texts]


def test_stop_and_enable_of_one_slot():
    board = Board(CASES[2])
    texts = [{"prompt": [1, 2], "count": 12, "seed": slot, "temperature": 0.9} for slot in range(4)]
    whole = [board.expected(**text)[0] for text in texts]
    for slot, text in enumerate(texts):
        board.begin(slot, **text)
    board.machine.slots[1].stop = whole[1][4]
    board.machine.slots[2].enabled = False
    reports = board.machine.run()
    assert tokens_of(reports, 0) == whole[0] and tokens_of(reports, 3) == whole[3]
    end = whole[1].index(whole[1][4]) + 1
    assert tokens_of(reports, 1) == whole[1][:end]
    assert board.machine.slots[1].limit == board.machine.slots[1].position == 1 + end
    assert not [report for report in reports if report.slot == 2]
    board.machine.slots[2].enabled = True
    assert tokens_of(board.machine.run(), 2) == whole[2]


def test_saved_states_move_between_slots():
    board = Board(CASES[3])
    text = {"prompt": [5, 6, 7], "count": 9, "seed": 4, "temperature": 0.8}
    whole, end = board.expected(**text)
    board.begin(1, **text)
    board.machine.slots[1].limit = 6
    first = tokens_of(board.machine.run(), 1)
    where = board.program.memory_map
    size, memory = where.layer_state_bytes, board.machine.memory
    for layer in range(board.packed.geometry.num_hidden_layers):
        at = where.state_address + layer * board.config.batch * size
        memory[at + 3 * size:at + 4 * size] = memory[at + size:at + 2 * size]
    board.begin(3, **text)
    board.machine.slots[3].start, board.machine.slots[3].position = NEVER, 6
    board.machine.slots[3].ring[6] = first[-1]
    assert first + tokens_of(board.machine.run(), 3) == whole and board.state(3) == end


@pytest.mark.parametrize("length", [1, 4, 5, 9, *(
    pytest.param(length, marks=pytest.mark.rest) for length in (2, 3, 7, 8, 15, 16, 17))])
@pytest.mark.parametrize("case", [
    pytest.param(CASES[1], marks=pytest.mark.rest), CASES[3], pytest.param(CASES[5], marks=pytest.mark.rest)],
    ids=["2", "4", "8"])
def test_chained_prompt_equals_token_by_token(case, length):
    """A prompt of any length, read B tokens at a time, leaves the state and the text of the golden model."""
    board = Board(case)
    prompt = board.rng.integers(0, board.vocab, length).tolist()
    text = {"prompt": prompt, "count": 3, "seed": 9, "temperature": 0.9 * (length % 2)}
    board.begin(0, chained=True, **text)
    board.machine.source = int(board.rng.integers(0, board.config.batch))  # not used at the start
    runs, reports = 0, []
    while (found := board.machine.step()) is not None:
        runs, reports = runs + 1, reports + found
    assert (tokens_of(reports, 0), board.state(board.machine.source)) == board.expected(**text)
    assert runs == -(-length // board.config.batch) + 2
    assert board.machine.position == length + 2


class Drafter:
    """Proposes some tokens behind the last known one in the ring: those of the text, others, or some of both."""

    def __init__(self, board, prompt, text, kind):
        self.board, self.all, self.kind = board, prompt + text, kind

    def propose(self):
        machine = self.board.machine
        for k in range(int(self.board.rng.integers(0, 2 * self.board.config.batch))):
            where = machine.position + 1 + k
            right = self.all[where] if where < len(self.all) else 0
            wrong = (right + 1 + int(self.board.rng.integers(0, self.board.vocab - 1))) % self.board.vocab
            is_right = {"right": True, "wrong": False, "random": self.board.rng.random() < 0.7}[self.kind]
            machine.ring[where % len(machine.ring)] = right if is_right else wrong
            machine.draft_end = where + 1


@pytest.mark.parametrize("temperature", [pytest.param(0.0, marks=pytest.mark.rest), 0.8])
@pytest.mark.parametrize("kind", ["right", pytest.param("wrong", marks=pytest.mark.rest), "random"])
@pytest.mark.parametrize("case", [CASES[0], pytest.param(CASES[2], marks=pytest.mark.rest), CASES[5]],
                         ids=["2", "4", "8"])
def test_text_does_not_depend_on_drafts(case, kind, temperature):
    board = Board(case)
    text = {"prompt": board.prompt(), "count": 20, "seed": 31, "temperature": temperature}
    wanted, end = board.expected(**text)
    board.begin(0, chained=True, **text)
    machine, limit = board.machine, board.machine.limit
    drafter = Drafter(board, text["prompt"], wanted, kind)
    reports, runs = [], 0
    while machine.position < limit:
        if machine.position + 1 >= machine.prompt_end:
            drafter.propose()
        machine.limit = limit
        before = machine.position
        found = machine.step()
        runs += 1
        reports += found
        assert machine.position > before
        if machine.limit < limit:  # a draft was wrong: the device waits
            assert machine.limit == machine.position == found[-1].position and machine.step() is None
    assert (tokens_of(reports, 0), board.state(machine.source)) == (wanted, end)
    assert {"right": runs < 20, "wrong": runs >= 20, "random": True}[kind]


def test_stop_among_right_drafts():
    """The stop token ends the run although the draft behind it, which is right, has been read."""
    board = Board(CASES[4])
    text = {"prompt": [1], "count": 20, "seed": 3, "temperature": 0.9}
    wanted = board.expected(**text)[0]
    at = next(k for k in range(2, 7) if wanted[k] not in wanted[:k])
    board.begin(0, chained=True, stop=wanted[at], **text)
    board.machine.ring[1:20], board.machine.draft_end = wanted[:19], 20
    assert tokens_of(board.machine.run(), 0) == wanted[:at + 1]
    assert board.machine.limit == board.machine.position == at + 1
    tokens, state = board.expected(stop=wanted[at], **text)
    assert tokens == wanted[:at + 1] and board.state(board.machine.source) == state


def test_chained_after_independent_and_back():
    board = Board(CASES[3])
    texts = [board.text() for _ in range(3)]
    for _ in range(2):
        for slot, text in enumerate(texts):
            board.begin(slot + 1, **text)
        reports = board.machine.run()
        for slot, text in enumerate(texts):
            assert (tokens_of(reports, slot + 1), board.state(slot + 1)) == board.expected(**text)
        board.begin(0, chained=True, **texts[0])
        assert tokens_of(board.machine.run(), 0) == board.expected(**texts[0])[0]
        assert board.state(board.machine.source) == board.expected(**texts[0])[1]
        board.machine.slots[0].flags = 0


@pytest.mark.parametrize("batch", [pytest.param(1, marks=pytest.mark.rest), 2,
                                   pytest.param(4, marks=pytest.mark.rest)])
def test_lists_of_best_rows(batch):
    """top-k and top-p of their own in every slot, greedy ones and plain sampling among them."""
    board = Board((batch, *CASES[2][1:]), top_k=16)
    kinds = [{"top_k": 1}, {"top_k": 16}, {"top_k": 5, "top_p": 0.6}, {"top_k": 16, "top_p": 0.2}, {},
             {"temperature": 0.0}]
    for at in range(0, len(kinds), batch):
        texts = [{"prompt": [3, 4], "count": 8, "seed": 7 + k, "temperature": 1.2} | kind
                 for k, kind in enumerate(kinds[at:at + batch])]
        for slot, text in enumerate(texts):
            board.begin(slot, **text)
        reports = board.machine.run()
        for slot, text in enumerate(texts):
            assert tokens_of(reports, slot) == board.expected(**text)[0]


def test_list_and_drafts():
    board = Board(CASES[2], top_k=8)
    text = {"prompt": [3, 4], "count": 16, "seed": 7, "temperature": 1.1, "top_k": 6, "top_p": 0.8}
    wanted = board.expected(**text)[0]
    board.begin(0, chained=True, **text)
    board.machine.ring[2:18], board.machine.draft_end = wanted, 18
    assert tokens_of(board.machine.run(), 0) == wanted


def test_trace_names_the_slots_that_count():
    seen = []
    board = Board(CASES[3], trace=lambda pc, f, r, codes, slots: seen.append((f, r.shape, slots)))
    board.begin(1, prompt=[1, 2], count=1)
    board.begin(2, prompt=[3, 4], count=1)
    board.machine.slots[2].start = NEVER
    board.machine.step()
    assert all(shape[1:] == (4, 1) for _, shape, _ in seen)
    stored = [slots for f, _, slots in seen if f["d_kind"] == isa.D_MEM]
    assert stored == [[1], [2]] * 3
    assert {tuple(slots) for _, _, slots in seen} == {(1, 2), (1,), (2,)}
    h = board.program.vectors["h"].address
    states = [(f["a_kind"], slots) for f, _, slots in seen if f["d_kind"] == isa.D_VECTOR and f["d"] == h
              and f["d_banks"] == 4 and f["b_kind"] == 3]
    assert states == [(isa.A_STREAM32, [2]), (isa.KIND_SCALAR, [1])] * 3
    # Of chained tokens of the prompt only the last one's state is kept.
    seen.clear()
    board.machine.slots[1].enabled = board.machine.slots[2].enabled = False
    board.begin(0, prompt=[1, 2, 3], count=1, chained=True)
    board.machine.step()
    assert [slots for f, _, slots in seen if f["d_kind"] == isa.D_MEM] == [[2]] * 3


def slot_loop(*body, which=isa.ACTIVE):
    return [isa.encode(isa.SLOT, which=which), *body, isa.encode(isa.SLOT, again=1, target=1), isa.encode(isa.HALT)]


def vop(**fields):
    return isa.encode(isa.VOP, **({"a_kind": 3, "b_kind": 3, "b": 1, "c_kind": 3, "one": 1} | fields))


@pytest.mark.parametrize("words, message", [
    (slot_loop(vop(a_kind=isa.A_ROW)), "operand ROW in a slot loop"),
    (slot_loop(vop(a_kind=isa.A_RANDOM)), "operand RANDOM in a slot loop"),
    (slot_loop(vop(c_kind=isa.C_RANDOM)), "operand RANDOM in a slot loop"),
    (slot_loop(vop(d_kind=isa.D_ACTIVATION1)), "destination ACTIVATION in a slot loop"),
    (slot_loop(vop(d_kind=isa.D_SAMPLE)), "destination SAMPLE in a slot loop"),
    (slot_loop(vop(d_kind=isa.D_LIST, d_banks=1)), "destination LIST in a slot loop"),
    (slot_loop(vop(peak=1, k=9)), "a peak in a slot loop"),
    (slot_loop(isa.encode(isa.SLOT)), "a slot loop in a slot loop"),
    ([isa.encode(isa.SLOT, again=1)], "a slot loop that has not begun"),
    ([isa.encode(isa.SLOT), isa.encode(isa.HALT)], "or a slot loop left"),
    ([vop(d_kind=isa.D_MEM)], "MEM outside of a slot loop"),
    (slot_loop(vop(d_kind=isa.D_MEM)), "STORE announced"),
    (slot_loop(vop(d_kind=isa.D_SCALAR, d=9), vop(a=9)), "reads s9 while a result is under way"),
    (slot_loop(vop(d_kind=isa.D_SCALAR, d=9)), "writes s9 while a result is under way"),
    (slot_loop(vop(a_kind=0, a=1, b_kind=0, b=2)), "bank 0 is read at two addresses"),
    (slot_loop(*[isa.encode(isa.FETCH, words=1)] * 5), "more than 8 unfinished fetches"),
    (slot_loop(isa.encode(isa.STORE, words=1)), "STORE before the words"),
])
def test_broken_slot_loops_are_noticed(words, message):
    board = Board(CASES[0], top_k=4)
    for slot in range(2):
        board.begin(slot, prompt=[1], count=1)
    board.machine.load_program(words)
    with pytest.raises(MachineError, match=message):
        board.machine.step()


def test_keys_and_scores_of_the_list_go_together():
    board = Board(CASES[0], top_k=4)
    board.begin(0, prompt=[1], count=1)
    for words, message in (
            ([vop(d_kind=isa.D_LIST, d_banks=1), vop(d_kind=isa.D_LIST, d_banks=1, d=1)], "keys of the list before"),
            ([vop(d_kind=isa.D_LIST, d_banks=1), vop(d_kind=isa.D_SAMPLE), vop(d_kind=isa.D_SAMPLE)],
             "scores of other rows")):
        board.machine.load_program([isa.encode(isa.SAMPLE), *words])
        with pytest.raises(MachineError, match=message):
            board.machine.step()


def test_slot_instructions_are_faults_without_slots():
    for words in ([isa.encode(isa.SLOT)], [isa.encode(isa.JUMP, condition=isa.CHAINED)]):
        board = Board((1, *CASES[0][1:]))
        board.begin(0, prompt=[1], count=1)
        board.machine.load_program(words)
        assert board.machine.run() == [] and board.machine.fault == 1


@pytest.mark.parametrize("case", [CASES[0], CASES[5]], ids=["2", "8"])
@pytest.mark.parametrize("chained", [False, True])
def test_every_missing_wait_is_noticed(case, chained):
    board = Board(case)
    lines, unnoticed = board.program.listing.splitlines(), []
    memory = board.machine.memory.copy()
    for number, word in enumerate(board.program.words):
        if not isa.decode(word)[1].get("wait"):
            continue
        words = list(board.program.words)
        words[number] &= ~(1 << 5)
        for temperature in (0.5, 0.0):
            board.machine = Machine(board.config, memory.copy())
            board.machine.load(board.program)
            board.machine.load_program(words)
            board.begin(0, prompt=[1, 2, 0], count=2, temperature=temperature, chained=chained)
            if not chained:
                board.begin(1, prompt=[1, 2], count=2, temperature=temperature)
            try:
                board.machine.run()
            except MachineError as error:
                assert "wait is missing" in str(error)
                break
        else:
            unnoticed.append(lines[number])
    assert unnoticed == []
