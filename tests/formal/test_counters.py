"""Proofs about the counters: each counts the event of its name, from the units to the register."""

from pathlib import Path

import pytest
from amaranth.hdl import Signal
from prove import Proof, disproved, planted, stub
from sterna.hw import accelerator, protocol
from sterna.hw.boards import preset
from sterna.hw.control import counters

pytestmark = pytest.mark.formal
ROOT = Path(__file__).resolve().parents[2]
# What each counts (docs/protocol.md), as an expression of the units.
COUNTED = {
    "cycles": "sequencer.running",
    "port_busy": "memory.fetch_words.valid",
    "array_busy": "sequencer.running & array.busy",
    "stall_stream": "sequencer.running & array.stall_stream",
    "stall_rows": "sequencer.running & array.stall_rows",
    "stall_idle": "sequencer.running & ~array.busy",
    "refresh": "sequencer.running & refreshing",
    "runs": "sequencer.halted",
    "port_full": "sequencer.running & ~memory.fetch_words.valid & ~refreshing & fetch.full",
    "port_empty": "sequencer.running & ~memory.fetch_words.valid & ~refreshing & fetch.empty",
}
UNITS = {"link": "Link", "registers": "Registers", "sequencer": "Sequencer", "vector": "VectorEngine",
         "store": "Store", "memory": "Arbiter", "counters": "Counters"}
GAP = "\n" + 20 * " "  # between two events
STATIONS = {"fetch": "Fetch", "router": "Router", "gearbox": "Gearbox", "array": "TernaryArray",
            "ahead": "SkidBuffer"}


def events_of_the_accelerator(module):
    """Whatever the units say, the event of each counter is the one of its name."""
    proof = Proof()
    units = {}
    stations = planted("engines.stations")
    module.Stations = stations.Stations
    for place, names in ((module, UNITS), (stations, STATIONS)):
        for name, unit in names.items():
            units[name] = stub(getattr(place, unit))
            setattr(place, unit, units[name])
    dut = module.Accelerator(preset("lanes10"))
    proof.add(dut)
    proof.m.submodules.run = units["registers"].made._run  # made by the stub's class, and used by nobody
    made = {name: unit.made for name, unit in units.items()} | {"refreshing": dut.memory.refreshing}
    proof.release(made["sequencer"].running, made["sequencer"].halted, made["memory"].fetch_words.valid,
                  *(getattr(made["array"], name) for name in ("busy", "stall_stream", "stall_rows")),
                  made["fetch"].full, made["fetch"].empty)
    for name, expression in COUNTED.items():
        place = counters.EVENTS.index(name)
        proof.claim(name, made["counters"].events[place] == eval(expression, made))
    proof.check(2)


def values_of_the_counters(module):
    """The number of a counter is that of the cycles with its event, a cycle late; by induction."""
    proof = Proof()
    dut = module.Counters()
    inside = proof.add(dut)
    for place, name in enumerate(counters.EVENTS):
        seen = proof.past(dut.events[place])
        number = Signal(32, name=f"number_of_{name}")
        proof.m.d.sync += number.eq(number + seen)
        proof.claim(name, (dut.values[place] == number) & (inside[f"event_{name}"] == seen))
    proof.check(2, induction=True)


def test_events():
    assert set(COUNTED) == set(counters.EVENTS)
    events_of_the_accelerator(planted("accelerator"))


@pytest.mark.parametrize("old, new, claim", [
    (f"running & front.stall_stream,{GAP}running & front.stall_rows,",
     f"running & front.stall_rows,{GAP}running & front.stall_stream,", "stall_stream|stall_rows"),
    ("(lost & front.full, lost & front.empty)", "(lost & front.empty, lost & front.full)", "port_full|port_empty"),
    (f"running & refreshing,{GAP}sequencer.halted", f"sequencer.halted,{GAP}running & refreshing", "refresh|runs")])
def test_swapped_events_are_caught(old, new, claim):
    with disproved(match=claim):
        events_of_the_accelerator(planted("accelerator", old, new))


def test_values():
    values_of_the_counters(counters)


def test_swapped_values_are_caught():
    with disproved(match="stall_stream|stall_rows"):
        values_of_the_counters(planted("control.counters", "held.eq(self.events[k])",
                                       "held.eq(self.events[{3: 4, 4: 3}.get(k, k)])"))


def test_registers():
    """Each has the register that docs/protocol.md gives it."""
    page = " ".join((ROOT / "docs" / "protocol.md").read_text().split())
    for name in counters.EVENTS:
        assert f" 0x{protocol.counter_offset(name):X} {name}" in page, name
