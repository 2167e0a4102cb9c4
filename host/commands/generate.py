"""sterna generate: text from a prompt."""

import json
import secrets
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from sterna.firmware.layout import layout
from sterna.host.commands.options import (
    Baud,
    Build,
    DeviceOption,
    DramSetting,
    Latency,
    ModelOption,
    Preload,
    Refresh,
    RefreshEvery,
    SelfTest,
    Threads,
    Waves,
    WavesFrom,
    WavesGb,
    WavesTokens,
    check_output,
    check_temperature,
    check_threads,
    simulation,
    use_build,
)
from sterna.host.commands.prompts import read_prompts
from sterna.host.console import reporting, show, tell
from sterna.host.errors import INTERRUPTED, UsageError
from sterna.host.interrupts import handled_by
from sterna.host.model.model import Model
from sterna.host.model.text import TextStream
from sterna.host.runtime.known import check_answer, self_test
from sterna.host.runtime.open import DEFAULT_DEVICE, device_lines, open_runtime, simulated_config
from sterna.host.runtime.runtime import RunError
from sterna.host.runtime.sampling import SEEDS, UNLIMITED, Demands, Sampling
from sterna.host.runtime.state import load_state, save_state
from sterna.host.serving.engine import Engine
from sterna.host.waves import Recording


def check_flags(temperature, top_k, top_p, penalty, draft, seed, predict, context):
    """UsageError for a value that generate does not take."""
    check_temperature(temperature)
    if top_k < 0:
        raise UsageError(f"--top-k {top_k}: use 0 (off) or more")
    if not 0 < top_p <= 1:
        raise UsageError(f"--top-p {top_p:g}: use more than 0, and at most 1.0 (off)")
    if penalty != 1.0:
        raise UsageError(f"--repeat-penalty {penalty:g}: no device keeps count of what it has made; use 1.0 (off)")
    if draft < 0:
        raise UsageError(f"--draft {draft}: use 0 (off) or the number of tokens to propose")
    if not -1 <= seed < SEEDS:
        raise UsageError(f"--seed {seed}: use 0 to {SEEDS - 1}, or -1 for a random one")
    if predict < -1:
        raise UsageError(f"--predict {predict}: use 0 or more, or -1 to go on until the end of the text")
    if context < 0:
        raise UsageError(f"--ctx-size {context}: use the largest number of tokens of a text, or 0 for no limit")


def room_for(length, predict, context):
    """Tokens that may be made behind ``length`` others.

    Parameters
    ----------
    length : int
    predict : int
        Tokens to make, -1: until the text ends.
    context : int
        Most tokens of the whole text; 0: no limit.

    Raises
    ------
    RunError
        ``length`` alone is more than ``context``.
    """
    limit = predict if predict >= 0 else UNLIMITED
    if not context:
        return limit
    if length > context:
        raise RunError(f"the text has {length} tokens already, more than --ctx-size {context}: shorten it or raise "
                       "--ctx-size")
    return min(limit, context - length)


@contextmanager
def cancel_on_interrupt(cancel=lambda: None):
    """Gives a function that tells whether Ctrl-C came, which also calls ``cancel()``; a second Ctrl-C interrupts at
    once.
    """
    came = []

    def handler(number, frame):
        if came:
            raise KeyboardInterrupt
        came.append(True)
        cancel()

    with handled_by(handler):
        yield lambda: bool(came)


def run(begin, prompts):
    """Show texts in the order of their prompts, a blank line between.

    Parameters
    ----------
    begin : list of callable(progress=...) -> Generation
    prompts : list of str
        What is shown in front of each text.

    Returns
    -------
    last, interrupted : Generation, bool
        The last text; whether Ctrl-C ended it.
    """
    generations = []
    with cancel_on_interrupt(lambda: [generation.cancel() for generation in generations]) as interrupted:
        show(prompts[0])
        with reporting() as report:
            progress = partial(report, "reading the prompt") if len(begin) == 1 else None
            generations += [start(progress=progress) for start in begin]
            first = next(generations[0], "")
        show(first)
        for number, generation in enumerate(generations):
            if number:
                show("\n" + prompts[number])
            for piece in generation:
                show(piece)
            show("\n")
        return generations[-1], interrupted()


