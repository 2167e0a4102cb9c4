"""The cycle model against the simulated board: fresh geometries, every preset and kind of memory.

Within 1 % where it knows the numbers that come up. As ``sterna plan`` has it, without these, it is within 1 % too but
for serial conversions and lists.
"""

import numpy as np
import pytest
from conftest import seed
from docs.figures import perf
from small_model import byte_tokenizer
from soc import LANES320
from sterna.hw.boards import preset
from sterna.hw.presets import PRESETS
from sterna.sim.board.compile import key
from sterna.sim.golden.geometry import Geometry, TreeGeometry
from sterna.sim.golden.packed import random_model
from sterna.sim.perf.memory import Timing
from sterna.sim.perf.predict import predict
from test_soc_geometries import CONFIGS
from test_soc_geometries import FIRST as BUILT
from test_soc_large import WIDEST

WORST = 0.01
SERIAL, LISTED = 0.02, 0.03  # with assumed numbers: conversions on up5k, and lists, whose rows come in random order
# The boards of the first two are those of test_soc_geometries: memory behind the port, and an SDRAM with a clock of
# its own. up5k has counters here, which its preset lacks.
FIRST = ("lanes40", "ulx3s-85f")
# More slots, slots on an SDRAM, and lanes160, whose boards take minutes to compile, are compared by
# `make figures ARGS="--only perf"`.
OTHERS = ("lanes10", "sim", "lanes320", "up5k", "lanes40,batch=2", "lanes40,fifo_words=64",
          "lanes10,rows=2,columns=10,strip=48")
SMALL = ("greedy", "listed", "prompt")  # what runs in `make test`

pytestmark = pytest.mark.rtl


def geometry(rng, name):
    """A Geometry that the case holds, hidden and intermediate sizes of no particular multiple."""
    hidden, inner = (80, 160) if name == "up5k" else (150, 250)
    return Geometry(int(rng.integers(40, hidden)), int(rng.integers(50, inner)), int(rng.integers(1, 4)),
                    int(rng.integers(100, 400)))


def trees(rng, name):
    """A TreeGeometry: trees that wait for the memory or stand side by side, with rows that are always read or not."""
    del name
    return TreeGeometry(int(rng.integers(40, 150)), int(rng.choice([1, 3, 16])), int(rng.integers(0, 6)),
                        int(rng.choice([0, 9])), int(rng.integers(2, 4)), int(rng.integers(100, 300)))


def check(name, folder, kinds, timing=None, geometry=geometry):
    """Measures and predicts a random model; what is worse than WORST is told."""
    rng = np.random.default_rng([seed(), *name.encode()])
    config, shape = perf.configuration(name), geometry(rng, name)
    if name in FIRST:
        config = preset(name)  # the very build of the other tests
    elif name == LANES320.name:
        config = LANES320  # likewise
    timing = timing or perf.timing_of(name)
    found = perf.compare(config, random_model(rng, shape), folder / "random.sterna", byte_tokenizer(), timing, kinds)
    assert found
    for kind, (cycles, *predictions) in found.items():
        known, assumed = (prediction.cycles_per_run / cycles - 1 for prediction in predictions)
        print(f"{name} {shape} {kind} {timing}: {cycles:.1f} measured, {known:+.2%}, "
              f"with assumed numbers {assumed:+.2%}")
        limit = LISTED if kind == "listed" else SERIAL if config.compact else WORST
        assert abs(assumed) < limit, (name, shape, kind, timing)
        assert abs(known) < (LISTED if kind == "listed" and config.batch > 1 else WORST), (name, shape, kind, timing)


def test_no_build_is_made_for_these_alone():
    """What runs in `make test` takes the simulators that test_soc_geometries builds anyway."""
    assert {name for name, _ in BUILT} >= set(FIRST)
    for name in FIRST:
        assert key(preset(name)) == key(CONFIGS[name])


# The board with an SDRAM is compared by test_every_preset_and_kind_is_predicted.
@pytest.mark.parametrize("name", FIRST[:1])
def test_fresh_geometries_are_predicted(name, tmp_path):
    check(name, tmp_path, SMALL)


@pytest.mark.rest
@pytest.mark.parametrize("name", [*FIRST, *OTHERS])
def test_every_preset_and_kind_is_predicted(name, tmp_path):
    check(name, tmp_path, tuple(perf.KINDS))


@pytest.mark.rest
@pytest.mark.parametrize("latency, interval, refresh", [(0, 780, 0), (150, 400, 80), (60, 2000, 300)])
def test_other_memories_are_predicted(latency, interval, refresh, tmp_path):
    check("lanes40", tmp_path, tuple(perf.KINDS), Timing(latency, interval, refresh))


def test_fresh_trees_are_predicted(tmp_path):
    check("lanes40", tmp_path, ("greedy", "prompt"), geometry=trees)


@pytest.mark.rest
@pytest.mark.parametrize("name", ["lanes10", "lanes320"])
def test_trees_on_every_preset_are_predicted(name, tmp_path):
    check(name, tmp_path, tuple(perf.KINDS), geometry=trees)


@pytest.mark.rest
@pytest.mark.parametrize("latency, interval, refresh", [(0, 780, 0), (150, 400, 80)])
def test_trees_with_other_memories_are_predicted(latency, interval, refresh, tmp_path):
    check("lanes40", tmp_path, ("greedy",), Timing(latency, interval, refresh), trees)


@pytest.mark.rest
def test_the_widest_build_is_predicted(tmp_path):
    """On the board of test_soc_large: 32 lanes, strips of 160 rows, a port of 128 bytes."""
    rng, timing = np.random.default_rng([seed(), 32]), Timing(40, 780, 35, 200)
    packed = random_model(rng, Geometry(int(rng.integers(90, 200)), int(rng.integers(150, 250)), 2, 300))
    kinds = "greedy", "sampled", "prompt"
    found = perf.compare(WIDEST, packed, tmp_path / "x.sterna", byte_tokenizer(), timing, kinds)
    for kind, (cycles, known, _) in found.items():
        print(f"{packed.geometry} {kind}: {cycles:.1f} measured, {known.cycles_per_run / cycles - 1:+.2%}")
        assert known.cycles_per_run == pytest.approx(cycles, rel=WORST), kind


def test_counters_name_the_same_causes(tmp_path):
    """The board's counters, by cause, with a FIFO that fills: what the model says of them is of the same size."""
    config = PRESETS["lanes40"]
    shape = Geometry(160, 200, 2, 300)
    path = tmp_path / "random.sterna"
    packed = random_model(np.random.default_rng(seed()), shape)
    counters = {}

    def spy(runtime, kind, plain=perf.counted):
        counters.update(plain(runtime, kind))
        return counters

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(perf, "counted", spy)
        perf.compare(config, packed, path, byte_tokenizer(), perf.timing_of("lanes40"), ("greedy",))
    runs, found = counters["runs"], predict(config, shape, sampled=False, runs=perf.RUNS)
    for name, value in (("cycles", found.cycles_per_run), ("port_busy", found.words), ("refresh", found.refresh),
                        ("stall_idle", found.stall_idle)):
        assert value == pytest.approx(counters[name] / runs, rel=0.02), name
