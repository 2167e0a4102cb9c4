"""Changes of signals that the simulated board counts, against its own waveform; and commands of an SDRAM."""

import re
from collections import Counter

import numpy as np
import pytest
from conftest import seed
from soc import random_image
from sterna.host.device.driver import Device
from sterna.host.device.flash import load_requests
from sterna.host.device.transport import open_transport
from sterna.hw.presets import PRESETS
from sterna.sim.board.board import BoardError, SimulatedBoard, read_toggles

from docs.figures.energy import unit_of

pytestmark = pytest.mark.rtl
CONFIG = PRESETS["up5k"]


def run(**options):
    """Tokens of a tiny model on a board."""
    image = random_image(np.random.default_rng([seed(), 5]), CONFIG, (12, 14, 1, 19))
    with SimulatedBoard(CONFIG, seed=seed(), **options) as board, Device(open_transport(board.url)) as device:
        for address, data in load_requests(image, CONFIG):
            device.write(address, data)
        return [token for _, token in device.run([1, 5], 2)]


def toggles_of(path):
    """{last name of a signal: bits by which it has changed} out of a VCD file."""
    names, last, count, scope = {}, {}, Counter(), []
    with path.open() as file:
        for line in file:
            if match := re.match(r"\s*\$scope \w+ (\S+)", line):
                scope.append(match[1])
            elif "$upscope" in line:
                scope.pop()
            elif match := re.match(r"\s*\$var \w+ +\d+ (\S+) (\S+)", line):
                names[match[1]] = ".".join([*scope, match[2]])
            elif match := re.match(r"b([01]+) (\S+)|([01])(\S+)", line):
                value, code = (match[1], match[2]) if match[1] else (match[3], match[4])
                count[code] += sum(a != b for a, b in zip(last.get(code, value), value, strict=True))
                last[code] = value
    return {name: count[code] for code, name in names.items()}


@pytest.mark.rest
def test_toggles_are_those_of_the_waveform(tmp_path):
    assert run(waves=tmp_path / "vcd") == run(toggles=tmp_path / "toggles")
    # How often the host asks for the position differs from run to run, which only the array has nothing to do with.
    wanted, found = ({name: count for name, count in counts.items() if unit_of(name) == "array"
                      and not name.endswith("clk")} for counts in (toggles_of(tmp_path / "vcd"),
                                                                   read_toggles(tmp_path / "toggles")))
    assert set(found) == set(wanted) and len(wanted) > 50 and sum(wanted.values()) > 50_000
    different = {name for name in wanted if wanted[name] != found[name]}
    assert not different, sorted((name, wanted[name], found[name]) for name in different)[:9]


def test_waves_and_toggles_are_not_for_one_run(tmp_path):
    with pytest.raises(BoardError, match="--toggles: leave --waves out"):
        run(waves=tmp_path / "vcd", toggles=tmp_path / "toggles")
