"""Figures as the documentation shows them: formats, tables, marked places."""

import re
import textwrap
from dataclasses import fields

from sterna.hw.config import Config
from sterna.hw.presets import PRESETS
from sterna.sim.golden.gate import LIMITS

STALLS = ("stream", "rows", "idle", "refresh")
CELLS = ("lut4", "lut6", "carry", "flip_flops", "logic_cells", "block_ram", "lut_ram", "spram", "dsp")
MARK = re.compile(r"(<!-- figure:([\w.-]+) -->)(.*?)(<!-- /figure -->)", re.DOTALL)
BLOCK = re.compile(r"\n|^!\[|^- ")  # stands by itself: lines, a picture, a list
FORMATS = {"share": "{:.1%}", "bits_per_byte": "{:.4f}", "perplexity": "{:.3f}", "tokens_per_second": "{:,.0f}",
           "cycles_per_token": "{:,.0f}", "cycles1": "{:,.0f}", "cycles2": "{:,.0f}",
           "kl_nats": "{:.1e}", "change": "{:+.3%}", "top1_clear": "{:.2%}",
           "agreement": "{:.2%}", "millions": "{:.2f}", "per_trit": "{:.1f}",
           "largest_h": "{:.2f}", "largest_x": "{:.2f}", "mhz": "{:.1f}"}
# Paths of steps whose ways docs/results.md lists, and what they are called there; None: by the step.
WAYS = {"boards.place": "Boards", "boards.speed": "Speed of the boards", "boards.long": "A long run",
        "boards.netlist": "Netlists", "boards.units": "Units of the boards", "speed": None, "synth": "Cells",
        "forms": "LUTs per trit lane of a row accumulator", "placed": "A row accumulator placed on ECP5",
        "quality": "Quality", "lines": "Lines of code", "perf": "The cycle model", "plan": "Published models",
        "tree.speed": "Fast feedforward"}


def show(name, value):
    """A value as the pages show it."""
    style = FORMATS.get(name.rpartition(".")[2], "{:,}")
    return style.format(value) if isinstance(value, int | float) else str(value)


