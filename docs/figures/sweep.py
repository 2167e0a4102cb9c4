"""One sweep of a build with slots: a token in every slot from one reading of the weights, and a prompt that fills all
slots.

The second part of ``docs.figures.fullboard``, for devices as sim:kv260,batch=8. Which slots take part in a run of the
program depends on when the host's writes arrive; so the program stands behind a run without a token, which waits
until all are there.
"""

from functools import partial

import numpy as np

from sterna.firmware import isa
from sterna.firmware.program import build_program
from sterna.firmware.programs.pieces import INVERSE_TEMPERATURE, LN2
from sterna.host.device.run import ONE_BITS
from sterna.host.model.model import Model
from sterna.host.runtime.cpu import CpuRuntime
from sterna.host.runtime.open import open_runtime, simulated_config
from sterna.host.runtime.sampling import Sampling
from sterna.host.runtime.statistics import useful_bytes
from sterna.hw import protocol
from sterna.hw.protocol import FLAG_CHAINED
from sterna.sim.board.board import read_trace, trace_cycles
from sterna.sim.golden import fp24
from sterna.sim.golden.errors import SternaError
from sterna.sim.machine.compare import first_difference
from sterna.sim.machine.machine import Machine

GREEDY = Sampling(temperature=0)


class SweepDiffers(SternaError):
    """Tokens, a state or a vector of a slot are not those of the model."""


def gate(at, is_open):
    """The instruction at ``at`` of the program's memory that jumps to itself, or to the next one."""
    return isa.encode(isa.JUMP, condition=isa.ALWAYS, target=at + is_open)


def gated(words):
    """(program, place of its closed gate): in a run at the start of slot 0 it waits there, and then fetches what
    every run leaves to the next one, and nothing else. ``words`` are those of a program with slots.
    """
    def moved(word):
        opcode, fields = isa.decode(word)
        if "target" in fields and (opcode != isa.SLOT or fields["again"]):
            fields["target"] += 1
        return isa.encode(opcode, **fields)

    fetches = []
    for word in words[isa.decode(words[0])[1]["target"]:]:  # where the first run of all goes
        if isa.decode(word)[0] == isa.JUMP:
            break
        fetches.append(word)
    at = 1 + len(words)
    begin = isa.encode(isa.JUMP, condition=isa.AT_START, target=at)
    return [begin, *map(moved, words), gate(at, False), *fetches, isa.encode(isa.HALT)], at


def texts(batch, first):
    """The prompt of each slot (list of list of int), and one whose first tokens take all slots in one run."""
    # Of what slot 0 reads the first token belongs to the run that waits.
    return [[first, first], *([first + slot] for slot in range(1, batch))], [first + k for k in range(batch + 1)]


def on_board(device, model, first, timing):
    """What the simulated board makes of it: (token of each slot, fp24 state [L, H] behind the prompt, counters of the
    prompt).
    """
    with open_runtime(device, model, tell=partial(print, flush=True), preload=True, timing=timing) as runtime:
        board = runtime.device
        board.stall_s = 1e6
        prompts, longer = texts(board.info.batch, first)
        words, at = gated(build_program(board.info, model.geometry).words)
        board.load_program(words)
        runs = [board.start(prompt, 1, slot=slot) for slot, prompt in enumerate(prompts)]
        for run in runs:
            run.feed()
        board.enable([0])
        while not board.status(0)[0]:
            pass
        board.enable(board.slots[1:])
        board.write(protocol.PROGRAM + 16 * at, gate(at, True).to_bytes(16, "little"))
        found = []
        for slot, run in enumerate(runs):
            while not run.ended:
                found += [token for _, token in run.arrived(board.wait_token(run.patience_s, slot))]
            board.halt(slot)
        board.load_program(build_program(board.info, model.geometry).words)
        list(runtime.generate(longer, 0, GREEDY))
        return found, runtime.state().values, runtime.statistics.prompt_counters


