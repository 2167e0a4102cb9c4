"""Both programs side by side: tables of docs/performance.md."""

import textwrap

from docs.figures.pages import table

TESTS = {"make": "generation", "read": "prompt"}


def tables(results):
    """Markdown by name (dict of str), of what is there: ``results`` are values by step."""
    found = {name.partition(".")[2]: values for name, values in results.items() if name.startswith("versus.")}
    if not found:
        return {}
    return {"table.versus": speeds(found), "table.versus.memory": memory(found), "how.versus": ways(found)}


def millions(values):
    """The ternary weights, as the tables name a model."""
    return f"{values['weights'] / 1e6:,.0f} M"


def ways(found):
    """How each size was measured, as a list."""
    return "\n".join(textwrap.fill(f"- {millions(values)}: {values['how']}.", 120, subsequent_indent="  ")
                     for values in found.values())


def speeds(found):
    """A row for each size and test."""
    head = ["weights", "test", "llama.cpp TQ2_0: tokens/s (best)", "GB/s", "of the memory",
            "sterna: tokens/s (best)", "GB/s", "of the memory", "ratio", "bar"]
    rows = []
    for values in found.values():
        for test, words in TESTS.items():
            row = [millions(values), words]
            for name in ("llama", "sterna"):
                at = f"{name}.{test}."
                row += [f"{values[at + 'tokens_per_second']:.1f} ({values[at + 'best']:.1f})",
                        f"{values[at + 'gb_per_second']:.1f}", f"{values[at + 'share']:.1%}"]
            rows.append([*row, f"{values[test + '.ratio']:.2f}",
                         f"{values[test + '.bar']:.1f}: {values[test + '.result']}"])
    return table(head, rows)


def memory(found):
    """What a token reads, what the programs hold, and what the machine reads."""
    head = ["weights", "bytes of a token: llama.cpp", "sterna", "resident: llama.cpp", "sterna",
            "memory read, GB/s: 1 GiB", "as much as sterna's weights"]
    return table(head, [[millions(v), f"{v['llama.bytes'] / 1e6:,.1f} MB",
                         f"{v['sterna.bytes'] / 1e6:,.1f} MB", f"{v['llama.resident_bytes'] / 1e6:,.0f} MB",
                         f"{v['sterna.resident_bytes'] / 1e6:,.0f} MB", f"{v['memory.far.gb_per_second']:.1f}",
                         f"{v['memory.near.gb_per_second']:.1f}"] for v in found.values()])
