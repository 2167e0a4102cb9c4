"""Time to the first token of a conversation's turns, with the states of the turns before and without them.

The client sends the whole conversation each time, as a chat does: the engine finds by itself what it has read.
"""

import platform
import statistics

from docs.figures.pages import table
from docs.figures.versus.machine import cpu_name
from sterna.host.model.model import Model
from sterna.host.serving.engine import load
from sterna.sim.cpu.model import usable_threads

STEP, MODEL = "serving.turns", "models/stories37m/stories37m.sterna"
TURNS, CONVERSATIONS, MADE, SEED = (1, 10, 100), 3, 32, 1
SAID = ("\nThen Lily asked her friend what they should do next, because it was getting dark and the wind was cold. "
        "Her friend said:")
SOURCES = ("host/serving", "host/runtime", "sim/cpu", "sim/golden")


def asked(engine, text, seed):
    """A turn: its Generation, ended."""
    generation = engine.generate(text, MADE, seed=seed, ignore_end=True)
    generation.result()
    return generation


def conversation(engine, number):
    """Runs a conversation; {turn: (text that was sent, Usage)} of TURNS."""
    text, out = f"Once upon a time there were {number + 2} children.", {}
    for turn in range(1, TURNS[-1] + 1):
        text += SAID
        generation = asked(engine, text, SEED + number)
        if turn in TURNS:
            out[turn] = text, generation.usage
        text += generation.text
    return out


def measured(path=MODEL):
    """What the step finds, on this machine."""
    model, threads = Model(path), usable_threads()
    with load(model, "cpu", threads=threads) as engine:
        asked(engine, "Warm.", SEED)
        kept = [conversation(engine, number) for number in range(CONVERSATIONS)]
        sizes = len(engine._states), engine._states.size_bytes
    with load(model, "cpu", threads=threads, state_cache_bytes=0) as engine:
        asked(engine, "Warm.", SEED)
        plain = [{turn: asked(engine, text, SEED + k).usage for turn, (text, _) in found.items()}
                 for k, found in enumerate(kept)]
    out = {"states": sizes[0], "state_bytes": sizes[1] // sizes[0]}
    for turn in TURNS:
        with_, without = [found[turn][1] for found in kept], [found[turn] for found in plain]
        out |= {f"{turn}.prompt_tokens": statistics.median(usage.prompt_tokens for usage in without),
                f"{turn}.read_tokens": statistics.median(use.prompt_tokens - use.cached_tokens for use in with_),
                f"{turn}.with_ms": 1e3 * statistics.median(usage.first_token_s for usage in with_),
                f"{turn}.without_ms": 1e3 * statistics.median(usage.first_token_s for usage in without)}
    return out | {"how": f"measured on {cpu_name()}, {threads} threads, {platform.machine()}, {model.name}; median "
                         f"of {CONVERSATIONS} conversations, {MADE} tokens made a turn"}


def tables(values):
    """Markdown by name (dict of str): ``values`` are those of all steps."""
    if STEP not in values:
        return {}
    found = values[STEP]
    rows = [[turn, f"{found[f'{turn}.prompt_tokens']:,.0f}", f"{found[f'{turn}.read_tokens']:,.0f}",
             f"{found[f'{turn}.without_ms']:,.1f} ms", f"{found[f'{turn}.with_ms']:,.1f} ms"] for turn in TURNS]
    head = ["turn", "tokens of the conversation", "of these read with states", "first token without states",
            "with states"]
    return {f"table.{STEP}": table(head, rows) + f"\n\nTimes are {found['how']}. A state with its tokens takes "
            f"{found['state_bytes'] / 1e3:,.0f} kB on average."}