def generate(
    model: ModelOption = None,
    prompt: Annotated[list[str], typer.Option("-p", "--prompt", metavar="TEXT", help="Text to go on with; given "
                                              "several times: several texts, side by side where the device has "
                                              "slots.", show_default=False)] = [],  # noqa: B006 (typer copies it)
    file: Annotated[Path, typer.Option("-f", "--file", help="File that holds the prompt; - is standard input.",
                                       show_default=False)] = None,
    prompts: Annotated[Path, typer.Option("--prompts", help="File with a prompt on each line; - is standard input.",
                                          show_default=False)] = None,
    predict: Annotated[int, typer.Option("-n", "--predict", "--n-predict", help="Tokens to make; -1: until "
                                         "the text ends.")] = -1,
    context: Annotated[int, typer.Option("-c", "--ctx-size", help="Most tokens of the whole text, prompt included; "
                                         "0: no limit. The model's memory does not grow with it.")] = 4096,
    seed: Annotated[int, typer.Option("-s", "--seed", help="Seed of the sampling; -1: a random one, which is "
                                      "printed.")] = -1,
    temperature: Annotated[float, typer.Option("--temp", "--temperature", help="0 takes the best token.")] = 0.8,
    top_k: Annotated[int, typer.Option("--top-k", help="Sample among the best so many tokens; 0: among all. At most "
                                       "what the build's list holds (its top_k; cpu, golden: 64).")] = 0,
    top_p: Annotated[float, typer.Option("--top-p", help="Sample among the fewest best tokens of the list that have "
                                         "this share of the list's probability; 1.0: off. The list is that of "
                                         "--top-k, without it the longest of the build (cpu, golden: 64).")] = 1.0,
    penalty: Annotated[float, typer.Option("--repeat-penalty", help="Only 1.0 (off): no device has it.")] = 1.0,
    draft: Annotated[int, typer.Option("--draft", "--draft-max", help="Propose so many tokens behind each one, from "
                                       "what followed the last tokens before; the text stays the same. At most the "
                                       "slots of the build less one; 0: off.")] = 0,
    stop: Annotated[list[str], typer.Option("--stop", "-r", "--reverse-prompt", metavar="TEXT", help="End before "
                                            "this text; may be given several times.",
                                            show_default=False)] = [],  # noqa: B006 (typer copies it)
    ignore_eos: Annotated[bool, typer.Option("--ignore-eos", help="Go on behind the end of a text.")] = False,
    display_prompt: Annotated[bool, typer.Option("--display-prompt/--no-display-prompt",
                                                 help="Whether the prompt is printed first.")] = True,
    device: DeviceOption = DEFAULT_DEVICE,
    list_devices: Annotated[bool, typer.Option("--list-devices", help="Print what --device takes here.")] = False,
    threads: Threads = None,
    baud: Baud = 1_000_000,
    preload: Preload = None,
    waves: Waves = None,
    waves_limit: WavesGb = 4.0,
    waves_from: WavesFrom = 0,
    waves_tokens: WavesTokens = 0,
    latency: Latency = None,
    refresh_every: RefreshEvery = None,
    refresh: Refresh = None,
    dram: DramSetting = None,
    build: Build = None,
    save: Annotated[Path, typer.Option("--save-state", help="Write where the text stands at the end.",
                                       show_default=False)] = None,
    load: Annotated[Path, typer.Option("--load-state", help="Go on with a saved text; -p adds to it.",
                                       show_default=False)] = None,
    test: SelfTest = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No statistics.")] = False,
    json_statistics: Annotated[bool, typer.Option("--json", help="Statistics as one line of JSON.")] = False,
):
    """Generate text from a prompt, or from several.

    The text goes to standard output, progress and statistics to standard error. Any device gives the same text
    for the same model, prompt, sampling and seed. Several texts come in the order of their prompts, with a blank line
    between, and each is the one that its prompt gives alone: all take the same --seed. The cpu, and a device with
    slots, makes them side by side, others, and --draft, one after the other.

    Examples:

    sterna generate -m story.sterna -p "Once upon a time" --temp 0

    sterna generate -m story.sterna -p "One day" --device sim -s 7 -n 100

    sterna generate -m story.sterna -f prompt.txt --device /dev/ttyUSB0

    sterna generate -m story.sterna -p "One day" -p "A cat" --device sim:sim,batch=2 --top-k 40
    """
    if list_devices:
        show("".join(line + "\n" for line in device_lines()))
        return
    check_flags(temperature, top_k, top_p, penalty, draft, seed, predict, context)
    check_threads(threads, device)
    if model is None:
        raise UsageError("no model: give one with -m")
    prompts = read_prompts(prompt, file, prompts)
    if not prompts and load is None:
        raise UsageError("no prompt: give one with -p or -f")
    if len(prompts) > 1 and (save or load):
        raise UsageError(f"--{'save' if save else 'load'}-state is for one text: give one prompt, not {len(prompts)}")
    loaded = Model(model)
    if test:
        check_answer(loaded)
    state = load_state(load, loaded.packed) if load else None
    sampling = Sampling(temperature, secrets.randbelow(SEEDS) if seed == -1 else seed, top_k, top_p)
    begin, longest = [], 0
    for text in prompts or [""]:
        ids = loaded.vocabulary.encode(text, start=state is None) if text else []
        length = len(ids) + (len(state.tokens) if state else 0)
        limit = room_for(length, predict, context)
        begin.append((ids, limit))
        longest = max(longest, length + limit)
    TextStream(loaded.vocabulary, stop)  # refuses bad stop strings before anything is loaded
    options = simulation(device, waves, preload, latency, refresh_every, refresh, dram)
    check_output("--save-state", save)
    recording = Recording(waves, waves_limit, waves_from, waves_tokens)
    recording.check(len(begin))
    if waves:
        options["waves"] = recording
        tell(recording.expectation(layout(simulated_config(device), loaded.geometry).stream_bytes))
    use_build(build)
    demands = Demands(sampling, draft, tokens=longest)
    with reporting() as progress:
        runtime = open_runtime(device, loaded, tell=tell, baud=baud, demands=demands, threads=threads,
                               progress=progress, **options)
    with runtime:
        if test:
            tell(self_test(runtime))
        runtime.draft = draft
        if seed == -1 and temperature > 0:
            tell(f"seed: {sampling.seed}")
        try:
            with Engine.over(runtime) as engine:
                texts = [partial(engine.generate, ids, limit, temperature, top_k, top_p, sampling.seed, stop,
                                 ignore_eos, state, keep_state=save is not None) for ids, limit in begin]
                text, interrupted = run(texts, prompts if display_prompt and prompts else [""] * len(begin))
                if save:
                    save_state(save, text.state(), loaded.packed)
            if recording.reached():
                tell(f"the run ended because {waves} has {waves.stat().st_size / 1e9:.2g} GB: see --waves-limit")
        finally:
            if json_statistics:
                tell(json.dumps(runtime.statistics.to_json()))
            elif not quiet:
                for line in ["", *runtime.statistics.lines()]:
                    tell(line)
    if interrupted:
        raise typer.Exit(INTERRUPTED)
