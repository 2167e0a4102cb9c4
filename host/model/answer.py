"""The known answer of an image: a prompt and the tokens that follow it, as every device must make them."""

from dataclasses import asdict, dataclass

import numpy as np

from sterna.sim.golden.strictjson import short

MOST_PROMPT, MOST_RUNS, MOST_TOKENS = 64, 16, 256
MOST_LIST = 255  # top_k of a run: as many as the register of a device can say
PROMPT_TOKENS, MADE_TOKENS = 4, 8  # of an answer that is made here: few, as the largest models take seconds for each
SETTINGS = ({"seed": 0, "temperature": 0.0, "top_k": 0, "top_p": 1.0},
            {"seed": 12345, "temperature": 0.8, "top_k": 0, "top_p": 1.0},
            {"seed": 99, "temperature": 1.2, "top_k": 8, "top_p": 0.9})


class AnswerError(ValueError):
    """What is no known answer."""


@dataclass(frozen=True)
class Run:
    """``tokens`` that follow the prompt with these settings; a temperature of 0 is greedy."""

    seed: int
    temperature: float
    top_k: int
    top_p: float
    tokens: tuple


@dataclass(frozen=True)
class Answer:
    """A prompt (tuple of int) and its Runs (tuple)."""

    prompt: tuple
    runs: tuple

    def to_json(self):
        """The value of the header's key ``answer``."""
        runs = [asdict(run) | {"tokens": list(run.tokens)} for run in self.runs]
        return {"prompt": list(self.prompt), "runs": runs}


def _natural(value, most):
    return type(value) is int and 0 <= value <= most


def _number(value, least, most):
    return type(value) in (int, float) and least <= value <= most


def _tokens(value, most, vocabulary, what):
    good = isinstance(value, list) and 0 < len(value) <= most and all(_natural(t, vocabulary - 1) for t in value)
    if not good:
        raise AnswerError(f"its {what} is {short(value)}: must be 1 to {most} tokens below {vocabulary}")
    return tuple(value)


def _run(raw, vocabulary):
    if not isinstance(raw, dict) or set(raw) != set(Run.__dataclass_fields__):
        raise AnswerError(f"a run is {short(raw)}: must have {', '.join(Run.__dataclass_fields__)}")
    temperature = raw["temperature"]
    rules = {"seed": _natural(raw["seed"], (1 << 32) - 1), "top_k": _natural(raw["top_k"], MOST_LIST),
             "temperature": temperature == 0 and type(temperature) in (int, float) or _number(temperature, 1e-3, 1e3),
             "top_p": _number(raw["top_p"], 2**-17, 1) and (raw["top_p"] == 1 or raw["top_k"] != 0)}
    for name, good in rules.items():
        if not good:
            raise AnswerError(f"its {name} is {short(raw[name])}: no sampling has that")
    return Run(raw["seed"], float(temperature), raw["top_k"], float(raw["top_p"]),
               _tokens(raw["tokens"], MOST_TOKENS, vocabulary, "tokens"))


def parse_answer(raw, vocabulary):
    """The Answer in the header's value ``raw``, for a model of ``vocabulary`` tokens; AnswerError."""
    if not isinstance(raw, dict) or set(raw) != {"prompt", "runs"}:
        raise AnswerError(f"it is {short(raw)}: must have prompt and runs")
    prompt, runs = _tokens(raw["prompt"], MOST_PROMPT, vocabulary, "prompt"), raw["runs"]
    if not isinstance(runs, list) or not 0 < len(runs) <= MOST_RUNS:
        raise AnswerError(f"its runs are {short(runs)}: must be 1 to {MOST_RUNS}")
    return Answer(prompt, tuple(_run(run, vocabulary) for run in runs))


def widest(vocabulary):
    """An Answer whose text of JSON is at least as long as that of any that `make_answer` gives."""
    token = vocabulary - 1
    runs = tuple(Run(**settings, tokens=(token,) * MADE_TOKENS) for settings in SETTINGS)
    return Answer((token,) * PROMPT_TOKENS, runs)


def make_answer(model, vocabulary, start):
    """The Answer of a model; its runs are made side by side, so that a large one is gone through a few times only.

    Parameters
    ----------
    model : GoldenModel
        Or anything with its ``start``, ``step`` and ``sample``.
    vocabulary : int
        Its number of tokens.
    start : int
        The token that begins a text.
    """
    prompt = (start, *(vocabulary * k // (PROMPT_TOKENS - 1) - 1 for k in range(1, PROMPT_TOKENS)))
    prompt = tuple(max(0, token) for token in prompt)
    state = model.start(len(SETTINGS))
    tokens = [[] for _ in SETTINGS]
    for position in range(PROMPT_TOKENS + MADE_TOKENS - 1):
        read = [prompt[position]] * len(SETTINGS) if position < PROMPT_TOKENS else [made[-1] for made in tokens]
        rows = model.step(np.array(read), state)
        if position + 1 >= PROMPT_TOKENS:
            for k, settings in enumerate(SETTINGS):
                one = type(rows)(rows.rows[k:k + 1], rows.scale[k:k + 1])
                tokens[k].append(int(model.sample(one, settings["seed"], position, *(
                    settings[name] for name in ("temperature", "top_k", "top_p")))[0]))
    return Answer(prompt, tuple(Run(**settings, tokens=tuple(made))
                                for settings, made in zip(SETTINGS, tokens, strict=True)))
