"""Rows of ``sterna bench`` as Markdown, CSV or JSON, on standard output or in a file, each row once it is there."""

import csv
import io
import json

from sterna.host.console import printable, show
from sterna.host.runtime.statistics import STALLS
from sterna.sim.golden.files import write_file

NONE = "-"


def _scaled(value, units, step):
    for unit in units[:-1]:
        if value < step:
            break
        value /= step
    else:
        unit = units[-1]
    return f"{value:.2f} {unit}" if unit else f"{value:g}"


def _device(row):
    parts = [row["kind"]] if row["kind"] not in ("cpu", "golden") else []
    if row["build"]:
        parts += [f"{row['preset'] or 'build'} {row['build']}", f"{row['clock_hz'] / 1e6:g} MHz"]
    return f"{row['device']} ({', '.join(parts)})" if parts else row["device"]


def _spread(mean, deviation, style):
    if mean is None:
        return NONE
    return format(mean, style) + (f" ± {deviation:{style}}" if deviation is not None else "")


def _test(row):
    cut = f" ({row['repetitions']} of {row['repetitions_wanted']})"
    return row["test"] + (cut if row["repetitions"] < row["repetitions_wanted"] else "")


def _cycles(row):
    text = _spread(row["cycles_per_token"], row["stddev_cycles_per_token"] or None, ".0f")
    return f"{text} {row['cycles_are']}" if row["cycles_are"] else text


def _at_clock(row):
    return f"{row['clock_ts']:.1f} {row['clock_ts_is']}" if row["clock_ts"] else NONE


def _stalls(row):
    values = [row[f"stall_{name}"] for name in STALLS.values()]
    return " ".join(f"{v:.1%}" for v in values) if None not in values else NONE


def _giga(value):
    return f"{value / 1e9:.2f}" if value is not None else NONE


class Markdown:
    """A table with a line per row, and below it what its figures are."""

    _PLAIN = (("model", 10, lambda r: r["model_type"]),
              ("size", 11, lambda r: _scaled(r["model_size"], ("B", "KiB", "MiB", "GiB"), 1024)),
              ("params", 8, lambda r: _scaled(r["model_n_params"], ("", "K", "M", "B"), 1000)),
              ("weights", 7, lambda r: r["weight_code"] or NONE), ("device", 38, _device), ("test", 6, _test),
              ("wall tokens/s", 17, lambda r: _spread(r["avg_ts"], r["stddev_ts"], ".2f")))
    _COUNTED = (("cycles/token", 17, _cycles), ("tokens/s at the clock", 21, _at_clock),
                ("memory", 6, lambda r: f"{r['memory_share']:.1%}" if r["memory_share"] is not None else NONE),
                (f"stalls: {', '.join(STALLS.values())}", 34, _stalls))

    _STREAMED = (("weights, GB/s", 13, lambda r: _giga(r["effective_bytes_per_second"])),
                 ("of the stream", 13,
                  lambda r: f"{r['stream_share']:.1%}" if r["stream_share"] is not None else NONE))

    def __init__(self, counted, streamed):
        self._columns = self._PLAIN + (self._STREAMED if streamed else ()) + (self._COUNTED if counted else ())
        self._rows = []

    @staticmethod
    def _line(cells):
        return "| " + " | ".join(cells) + " |\n"

    def start(self):
        """Text before the first row."""
        names = self._line(name.ljust(max(width, len(name))) for name, width, _ in self._columns)
        # Words stand left, numbers right.
        return names + self._line("-" * (max(width, len(name)) - 1) + (":" if k in (1, 2) or k > 5 else "-")
                                  for k, (name, width, _) in enumerate(self._columns))

    def row(self, row):
        """Text of one row."""
        self._rows.append(row)
        sides = ((">" if k in (1, 2) or k > 5 else "<") for k in range(len(self._columns)))
        return self._line(f"{printable(cell(row)).replace('|', chr(92) + '|'):{side}{max(width, len(name))}}"
                          for (name, width, cell), side in zip(self._columns, sides, strict=True))

    def end(self):
        """Text behind the last row."""
        first = self._rows[0]
        lines = [f"wall tokens/s: mean{' ± standard deviation' * (first['repetitions_wanted'] > 1)} over "
                 f"{first['repetitions_wanted']} repetition{'s' * (first['repetitions_wanted'] > 1)}, by the wall "
                 "clock of this machine; of a simulated device it is the speed of the simulation, not of the "
                 "hardware"]
        if any(r["cycles_per_token"] for r in self._rows):
            lines.append("projected: the assumed clock over simulated cycles; memory: useful bytes of what the "
                         "memory could deliver; stalls: of the cycles")
        lines += [f"weights: tokens/s times the {r['token_bytes'] / 1e6:.1f} MB that a token uses"
                  f" ({r['prompt_token_bytes'] / 1e6:.1f} MB inside a prompt); the tokens of a prompt and texts side "
                  f"by side share a reading; stream: {_giga(r['stream_bytes_per_second'])} GB/s, "
                  f"{r['stream_bytes'] / 1e6:.1f} MB read over and over with {r['threads']} "
                  f"thread{'s' * (r['threads'] > 1)} and nothing else done"
                  for r in {r["model_filename"]: r for r in self._rows if r["token_bytes"]}.values()]
        timings = {tuple(r[k] for k in ("latency_cycles", "refresh_interval_cycles", "refresh_cycles"))
                   for r in self._rows if r["kind"] == "simulated" and r["latency_cycles"] is not None}
        lines += [f"simulated memory: latency {latency} cycles, refresh {refresh} of every {interval} cycles"
                  for latency, interval, refresh in timings]
        lines += [f"simulated memory: the DRAM {name!r} behind AXI ports"
                  for name in sorted({r["dram"] for r in self._rows if r["dram"]})]
        how = "greedy" if first["temperature"] == 0 else f"temperature {first['temperature']:g}"
        lines.append(f"prompts: random token ids, seed {first['seed']}; generation: {how}, from an empty state")
        return "\n" + "".join(f"- {line}\n" for line in lines)


