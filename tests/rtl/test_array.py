"""The ternary array and its parts against NumPy."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import bench
import pytest
from amaranth.hdl import Module
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In
from sterna.hw.array.activations import ActivationBuffers
from sterna.hw.array.array import TernaryArray
from sterna.hw.array.decoder import TritDecoder
from sterna.hw.array.rows import RowQueue
from sterna.hw.array.tree import RowAccumulator
from sterna.hw.boards import preset
from sterna.hw.config import Config, ConfigError
from sterna.hw.flow.synth import TARGETS
from sterna.hw.stream import Gearbox

CARRY_CELLS = Path(__file__).parent / "carry_cells.v"
BIT2 = dataclasses.replace(preset("lanes40"), name="bit2", rows=4, columns=15, lanes=1, strip=32, port_bytes=8,
                           weight_code="bit2", row_words=64)
WIDE = dataclasses.replace(preset("lanes40"), name="wide", rows=2, columns=40, lanes=8, strip=32,
                           row_words=16)
FLAT = dataclasses.replace(preset("lanes40"), name="flat", rows=5, columns=8, lanes=8, strip=40, port_bytes=16,
                           row_words=16)  # columns that no five divides
SLOTS = (preset("lanes40,batch=2"), preset("lanes10,batch=4"),
         *(dataclasses.replace(c, name=f"{c.name},batch=2", batch=2) for c in (BIT2, WIDE)))
CONFIGS = {c.name: c for c in (*map(preset, ("up5k", "lanes10", "lanes40")), BIT2, WIDE, FLAT, *SLOTS)}
ON_VERILATOR = ("wide", "wide,batch=2", "lanes40,batch=2")  # Icarus takes a cycle of these a hundred times as long


def array(names, *others):
    """Parameters of tests: others, configurations by name, and the simulator that suits the configuration."""
    return [pytest.param(*others, name, "verilator", marks=pytest.mark.rest) if name in ON_VERILATOR
            else pytest.param(*others, name, "icarus", marks=pytest.mark.icarus) for name in names]


@pytest.mark.rtl
@pytest.mark.parametrize("trits, code", [(20, "trit5"), (30, "bit2"), (21, "bit2")])
def test_decoder(trits, code, simulator):
    unit = TritDecoder(trits=trits, code=code)
    bench.run(unit, "bench_array_units", f"decoder_{code}_{trits}", simulator, testcase="decoder",
              env={"TRITS": trits, "CODE": code, "LATENCY": unit.latency})


def row_of(columns, form=None):
    """A row of an array whose buffers hold the longest rows, and the environment of its bench."""
    words = min(16512 // columns, 400)
    bits = Config.row_bits.fget(SimpleNamespace(columns=columns, activation_words=words))
    unit = RowAccumulator(columns=columns, bits=bits, form=form)
    return unit, {"COLUMNS": columns, "WORDS": words, "BITS": bits, "LATENCY": unit.latency}


@pytest.mark.rtl
@pytest.mark.parametrize("columns", [10, 1, 5, 20, 40])
def test_row_accumulator(columns, simulator):
    unit, parameters = row_of(columns)
    bench.run(unit, "bench_array_units", f"row_accumulator{columns}", simulator, testcase="row_accumulator",
              env=parameters)


@pytest.mark.rtl
@pytest.mark.icarus
@pytest.mark.parametrize("form, columns", [("ecp5", 5), ("ecp5", 20), ("xc7", 15), ("xcup", 1), ("xcup", 20)])
def test_row_accumulator_of_a_fabric(form, columns):
    unit, parameters = row_of(columns, form)
    bench.run(unit, "bench_array_units", f"row_{form}_{columns}", "icarus", [CARRY_CELLS], "row_accumulator",
              parameters)


@pytest.mark.rtl
@pytest.mark.parametrize("columns, lanes, words, batch", [
    (20, 4, 7, 2), (10, 1, 16, 1), (20, 4, 7, 1), (40, 8, 5, 1), (5, 5, 1, 1), (10, 1, 16, 4), (5, 5, 1, 2)])
def test_activation_buffers(columns, lanes, words, batch, simulator):
    bench.run(ActivationBuffers(columns=columns, lanes=lanes, words=words, batch=batch), "bench_array_units",
              f"activations{columns}_{lanes}_{batch}", simulator, testcase="activation_buffers",
              env={"COLUMNS": columns, "LANES": lanes, "WORDS": words, "BATCH": batch})


@pytest.mark.rtl
@pytest.mark.parametrize("rows, lanes, batch", [
    (3, 4, 4), (1, 1, 2), (2, 8, 2), (6, 1, 2),
    *((*shape, 1) for shape in [(1, 1), (2, 8), (1, 4), (4, 4), (8, 2), (6, 1), (3, 4), (10, 4), (5, 2)])])
@pytest.mark.parametrize("stall", [0.8, 0.0])
def test_row_queue(rows, lanes, batch, stall, simulator):
    bench.run(RowQueue(rows=rows, lanes=lanes, depth=16, batch=batch), "bench_array_units",
              f"rows{rows}_{lanes}_{batch}", simulator, testcase="row_queue",
              env={"ROWS": rows, "LANES": lanes, "BATCH": batch, "DEPTH": 16, "STALL": stall})


def top(*words):
    """Name of a top module."""
    return "_".join(words).replace(",", "_").replace("=", "")


def parameters(config):
    """Environment of a bench: the fields of a configuration."""
    return {"CONFIG": repr(dataclasses.asdict(config))}


@pytest.mark.rtl
@pytest.mark.parametrize("stall, name, simulator", [
    (0.4, "up5k", "verilator"), pytest.param(0.4, SLOTS[1].name, "verilator", marks=pytest.mark.rest),
    *array([name for name in CONFIGS if CONFIGS[name].batch == 1], 0.0),
    *array(CONFIGS, 0.4)])
def test_products(stall, name, simulator):
    bench.run(TernaryArray(CONFIGS[name]), "bench_array", top("array", name), simulator, testcase="products",
              env={"STALL": stall, "PAIRS": 16 if simulator == "verilator" else 4, **parameters(CONFIGS[name])})


@pytest.mark.rtl
@pytest.mark.icarus
@pytest.mark.parametrize("family, name", [("ecp5", "lanes40"), ("ecp5", "up5k"), ("xcup", "bit2"),
                                          ("ecp5", "lanes40,batch=2")])
def test_products_in_a_fabric(family, name):
    """The array as a fabric gets it, in step with the cycles that the other tests count."""
    bench.run(TernaryArray(CONFIGS[name]), "bench_array", top("array", family, name), "icarus", [CARRY_CELLS],
              "products", {"STALL": 0.4, "PAIRS": 3, **parameters(CONFIGS[name])}, platform=TARGETS[family])


@pytest.mark.rtl
@pytest.mark.icarus
def test_products_in_the_other_simulator():
    config = CONFIGS["lanes40,batch=2"]
    bench.run(TernaryArray(config), "bench_array", top("array", config.name), "icarus", testcase="products",
              env={"STALL": 0.4, "PAIRS": 4, **parameters(config)})


@pytest.mark.rtl
@pytest.mark.parametrize("name, simulator", [
    ("up5k", "verilator"), pytest.param(SLOTS[1].name, "verilator", marks=pytest.mark.rest), *array(CONFIGS)])
def test_back_to_back(name, simulator):
    bench.run(TernaryArray(CONFIGS[name]), "bench_array", top("array", name), simulator, testcase="back_to_back",
              env=parameters(CONFIGS[name]))


@pytest.mark.rtl
@pytest.mark.parametrize("name, simulator", array(["up5k", "wide", "wide,batch=2"]))
def test_largest_sums(name, simulator):
    bench.run(TernaryArray(CONFIGS[name]), "bench_array", top("array", name), simulator,
              testcase="largest_sums", env=parameters(CONFIGS[name]))


@pytest.mark.rtl
@pytest.mark.icarus
def test_largest_sums_in_a_fabric():
    config = CONFIGS["up5k"]
    bench.run(TernaryArray(config), "bench_array", top("array", "ecp5", config.name), "icarus",
              [CARRY_CELLS], "largest_sums", parameters(config), platform=TARGETS["ecp5"])


class Fed(wiring.Component):
    """The array with its gearbox, wired as in the accelerator: a product's last tile drops the rest of its word."""

    def __init__(self, config):
        self.trees = config.tree_rows > 0
        self.gearbox = Gearbox(port_bytes=config.port_bytes, tile_bytes=config.tile_bytes, records=self.trees)
        self.array = TernaryArray(config)
        members = dict(self.array.signature.members)
        self.through = [name for name in members if name != "tiles"]
        super().__init__({"words": In(stream.Signature(8 * config.port_bytes)),
                          **{name: members[name] for name in self.through}})

    def elaborate(self, platform):
        m = Module()
        m.submodules.gearbox, m.submodules.array = self.gearbox, self.array
        wiring.connect(m, wiring.flipped(self.words), self.gearbox.i)
        wiring.connect(m, self.gearbox.o, self.array.tiles)
        for name in self.through:
            member, inner = getattr(self, name), getattr(self.array, name)
            if self.signature.members[name].is_signature:
                wiring.connect(m, wiring.flipped(member), inner)
            else:
                inward = self.signature.members[name].flow == In
                m.d.comb += inner.eq(member) if inward else member.eq(inner)
        m.d.comb += self.gearbox.drop.eq(self.array.record_done)
        if self.trees:
            m.d.comb += self.gearbox.ends.eq(self.array.done)
        return m


