"""The interpreter running generated programs on packed images equals the golden model, token for token."""

import os
from dataclasses import replace

import numpy as np
import pytest
from sterna.firmware import isa
from sterna.firmware.program import ProgramError, build_program, inverse_temperature
from sterna.host.model.image import Image, build_image
from sterna.hw.config import Config
from sterna.sim.golden.fp24 import to_bits
from sterna.sim.golden.model import GoldenModel
from sterna.sim.golden.packed import Geometry, random_model
from sterna.sim.machine.machine import Machine, MachineError

SEED = int(os.environ.get("STERNA_SEED", "1"))
# rows, columns, lanes, port_bytes, strip, code, H, I, L, V
CASES = [
    (1, 10, 1, 2, 16, "trit5", 24, 33, 2, 19),
    (1, 10, 1, 2, 16, "bit2", 70, 37, 1, 3),
    (3, 5, 1, 4, 6, "trit5", 13, 79, 3, 50),
    (2, 10, 2, 4, 16, "bit2", 67, 45, 2, 35),
    (2, 20, 4, 8, 32, "trit5", 71, 90, 1, 77),
    (8, 20, 4, 32, 32, "bit2", 45, 130, 2, 67),
    (8, 40, 8, 64, 64, "trit5", 131, 75, 2, 130),
    (4, 40, 8, 32, 8, "bit2", 19, 77, 3, 41),
    (4, 20, 2, 8, 32, "trit5", 1, 1, 1, 3),
    (16, 40, 8, 64, 64, "trit5", 200, 333, 1, 301),
    (5, 40, 8, 32, 80, "trit5", 131, 175, 2, 130),
    (5, 32, 32, 128, 320, "trit5", 99, 333, 2, 130),  # strips of more than 128 rows
]


def make(case, seed=SEED):
    rows, columns, lanes, port, strip, code, *shape = case
    config = Config(name="test", rows=rows, columns=columns, lanes=lanes, port_bytes=port, memory_bytes=1 << 20,
                    vector_words=2048, activation_words=256, strip=strip, clock_hz=1, weight_code=code)
    packed = random_model(np.random.default_rng(seed), Geometry(*shape))
    return config, packed


def board(config, packed, trace=None):
    image = Image(build_image(packed, config, "{}", "test", 0))
    memory = np.random.default_rng(0).integers(0, 256, config.memory_bytes, dtype=np.uint8)  # state regions hold junk
    for address, data in image.regions(config):
        memory[address:address + len(data)] = data
    machine = Machine(config, memory, trace)
    program = build_program(config, packed.geometry)
    machine.load(program)
    return machine, program


def begin(machine, prompt, temperature, seed, tokens):
    machine.ring[:len(prompt)] = prompt
    machine.start, machine.prompt_end, machine.seed = 0, len(prompt), seed
    machine.limit, machine.flags = len(prompt) + tokens - 1, int(temperature > 0)
    machine.write_scalar(2, inverse_temperature(temperature))


@pytest.mark.parametrize("temperature", [pytest.param(0.0, marks=pytest.mark.rest), 0.8])
@pytest.mark.parametrize("case", [
    case if number in (1, 4, 5, 8, 9, 10) else pytest.param(case, marks=pytest.mark.rest)
    for number, case in enumerate(CASES)], ids=lambda c: "-".join(map(str, c)))
def test_equals_golden(case, temperature):
    print("seed", SEED)
    config, packed = make(case)
    machine, _ = board(config, packed)
    rng = np.random.default_rng(SEED)
    prompt = rng.integers(0, packed.geometry.vocab_size, 4).tolist()
    begin(machine, prompt, temperature, 77, 6)
    state = GoldenModel(packed).start(1)
    want = GoldenModel(packed).generate(prompt, 6, 77, temperature, state)
    assert machine.run() == [(0, len(prompt) + k, t) for k, t in enumerate(want)]
    assert machine.position == len(prompt) + 5
    program = build_program(config, packed.geometry)
    for layer in range(packed.geometry.num_hidden_layers):
        at = program.memory_map.state_address + layer * program.memory_map.layer_state_bytes
        bits = machine.memory[at:at + 4 * packed.geometry.hidden_size].view("<u4")
        assert np.array_equal(bits, to_bits(state[layer, 0]))


def test_state_saved_and_restored():
    config, packed = make(CASES[5])
    machine, program = board(config, packed)
    begin(machine, [1, 2, 3], 0.0, 0, 8)
    first = machine.run()
    where = program.memory_map
    region = slice(where.state_address, where.state_address + where.state_bytes)
    machine.position, machine.limit, machine.start = 0, 3, 0
    machine.run()
    saved = machine.memory[region].copy()
    machine.position, machine.limit = 0, 2
    machine.ring[:2] = 5, 6
    machine.run()  # another text in between
    other, _ = board(config, packed)
    begin(other, [1, 2, 3], 0.0, 0, 8)
    other.memory[region] = saved
    other.ring[3], other.position, other.prompt_end, other.start = first[0].token, 3, 0, 0xFFFFFFFF
    assert other.run() == first[1:]