class Csv:
    """One line per row under a line of names; samples of single repetitions are left out."""

    def __init__(self, counted, streamed):
        self._text = io.StringIO()
        self._writer = None

    def start(self):
        """Text before the first row: the names come with it."""
        return ""

    def row(self, row):
        """Text of one row; None is empty."""
        row = {k: v for k, v in row.items() if not isinstance(v, list)}
        if self._writer is None:
            self._writer = csv.DictWriter(self._text, list(row), lineterminator="\n")
            self._writer.writeheader()
        self._writer.writerow(row)
        text = self._text.getvalue()
        self._text.seek(0)
        self._text.truncate()
        return text

    def end(self):
        """Text behind the last row."""
        return ""


class Json:
    """A list with an object per row."""

    def __init__(self, counted, streamed):
        self._separator = ""

    def start(self):
        """Text before the first row."""
        return "[\n"

    def row(self, row):
        """Text of one row."""
        text = self._separator + "\n".join("  " + line for line in json.dumps(row, indent=2).splitlines())
        self._separator = ",\n"
        return text

    def end(self):
        """Text behind the last row."""
        return "\n]\n"


FORMATS = {"md": Markdown, "csv": Csv, "json": Json}


class Report:
    """Where rows go; a context manager that completes the text, after an error too, if there is any row.

    Parameters
    ----------
    style : str
        A name in FORMATS.
    path : Path or None
        A file, which is whole after every row, or a device or FIFO, which gets the text at the end; None is standard
        output.
    counted : bool
        Some device may have counters.
    streamed : bool
        Some device reads its weights from the memory of this machine.
    """

    def __init__(self, style, path, counted, streamed=False):
        self._format, self._path, self._text = FORMATS[style](counted, streamed), path, ""
        self._once = path is not None and path.exists() and not path.is_file()

    def add(self, row):
        """Write a row (dict of ``sterna.host.bench.bench.row``)."""
        text = ("" if self._text else self._format.start()) + self._format.row(row)
        self._text += text
        if not self._path:
            show(text)
        elif not self._once:
            self._write()

    def _write(self):
        write_file(self._path, self._text + self._format.end())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._text and not self._path:
            show(self._format.end())
        elif self._text and self._once:
            self._write()
