"""What was measured as tables: times, ratios, the published faults, the share of rows touched, the machine."""

from sterna.sim.cmm import faults
from sterna.sim.cmm.shape import BERT, LARGEST, parse
from sterna.sim.cmm.ways import CONDITIONAL, KINDS

NONE = "-"
QUIET = 0.1  # of the processors' time, for others: above it the times are those of a busy machine
WORDS = {"same": "same input", "warm": "warm, new inputs", "cold": "cold"}
# From a trial on two shared cores, one thread, fp32, dense 3072: ratio of medians, of minima.
TRIAL = {(1, "warm"): (183, 222), (1, "cold"): (164, 120), (64, "warm"): (32, 21), (64, "cold"): (27, 15)}


def table(head, rows):
    """A markdown table (str)."""
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in [head, ["---"] * len(head), *rows])


def cells(found):
    """(threads, batch, state) of all that was measured, in order (list)."""
    return list(dict.fromkeys((row["threads"], row["batch"], row["state"]) for row in found["rows"]
                              if row["state"] in WORDS and not row["group"].startswith(faults.GROUP)))


def best(found, cell, group, kinds=KINDS):
    """The row of least median of a group in a cell, or None."""
    rows = [row for row in found["rows"] if (row["threads"], row["batch"], row["state"]) == cell
            and row["group"] == group and row["kind"] in kinds]
    return min(rows, key=lambda row: row["median_us"], default=None)


def narrow(found):
    """Neurons of the dense layer that is as wide as what is visited (int)."""
    return min(parse(found["plan"]["tree"]).visits, LARGEST)


def ratio(found, cell, width, kinds=KINDS):
    """(of medians, of minima): a dense layer's time to that of the trees; None without both."""
    slow, fast = best(found, cell, f"dense {width}", kinds), best(found, cell, CONDITIONAL, kinds)
    if not slow or not fast:
        return None
    return slow["median_us"] / fast["median_us"], slow["minimum_us"] / fast["minimum_us"]


