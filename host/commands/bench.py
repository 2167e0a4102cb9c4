"""sterna bench: speed of prompt processing and of text generation."""

from pathlib import Path
from typing import Annotated

import typer

from sterna.host.bench import bench as measure
from sterna.host.bench.report import FORMATS, Report
from sterna.host.commands.options import (
    Baud,
    DramSetting,
    Latency,
    Refresh,
    RefreshEvery,
    SelfTest,
    Threads,
    check_output,
    check_temperature,
    check_threads,
    default_timing,
    simulation,
)
from sterna.host.console import progress_bar, reporting, tell
from sterna.host.errors import UsageError
from sterna.host.model.model import Model
from sterna.host.runtime.known import check_answer, self_test
from sterna.host.runtime.open import (
    DEFAULT_DEVICE,
    EXACT,
    check_model,
    is_hardware,
    is_simulated,
    open_runtime,
    simulated_config,
)
from sterna.host.runtime.sampling import Demands, Sampling

MOST_TOKENS, MOST_REPETITIONS = 1_000_000, 10_000


def counts(option, text):
    """The numbers of an option with commas, without 0 (list of int); UsageError for anything else."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = [-1]
    if not all(0 <= n <= MOST_TOKENS for n in numbers):
        raise UsageError(f"{option} {text!r}: use numbers from 0 (leave out) to {MOST_TOKENS}, with commas between")
    return [n for n in numbers if n]


def parts(option, values):
    """The parts between commas of every value of an option (list of str); UsageError for an empty one."""
    out = [part for value in values for part in value.split(",")]
    if "" in out:
        raise UsageError(f"{option} {','.join(values)!r}: one of the values is empty")
    return out


def names(values):
    """Devices of --device: a part with "=" is a parameter of the preset before it."""
    out = []
    for part in parts("--device", values):
        if part.partition("=")[0].isidentifier() and "=" in part and out and is_simulated(out[-1]):
            out[-1] += f",{part}"
        else:
            out.append(part)
    return out


def paths(values):
    """Models of -m: a value with commas is one path where that exists, otherwise one path per part."""
    return [path for value in values
            for path in ([Path(value)] if Path(value).exists() else map(Path, parts("-m", [value])))]


def style_of(output):
    """(name of the format, path of the file or None) of --output; UsageError for anything else."""
    if output in FORMATS:
        return output, None
    style = Path(output).suffix[1:]
    if style not in FORMATS:
        raise UsageError(f"--output {output!r}: use {', '.join(FORMATS)}, or a file that ends in one of them, for "
                         "instance bench.json")
    check_output("--output", Path(output))
    return style, Path(output)


def run_test(runtime, test, sampling, seed, repetitions, warm_up, common, report):
    """Repeat a test and report its row, with the repetitions that there are, if something fails in between."""
    samples = []
    try:
        with progress_bar() as bars:
            name = f"{common['device']} {test.name}"
            task = bars.add_task(name + ": warm-up", total=test.tokens * repetitions)
            if warm_up:
                measure.warm_up(runtime, test, sampling, seed)
            for k in range(repetitions):
                bars.update(task, description=f"{name}: {k + 1} of {repetitions}")
                samples.append(measure.repeat(runtime, test, sampling, seed, lambda done, k=k: bars.update(
                    task, completed=k * test.tokens + done)))
    finally:
        if samples:
            report.add(measure.row(common, test, samples, sampling, seed, repetitions))


def bench(
    model: Annotated[list[str], typer.Option("-m", "--model", help="Image (.sterna) or checkpoint folder; several "
                                             "with commas.", show_default=False)],
    device: Annotated[list[str], typer.Option("--device", help="cpu, golden, sim, sim:PRESET, or a serial port or "
                                              "URL, see `sterna devices`; several with commas.")
                      ] = [DEFAULT_DEVICE],  # noqa: B006
    prompt: Annotated[str, typer.Option("-p", "--n-prompt", help="Tokens of a prompt to read; several with commas; "
                                        "0: none.")] = "32",
    generate: Annotated[str, typer.Option("-n", "--n-gen", help="Tokens to make; several with commas; 0: "
                                          "none.")] = "32",
    parallel: Annotated[str, typer.Option("-np", "--batch", help="Sequences that are made side by side in the "
                                          "slots of the device, for --n-gen; several with commas.")] = "1",
    repetitions: Annotated[int, typer.Option("-r", "--repetitions", help="How often each test is repeated.")] = 3,
    output: Annotated[str, typer.Option("-o", "--output", help="md, csv or json: the format on standard output; or a "
                                        "file that ends in .md, .csv or .json.")] = "md",
    warm_up: Annotated[bool, typer.Option("--warmup/--no-warmup", help="Run two tokens before each test that are not "
                                          "measured.")] = True,
    temperature: Annotated[float, typer.Option("--temp", help="Temperature of the generation; 0 takes the best "
                                               "token.")] = 0.0,
    seed: Annotated[int, typer.Option("-s", "--seed", help="Seed of the prompts' random tokens and of the "
                                      "sampling.")] = 1,
    threads: Threads = None,
    baud: Baud = 1_000_000,
    latency: Latency = None,
    refresh_every: RefreshEvery = None,
    refresh: Refresh = None,
    dram: DramSetting = None,
    test_first: SelfTest = False,
):
    """Measure the speed of prompts (pp) and of generation (tg).

    Every combination of model, device and test is a row: pp32 reads a prompt of 32 random tokens, with all slots of a
    device; tg32 makes 32 tokens, and tg32 B4 (--batch 4) makes 32 in each of four sequences side by side, with the
    speed of all four together. All start from an empty state. Wall tokens/s are by the clock of this machine, so of a
    simulated board they tell how fast the simulation runs. A device with counters adds cycles per token, the speed at
    its clock (projected if the cycles are simulated, device time if not), the share of the memory's bandwidth put to
    use, and where the array waited. Of cpu it is shown how many bytes of weights the tokens use per second, and what
    that is of what this machine reads when it does nothing else.

    Rows appear as they are measured; what was measured before an error or Ctrl-C is kept. CSV and JSON hold every
    setting, JSON every repetition too.

    Examples:

    sterna bench -m story.sterna --device golden,sim,sim:lanes40 -p 16,64 -n 32

    sterna bench -m story.sterna --device /dev/ttyUSB0 -p 512 -n 128 -r 5 -o bench.json

    sterna bench -m story.sterna --device sim:sim,batch=4 -n 32 --batch 1,2,4
    """
    tests = [measure.Workload(n, 0) for n in counts("--n-prompt", prompt)]
    tests += [measure.Workload(0, n, b) for n in counts("--n-gen", generate) for b in counts("--batch", parallel)]
    if not tests:
        raise UsageError(f"--n-prompt {prompt} and --n-gen {generate} leave nothing to measure: raise one of them")
    if not 1 <= repetitions <= MOST_REPETITIONS:
        raise UsageError(f"--repetitions {repetitions}: use 1 to {MOST_REPETITIONS}")
    check_temperature(temperature)
    if not 0 <= seed < 1 << 32:
        raise UsageError(f"--seed {seed}: use 0 to {(1 << 32) - 1}")
    devices = names(device)
    check_threads(threads, "cpu" if "cpu" in devices else devices[0])
    # A prompt has one token more than is read, and what is made follows one token.
    demands = Demands(slots=max(test.parallel for test in tests),
                      tokens=1 + max(test.n_prompt + test.n_gen for test in tests))
    for name in devices:
        config = simulated_config(name)  # unknown presets are refused here
        if config:
            demands.check(config)
        elif name in EXACT:
            check_model(name, demands)
    boards = [name for name in devices if is_simulated(name)]
    timings = {name: simulation(name, None, None, latency, refresh_every, refresh, dram)["timing"]
               for name in boards or devices[:1]}
    style, path = style_of(output)
    models = [Model(p) for p in paths(model)]
    for loaded in models:
        if test_first:
            check_answer(loaded)
    sampling = Sampling(temperature, seed)
    with Report(style, path, any(map(is_hardware, devices)), "cpu" in devices) as report:
        for loaded in models:
            for name in devices:
                config = simulated_config(name)
                options = {"timing": default_timing(config) | timings[name],
                           "preload": config.memory == "external"} if config else \
                    {"threads": threads} if name == "cpu" else {}
                with reporting() as progress:
                    runtime = open_runtime(name, loaded, tell=tell, baud=baud, demands=demands, progress=progress,
                                           **options)
                with runtime:
                    if test_first:
                        tell(self_test(runtime))
                    common = measure.setting(runtime, name, options.get("timing", {}))
                    for test in tests:
                        run_test(runtime, test, sampling, seed, repetitions, warm_up, common, report)
    if path:
        tell(f"{path}: {len(models) * len(devices) * len(tests)} rows")
