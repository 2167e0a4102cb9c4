"""Labelled text in the formats of GLUE's tasks: tab-separated tables, with or without names of the columns."""

from dataclasses import dataclass
from pathlib import Path

from sterna.models.data import lines_of, text_of
from sterna.models.settings import TrainError
from sterna.sim.golden.strictjson import short

TEXTS = ("sentence", "sentence1", "sentence2", "#1 string", "#2 string", "question", "question1", "question2",
         "premise", "hypothesis", "text")
LABELS = ("gold_label", "label", "quality", "is_duplicate", "score")  # the first that is there
SCORE = "score"
UNNAMED = {2: ((0,), 1), 3: ((0, 1), 2), 4: ((3,), 1)}  # of a table without names: columns of texts, of the label
NAMES = {"train": ("train.tsv", "train.txt"), "dev": ("dev.tsv", "dev.txt")}
MOST_BROKEN = 0.01


@dataclass(frozen=True)
class Table:
    """Rows of a task.

    Attributes
    ----------
    texts : list of tuple of str
        One text or two a row.
    labels : list of str, or of float
        Names of classes, or scores.
    broken : int
        Rows that were left out, as they have another number of columns.
    """

    texts: list
    labels: list
    broken: int = 0

    @property
    def scored(self):
        """Whether the labels are scores (bool)."""
        return bool(self.labels) and isinstance(self.labels[0], float)


def _columns(path, first):
    """(columns of texts, column of the label, whether the first line names them, whether it is a score)."""
    names = [name.strip().lower() for name in first]
    texts = tuple(names.index(name) for name in TEXTS if name in names)
    label = next((name for name in LABELS if name in names), None)
    if texts and label:
        return texts[:2], names.index(label), True, label == SCORE
    if texts and len(first) > 1:
        raise TrainError(f"{path}: no column of labels ({', '.join(LABELS)}): the unlabelled test files of GLUE "
                         "cannot be used: give a labelled one")
    if len(first) not in UNNAMED:
        raise TrainError(f"{path}: {len(first)} columns without names that are known: use a table with a line "
                         f"of names, or of {', '.join(map(str, UNNAMED))} columns")
    return *UNNAMED[len(first)], False, False


def read_table(path, skip_words=0):
    """The Table of a file.

    With a line of names: the columns of TEXTS and the first of LABELS; a ``score`` is a number, every other label a
    class. Without: two columns are text and class, three two texts and a class, four CoLA's (source, class, mark,
    text).

    Parameters
    ----------
    path : Path
    skip_words : int
        Words that are dropped from the start of every text: TREC's files begin with the fine class.

    Raises
    ------
    TrainError
        One line: the file cannot be read, or is no such table.
    """
    try:
        rows = [line.rstrip("\r").split("\t") for line in lines_of(text_of(Path(path).read_bytes()))]
    except UnicodeDecodeError as error:
        raise TrainError(f"{path} is not UTF-8 (byte {error.start}): convert it, for instance with iconv") from None
    except (OSError, ValueError) as error:
        raise TrainError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None
    if not rows:
        raise TrainError(f"{path} holds no line of text")
    columns, label, named, scored = _columns(path, rows[0])
    whole = [row for row in rows[named:] if len(row) == len(rows[0])]
    broken = len(rows) - named - len(whole)
    if not whole or broken > MOST_BROKEN * len(rows):
        raise TrainError(f"{path}: {broken} of {len(rows) - named} rows have not the {len(rows[0])} columns of the "
                         "first line: is it a table with tabs between the columns?")
    texts = [tuple(_text(row[column], skip_words) for column in columns) for row in whole]
    labels = [row[label].strip() for row in whole]
    return Table(texts, [_score(path, value) for value in labels] if scored else labels, broken)


def _text(text, skip_words):
    return " ".join(text.split()[skip_words:]) if skip_words else text.strip()


def _score(path, value):
    try:
        return float(value)
    except ValueError:
        raise TrainError(f"{path}: the score {short(value)} is no number") from None


def find(folder, part, name=""):
    """The file of a folder's ``part``, "train" or "dev": that called ``name``, or of the usual ones; TrainError."""
    folder = Path(folder)
    for one in (name,) if name else NAMES[part]:
        if (folder / one).is_file():
            return folder / one
    wanted = short(name) if name else " or ".join(NAMES[part])
    raise TrainError(f"{folder}: no {wanted}: name its file by {part} = \"FILE\"")