def test_stop_token_ends_the_run():
    config, packed = make(CASES[3])
    machine, _ = board(config, packed)
    begin(machine, [1, 2], 0.7, 5, 12)
    tokens = [report.token for report in machine.run()]
    again, _ = board(config, packed)
    begin(again, [1, 2], 0.7, 5, 12)
    again.stop = tokens[2]
    assert [report.token for report in again.run()] == tokens[:tokens.index(tokens[2]) + 1]
    assert again.position == again.limit == 2 + tokens.index(tokens[2])


def test_trace_sees_every_code_and_result():
    config, packed = make(CASES[1])
    seen = []
    machine, program = board(config, packed, lambda pc, f, r, codes, slots: seen.append((r.shape, codes, slots)))
    begin(machine, [0, 1], 0.0, 0, 1)
    machine.run()
    counts = [codes.shape[1] for _, codes, _ in seen if codes is not None]
    h, i = packed.geometry.hidden_size, packed.geometry.intermediate_size
    assert counts == [h, h, h, h, h, i] * 2 + [h]
    assert all(shape[1:] == (1, config.lanes) and slots == [0] for shape, _, slots in seen)


def needed_waits(program):
    return [n for n, word in enumerate(program.words) if isa.decode(word)[1].get("wait")]


@pytest.mark.parametrize("case", [CASES[0], CASES[2], CASES[6], CASES[7]],
                         ids=["one lane", "one lane, short strips", "eight lanes", "eight lanes, short strips"])
def test_every_missing_wait_is_noticed(case):
    config, packed = make(case)
    machine, program = board(config, packed)
    scalars, memory, lines = machine.scalars.copy(), machine.memory.copy(), program.listing.splitlines()
    unnoticed = []
    for number in needed_waits(program):
        words = list(program.words)
        words[number] &= ~(1 << 5)
        for temperature in (0.5, 0.0):  # the two paths through the head
            machine = Machine(config, memory.copy())
            machine.scalars[:] = scalars
            machine.load_program(words)
            begin(machine, [1], temperature, 1, 1)
            try:
                machine.run()
            except MachineError as error:
                assert "wait is missing" in str(error)
                break
        else:
            unnoticed.append(lines[number])
    assert unnoticed == []


def program_without(program, text):
    """The program's words with the first instruction whose line starts with ``text`` made a jump to the next."""
    lines = program.listing.splitlines()
    number = next(n for n, line in enumerate(lines) if line.startswith(text))
    words = list(program.words)
    words[number] = isa.encode(isa.JUMP, target=number + 1)
    return words


@pytest.mark.parametrize("text, message", [
    ("FETCH", "no fetch before it brings|products or announced"),
    ("MATVEC", "rows that no product makes|no fetch before it"),
    ("STORE", "STORE announced")])
def test_order_errors_are_noticed(text, message):
    config, packed = make(CASES[0])
    machine, program = board(config, packed)
    machine.load_program(program_without(program, text))
    begin(machine, [1, 2], 0.0, 0, 1)
    with pytest.raises(MachineError, match=message):
        machine.run()


def test_memory_on_chip_takes_no_fetch_ahead_of_time():
    config, packed = make(CASES[0])
    machine, _ = board(replace(config, memory="onchip"), packed)
    _, program = board(config, packed)  # fetches ahead
    machine.load_program(program.words)
    begin(machine, [1], 0.0, 0, 1)
    with pytest.raises(MachineError, match="more than 1 unfinished fetches"):
        machine.run()


def test_load_behind_an_issued_product_is_a_deadlock():
    config, packed = make((1, 10, 1, 2, 16, "trit5", 160, 33, 1, 19))
    machine, program = board(config, packed)
    words = list(program.words)
    lines = program.listing.splitlines()
    last = max(n for n, line in enumerate(lines) if line.startswith("MATVEC"))
    words[last + 1] = isa.encode(isa.VOP, a_kind=isa.A_STREAM32, b_kind=3, b=1, c_kind=3, one=1)
    machine.load_program(words)
    begin(machine, [1], 0.0, 0, 1)
    with pytest.raises(MachineError, match="do not fit the row queue|no fetch before it"):
        machine.run()


def test_walk_is_the_instruction_fault():
    config, packed = make(CASES[0])
    machine, _ = board(config, packed)
    machine.load_program([isa.encode(isa.WALK)])
    machine.limit = 1
    assert machine.run() == [] and machine.fault == 1 and machine.position == 0


def test_program_too_long_is_refused():
    config, packed = make(CASES[0])
    with pytest.raises(ProgramError, match="program of .* instructions: the device holds 64"):
        build_program(replace(config, program_words=64), packed.geometry)
