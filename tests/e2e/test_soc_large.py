"""Sizes of the large models: a layer at hidden size 2048, the top of 1 GiB, and what the 2.7B geometry needs."""

import dataclasses

import numpy as np
import pytest
from conftest import seed
from soc import LANES320 as BOARD
from soc import Expected, Session, first_difference, placed, random_image
from sterna.firmware.layout import memory_map
from sterna.firmware.program import ProgramError, build_program
from sterna.hw.presets import PRESETS
from sterna.sim.golden.packed import Geometry

CONFIG = PRESETS["lanes320"]
LARGEST = Geometry(2560, 6912, 32, 32000)
# The widest vectors and port, tiles of columns that no five divides, and a memory whose addresses need 36 bits
WIDEST = dataclasses.replace(CONFIG, name="widest", rows=5, columns=32, lanes=32, port_bytes=128, strip=160,
                             memory_bytes=6 << 30, vector_words=64, activation_words=8, fifo_words=64, row_words=16,
                             top_k=0, tree_rows=0, ring=16, credits=4)


def test_largest_geometry_fits():
    program = build_program(CONFIG, LARGEST)
    where = memory_map(CONFIG, LARGEST)
    assert 0.5e9 < where.stream_bytes and where.end <= CONFIG.memory_bytes
    assert len(program.words) <= CONFIG.program_words and max(program.vector_words) <= CONFIG.vector_words
    assert max(LARGEST.hidden_size, LARGEST.intermediate_size) <= CONFIG.activation_words * CONFIG.columns
    # Every limit counts: with less of anything the model is refused.
    for field, part in (("program_words", "program"), ("vector_words", "vector memory"),
                        ("activation_words", "activation memory"), ("memory_bytes", "memory")):
        used = {"program_words": len(program.words), "vector_words": max(program.vector_words),
                "activation_words": -(-LARGEST.intermediate_size // CONFIG.columns), "memory_bytes": where.end}[field]
        build_program(dataclasses.replace(CONFIG, **{field: used}), LARGEST)
        less = used - (64 if field == "memory_bytes" else 1)
        with pytest.raises(ProgramError, match=part):
            build_program(dataclasses.replace(CONFIG, **{field: less}), LARGEST)


@pytest.mark.rtl
@pytest.mark.rest
def test_model_at_the_top_of_the_memory(tmp_path):
    rng = np.random.default_rng([seed(), 30])
    image = random_image(rng, BOARD, (51, 77, 2, 23))
    where = placed(image, BOARD, BOARD.memory_bytes - image.check(BOARD).end)
    assert where.end == BOARD.memory_bytes and where.embedding_address > 1023 << 20
    golden = Expected(BOARD, image, where)
    options = {"temperature": 0.7, "seed": 4}
    wanted = golden.generate([22, 0], 4, **options)
    with Session(BOARD, image, tmp_path, addresses=where, latency_cycles=50) as session:
        # Different bytes at the bottom, and half way up: an address that lost its upper bits would meet them.
        for low in (0, 1 << 20, 256 << 20, 512 << 20):
            session.device.write(low, rng.bytes(256))
        assert session.generate([22, 0], 4, **options) == wanted
    assert first_difference(golden.vectors, session.trace()) is None


@pytest.mark.rtl
@pytest.mark.rest
def test_widest_build_at_the_top_of_6_gib(tmp_path):
    """Its tables lie across 4 GiB, and its state at the very top; what the low 32 bits would meet is other bytes."""
    rng = np.random.default_rng([seed(), 31])
    images = [random_image(rng, WIDEST, geometry) for geometry in ((99, 161, 2, 75), (33, 200, 1, 40))]
    first = images[0].check(WIDEST)
    places = placed(images[0], WIDEST, (4 << 30) - first.stream_address - first.stream_bytes // 128 // 2 * 128), \
        placed(images[1], WIDEST, WIDEST.memory_bytes - images[1].check(WIDEST).end)
    assert places[0].stream_address < 4 << 30 < places[0].state_address and places[1].end == 6 << 30
    expected, options = [], {"temperature": 0.7, "seed": 4}
    with Session(WIDEST, images[0], tmp_path, addresses=places[0], latency_cycles=30, bandwidth=150) as session:
        for image, where in zip(images, places, strict=True):
            golden = Expected(WIDEST, image, where)
            wanted = golden.generate([22, 0], 3, **options)
            session.load(image, where)
            session.device.write(where.stream_address & 0x7FFFFF80, rng.bytes(1024))
            assert session.generate([22, 0], 3, **options) == wanted
            expected += golden.vectors
    assert first_difference(expected, session.trace()) is None


@pytest.mark.rtl
@pytest.mark.rest
def test_whole_layer_at_hidden_2048(tmp_path):
    """One layer with the sizes of the 1.3B model and 512 of its 32,000 rows of embedding and head, every vector."""
    image = random_image(np.random.default_rng([seed(), 20]), BOARD, (2048, 5632, 1, 512))
    golden = Expected(BOARD, image)
    wanted = golden.generate([509], 1)
    with Session(BOARD, image, tmp_path, preload=True) as session:
        got = session.generate([509], 1)
        counters = session.device.counters()
    print(f"{counters['cycles']} cycles, {counters['port_busy']} words, array busy {counters['array_busy']}")
    assert got == wanted
    assert first_difference(golden.vectors, session.trace()) is None
    # The memory delivers a word in most cycles of such a layer.
    assert counters["port_busy"] > 0.7 * counters["cycles"]
