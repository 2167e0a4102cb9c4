"""The list of the best rows against the golden side, for several widths and depths."""

import bench
import pytest
from sterna.hw.vector.toplist import TopList



def run(lanes, depth, beats, parts, simulator, row_bits=24):
    """Runs all cases of the bench."""
    bench.run(TopList(lanes, row_bits, depth, beats), "bench_toplist", f"toplist{lanes}_{depth}", simulator,
              env={"LANES": lanes, "DEPTH": depth, "BEATS": beats, "ROW_BITS": row_bits, "PARTS": parts})


@pytest.mark.rtl
def test_four_lanes(simulator):
    run(4, 16, 9, 20, simulator)


@pytest.mark.rtl
@pytest.mark.rest
@pytest.mark.parametrize("lanes, depth, beats, parts", [(1, 7, 16, 30), (2, 1, 3, 30), (8, 5, 5, 30), (1, 2, 1, 30)])
def test_sizes(lanes, depth, beats, parts, simulator):
    run(lanes, depth, beats, parts, simulator, row_bits=16)


@pytest.mark.rtl
@pytest.mark.rest
def test_full_depth():
    run(8, 64, 10, 8, "verilator")


@pytest.mark.parametrize("arguments, text", [((3, 24, 4, 4), "lanes 3"), ((4, 24, 0, 4), "depth 0"),
                                             ((4, 24, 256, 4), "depth 256"), ((4, 24, 4, 0), "beats 0")])
def test_refusals(arguments, text):
    with pytest.raises(ValueError, match=text):
        TopList(*arguments)
