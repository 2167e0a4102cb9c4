"""The cycle model by itself: against cycles that the pages quote, its short cuts, and the gateware's numbers."""

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from docs.figures.perf import Known
from sterna.firmware import isa
from sterna.firmware.isa import IsaError
from sterna.firmware.layout import layout
from sterna.firmware.program import ProgramError
from sterna.hw.array.activations import ActivationBuffers
from sterna.hw.array.decoder import TritDecoder
from sterna.hw.array.tree import RowAccumulator
from sterna.hw.boards import preset
from sterna.hw.memory import arbiter, port
from sterna.hw.memory import sdram as controller
from sterna.hw.presets import PRESETS
from sterna.hw.stream import SKID_DEPTH
from sterna.hw.vector.sampler import PRELUDE_CYCLES
from sterna.hw.tree.collector import Collector
from sterna.hw.tree.gather import FAST, SLOW, Gather
from sterna.sim.golden.geometry import Geometry, TreeGeometry
from sterna.sim.golden.packed import random_model
from sterna.sim.perf import array, fetch, memory, predict, vector, walker
from sterna.sim.perf.predict import Conversions

DOCS = Path(__file__).resolve().parents[2] / "docs"
STORY, LARGE = Geometry(240, 800, 4, 1024), Geometry(1024, 2816, 4, 4096)
SIMULATED = {"lanes10": STORY, "lanes40": STORY, "sim": STORY, "lanes160": LARGE, "lanes320": LARGE}
ON_BOARDS = {("ulx3s-85f", "story"): STORY, ("ulx3s-85f", "stories37m"): Geometry(600, 1600, 8, 4096),
             ("icebreaker", "tiny"): Geometry(80, 160, 4, 512)}
QUICK = ("sim", "icebreaker-tiny")


def quoted():
    """{name: (configuration, Geometry, cycles per token)} that docs/results.md has from the RTL."""
    text, out = (DOCS / "results.md").read_text(), {}
    for name, geometry in SIMULATED.items():
        found = re.search(rf"^\| {name} \| ([\d,]+) \| [\d.]+% \| [\d.]+% \|", text, re.MULTILINE)
        out[name] = name, geometry, found[1]
    for (board, model), geometry in ON_BOARDS.items():
        found = re.search(rf"^\| {board} \| {model} \| [^|]+\| ([\d,]+) \|", text, re.MULTILINE)
        out[f"{board}-{model}"] = board, geometry, found[1]
    return {name: (*values, int(cycles.replace(",", ""))) for name, (*values, cycles) in out.items()}


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=[pytest.mark.rest] * (name not in QUICK)) for name in quoted()])
def test_cycles_that_the_pages_quote(name):
    board, geometry, cycles = quoted()[name]
    assert predict.predict(preset(board), geometry).cycles_per_token == pytest.approx(cycles, rel=0.01)


def test_numbers_are_those_of_the_gateware():
    for slow in (False, True):
        for columns in (5, 10, 15, 20, 40):
            row = RowAccumulator(columns=columns, pipelined=not slow)
            assert array.tree_cycles(columns, slow) == row.latency
    for rows in (1, 2, 3, 5, 8, 10):
        for batch in (1, 4):
            for slow in (False, True):
                collector = Collector(rows=rows, lanes=4, batch=batch, bits=20, pipelined=not slow)
                assert array.collecting_cycles(rows, batch, slow) == collector.latency
    for pipelined, hazard in ((True, array.HAZARD), (False, array.HAZARD_SLOW)):
        gather = Gather(rows=2, columns=10, lanes=4, batch=1, bits=20, tiles=4, visits=8, trits_latency=1,
                        pipelined=pipelined)
        assert gather.hazard_cycles == hazard
    other = replace(PRESETS["lanes10"], weight_code="bit2", rows=2, columns=10, port_bytes=4)
    for config in (*PRESETS.values(), other):
        decoder = TritDecoder(trits=config.rows * config.columns, code=config.weight_code, pipelined=not config.slow)
        buffers = ActivationBuffers(columns=config.columns, lanes=config.lanes, words=config.activation_words,
                                    registered=not config.slow)
        assert array.meeting_cycles(config) == max(decoder.latency, buffers.latency)
        assert decoder.latency <= (SLOW if config.slow else FAST)  # the gather's codes are as late as its trits
    assert (fetch.BURST_WORDS, fetch.OUTSTANDING, fetch.SKID_WORDS) == (port.MAX_BURST_WORDS, arbiter.OUTSTANDING,
                                                                        SKID_DEPTH)
    assert (memory.SdramMemory.REFRESH_GROUP, vector.PRELUDE) == (controller.REFRESH_GROUP, PRELUDE_CYCLES)


