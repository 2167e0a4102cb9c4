"""What a layer and its channel mixer take in the RTL: cycles between the vectors of a trace.

Models of two layers with random weights and a cut vocabulary, otherwise of full size: every layer's cycles are real
ones. The interpreter runs the same tokens and tells which instruction made which vector, the trace of the simulated
board when.
"""

from typing import NamedTuple

import numpy as np

from sterna.firmware import isa
from sterna.firmware.program import build_program
from sterna.host.model.image import build_image
from sterna.host.model.model import Model
from sterna.host.runtime.open import open_simulation
from sterna.host.runtime.sampling import Demands, Sampling
from sterna.sim.board.board import trace_cycles
from sterna.sim.golden.packed import random_model
from sterna.sim.machine.machine import Machine

LAYERS = 2
CODES = 6  # vectors of codes of a layer: f, i, g, o, gate or tree in, down or tree out
MIXER = 4  # the channel mixer's first among them
PROMPT, COUNT = (1, 2, 3), 3
SEED = 1


class Cycles(NamedTuple):
    """Cycles of one sequence in the steady state (int).

    Attributes
    ----------
    token : int
        From a token to the next.
    mixer : int
        From barrier to barrier: from the scalars of the channel mixer's norm to those of the next
        layer's first norm.
    products : int
        Of these with a product under way: from the codes, or what is loaded behind them, to the
        operation that takes the last rows; of a gather, whose rows come together, to its first
        beat.
    vectors : int
        Of the mixer's: operations that load vectors of the stream.
    update : int
        Of the mixer's: from the first operation on rows of its second product to the fold of the next
        norm's sums.
    """

    token: int
    mixer: int
    products: int
    vectors: int
    update: int


def instructions(config, image, prompt=PROMPT, count=COUNT):
    """The fields of the VOP that made each vector of greedy tokens behind a prompt, in order (list of dict)."""
    fields = []
    program = build_program(config, image.geometry)
    memory = np.zeros(program.memory_map.end, np.uint8)
    for address, data in image.regions(config):
        memory[address:address + len(data)] = data
    machine = Machine(config, memory, lambda pc, found, *_: fields.append(found))
    machine.load(program)
    machine.ring[:len(prompt)] = prompt
    machine.position = machine.start = 0
    machine.prompt_end, machine.limit = len(prompt), len(prompt) + count - 1
    machine.run()
    return fields


def _codes(fields, layers):
    """Numbers of the vectors of codes of the last two tokens (int array [2, layers CODES + 1]); ValueError."""
    codes = [k for k, f in enumerate(fields) if f["d_kind"] in (isa.D_ACTIVATION0, isa.D_ACTIVATION1)]
    per_token = layers * CODES + 1  # and the head's
    if len(codes) < 2 * per_token:
        raise ValueError(f"{len(codes)} vectors of codes: two tokens have {per_token} each")
    return np.array(codes[-2 * per_token:]).reshape(2, per_token)


def period(fields, cycles, layers):
    """Cycles (int) from a token to the next of a model of ``layers`` layers; otherwise as `intervals`."""
    before, last = _codes(fields, layers)
    return int(cycles[last[0], 1] - cycles[before[0], 1])


def intervals(fields, cycles, gathers):
    """The Cycles of vectors: the fields of their instructions, and the cycles of the first and the last beat of each
    (int array [vectors, 2]).

    ``gathers``: the second product of the mixer is a gather. ValueError: they are not those of LAYERS layers and two
    tokens or more.
    """
    begins, ends = cycles.T

    def where(holds):
        return np.array([k for k, f in enumerate(fields) if holds(f)])

    rows = where(lambda f: f["a_kind"] == isa.A_ROW)
    loads = where(lambda f: f["a_kind"] == isa.A_STREAM32)
    scalars = np.setdiff1d(where(lambda f: f["d_kind"] == isa.D_SCALAR), loads)
    if len(fields) != len(ends):
        raise ValueError(f"{len(fields)} instructions and {len(ends)} vectors: use the same run")

    def between(numbers, begin, end):
        return numbers[(numbers > begin) & (numbers < end)]

    def barrier(code):
        """The vector of the last scalar before codes."""
        return scalars[scalars < code][-1]

    last = _codes(fields, LAYERS)[1]
    first, second, following = last[[MIXER, MIXER + 1, CODES]]
    begin, end = barrier(first), barrier(following)
    products, taken = 0, []
    for start, stop, gather in ((first, second, False), (second, end, gathers)):
        taken = between(rows, start, stop)
        start = max(start, *between(loads, start, taken[0]), start)
        products += (begins[taken[0]] if gather else ends[taken[-1]]) - ends[start]
    fold = between(where(lambda f: f["one"]), taken[-1], end)[0]
    loaded = between(loads, begin, end)
    return Cycles(*map(int, (
        period(fields, cycles, LAYERS), ends[end] - ends[begin], products,
        (ends[loaded] - ends[loaded - 1]).sum(), ends[fold - 1] - begins[taken[0]])))


def traced(config, geometry, folder, tokenizer_json, timing=None):
    """(instruction fields, cycles) of every vector of a random model on the simulated board, as `intervals` takes
    them.

    Parameters
    ----------
    config : Config
        With one slot.
    geometry : Geometry or TreeGeometry
    folder : Path
        Takes the image and the trace, which are large; both are removed.
    tokenizer_json : str
    timing : dict, optional
        Options of the simulated board: of its memory.
    """
    path, trace = folder / "random.sterna", folder / "trace"
    packed = random_model(np.random.default_rng(SEED), geometry)
    path.write_bytes(build_image(packed, config, tokenizer_json, "random", 0))
    try:
        model = Model(path)
        with open_simulation(config, model, print, Demands(), preload=True,
                             timing={"trace": trace, **(timing or {})}) as runtime:
            for _ in runtime.generate(list(PROMPT), COUNT, Sampling()):
                pass
        return instructions(config, model.image), trace_cycles(trace, config.lanes)
    finally:
        path.unlink(missing_ok=True)
        trace.unlink(missing_ok=True)
