"""The permuted layout of AXI ports: both directions, one byte at a time and whole images."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sterna.hw.memory.axi import layout


@st.composite
def shapes(draw):
    """Ports, beats and blocks that fit together."""
    beat = 1 << draw(st.integers(0, 6))
    return {"ports": 1 << draw(st.integers(0, 3)), "beat_bytes": beat,
            "block_bytes": min(4096, beat << draw(st.integers(0, 5)))}


@given(shapes(), st.integers(1, 3), st.integers(0, 1 << 31))
def test_both_directions(shape, groups, start):
    size = shape["ports"] * shape["block_bytes"]
    base = start // size * size
    addresses = np.arange(base, base + groups * size)
    places = layout.place(addresses, **shape)
    assert np.array_equal(layout.origin(places, **shape), addresses)
    assert np.array_equal(np.sort(places), addresses)  # the same bytes, none twice
    data = (addresses * 7 + addresses // 251).astype(np.uint8)
    stored = layout.permuted(data, **shape)
    assert np.array_equal(stored[places - base], data)
    assert np.array_equal(layout.restored(stored, **shape), data)


def test_the_beats_of_a_word_lie_a_block_apart():
    shape = {"ports": 4, "beat_bytes": 16, "block_bytes": 256}
    assert [layout.place(64 * 3 + 16 * port, **shape) for port in range(4)] == [48, 304, 560, 816]
    assert layout.place(1024, **shape) == 1024 and layout.place(64 * 15, **shape) == 240


@pytest.mark.parametrize("shape, text", [
    ((3, 16, 256), "ports 3: use a power of two from 1 to 8"),
    ((4, 256, 256), "beat_bytes 256: use a power of two from 1 to 128"),
    ((4, 16, 8), "block_bytes 8: use a power of two from 16 to 4096"),
    ((4, 4, 2048), "block_bytes 2048: use a power of two from 4 to 1024")])
def test_what_does_not_fit_is_refused(shape, text):
    with pytest.raises(layout.LayoutError, match=text):
        layout.beats(*shape)
