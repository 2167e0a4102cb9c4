"""Read off the netlist: no stream's valid depends on its ready within a cycle, and what comes from another clock goes
through two flip-flops.
"""

import json
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from prove import planted
from sterna.hw.boards import BOARDS
from sterna.hw.flow import rtlil, synth, units
from sterna.hw.link import uart
from sterna.hw.memory import crossing
from sterna.hw.presets import PRESETS
from sterna.hw.soc import Soc

pytestmark = pytest.mark.formal
CONFIGS = {"external": replace(PRESETS["lanes10"], fifo_words=16, vector_words=128, activation_words=16, ring=16,
                               program_words=16, tree_rows=16),
           "slots": replace(PRESETS["lanes10"], fifo_words=16, vector_words=128, activation_words=16, ring=16,
                            program_words=16, batch=2, tree_rows=16),
           "onchip": replace(PRESETS["up5k"], memory_bytes=1024, ring=16, program_words=16)}
REGISTERS = ("$dff", "$sdff", "$adff", "$mem")


def netlist(component):
    """Cells of the flattened component (dictionaries of yosys' JSON), bits of its ports by name, and
    names of bits.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "unit.il").write_text(rtlil.convert(component, name="unit"))
        done = synth.run_tool(synth.yosys(), folder, (
            "-q", "-p", "read_rtlil {root}/unit.il; proc; flatten; opt_clean; memory_collect; check -assert; "
            "write_json {root}/unit.json"))
        assert done.returncode == 0, done.stderr or done.stdout
        module = json.loads((Path(folder) / "unit.json").read_text())["modules"]["unit"]
    names = {bit: name for name, net in module["netnames"].items() for bit in net["bits"]}
    return module["cells"].values(), {name: port["bits"] for name, port in module["ports"].items()}, names


def waiting_streams(component):
    """Names of the output streams whose valid is reached by their ready without a register."""
    cells, ports, _ = netlist(component)
    sources = {}
    for cell in cells:
        if not cell["type"].startswith(REGISTERS):
            ins = {bit for name, bits in cell["connections"].items() if cell["port_directions"][name] == "input"
                   for bit in bits}
            for name, bits in cell["connections"].items():
                if cell["port_directions"][name] == "output":
                    for bit in bits:
                        sources.setdefault(bit, set()).update(ins)

    def reaches(start):
        seen, todo = set(), list(start)
        while todo:
            bit = todo.pop()
            if bit not in seen:
                seen.add(bit)
                todo += sources.get(bit, ())
        return seen

    names = []
    for path, member, _ in component.signature.flatten(component):
        stream = "__".join(map(str, path[:-1]))
        if path[-1] == "valid" and member.flow is wiring.Out and f"{stream}__ready" in ports:
            if reaches(ports[f"{stream}__valid"]) & set(ports[f"{stream}__ready"]):
                names.append(stream)
    return names


@pytest.mark.parametrize("memory, unit", [
    (memory, unit) for memory, config in CONFIGS.items() for unit in units.units_of(config)
    if unit in ("fetch", "walker", "direct_fetch", "arbiter", "gearbox", "router", "store", "onchip", "link",
                "sequencer", "registers", "array", "vector")])
def test_valid_never_waits_for_ready(memory, unit):
    assert waiting_streams(units.create(unit, CONFIGS[memory])) == []


def test_planted_wait_is_seen():
    bug = planted("memory.store", "self.words.valid & running", "self.words.valid & running & self.write.ready")
    assert waiting_streams(bug.Store(address_bits=4, port_bytes=1)) == ["write"]


SMALL = {"fifo_words": 16, "vector_words": 128, "activation_words": 16, "ring": 16, "program_words": 16, "credits": 1,
         "top_k": 0}
SOCS = {"sdram": replace(BOARDS["ulx3s-85f"].config, tree_rows=16, **SMALL),
        "onchip": replace(BOARDS["icebreaker"].config, **SMALL)}
LEVEL = "refreshing"  # a wrong cycle of it is a wrong cycle in a counter and no more


def _clocked(cell):
    """(clock, bits that it loads, bits that change with it) of each register or port of a memory; of a read without
    a clock, the clock of the writes.
    """
    pins = cell["connections"]
    if not cell["type"].startswith("$mem"):
        loads = [bit for name, bits in pins.items() if name not in ("CLK", "Q", "ARST") for bit in bits]
        return [(pins["CLK"][0], loads, pins["Q"])]
    parameters = {name: int(cell["parameters"][name], 2) for name in ("RD_PORTS", "WR_PORTS", "WIDTH", "ABITS",
                                                                       "RD_CLK_ENABLE")}
    width, address = parameters["WIDTH"], parameters["ABITS"]
    found = []
    for k in range(parameters["WR_PORTS"]):
        found.append((pins["WR_CLK"][k], pins["WR_ADDR"][address * k:address * (k + 1)]
                      + pins["WR_DATA"][width * k:width * (k + 1)] + pins["WR_EN"][width * k:width * (k + 1)], []))
    for k in range(parameters["RD_PORTS"]):
        out = pins["RD_DATA"][width * k:width * (k + 1)]
        if parameters["RD_CLK_ENABLE"] >> k & 1:
            asked = [*pins["RD_ADDR"][address * k:address * (k + 1)], pins["RD_EN"][k]]
            found.append((pins["RD_CLK"][k], asked, out))
        elif parameters["WR_PORTS"]:
            found.append((pins["WR_CLK"][0], [], out))
    return found


def unsynchronised(component, asynchronous=()):
    """What a clock loads without a synchroniser though it comes from another clock, or from an asynchronous input.

    A synchroniser is a flip-flop that alone takes that bit, and that reaches nothing but one more
    flip-flop of its clock. Before the first one stands no logic, but for LEVEL. Returns pairs of
    names: from where, and what is loaded.
    """
    cells, ports, names = netlist(component)
    origin = {bit: name for name in asynchronous for bit in ports[name]}  # of a bit: its clock, or the input
    loads, drivers, uses = [], {}, {}
    for cell in cells:
        if cell["type"].startswith(REGISTERS):
            plain = cell["type"] == "$dff"
            for clock, ins, outs in _clocked(cell):
                origin |= dict.fromkeys(outs, clock)
                loads += [(clock, bit, out if plain else None)
                          for bit, out in zip(ins, outs if plain else ins, strict=True)]
        else:
            ins = [bit for pin, bits in cell["connections"].items() if cell["port_directions"][pin] == "input"
                   for bit in bits]
            for pin, bits in cell["connections"].items():
                if cell["port_directions"][pin] == "output":
                    drivers |= dict.fromkeys(bits, ins)
            for bit in ins:
                uses.setdefault(bit, []).append(None)
    for clock, bit, out in loads:
        uses.setdefault(bit, []).append((clock, out))

    def sources(bit, seen):
        if bit in seen:
            return set()
        seen.add(bit)
        if bit in origin:
            return {bit}
        return set().union(*(sources(driver, seen) for driver in drivers.get(bit, ())))

    crossing = [(clock, bit, out, {source for source in sources(bit, set()) if origin[source] != clock})
                for clock, bit, out in loads]
    taken = Counter(source for *_, other in crossing for source in other)
    found = set()
    for clock, bit, out, other in crossing:
        followers = uses.get(out, []) if out is not None else []
        once = len(followers) == 1 and followers[0] is not None and followers[0][0] == clock
        direct = bit in other or LEVEL in names.get(bit, "")
        if other and not (direct and once and followers[0][1] is not None and all(taken[s] == 1 for s in other)):
            found |= {(names.get(source, str(source)), names.get(bit, str(bit))) for source in other}
    return found


@pytest.mark.parametrize("memory", ["onchip", pytest.param("sdram", marks=pytest.mark.rest)])
def test_what_another_clock_brings_is_synchronised(memory):
    """The serial input, the level `refreshing`, and the pointers of the crossings. Their memories are read where
    nobody writes, as the pointers tell (tests/rtl/test_crossing.py).
    """
    assert unsynchronised(Soc(SOCS[memory], 1_000_000), ["rx_line"]) == set()


class NoSynchroniser(wiring.Component):
    """In place of FFSynchronizer."""

    def __init__(self, i, o, **options):
        self._ends = i, o
        super().__init__({})

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self._ends[1].eq(self._ends[0])
        return m


@pytest.mark.rest
@pytest.mark.parametrize("where, start", [(uart.cdc, "rx_line"), (crossing, "")])
def test_a_missing_synchroniser_is_seen(where, start, monkeypatch):
    monkeypatch.setattr(where, "FFSynchronizer", NoSynchroniser)
    found = unsynchronised(Soc(SOCS["sdram"], 1_000_000), ["rx_line"])
    assert found and all(start in source for source, _ in found), found
