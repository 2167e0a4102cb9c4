"""JSON out of files that anyone may have written: one plain error for everything that is not what it should be."""

import json
import math
import os
import reprlib
import stat

from sterna.sim.golden.errors import SternaError

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60


class JsonError(SternaError, ValueError):
    """A text that is no valid JSON, or JSON that two readers would understand differently."""


def short(value):
    """``repr`` of a value out of a file, in few characters: for messages of one line."""
    return _SHORT.repr(value)


def _pairs(pairs):
    out = dict(pairs)
    if len(out) != len(pairs):
        seen = set()
        name = next(k for k, _ in pairs if k in seen or seen.add(k))
        raise JsonError(f"the key {short(name)} stands twice in an object")
    return out


def _float(text):
    value = float(text)
    if not math.isfinite(value):
        raise JsonError(f"the number {short(text)} is too large")
    return value


def _constant(text):
    raise JsonError(f"{text} is no number of JSON")


def parse(text):
    """The value of a JSON text.

    Parameters
    ----------
    text : bytes or str

    Raises
    ------
    JsonError
        No UTF-8, no JSON, nested too deeply, a key that stands twice, or a number that is not finite.
    """
    try:
        text = text if isinstance(text, str) else str(text, "utf-8")
        return json.loads(text, object_pairs_hook=_pairs, parse_float=_float, parse_constant=_constant)
    except JsonError:
        raise
    except UnicodeDecodeError as error:
        raise JsonError(f"no UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise JsonError("nested too deeply") from None
    except ValueError as error:  # also integers of thousands of digits
        raise JsonError(f"not valid JSON: {error}") from None


def read_bytes(path, limit_bytes):
    """The bytes of a file; JsonError for a device or FIFO, whose reading may never end, or if there are more than
    ``limit_bytes``; OSError if it cannot be read.
    """
    kind = os.stat(path).st_mode
    if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
        raise JsonError("no regular file")
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size  # reading takes a buffer of what is asked for
        data = file.read(min(size, limit_bytes) + 1)
    if len(data) > limit_bytes:
        raise JsonError(f"larger than {limit_bytes:,} bytes")
    return data


def read(path, limit_bytes):
    """The value of a JSON file; JsonError as for ``parse`` and ``read_bytes``, OSError if it cannot be read."""
    return parse(read_bytes(path, limit_bytes))
