"""The reading of memory that speeds on a CPU are compared with: it reads every word, and what it says of it."""

import itertools

import numpy as np
import pytest
from sterna.sim.cpu import stream
from sterna.sim.cpu.stream import Stream, best_rate


@pytest.mark.parametrize("size_bytes, threads", [(1, 1), (5000, 1), (100_000, 3), (1 << 20, 2)])
def test_every_word_is_read_as_often_as_it_says(size_bytes, threads, monkeypatch):
    monkeypatch.setattr(stream, "LEAST_BYTES", 3 * size_bytes)
    memory = Stream(size_bytes, threads)
    words = memory.size_bytes // 8
    assert words % (stream.LANES * threads) == 0
    assert memory.size_bytes <= max(size_bytes, 8 * stream.LANES * threads) < memory.size_bytes + 512 * threads
    parts = np.arange(words, dtype=np.uint64).reshape(threads, -1)
    assert memory.sums() == [int(part.sum()) for part in parts]
    memory.close()


def test_sums_are_modulo_a_word_and_see_the_last_lane():
    memory = Stream(512 * 3, 1)
    memory._words[:] = 0
    memory._words[-1] = 2**64 - 1
    assert memory.sums() == [2**64 - 1]
    memory._words[63] = 3
    assert memory.sums() == [2]
    memory.close()


def test_best_rate_is_the_best_of_three_at_least(monkeypatch):
    class Counted:
        made = 0

        def __init__(self, size_bytes, threads):
            self.rates = iter([1.0, 9.0, 4.0])

        def rate(self):
            Counted.made += 1
            return next(self.rates)

        def close(self):
            Counted.made += 100

    monkeypatch.setattr(stream, "Stream", Counted)
    assert best_rate(100, 1, seconds=0) == 9.0 and Counted.made == 103
    clock = itertools.count()
    monkeypatch.setattr(stream.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(Counted, "rate", lambda self: 2.0)
    assert best_rate(100, 1, seconds=5) == 2.0


def test_rate_counts_every_reading(monkeypatch):
    monkeypatch.setattr(stream, "LEAST_BYTES", 1 << 12)
    memory = Stream(1 << 10, 2)
    clock = iter([10.0, 12.0])
    monkeypatch.setattr(stream.time, "perf_counter", lambda: next(clock))
    assert memory.rate() == 4 * 1024 / 2
    memory.close()
