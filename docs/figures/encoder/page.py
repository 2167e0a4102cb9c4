"""Tables of docs/encoder.md."""

import math
from statistics import mean, stdev

from docs.figures.encoder.texts import TASKS
from docs.figures.encoder.variants import BASE, PRETRAINING, SHAPE, VARIANTS
from docs.figures.pages import table
from sterna.sim.golden.encoder_checkpoint import EncoderGeometry

WAYS = {"torch.dense": "PyTorch, dense 3072 (the crammed recipe)",
        "torch.fff": "PyTorch, 1x11, every neuron computed",
        "numpy.fff": "NumPy, 1x11, visited neurons alone", "torch.none": "PyTorch, no feedforward",
        "numpy.none": "NumPy, no feedforward"}


def name_of(variant):
    """A variant's name in the tables."""
    entries = VARIANTS[variant]
    geometry = EncoderGeometry(**SHAPE, **entries)
    if entries["feedforward"] == "fff":
        return f"trees {entries['trees']}x{entries['tree_depth']}: {geometry.visits} of {geometry.neurons} neurons"
    return f"dense {geometry.neurons}" if geometry.neurons else "no feedforward"


def spread(values, style):
    """Mean, and standard error over the seeds where there are two."""
    if not values:
        return "not run"
    error = f" ± {style.format(stdev(values) / math.sqrt(len(values)))}" if len(values) > 1 else ""
    return style.format(mean(values)) + error


def above(found):
    """An accuracy above the largest class."""
    return found["accuracy"] - found["majority"]


def relative(results, variant, seed):
    """Relative score of a seed, the mean over the tasks that variant and dense one have, and its error (of the finite
    development sets); None without a task.
    """
    scores, errors = [], []
    for task in TASKS:
        ours, dense = (results.get(f"{name}.{seed}.{task}") for name in (variant, BASE))
        if not ours or not dense:
            continue
        scores.append(above(ours) / above(dense))
        errors.append(math.hypot(*(math.sqrt(found["accuracy"] * (1 - found["accuracy"]) / found["dev"])
                                   for found in (ours, dense))) / above(dense))
    return (mean(scores), math.hypot(*errors) / len(errors)) if scores else None


def seeds_of(results, variant):
    return sorted({int(name.split(".")[1]) for name in results if name.startswith(f"{variant}.")})


def summary(results, variant):
    """{"score", "seeds.error", "rows.error", "seeds"} of a variant's relative score; empty without one.

    The errors are standard errors: over the seeds (NaN for one), and of the finite development sets, which all seeds
    share and which more seeds do not lower here.
    """
    found = [one for seed in seeds_of(results, variant) if (one := relative(results, variant, seed))]
    if not found:
        return {}
    scores = [score for score, _ in found]
    error = stdev(scores) / math.sqrt(len(scores)) if len(scores) > 1 else math.nan
    return {"score": mean(scores), "seeds.error": error, "rows.error": mean(error for _, error in found),
            "seeds": len(scores)}


def study_tables(results):
    """Markdown and figures by name of the study's results (dict by "VARIANT.SEED.PART")."""
    rows, tasks, out = [], [], {}
    for variant in VARIANTS:
        seeds = seeds_of(results, variant)
        if not seeds:
            continue

        def values(part, key, variant=variant, seeds=seeds):
            known = (results.get(f"{variant}.{seed}.{part}", {}) for seed in seeds)
            return [one[key] for one in known if key in one]
        found = summary(results, variant)
        score = "not run"
        if found:
            score = f"{found['score']:.1%}" if variant != BASE else "100%"
            if variant != BASE:
                error = "" if math.isnan(found["seeds.error"]) else f" ± {found['seeds.error']:.1%} (seeds)"
                score += f"{error} ± {found['rows.error']:.1%} (rows)"
            out[f"encoder.study.{variant}.score"] = f"{found['score']:.1%}"
            out[f"encoder.study.{variant}.seeds"] = str(found["seeds"])
        use, losses = values("mlm", "leaf_use"), values("mlm", "masked_loss")
        rows.append([name_of(variant), len(losses), spread(losses, "{:.3f}"), score,
                     f"{mean(use):.0%}" if use else ""])
        tasks.append([name_of(variant), *(spread([100 * v for v in values(task, "accuracy")], "{:.1f}")
                                          for task in TASKS)])
    if not rows:
        return {}
    majorities = {name.rpartition(".")[2]: one["majority"] for name, one in results.items() if "majority" in one}
    largest = ["largest class", *(f"{100 * majorities[task]:.1f}" if task in majorities else "" for task in TASKS)]
    out["table.encoder.study"] = table(["feedforward", "seeds", "masked loss, nats", "relative score",
                                        "leaves in use"], rows)
    out["table.encoder.tasks"] = table(["accuracy, %", *TASKS], [*tasks, largest])
    if "text" in results:
        out["encoder.study.unigram"] = f"{results['text']['unigram']:.3f}"
    out["encoder.study.tokens"] = f"{PRETRAINING['rows'] * SHAPE['length'] * PRETRAINING['steps']:,}"
    return out


def speed_table(values):
    """The table of speeds; nothing without the step."""
    if "encoder.speed" not in values:
        return {}
    f = values["encoder.speed"]
    counts = sorted({int(key.split(".")[2]) for key in f if key.startswith("torch.dense.") and key.endswith(".ms")
                     and "least" not in key})
    rows = [[label, *(text for count in counts for text in (
        f"{f[f'{way}.{count}.ms']:.0f} ({f[f'{way}.{count}.least.ms']:.0f})",
        f"{f[f'{way}.{count}.ratio']:.2f} ({f[f'{way}.{count}.least.ratio']:.2f})"))] for way, label in WAYS.items()]
    head = [text for count in counts for text in (f"{count} tokens, ms: median (least)", "times dense")]
    return {"table.encoder.speed": table(["whole encoder, batch 1", *head], rows)}


def tables(values, results):
    """Everything of the page: of steps' ``values`` by name, and the study's ``results``."""
    return study_tables(results) | speed_table(values)
