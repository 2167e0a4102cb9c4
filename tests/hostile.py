"""Damage for files: JSON documents and bytes as somebody with bad intentions would write them."""

import copy
import json
import os
import tracemalloc

from faults import SEED
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from sterna.host.errors import HostError
from sterna.host.model.image import ImageError
from sterna.hw.config import ConfigError
from sterna.sim.golden.packed import PackError

TIMES = int(os.environ.get("STERNA_FUZZ", "1"))  # for a long run: so many times the examples

ERRORS = (HostError, ImageError, PackError, ConfigError)
DEEP = "\0deep\0"  # stands for a thousand nested lists in ``text_of``

SCALARS = st.one_of(
    st.sampled_from([None, True, False, 0, 1, -1, 2, 5, 7, 255, 256, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64,
                     10**30, -2**63, 0.0, 0.5, -0.0, 1e-320, 1e308, float("inf"), float("-inf"), float("nan"), "",
                     "a",
                     "F32", "trit5", "\ud800", "\0", "x" * 5000, "\n\x1b[2J", DEEP]),
    st.integers(-300, 300), st.floats(), st.text(max_size=5))
VALUES = st.one_of(SCALARS, SCALARS, st.lists(SCALARS, max_size=4),
                   st.dictionaries(st.text(max_size=4), SCALARS, max_size=3))


def examples(count):
    """Decorator of a hypothesis test: so many examples, times STERNA_FUZZ, from STERNA_SEED."""
    chosen = settings(max_examples=count * TIMES, deadline=None, suppress_health_check=[
        HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large])
    return lambda test: seed(SEED)(chosen(test))


def places(value, at=()):
    """Paths of every value inside a JSON document, the document itself first."""
    yield at
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items)[:40]:  # of a vocabulary some are enough
        yield from places(inner, (*at, key))


@st.composite
def damaged_json(draw, document, most=3):
    """The document with some values replaced, removed, doubled or moved."""
    out = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, most))):
        where = draw(st.sampled_from(list(places(out))))
        if not where:
            return draw(VALUES)
        parent = out
        for key in where[:-1]:
            parent = parent[key]
        action = draw(st.sampled_from(["replace", "replace", "replace", "remove", "add", "swap"]))
        if action == "replace":
            parent[where[-1]] = draw(VALUES)
        elif action == "remove":
            del parent[where[-1]]
        elif action == "add" and isinstance(parent, list):
            parent.insert(where[-1], copy.deepcopy(parent[where[-1]]))
        elif action == "add":
            parent[draw(st.text(max_size=6))] = draw(VALUES)
        else:
            other = draw(st.sampled_from(list(places(document))))
            value = document
            for key in other:
                value = value[key]
            parent[where[-1]] = copy.deepcopy(value)
    return out


def text_of(document, twice=False):
    """JSON text (bytes) of a document, with Infinity and NaN as Python writes them; ``twice`` doubles the keys."""
    text = json.dumps(document, separators=(",", ":"))
    text = text.replace(json.dumps(DEEP), "[" * 3000 + "]" * 3000)
    if twice and text.startswith("{") and len(text) > 2:
        text = text[:-1] + "," + text[1:]
    return text.encode()


@st.composite
def damaged_bytes(draw, data):
    """Bytes cut, changed, put in or taken out, or random ones."""
    kind = draw(st.sampled_from(["cut", "change", "insert", "remove", "random", "empty", "repeat"]))
    at = draw(st.one_of(st.integers(0, min(len(data), 200)), st.integers(0, len(data))))
    if kind == "cut":
        return data[:at]
    if kind == "change":
        out = bytearray(data)
        for _ in range(draw(st.integers(1, 4))):
            out[draw(st.integers(0, len(out) - 1))] = draw(st.integers(0, 255))
        return bytes(out)
    if kind == "insert":
        return data[:at] + draw(st.binary(min_size=1, max_size=9)) + data[at:]
    if kind == "remove":
        return data[:at] + data[at + draw(st.integers(1, 70)):]
    if kind == "repeat":
        return data[:at] + data[:at] + data[at:]
    return draw(st.binary(max_size=300)) if kind == "random" else b""


def outcome(function, path, errors=ERRORS):
    """What the function gives, or None where it raised one of our errors; anything else comes through.

    The error is one line that names ``path`` (None: it need not), and short.
    """
    try:
        return function()
    except errors as error:
        message = str(error)
        assert message and "\n" not in message.strip() and len(message) < 1000, message[:2000]
        assert path is None or str(path) in message, (str(path), message)
        return None


class Memory:
    """The peak of Python's and NumPy's memory inside a with block: ``peak_bytes``."""

    def __enter__(self):
        tracemalloc.start()
        return self

    def __exit__(self, *_):
        self.peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
