"""What docs/fff.md says of the RTL's cycles: which of a trace's they are, ratios and tables, the picture."""

import numpy as np
import pytest

from docs.figures.tree import picture, slots, speed
from docs.figures.tree.cycles import intervals, period
from docs.figures.tree.shapes import GLU, SHAPES
from sterna.firmware import isa
from sterna.hw.protocol import BATCHES

VECTOR = {"one": 0, "d_kind": isa.D_VECTOR, "a_kind": 0}
SCALAR = {"one": 1, "d_kind": isa.D_SCALAR, "a_kind": 0}
CODES = {"one": 0, "d_kind": isa.D_ACTIVATION0, "a_kind": 0}
ROWS = VECTOR | {"a_kind": isa.A_ROW}
LOAD = VECTOR | {"a_kind": isa.A_STREAM32}
# Instructions and the cycles that each takes. A product's rows are taken behind its codes.
PART = [(SCALAR, 20), (CODES, 100), (ROWS, 50)]
TREE = [(SCALAR, 20), (CODES, 100), (ROWS, 30), (SCALAR, 20), (CODES, 10), (ROWS, 200), (LOAD, 400), (SCALAR, 7)]
LAYER = 4 * PART + TREE
HEAD = [(CODES, 100), (ROWS, 500), (SCALAR, 1)]


def vectors(layers, tokens=3):
    """Fields and cycles of a run: a vector begins when the one before has ended."""
    every = tokens * (layers * LAYER + HEAD)
    ends = np.cumsum([cycles for _, cycles in every])
    return [fields for fields, _ in every], np.stack([np.r_[0, ends[:-1]], ends], axis=1)


@pytest.mark.parametrize("layers", [1, 2])
def test_a_token_is_its_layers_and_its_head(layers):
    layer, head = (sum(cycles for _, cycles in part) for part in (LAYER, HEAD))
    assert period(*vectors(layers), layers) == layers * layer + head


def test_a_mixer_reaches_from_scalars_to_scalars():
    fields, cycles = vectors(2)
    found = intervals(fields, cycles, gathers=True)
    assert found.mixer == sum(n for _, n in TREE[1:]) + 20  # the next layer's first scalar is its barrier
    assert found.products == 30 + 0  # rows of the walk; those of the gather begin at once behind its codes
    assert found.vectors == 400
    assert found.update == 200 + 400
    assert intervals(fields, cycles, gathers=False).products == 30 + 200


def test_runs_that_do_not_belong_together_are_refused():
    fields, cycles = vectors(2)
    with pytest.raises(ValueError, match="use the same run"):
        intervals(fields[:-1], cycles, True)
    with pytest.raises(ValueError, match="two tokens have 13 each"):
        intervals(*vectors(2, tokens=1), True)


def results():
    """Made-up results: with trees everything is twice as fast and half as many bytes."""
    def values(shape):
        part = 1 if shape == GLU else 2
        return {"products": 4000 / part, "vectors": 1, "update": 2, "mixer": 6000 / part, "layer": 9000, "head": 5,
                "whole": 90000 / part, "mixer_bytes": 600 / part, "token_bytes": 7000 / part}
    found = {f"tree.speed.{name}.{shape}": values(shape) for name, shape in speed.names()}
    return found | {slots.STEP: {f"{shape}.{batch}": 3.0 if shape == GLU else 1.5
                                 for shape in (GLU, *SHAPES) for batch in BATCHES}}


def test_tables_say_how_many_times_as_fast_as_the_unit():
    found = speed.tables(results()) | slots.tables(results())
    assert found[speed.gain("lanes40", "1x11")] == "2.00"
    assert found["table.tree.speed"].splitlines()[2] == "| 10 lanes, 2-byte port | 1x11 | 2 | 2 | 2 | 2.00 | 2.00 |"
    assert len(found["table.tree.speed"].splitlines()) == 2 + len(speed.CASES) * len(SHAPES)
    assert found["table.tree.slots"].splitlines()[2].startswith("| 1x11 | 2.00 (2.75) |")
    one = {name: values for name, values in results().items() if name != "tree.speed.lanes40.glu"}
    assert speed.gain("lanes40", "1x11") not in speed.tables(one)


def test_the_picture_needs_every_figure(tmp_path):
    assert picture.draw(results(), tmp_path) and (tmp_path / "fff-speed.svg").stat().st_size > 5000
    assert not picture.draw({name: values for name, values in results().items() if name != slots.STEP}, tmp_path)


def test_bytes_are_those_of_the_visited_rows():
    assert speed.mixer_bytes("1x11") == pytest.approx(2 * 12 * 2048 / 5)
    assert speed.mixer_bytes(GLU) / speed.mixer_bytes("1x11") == pytest.approx(704)