@pytest.mark.parametrize("name", ["lanes160", pytest.param("ulx3s-85f", marks=pytest.mark.rest)])
def test_layers_that_are_left_out_count(name, monkeypatch):
    config, geometry = preset(name), Geometry(100, 160, 7, 150)
    whole = predict.predict(config, geometry)
    monkeypatch.setattr(predict, "LARGE", 0)
    few = predict.predict(config, geometry)
    assert few != whole
    for field in ("cycles_per_run", "words", "stall_idle"):
        assert getattr(few, field) == pytest.approx(getattr(whole, field), rel=0.005)


@pytest.mark.parametrize("name", ["lanes320", pytest.param("ulx3s-85f", marks=pytest.mark.rest)])
def test_rows_of_the_head_that_are_left_out_count(name, monkeypatch):
    config, geometry = preset(name), Geometry(64, 96, 1, 1 + (1 << 15))
    with monkeypatch.context() as patch:
        patch.setattr(predict, "LARGE_HEAD", 1 << 20)
        whole = predict.predict(config, geometry, runs=1)
    walked = []
    monkeypatch.setattr(predict, "Machine", lambda c, program, *rest, plain=predict.Machine:
                        walked.append(program) or plain(c, program, *rest))
    few = predict.predict(config, geometry)
    assert len(walked) == 2 and few.cycles_per_run == pytest.approx(whole.cycles_per_run, rel=0.005)
    assert few.words == pytest.approx(whole.words, rel=0.001)
    predict.predict(config, geometry, prompt=True)
    monkeypatch.setattr(predict, "LARGE_HEAD", 0)
    predict.predict(config, replace(geometry, vocab_size=2000), top_k=40)
    assert len(walked) == 4  # with a list, and where the head is not run, there is no short cut


def test_what_ought_to_slow_down_does():
    config, geometry = PRESETS["lanes40"], Geometry(64, 96, 2, 200)
    sampled = predict.predict(config, geometry)
    assert predict.predict(config, geometry, sampled=False).cycles_per_run < sampled.cycles_per_run
    assert predict.predict(config, geometry, top_k=40).cycles_per_run > sampled.cycles_per_run
    assert predict.predict(config, geometry, prompt=True).words < sampled.words
    slots = predict.predict(replace(config, batch=4), geometry)
    assert slots.cycles_per_run > sampled.cycles_per_run and slots.tokens_per_second > 3 * sampled.tokens_per_second
    assert slots.stream_tokens_per_second == pytest.approx(slots.tokens_per_second / 4)
    wide = Geometry(240, 600, 1, 300)  # whose words set the pace where the memory is slow
    slow = predict.predict(config, wide, sampled=False, timing=memory.Timing(20, 780, 400))
    assert slow.cycles_per_run == pytest.approx(slow.words + slow.refresh, rel=0.03)
    half = predict.predict(config, wide, sampled=False, timing=memory.Timing(20, 780, 0, 128))
    assert half.cycles_per_run == pytest.approx(2 * half.words, rel=0.03)


def test_sections_longer_than_the_fifo():
    """Rows of tiles and vectors of more words than the FIFO has: nothing waits for ever."""
    config = replace(PRESETS["lanes40"], fifo_words=16)
    assert math.isfinite(predict.predict(config, Geometry(300, 500, 1, 50)).cycles_per_run)


def test_a_model_that_the_build_has_no_room_for_is_refused():
    with pytest.raises(ProgramError, match="vector memory: bank 0 needs 5920 words and has 4096"):
        predict.predict(PRESETS["lanes10"], Geometry(1024, 2816, 2, 100))
    with pytest.raises(IsaError, match="LOOP count 65536: use 0 to 65535"):  # of which three would be walked
        predict.predict(PRESETS["lanes320"], Geometry(64, 64, 1 << 16, 64))