def table(head, rows):
    """A markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def presets_table():
    """The parameters of Config: meaning (from its docstring), default, and value in each preset."""
    meanings = {}
    for names, text in re.findall(r"^    ([\w, ]+) : .*\n((?:        .*\n)+)", Config.__doc__, re.MULTILINE):
        meanings |= dict.fromkeys(names.split(", "), re.split(r"[;.](?:\s|$)", " ".join(text.split()))[0])
    rows = []
    for field in fields(Config)[1:]:
        default = field.default if isinstance(field.default, int | str) else ""
        values = [short(getattr(config, field.name)) for config in PRESETS.values()]
        rows.append([f"`{field.name}`", meanings.get(field.name, ""), short(default), *values])
    return table(["parameter", "meaning", "default", *PRESETS], rows)


def short(value):
    """A large number with a unit of 10^6, 2^20 or 2^10."""
    if not isinstance(value, int) or value < 1 << 16:
        return value
    if value % 10**3 == 0:
        return f"{value / 10**6:g} M"
    return f"{value >> 20} Mi" if value >> 20 else f"{value >> 10} Ki"


def tables(f, syntheses):
    """Tables of the figures that are there.

    Parameters
    ----------
    f : dict of str to str
        Figures as shown, by name.
    syntheses : sequence of (preset, family)

    Returns
    -------
    dict of str to str
        Markdown by name.
    """
    out = {"table.presets": presets_table()}
    rows = [[name, f[f"speed.{name}.cycles_per_token"], f[f"speed.{name}.share"],
             *(f[f"speed.{name}.stall_{cause}.share"] for cause in STALLS),
             f"{f[f'speed.{name}.tokens_per_second']} at {f[f'speed.{name}.clock_mhz']} MHz"]
            for name in PRESETS if f"speed.{name}.share" in f]
    if rows:
        out["table.speed"] = table(["preset", "cycles per token", "share of the memory",
                                    *(f"{cause} stall" for cause in STALLS), "projected tokens/s"], rows)
    for name, family in syntheses:
        start = f"synth.{name}."
        units = [key[len(start):-len(".lut4")] for key in f if key.startswith(start) and key.endswith(".lut4")]
        if units:
            cells = [c for c in CELLS if any(f.get(f"{start}{unit}.{c}", "0") != "0" for unit in units)]
            rows = [[unit, *(f.get(f"{start}{unit}.{cell}", "0") for cell in cells)] for unit in units]
            out[f"table.synth.{name}"] = table([f"{name}, {family}", *(c.replace("_", " ") for c in cells)], rows)
    if forms := forms_table(f):
        out["table.forms"] = forms
    kinds = ("luts", "per_trit", "flip_flops", "median.mhz", "least.mhz")
    rows = [[key.split(".")[1], *(f[f"{key[:-len('.luts')]}.{kind}"] for kind in kinds)]
            for key in f if key.startswith("placed.") and key.endswith(".luts")]
    if rows:
        out["table.placed"] = table(["form, C = 20", "LUTs", "per trit lane", "flip-flops",
                                     "MHz, median", "MHz, least"], rows)
    if "quality.gate" in f:
        out["table.quality"] = quality_table(f)
    if "lines.hw" in f:
        out["table.lines"] = table(["folder", "lines"], [[f"{name[6:]}/", f[name]] for name in f
                                                         if name.startswith("lines.") and name != "lines.how"])
    return out


def forms_table(f):
    """LUTs per trit lane of the forms of a row accumulator; empty without figures."""
    found = [key.split(".")[1:4] for key in f if key.startswith("forms.") and key.endswith(".per_trit")]
    widths = list(dict.fromkeys(columns for _, _, columns in found))
    rows = [[family, form, *(f.get(f"forms.{family}.{form}.{columns}.per_trit", "") for columns in widths)]
            for family, form in dict.fromkeys((family, form) for family, form, _ in found)]
    return table(["family", "form", *(f"C = {columns}" for columns in widths)], rows) if rows else ""


def demo(text, statistics):
    """Markdown of a generated text, as a quotation, and of the statistics behind it."""
    quoted = [textwrap.fill(line, 120, initial_indent="> ", subsequent_indent="> ") or ">"
              for line in text.splitlines()]
    return "\n".join([*quoted, "", "```text", statistics, "```"])


def quality_table(f):
    """The gate's figures, and bits per byte."""
    rows = [[words, *(f.get(f"quality.{level}.{key}", "") for level in ("l0", "l1", "float32")), ""]
            for words, key in (("bits per byte", "bits_per_byte"), ("perplexity", "perplexity"))]
    for words, key, limit in (("perplexity against L0", "change", "perplexity_change"),
                              ("KL(L0, level), nats per token", "kl_nats", "kl_nats"),
                              ("same best token, where it is clear", "top1_clear", "top1_clear")):
        rows.append([words, "", f[f"quality.l1.{key}"], f[f"quality.float32.{key}"], show(key, LIMITS[limit])])
    return table(["figure", "L0 (float64)", "L1 (hardware)", "float32", "limit for L1"], rows)


def fill(text, shown):
    """(text, missing): the marked places refilled whose names are in ``shown``, and the list of the other names."""
    missing = []

    def one(match):
        value = shown.get(match[2])
        if value is None:
            missing.append(match[2])
            return match[0]
        return match[1] + (f"\n\n{value}\n\n" if BLOCK.search(value) else value) + match[4]

    return MARK.sub(one, text), missing


def origins(shown):
    """How the figures below each of WAYS were obtained, as lists in markdown.

    Parameters
    ----------
    shown : dict of str to str
        Figures as shown, by name; "how" is one of a step's.

    Returns
    -------
    dict of str to str
        Markdown by "how." and the steps' path.
    """
    out = {}
    for path, title in WAYS.items():
        ways = {}
        for key, how in shown.items():
            if key.startswith(f"{path}.") and key.endswith(".how"):
                ways.setdefault(how, []).append(title or key.split(".")[1])
        if ways:
            out[f"how.{path}"] = "\n".join(textwrap.fill(f"- {labels[0]}: {how}", 120, subsequent_indent="  ")
                                           for how, labels in ways.items())
    return out
