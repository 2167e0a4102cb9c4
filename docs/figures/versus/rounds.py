"""Measures both programs and the memory in turns, so that whatever else the machine does meets all of them."""

import statistics
from contextlib import ExitStack

from docs.figures.versus import machine, ternary
from docs.figures.versus.processes import PlayerError, started
from docs.figures.versus.randoms import SIZES
from sterna.host.bench.bench import used_bytes

MAKE, READ = 64, 512  # tokens that are made, and tokens of a prompt
BARS = {"make": 1.5, "read": 1.0}  # of llama.cpp's tokens/s
ROUNDS, WARM_TOKENS = 7, 4
FAR_BYTES = 1 << 30
SIZE_OF = {"370m": SIZES["370m"], "1b3": SIZES["1.3b"]}  # of the figures, whose names are words
BUSY = 0.1  # part of the processors' time that others may take, if a bar is to be judged


def in_turns(programs, memory, rounds, tell):
    """What is measured (dict of list, a value a round): seconds by (name, test); under "memory" the rates of far and
    near; under "busy" what others took of the processors before the round.

    Parameters
    ----------
    programs : dict of str to Player
        Their order changes with every round.
    memory : Player
    rounds : int
    tell : callable(str)
        Takes a line for each round.
    """
    found = {"memory": [], "busy": []}
    for number in range(rounds):
        found["busy"].append(machine.busy())
        found["memory"].append(memory.ask("rates"))
        order = list(programs.items())[::-1 if number % 2 else 1]
        for test, count in (("make", MAKE), ("read", READ)):
            for name, player in order:
                found.setdefault((name, test), []).append(player.ask(test, count))
        rates = ", ".join(f"{name} {test} {count / found[name, test][-1]:.1f}"
                          for test, count in (("make", MAKE), ("read", READ)) for name in programs)
        tell(f"round {number + 1} of {rounds}, tokens/s: {rates}; busy before: {found['busy'][-1]:.0%}")
    return found


def summary(found, sizes):
    """The figures (dict of float, and "met", "missed" or "not judged") of what was measured.

    Parameters
    ----------
    found : dict
        As ``in_turns`` gives it, of "llama" and "sterna".
    sizes : dict of str to dict
        What a token uses of the weights, by program and test.
    """
    out = {"busy.share": statistics.median(found["busy"])}
    for place, rates in zip(("far", "near"), zip(*found["memory"], strict=True), strict=True):
        out[f"memory.{place}.gb_per_second"] = max(rates) / 1e9
    for (name, test), seconds in ((key, value) for key, value in found.items() if isinstance(key, tuple)):
        count = {"make": MAKE, "read": READ}[test]
        rate = count / statistics.median(seconds)
        streamed = rate * sizes[name][test] / 1e9
        out |= {f"{name}.{test}.tokens_per_second": rate, f"{name}.{test}.best": count / min(seconds),
                f"{name}.{test}.gb_per_second": streamed,
                f"{name}.{test}.share": streamed / out["memory.far.gb_per_second"],
                f"{name}.{test}.all": [count / one for one in seconds]}
    for test, bar in BARS.items():
        ratio = out[f"sterna.{test}.tokens_per_second"] / out[f"llama.{test}.tokens_per_second"]
        judged = "met" if ratio >= bar else "missed"
        out |= {f"{test}.ratio": ratio, f"{test}.bar": bar,
                f"{test}.result": judged if out["busy.share"] <= BUSY else "not judged, the machine was busy"}
    return out


def measure(geometry, source, threads, folder, rounds=ROUNDS, tell=print):
    """Makes the file, loads both models and measures.

    Parameters
    ----------
    geometry : Geometry
    source : Geometry or str
        What ``players.Sterna`` takes: of this geometry.
    threads : int
        Of each program, and of the reading of the memory.
    folder : Path
        For the GGUF file, which is removed in the end.
    rounds : int
    tell : callable(str)

    Returns
    -------
    dict
        Figures by name, and "how".

    Raises
    ------
    UsageError
        The extra is missing.
    PlayerError
        A program failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "random-tq2_0.gguf"
    tell(f"writing {path}")
    with ExitStack() as stack:
        stack.callback(path.unlink, missing_ok=True)
        size_bytes = {"llama": ternary.write(path, geometry)}
        llama = stack.enter_context(started("Llama", str(path), threads, READ))
        sterna = stack.enter_context(started("Sterna", source, threads))
        tell("loading both models")
        about = {"llama": llama.ask("about"), "sterna": sterna.ask("about")}
        if (count := about["llama"]["parameters"]) != (wanted := ternary.parameters(geometry)):
            raise PlayerError(f"{path}: llama.cpp finds {count} parameters, not {wanted}")
        size_bytes["sterna"] = about["sterna"]["bytes"]
        memory = stack.enter_context(started("Memory", FAR_BYTES, size_bytes["sterna"], threads))
        programs = {"llama": llama, "sterna": sterna}
        for player in programs.values():
            player.ask("make", WARM_TOKENS)
            player.ask("read", WARM_TOKENS)
        found = in_turns(programs, memory, rounds, tell)
        resident = {f"{name}.resident_bytes": player.ask("resident") for name, player in programs.items()}
    sizes = {name: {test: used_bytes(geometry, size, head=test == "make") for test in BARS}
             for name, size in size_bytes.items()}
    out = {"weights": geometry.ternary_weights, "llama.bytes": size_bytes["llama"],
           "sterna.bytes": size_bytes["sterna"], "threads": threads, **resident, **summary(found, sizes)}
    return out | {"how": describe(geometry, source, threads, rounds, about, out["busy.share"])}


def describe(geometry, source, threads, rounds, about, busy):
    """How the figures were obtained (str)."""
    weights = "random trits" if not isinstance(source, str) else "the weights of a checkpoint"
    sizes = (f"hidden {geometry.hidden_size}, intermediate {geometry.intermediate_size}, "
             f"{geometry.num_hidden_layers} layers, vocabulary {geometry.vocab_size}")
    return (f"measured on {machine.cpu_name()}; threads of each: {threads}; taken by others: {busy:.0%}; "
            f"{about['llama']['version']}, whose ggml is built with {about['llama']['features']}; "
            f"{about['sterna']['version']}, kernels {about['sterna']['kernels']}; {sizes}, {weights}; {MAKE} tokens "
            f"made from an empty text, so that attention sees {MAKE // 2} positions in the mean, and a prompt of "
            f"{READ} in one block; medians over rounds in turns, {rounds} of them, and of the memory the best")
