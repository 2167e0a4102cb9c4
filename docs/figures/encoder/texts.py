"""Texts and tasks of the encoder's study, made of a folder of public data that the project does not ship.

The folder holds ``glue/`` with the tasks in GLUE's formats, ``glue/corpora`` with zip files of texts (as NLTK's data
has them), and ``wikitext2/``.
"""

import re
import zipfile

import numpy as np

from sterna.host.errors import HostError
from sterna.sim.golden.files import write_file

CORPORA = ("brown", "masc_tagged", "movie_reviews", "abc", "state_union", "webtext")
TAGGED = {"brown": "/", "masc_tagged": "_"}  # what stands between a word and its tag
MOST = 1_200_000  # characters of a corpus
NO_TEXT = ("cats.txt", "categories.txt", "CONTENTS")
DEV = {"AGNews": 1500, "Subjectivity": 1500}  # rows of the development part that is made here
TASKS = ("SST-2", "TREC", "AGNews", "Subjectivity")


def plain(text, mark):
    """A text without the tags that stand behind each word and ``mark``."""
    return re.sub(rf"{mark}[^\s{mark}]+(?=\s|$)", "", text)


def members(data, name):
    """Yields the texts of the files of a zip file of corpora."""
    path = data / "glue" / "corpora" / f"{name}.zip"
    try:
        with zipfile.ZipFile(path) as archive:
            for info in sorted(archive.namelist()):
                base = info.rpartition("/")[2]
                if base and not base.upper().startswith("README") and base not in NO_TEXT:
                    yield base, archive.read(info).decode("utf-8", "replace")
    except (OSError, zipfile.BadZipFile) as error:
        raise HostError(f"cannot read {path}: {error}: give a folder with glue/corpora") from None


def write_texts(data, folder):
    """Write the texts to pre-train on into a folder, a file a corpus."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in CORPORA:
        text = "\n".join(part for _, part in members(data, name))
        write_file(folder / f"{name}.txt", (plain(text, TAGGED[name]) if name in TAGGED else text)[:MOST])
    write_file(folder / "wikitext2.txt", (data / "wikitext2" / "valid.txt").read_text()[:MOST])


def rows_of(path):
    return [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]


def write_task(data, name, folder):
    """Write train.tsv and dev.tsv of a task into a folder; no text of dev is in train."""
    rng, head = np.random.default_rng(0), []
    if name == "Subjectivity":
        classes = [("plot", "objective"), ("quote", "subjective")]
        rows = [f"{' '.join(line.split())}\t{label}" for base, text in members(data, "subjectivity")
                for start, label in classes if base.startswith(start) for line in text.split("\n") if line.strip()]
        rows = [rows[k] for k in rng.permutation(len(rows))]
        train, dev = rows[DEV[name]:], rows[:DEV[name]]
    elif name == "AGNews":
        train, dev = (rows_of(data / "glue" / name / f"{part}.tsv") for part in ("dev", "test"))
        dev = [dev[k] for k in rng.permutation(len(dev))[:DEV[name]]]
    elif name == "TREC":  # the word in front of a question is its fine class
        train, dev = ([line.split(" ", 1)[1] for line in rows_of(data / "glue" / name / f"{part}.txt")]
                      for part in ("train", "test"))
    else:
        train, dev = (rows_of(data / "glue" / name / f"{part}.tsv") for part in ("train", "dev"))
        head, train, dev = train[:1], train[1:], dev[1:]
    texts = {line.split("\t")[0].strip().lower() for line in dev}
    train = [line for line in dict.fromkeys(train) if line.split("\t")[0].strip().lower() not in texts]
    folder.mkdir(parents=True, exist_ok=True)
    for part, lines in (("train", train), ("dev", dev)):
        write_file(folder / f"{part}.tsv", "\n".join([*head, *lines]) + "\n")
