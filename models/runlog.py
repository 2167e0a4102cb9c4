"""The log of a training run: log.jsonl, one record per step."""

import json
from contextlib import suppress
from pathlib import Path

from sterna.models.settings import TrainError
from sterna.sim.golden.files import write_file

NAME = "log.jsonl"


class RunLog:
    """Appends records to the log of a folder; folder and file are made with the first of them.

    Parameters
    ----------
    folder : Path
    step : int
        The last step that a saved state has seen: later records are dropped, they will be made again.
    """

    def __init__(self, folder, step):
        self._folder, self._path = Path(folder), Path(folder) / NAME
        self._begun = step > 0
        if self._begun:
            records = read_log(folder)
            kept = [record for record in records if record["step"] <= step]
            if len(kept) < len(records) or _cut_off(self._path):
                self._write(kept)

    def add(self, record):
        """Append a record (dict).

        Raises
        ------
        TrainError
            It cannot be written; a folder or file that was made for it is gone again.
        """
        new = not self._folder.exists()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            size = self._path.stat().st_size if self._begun and self._path.exists() else None
            with self._path.open("w" if size is None else "a") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            with suppress(OSError):
                self._take_back(size, new)
            raise TrainError(f"cannot write {self._path}: {error.strerror}") from None
        self._begun = True

    def _take_back(self, size, new):
        """Leaves the folder as it was before a record that does not fit: the file of ``size`` bytes, or none."""
        if size is not None:
            with self._path.open("r+b") as file:
                file.truncate(size)
            return
        self._path.unlink(missing_ok=True)
        if new:
            self._folder.rmdir()

    def last(self):
        """The last record (dict), or None."""
        records = read_log(self._folder)
        return records[-1] if records else None

    def replace_last(self, record):
        """Write a record of the last step in place of its former one."""
        self._write([old for old in read_log(self._folder) if old["step"] != record["step"]] + [record])

    def _write(self, records):
        try:
            write_file(self._path, "".join(json.dumps(record) + "\n" for record in records))
        except OSError as error:
            raise TrainError(f"cannot write {self._path}: {error.strerror}") from None


def _cut_off(path):
    """Whether a file ends within a line."""
    return path.exists() and not path.read_bytes().endswith(b"\n")


def read_log(folder):
    """The records (list of dict) of a run's log.jsonl, none if there is no such file; a last line that was cut off is
    left out.

    Raises
    ------
    TrainError
        A line is no record, or the file cannot be read.
    """
    path = Path(folder) / NAME
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise TrainError(f"cannot read {path}: {error.strerror}") from None
    records = []
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        if not line.endswith("\n"):
            break
        try:
            record = json.loads(line)  # not the strict reader: logs of older versions hold losses that are NaN
        except (ValueError, RecursionError) as error:
            raise TrainError(f"{path}, line {number}: not valid JSON: {error}") from None
        if not isinstance(record, dict) or type(record.get("step")) is not int:
            raise TrainError(f"{path}, line {number}: no record of a step")
        records.append(record)
    return records
