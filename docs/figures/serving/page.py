"""The tables and the plot of docs/serving.md."""

from docs.figures.causes import save
from docs.figures.pages import table

STEP, PICTURE, FILE = "serving.load", "picture.serving", "serving.svg"
COLOURS = ("#89c2d9", "#2a6f97", "#014f86")


def at(values, share):
    """The value below which a share of sorted values lies."""
    return values[min(len(values) - 1, int(share * len(values)))]


def milliseconds(seconds):
    return f"{1000 * seconds:,.0f} ms" if seconds < 10 else f"{seconds:,.1f} s"


def tables(results):
    """Markdown by name (dict of str); ``results`` are values by step."""
    if STEP not in results:
        return {}
    found, lines = results[STEP], []
    for row in found["rows"]:
        lines.append([row["clients"], f"{row['alone_tokens_per_second']:,.0f}", f"{row['tokens_per_second']:,.0f}",
                      f"{row['ratio']:.2f}", f"{row['alone_per_cpu']:,.0f}; {row['per_cpu']:,.0f}",
                      f"{row['per_cpu'] / row['alone_per_cpu']:.2f}",
                      *(milliseconds(at(row["first"], share)) for share in (0.5, 0.99)),
                      milliseconds(at(row["total"], 0.5)), f"{row['answers']:,}", row["errors"],
                      f"{row['memory_bytes'] / 1e6:.0f} MB"])
    return {"table.serving": table(["clients", "engine alone, tokens/s", "server, tokens/s", "ratio",
                                    "tokens per CPU second, alone; server", "ratio",
                                    "first token, p50", "p99", "answer, p50", "answers", "errors",
                                    "memory of the server, most"], lines), "how.serving": found["how"]}


def draw(results, folder):
    """Write serving.svg: tokens/s, and how long the first token took; returns what shows it, by name."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    if STEP not in results:
        return {}
    rows = results[STEP]["rows"]
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    rates, times = figure.subplots(1, 2)
    for place, (row, colour) in enumerate(zip(rows, COLOURS, strict=True)):
        for shift, key, face in ((-0.19, "alone_tokens_per_second", "white"), (0.19, "tokens_per_second", colour)):
            rates.bar(place + shift, row[key], 0.36, facecolor=face, edgecolor=colour)
            rates.text(place + shift, row[key], f"{row[key]:,.0f}", ha="center", va="bottom", fontsize=8)
        share = [k / len(row["first"]) for k in range(1, len(row["first"]) + 1)]
        times.step(row["first"], share, color=colour, label=f"{row['clients']} client{'s' * (row['clients'] > 1)}")
    rates.set_xticks(range(len(rows)), [f"{row['clients']}" for row in rows])
    rates.set_xlabel("clients (open bars: the engine alone)")
    rates.set_title("tokens/s", fontsize=10)
    times.set_xscale("log")
    times.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    times.set_xlabel("seconds from a request to its first token")
    times.set_title("share of the requests", fontsize=10)
    times.legend(frameon=False, fontsize=9)
    for panel in (rates, times):
        panel.spines[["top", "right"]].set_visible(False)
    save(figure, folder / FILE)
    return {PICTURE: f"![Tokens per second and times to the first token, by clients]({FILE})"}