def number(value):
    """Three significant digits (str)."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _ratio(pair):
    return f"{number(pair[0])} ({number(pair[1])})" if pair else NONE


def _time(row):
    if not row:
        return NONE
    return f"{number(row['median_us'])} ({number(row['minimum_us'])} to {number(row['p90_us'])}) {row['name']}"


def _cell(cell):
    return [cell[0], cell[1], WORDS[cell[2]]]


def ratios(found):
    """Ratios of medians, in brackets of minima: markdown."""
    visits = narrow(found)
    kinds = (("fp32", ("fp32",)), ("bf16", ("bf16",)), ("best of both", KINDS))
    head = ["threads", "batch", "state", *(f"{BERT}, {name}" for name, _ in kinds), f"{LARGEST}, fp32",
            f"{visits}, fp32"]
    rows = [[*_cell(cell), *(_ratio(ratio(found, cell, BERT, which)) for _, which in kinds),
             *(_ratio(ratio(found, cell, width, ("fp32",))) for width in (LARGEST, visits))]
            for cell in cells(found)]
    return table(head, rows)


def times(found):
    """Times of the best ways in microseconds: markdown."""
    groups = [CONDITIONAL, *(f"dense {width}" for width in (BERT, LARGEST, narrow(found)))]
    rows = []
    for cell in cells(found):
        for kind in KINDS:
            rows.append([*_cell(cell), kind, *(_time(best(found, cell, group, (kind,))) for group in groups)])
    return table(["threads", "batch", "state", "kind", *groups], rows)


def looks(found):
    """The first look at every way, with the first number of threads: the least of a few calls in us, warm."""
    rows = [row for row in found["rows"] if row["state"] == "look" and row["threads"] == found["rows"][0]["threads"]]
    batches = list(dict.fromkeys(row["batch"] for row in rows))
    lines = {}
    for row in rows:
        lines.setdefault((row["group"], row["kind"], row["name"]), {})[row["batch"]] = number(row["minimum_us"])
    return table(["layer", "kind", "way", *(f"batch {batch}" for batch in batches)],
                 [[*key, *(line.get(batch, NONE) for batch in batches)] for key, line in lines.items()])


def fault_rows(found):
    """(name, microseconds, ratio with the dense layer as it is, and with one as faulty as it can be): list."""
    rows = {(row["group"], row["name"]): row["median_us"] for row in found["rows"]
            if row["group"].startswith(faults.GROUP)}
    if not rows:
        return []
    dense = {name: rows[faults.DENSE, name] for name in (faults.NONE, faults.FRESH)}
    out = []
    for name in faults.MEANING:
        us = rows[faults.GROUP, name]
        twin = dense[faults.FRESH if name in (faults.FRESH, faults.ALL) else faults.NONE]
        out.append((name, us, dense[faults.NONE] / us, twin / us))
    return out


def fault_table(found):
    """The published faults: markdown, empty if they were not run."""
    rows = [[faults.MEANING[name], number(us), number(honest), number(twin)]
            for name, us, honest, twin in fault_rows(found)]
    return table(["run", "microseconds", f"dense {BERT} as it is, ratio", "dense with the same fault, ratio"],
                 rows) if rows else ""


def touched(found):
    """What part of the rows a batch reads: one sentence."""
    parts = [f"{one['share']:.1%} at batch {one['batch']} ({one['rows']:,.0f} rows)" for one in found["touched"]]
    return f"Distinct rows that a batch reads, of {parse(found['plan']['tree']).neurons:,}: {', '.join(parts)}."


def busy(found):
    """Whether others used the machine (bool or None if it is not known)."""
    others = found["machine"]["others"]
    return None if others is None else others > QUIET


def machine_line(found):
    """The machine and what else it did: one sentence."""
    m = found["machine"]
    sizes = ", ".join(f"L{level} {size / (1 << 20):.3g} MiB" for level, size in m["caches"].items())
    clock = f", {m['clock_mhz']:,.0f} MHz" if m["clock_mhz"] else ""
    load = "what others did is not known" if m["others"] is None else \
        f"others used {m['others']:.0%} of the processors when it began"
    if busy(found):
        load += ": a busy machine, whose medians are not for quoting"
    versions = ", ".join(f"{name} {value}" for name, value in m["versions"].items())
    quick = ", quick: too few calls for quoting" if found["plan"]["quick"] else ""
    sets = ", ".join(m["sets"]) or "no vectors known"
    return (f"Measured on {m['cores']} cores of {m['processor']}{clock}, {sets}; {sizes or 'caches not known'}; "
            f"kernel: {found['kernel'] or 'none'}; {versions}; {load}; "
            f"{found['seconds']:.0f} s in all{quick}.")


def warning(found):
    """Why the figures are not for quoting (str), empty if they are."""
    if busy(found):
        return ("**Not for quoting:** others used the machine, and they interrupt long calls rather than short ones, "
                "so these ratios are too high.")
    return "**Not for quoting:** too few calls." if found["plan"]["quick"] else ""


def bars(found):
    """The trial's ratios beside these: one sentence, empty unless it is the same case."""
    if found["plan"]["tree"] != "1x11":
        return ""
    parts = []
    for (batch, state), trial in TRIAL.items():
        pair = ratio(found, (1, batch, state), BERT, ("fp32",))
        if pair:
            here = f"{number(pair[0])} ({number(pair[1])})"
            parts.append(f"{here} against {trial[0]} ({trial[1]}) at batch {batch}, {state}")
    return f"Beside a trial, one thread, fp32, dense {BERT}, medians (minima): {'; '.join(parts)}." if parts else ""


def text(found):
    """All of it, as the command shows it (str)."""
    parts = [f"{found['plan']['tree']} against dense layers: ratio of medians (of minima), above 1 the trees are "
             "faster", ratios(found), "Microseconds, median (minimum to 90 %), of the best way", times(found)]
    if faulty := fault_table(found):
        parts += ["The published faults, same input", faulty]
    parts += [touched(found), machine_line(found)]
    parts += [one for one in (bars(found), warning(found)) if one]
    parts += [f"Left out: {one}." for one in found["left_out"]]
    return "\n\n".join(parts) + "\n"
