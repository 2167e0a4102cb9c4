"""Read off the netlist: no stream's valid depends on its ready within a cycle."""

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from amaranth.back import rtlil
from amaranth.lib import wiring
from prove import planted
from sterna.hw.config import PRESETS
from sterna.hw.flow import synth

pytestmark = pytest.mark.formal
CONFIGS = {"external": replace(PRESETS["lanes10"], fifo_words=16, vector_words=128, activation_words=16, ring=16,
                               program_words=16),
           "slots": replace(PRESETS["lanes10"], fifo_words=16, vector_words=128, activation_words=16, ring=16,
                            program_words=16, batch=2),
           "onchip": replace(PRESETS["up5k"], memory_bytes=1024, ring=16, program_words=16)}
REGISTERS = ("$dff", "$sdff", "$adff", "$mem")


def netlist(component):
    """Cells of the flattened component: dictionaries of yosys' JSON, and its ports."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "unit.il").write_text(rtlil.convert(component, name="unit", emit_src=False))
        done = synth.run_tool(synth.yosys(), folder, (
            "-q", "-p", "read_rtlil {root}/unit.il; proc; flatten; opt_clean; memory_collect; check -assert; "
            "write_json {root}/unit.json"))
        assert done.returncode == 0, done.stderr or done.stdout
        module = json.loads((Path(folder) / "unit.json").read_text())["modules"]["unit"]
    return module["cells"].values(), {name: port["bits"] for name, port in module["ports"].items()}


def waiting_streams(component):
    """Names of the output streams whose valid is reached by their ready without a register."""
    cells, ports = netlist(component)
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
    (memory, unit) for memory, config in CONFIGS.items() for unit in synth.units_of(config)
    if unit in ("fetch", "direct_fetch", "arbiter", "gearbox", "router", "store", "onchip", "link", "sequencer",
                "registers", "array", "vector")])
def test_valid_never_waits_for_ready(memory, unit):
    assert waiting_streams(synth.create(unit, CONFIGS[memory])) == []


def test_planted_wait_is_seen():
    bug = planted("memory.store", "self.words.valid & running", "self.words.valid & running & self.write.ready")
    assert waiting_streams(bug.Store(address_bits=4, port_bytes=1)) == ["write"]