def on_interpreter(config, image, first):
    """The same on the instruction interpreter: (tokens, states [L, B, H] behind them, state behind the prompt,
    vectors of the sweep, vectors of the prompt).
    """
    program, geometry = build_program(config, image.geometry), image.geometry
    memory, vectors, where = np.zeros(program.memory_map.end, np.uint8), [], program.memory_map
    for address, data in image.regions(config):
        memory[address:address + len(data)] = data
    machine = Machine(config, memory, lambda *vector: vectors.append(vector))
    machine.load(program)
    words, at = gated(program.words)
    words[at] = gate(at, True)
    machine.load_program(words)
    prompts, longer = texts(config.batch, first)
    for number, (slot, prompt) in enumerate(zip(machine.slots, prompts, strict=True)):
        machine.write_scalar(INVERSE_TEMPERATURE, ONE_BITS, number)
        machine.write_scalar(LN2, 0, number)
        slot.ring[:len(prompt)] = prompt
        slot.position = slot.start = 0
        slot.prompt_end, slot.limit = len(prompt), len(prompt)
        slot.enabled = number == 0
    machine.step()
    for slot in machine.slots:
        slot.enabled = True
    tokens = [report.token for report in machine.run()]

    def states():
        raw = memory[where.state_address:where.state_address + where.state_bytes].view("<u4")
        shaped = raw.reshape(geometry.num_hidden_layers, config.batch, -1)
        return fp24.from_bits(shaped[:, :, :geometry.hidden_size])

    swept, behind = len(vectors), states()
    machine.load_program(program.words)
    slot = machine.slots[0]
    slot.ring[:len(longer)] = longer
    slot.position = slot.start = 0
    slot.flags, slot.prompt_end, slot.limit = FLAG_CHAINED, len(longer), len(longer) - 1
    machine.draft_end = machine.source = 0
    machine.run()
    return tokens, behind, states()[:, machine.source], vectors[:swept], vectors[swept:]


def on_cpu(model, batch, first):
    """The same on the CPU, each text alone: (tokens, states [L, B, H], state behind the prompt)."""
    prompts, longer = texts(batch, first)
    tokens, states = [], []
    with CpuRuntime(model) as cpu:
        for prompt in prompts:
            cpu.clear()
            tokens += cpu.generate(prompt[-1:], 1, GREEDY)
            states.append(cpu.state().values)
        cpu.clear()
        list(cpu.generate(longer, 0, GREEDY))
        return tokens, np.stack(states, axis=1), cpu.state().values


def sweep(image, device, timing, folder, first):
    """Figures (dict) of a token in every slot and of a prompt of as many tokens; SweepDiffers if anything is wrong.

    Every vector of every slot must be that of the interpreter, whose tokens and states must be those of the CPU.

    Parameters
    ----------
    image : Path
        Image of the model, or checkpoint folder.
    device : str
        sim:PRESET,batch=B.
    timing : dict
        As ``SimulatedBoard`` takes it.
    folder : Path
        For the trace, which is removed.
    first : int
        Token that slot 0 reads; those of the others follow it.
    """
    model, config = Model(image), simulated_config(device)
    trace, lanes = folder / "trace-slots", config.batch * config.lanes
    try:
        tokens, state, counters = on_board(device, model, first, timing | {"trace": trace})
        actual, cycles = read_trace(trace, lanes), trace_cycles(trace, lanes)
    finally:
        trace.unlink(missing_ok=True)
    made, states, behind, swept, read = on_interpreter(config, model.image_for(config, print), first)
    right, right_states, right_behind = on_cpu(model, config.batch, first)
    for what, wrong in (
            (f"{device} made the tokens {tokens}, cpu {right}", tokens != right),
            (f"the interpreter made the tokens {made}, cpu {right}", made != right),
            ("the interpreter's states are not those of cpu", not np.array_equal(states, right_states)),
            (f"{device}: the state behind the prompt is not that of cpu", not np.array_equal(state, right_behind)),
            ("the interpreter's state behind the prompt is not that of cpu",
             not np.array_equal(behind, right_behind))):
        if wrong:
            raise SweepDiffers(what)
    if text := first_difference(swept + read, actual):
        raise SweepDiffers(f"{device}: {text}")
    clock, batch, used = config.clock_hz, config.batch, counters["cycles"]
    taken = int(cycles[len(swept) - 1, 1] - cycles[0, 0]) + 1
    useful = useful_bytes(model.geometry, config.weight_code, tokens=batch) / config.port_bytes
    return {"slots": batch, "vectors": len(swept), "cycles": taken, "clock_hz": clock, "share": useful / taken,
            "tokens_per_second": batch * clock / taken, "prompt_vectors": len(read), "prompt_cycles": used,
            "prompt_tokens_per_second": batch * clock / used}
