"""The netlist of a board after synthesis, simulated: does it generate the tokens of the golden model?

    python -m docs.figures.netlists ulx3s-85f models/story/story.sterna
"""

import argparse
import sys
import time
from dataclasses import asdict, dataclass

from sterna.host.errors import HostError
from sterna.host.model.model import Model
from sterna.host.runtime.golden import GoldenRuntime
from sterna.host.runtime.open import open_simulation
from sterna.host.runtime.sampling import Demands, Sampling
from sterna.hw.boards import preset
from sterna.hw.config import ConfigError
from sterna.hw.flow.units import SynthesisError
from sterna.sim.board.board import BoardError
from sterna.sim.board.compile import board_program
from sterna.sim.board.toolchain import ToolError
from sterna.sim.golden.errors import SternaError

SAMPLINGS = (Sampling(), Sampling(0.8, 1))


class NetlistError(SternaError, RuntimeError):
    """A netlist generated another token than the golden model."""


@dataclass(frozen=True)
class Check:
    """What was compared: tokens of all runs, behind prompts of so many tokens, and what it took.

    ``cycles`` are those simulated in all, ``build_s`` synthesis and compilation, 0 if there was a build already.
    """

    board: str
    family: str
    model: str
    prompt_tokens: int
    tokens: int
    cycles: int
    build_s: float
    run_s: float

    def as_dict(self):
        """Plain dictionary, for JSON."""
        return asdict(self)


def family_of(config):
    """Family of FPGAs that a board or preset is built for: small ones keep their model on the chip."""
    return "ice40" if config.memory == "onchip" else "ecp5"


def check(name, path, tokens=4, prompt="Once upon a time", samplings=SAMPLINGS, tell=print):
    """Runs a model on the netlist of a board and on the golden model.

    An external memory has the model from the start; into one on the chip it goes through the link.

    Parameters
    ----------
    name : str
        Board or preset.
    path : str or Path
        Model.
    tokens : int
        To generate per sampling, behind the prompt.
    prompt : str
    samplings : iterable of Sampling
    tell : callable(str)
        Takes lines of information.

    Returns
    -------
    Check

    Raises
    ------
    NetlistError
        For the first token that differs.
    ToolError, SynthesisError
        If the netlist cannot be built.
    """
    config, model = preset(name), Model(path)
    family, started = family_of(config), time.monotonic()
    board_program(config, netlist=family, on_compile=lambda text: tell(f"{text} (from its netlist for {family})"))
    built = time.monotonic()
    ids = model.vocabulary.encode(prompt)
    with open_simulation(config, model, tell, Demands(), preload=config.memory == "external",
                         timing={"netlist": family, "seed": 1}) as runtime, GoldenRuntime(model) as golden:
        for sampling in samplings:
            got = list(runtime.generate(ids, tokens, sampling))
            expected = list(golden.generate(ids, tokens, sampling))
            if got != expected:
                raise NetlistError(f"{name}: the netlist generates {got} behind {prompt!r} with {sampling}, the "
                                   f"golden model {expected}")
        board = runtime.board
    finished = time.monotonic()
    return Check(name, family, model.name, len(ids), tokens * len(samplings), board.cycles, built - started,
                 finished - built)


def main(arguments=None):
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m docs.figures.netlists", description=__doc__.splitlines()[0])
    parser.add_argument("board", help="board or preset, for instance ulx3s-85f or up5k")
    parser.add_argument("model", help="model, for instance models/story/story.sterna")
    parser.add_argument("-n", type=int, default=4, help="tokens to generate, greedy and sampled (default 4)")
    options = parser.parse_args(arguments)
    try:
        result = check(options.board, options.model, options.n)
    except (NetlistError, HostError, ConfigError, SynthesisError, ToolError, BoardError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{result.board}: {result.tokens} tokens of {result.model} equal those of the golden model; "
          f"{result.cycles} cycles of the netlist for {result.family} in {result.run_s:.0f} s, "
          f"built in {result.build_s:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
