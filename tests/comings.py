"""Texts that come to an engine, are cancelled there and end at random, against what each is alone."""

from sterna.host.runtime.cpu import CpuRuntime
from sterna.host.serving.engine import Engine


def alone_on(model):
    """A function of (prompt, options): (text, finish reason, tokens) of a cpu that has nothing else to do."""
    known = {}

    def text(prompt, **options):
        key = str((prompt, sorted(options.items())))
        if key not in known:
            with CpuRuntime(model, 1) as runtime, Engine.over(runtime) as engine:
                generation = engine.generate(prompt, **options)
                known[key] = generation.result(), generation.finish_reason, generation.tokens
        return known[key]

    return text


def some_options(rng, most=24):
    sampled, (top_k, top_p) = rng.random() < 0.8, [(0, 1.0), (7, 1.0), (7, 0.9)][rng.integers(3)]  # as lists are long
    return {"max_tokens": int(rng.integers(0, most)), "temperature": 0.9 if sampled else 0,
            "seed": int(rng.integers(3)), "top_k": top_k, "top_p": top_p,
            "stop": [["e"], [], ["ab", "\ufffd"]][rng.integers(3)], "ignore_end": bool(rng.random() < 0.5)}


def some_prompt(rng, most=12):
    """Of a few beginnings, so that some states are there already."""
    return "abcdefgh" * int(rng.integers(most)) + "xyz"[:rng.integers(3)]


def come_and_go(engine, alone, rng, turns, turn, most=12):
    """Texts arrive, are cancelled and end at random; each is a beginning of what it is alone, or all of it."""
    under_way, whole = [], 0
    while turns or under_way:
        if turns and rng.random() < 0.3:
            prompt, options = some_prompt(rng, most), some_options(rng)
            under_way.append((engine.generate(prompt, **options), prompt, options))
        if under_way and rng.random() < 0.02:
            under_way[rng.integers(len(under_way))][0].cancel()
        turns = max(0, turns - 1)
        turn()
        for item in list(under_way):
            generation, prompt, options = item
            if generation.finish_reason:
                under_way.remove(item)
                text, reason, tokens = alone(prompt, **options)
                if generation.finish_reason == "cancelled":
                    assert text.startswith(generation.text.rstrip("\ufffd")), (prompt, options)
                    assert generation.tokens == tokens[:len(generation.tokens)]
                else:
                    assert (generation.text, generation.finish_reason, generation.tokens) == (text, reason, tokens)
                    whole += 1
    return whole
