"""Speeds of builds with several slots: sequences side by side, prompts, and drafts;
their tables in docs/performance.md.
"""

from docs.figures.pages import table
from sterna.host.model.model import Model
from sterna.host.runtime.open import open_runtime
from sterna.host.runtime.session import Sequence
from sterna.host.runtime.sampling import Sampling
from sterna.hw.boards import preset
from sterna.hw.protocol import BATCHES

PRESETS = ("lanes10", "lanes40")
DRAFTING = ("lanes40", (4, 8))
TOKENS, PROMPT_TOKENS, DRAFT_TOKENS, SEED = 32, 64, 32, 1
# What is made from the beginning alone, from a story that is told for the second time, and from a list that
# repeats itself.
STORY = ("Once upon a time, there was a little girl named Lily. She loved to play outside in the park with her "
         "friends. One day, she saw a big ")
TEXTS = {
    "a story": "Once upon a time",
    "a copied text": f"{STORY}red ball. She was very happy.\n{STORY}",
    "a repetitive text": "Tom had a red ball. Tom had a blue ball. Tom had a red ball. Tom had a blue ball. "
                         "Tom had a red ball. Tom had",
}


def name_of(base, batch):
    """Name of a build in figures: those are words."""
    return f"{base}b{batch}"


def board_timing(timing):
    """Options of the simulated board (dict) for (latency, interval between refreshes, refresh), in cycles."""
    return dict(zip(("latency_cycles", "refresh_interval_cycles", "refresh_cycles"), timing, strict=True))


def _runtime(image, base, batch, timing):
    return open_runtime(f"sim:{base},batch={batch}", Model(image), tell=print, preload=True,
                        timing=board_timing(timing))


def speed(image, base, batch, timing):
    """Cycles of tokens made in all slots at once, and of a prompt read with the slots chained."""
    clock_hz = preset(base).clock_hz
    with _runtime(image, base, batch, timing) as runtime:
        model = runtime.model
        # From the first token on every run makes a token in every slot.
        sequences = [Sequence([model.end], TOKENS, Sampling(0.8, SEED + slot)) for slot in range(batch)]
        if batch > 1:
            for _ in runtime.generate_all(sequences):
                pass
        else:
            for _ in runtime.generate(sequences[0].ids, TOKENS, sequences[0].sampling):
                pass
        made = runtime.statistics.usage
        runtime.restart()
        ids = (model.vocabulary.encode(STORY) * PROMPT_TOKENS)[:PROMPT_TOKENS + 1]
        for _ in runtime.generate(ids, 0, Sampling()):
            pass
        read = runtime.statistics.prompt_usage
    return {"cycles_per_token": made.cycles_per_token, "tokens_per_second": clock_hz / made.cycles_per_token,
            "tokens_per_run": made.tokens_per_run, "share": made.share,
            "prompt.cycles_per_token": read.cycles_per_token,
            "prompt.tokens_per_second": clock_hz / read.cycles_per_token,
            "prompt.tokens_per_run": read.tokens_per_run,
            "how": f"the story model; cycles simulated; {TOKENS} tokens in each slot, temperature 0.8; a prompt of "
                   f"{PROMPT_TOKENS} tokens; memory latency {timing[0]} cycles, refresh {timing[2]} of every "
                   f"{timing[1]}; tokens/s projected"}


def drafts(image, base, batch, timing):
    """Tokens per run and cycles per token of greedy texts with drafts of batch - 1 tokens, and without;
    the texts are equal.
    """
    out = {}
    with _runtime(image, base, batch, timing) as runtime:
        for number, text in enumerate(TEXTS.values()):
            found = {}
            for draft in (0, batch - 1):
                runtime.restart()
                runtime.draft = draft
                made = list(runtime.generate(runtime.model.vocabulary.encode(text), DRAFT_TOKENS, Sampling()))
                found[draft] = made, runtime.statistics.usage
            (plain, alone), (drafted, usage) = found.values()
            if plain != drafted:
                raise RuntimeError(f"the text with drafts differs from the one without: {plain} and {drafted}")
            out |= {f"{number}.tokens_per_run": usage.tokens_per_run,
                    f"{number}.speed_up": alone.cycles_per_token / usage.cycles_per_token}
    return out | {"how": f"the story model, {DRAFT_TOKENS} greedy tokens, prompt lookup of {batch - 1} tokens; "
                         "cycles simulated, without the way of the drafts over the link"}


def builds():
    """(preset, B) of the ``speed`` figures."""
    return [(base, batch) for base in PRESETS for batch in BATCHES]


def tables(results):
    """Markdown by name (dict of str), of what is there of the figures: ``results`` are values by step."""
    out = {}
    speeds = {build: results[f"slots.{name_of(*build)}"] for build in builds()
              if f"slots.{name_of(*build)}" in results}
    speeds = {build: values for build, values in speeds.items() if (build[0], 1) in speeds}
    if speeds:
        out["table.slots"] = _speeds(speeds)
    drafted = {batch: results[f"drafts.{name_of(DRAFTING[0], batch)}"] for batch in DRAFTING[1]
               if f"drafts.{name_of(DRAFTING[0], batch)}" in results}
    if drafted:
        head = ["greedy text behind", *(words for batch in drafted
                                        for words in (f"B = {batch}: tokens per run", f"B = {batch}: speed-up"))]
        out["table.drafts"] = table(head, [
            [text, *(f"{v[f'{number}.{kind}']:.2f}" for v in drafted.values()
                     for kind in ("tokens_per_run", "speed_up"))]
            for number, text in enumerate(TEXTS)])
    return out


def _speeds(values):
    """A row per build; ``values`` by (preset, B)."""
    rows = []
    for (base, batch), v in values.items():
        one = values[base, 1]["tokens_per_second"]
        rows.append([base, batch, f"{v['tokens_per_second']:,.0f}", f"{v['tokens_per_second'] / one / batch:.1%}",
                     f"{v['share']:.1%}", f"{v['prompt.tokens_per_second']:,.0f}",
                     f"{v['prompt.tokens_per_second'] / one / batch:.1%}"])
    return table(["preset", "B", "tokens/s made, all slots", "of B times those of one", "share",
                  "tokens/s of a prompt", "of B times the making"], rows)