def test_serial_conversions_of_larger_numbers_are_shorter():
    conversions = Conversions(80)
    assert conversions.rows(80, 0) > conversions.rows(160, 0) > conversions.rows(640, 0) > 0
    assert conversions.rows(80, 3) > conversions.rows(80, 0) and conversions.codes > conversions.rows(80, 0)


def test_conversions_of_a_known_model_are_counted():
    """Of each product, the places by which its sums are shifted: about what is assumed."""
    known = Known(random_model(np.random.default_rng(1), Geometry(60, 100, 2, 80)))
    for product in range(7):
        assert known.rows(60, product) == pytest.approx(Conversions(60).rows(60, product), abs=2.5)


# ---- Trees ----


def test_the_walker_asks_in_the_order_of_a_walk_and_in_its_time():
    """Two slots, one row always read, two trees of two levels, a word each; then a gather and a linear read."""
    one = walker.Walker(2)
    one.add(10, isa.KIND_WALK, 100, 1, 2, 2, 1)
    one.add(11, isa.KIND_GATHER, 200, 1, 2, 2, 1)
    one.add(12, isa.KIND_LINEAR, 300, 50)
    found = [one.next(0) for _ in range(6)]
    # Found in cycle 11, two cycles for two levels; counted from 15 on, every other cycle, and one more for a root.
    assert found == [(17, 100, 1), (19, 100, 1), (22, 101, 1), (24, 101, 1), (26, 104, 1), (28, 104, 1)]
    assert one.next(0) is None and one
    one.signs += [20, 22, 40, 41, 42]
    children = [one.next(0) for _ in range(3)]
    assert [time for time, _, _ in children] == [40, 41, 42]  # the roots' signs, of which the last one is not there
    assert one.next(0) is None
    one.signs.append(50)
    children.append(one.next(60))  # the bursts of the one before end then
    assert children[-1][0] == 60
    offsets = [address - 100 for _, address, _ in children]
    assert all(at in choices for at, choices in zip(offsets, ((2, 3), (2, 3), (5, 6), (5, 6)), strict=True))
    places = [address - 200 for _, address, _ in (one.next(0) for _ in range(10))]
    assert places == [0, 0, 1, 1, 4, 4, *offsets]
    time, address, words = one.next(0)
    assert (address, words) == (300, 50) and not one
    one.add(13, isa.KIND_WALK, 100, 1, 2, 2, 1)
    assert one.next(0) is None  # until all signs of the walk before have come


def test_levels_follow_each_other_when_signs_are_early():
    one = walker.Walker(1)
    one.signs += [0] * 4
    one.add(10, isa.KIND_WALK, 100, 1, 1, 4, 0)
    assert [one.next(0)[0] for _ in range(4)] == [20, 24, 28, 32]


@pytest.mark.parametrize("name", ["lanes40", pytest.param("lanes320,batch=4", marks=pytest.mark.rest)])
def test_a_walk_reads_its_records_and_hides_its_latency(name):
    config = preset(name)

    def layers(*trees):
        """Cycles and words of a layer of such trees."""
        few, many = (predict.predict(config, TreeGeometry(160, *trees, count, 64)) for count in (2, 4))
        return (many.cycles_per_run - few.cycles_per_run) / 2, (many.words - few.words) / 2

    record = layout(config, TreeGeometry(160, 1, 0, 0, 1, 64)).record_bytes // config.port_bytes
    one, deep, wide, always = (layers(*trees) for trees in ((1, 0, 0), (1, 9, 0), (10, 0, 0), (1, 0, 9)))
    assert deep[1] - one[1] == wide[1] - one[1] == always[1] - one[1] == 2 * 9 * record * config.batch
    # Each level of a single tree waits for the memory; trees side by side and rows that are always read do not.
    level = (deep[0] - one[0]) / 9
    assert level > timing(config) + array.meeting_cycles(config) + array.tree_cycles(config.columns, False)
    assert wide[0] - one[0] < 0.5 * (deep[0] - one[0]) and always[0] - one[0] < 0.5 * (deep[0] - one[0])


def timing(config):
    """Cycles from a command to the first word."""
    return predict.timing_of(config)[0].latency


def test_trees_need_memory_outside_of_the_chip():
    with pytest.raises(ProgramError, match="^trees: up5k has its memory on the chip, where no records are walked"):
        predict.predict(preset("up5k"), TreeGeometry(40, 1, 1, 0, 1, 64))