@pytest.mark.rtl
@pytest.mark.parametrize("stall, name, simulator", [
    (0.4, "up5k", "verilator"), *array(["up5k", "bit2", "wide"], 0.0), *array(["up5k", "bit2", "wide,batch=2"], 0.4)])
def test_behind_gearbox(stall, name, simulator):
    bench.run(Fed(CONFIGS[name]), "bench_array", top("fed", name), simulator, testcase="fed",
              env={"STALL": stall, **parameters(CONFIGS[name])})


def test_refused_parameters():
    with pytest.raises(ValueError, match="21 trits do not fill bytes of five"):
        TritDecoder(trits=21, code="trit5")
    with pytest.raises(ValueError, match="weight code 'ascii': use trit5 or bit2"):
        TritDecoder(trits=20, code="ascii")
    with pytest.raises(ValueError, match="columns 0: must be positive"):
        RowAccumulator(columns=0)
    with pytest.raises(ValueError, match="form 'gowin': use one of portable, ecp5, xc7, xcup"):
        RowAccumulator(columns=5, form="gowin")
    with pytest.raises(ValueError, match="4 lanes do not divide 10 columns"):
        ActivationBuffers(columns=10, lanes=4, words=2)
    dataclasses.replace(preset("lanes40"), activation_words=3302)
    with pytest.raises(ConfigError, match="66060 columns then, .* 24 bits: use at most 3302"):
        dataclasses.replace(preset("lanes40"), activation_words=3303)
    with pytest.raises(ConfigError, match="activation_words 0: use 1 to 65535"):
        dataclasses.replace(preset("lanes40"), activation_words=0)
