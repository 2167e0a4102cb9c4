"""Models dealt to several engines: bytes, refusals, and texts on the interpreter."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import seed
from sterna.firmware.dealing import deal_matrix, dealt, gather_matrix
from sterna.firmware.layout import layout, share
from sterna.firmware.program import ProgramError, build_program
from sterna.host.device.info import DeviceInfo, ProtocolError
from sterna.host.model.image import Image, build_image
from sterna.hw.config import ConfigError
from sterna.hw.presets import PRESETS
from sterna.sim.golden.geometry import Geometry, TreeGeometry
from sterna.sim.golden.model import GoldenModel
from sterna.sim.golden.packed import random_model
from sterna.sim.machine.machine import Machine

BASE = replace(PRESETS["lanes40"], tree_rows=0)
SHAPE = (37, 53, 2, 40)


def of(engines, **changes):
    return replace(BASE, name=f"{engines} engines", engines=engines, **changes)


def test_shares():
    assert [share(n, 12, 2) for n in (1, 12, 13, 24, 25, 36, 40, 48)] == [1, 12, 12, 12, 13, 24, 24, 24]
    assert share(1000, 12, 1) == 1000


@pytest.mark.parametrize("engines", [2, 4, 32])
def test_a_matrix_is_dealt_and_gathered(engines):
    rng, config = np.random.default_rng([seed(), engines]), of(engines)
    shape = layout(config, Geometry(*SHAPE))
    for rows in (1, 11, 12, 13, 24, 25, 100, 500):
        columns = int(rng.integers(1, 90))
        size = -(-rows // config.rows) * -(-columns // config.columns) * config.tile_bytes
        data = rng.integers(1, 256, size, np.uint8)
        found = deal_matrix(data, rows, shape, columns)
        assert len(found) == shape.matrix_bytes(rows, columns)
        assert (gather_matrix(found, rows, shape, columns) == data).all()
        # The first turn is the first engine's, and the second one the second's.
        band = -(-columns // config.columns) * config.tile_bytes
        parts = found.reshape(-1, engines, config.port_bytes).swapaxes(0, 1).reshape(engines, -1)
        turn = band * shape.unit // config.rows
        for k in range(engines):
            begin = data[k * turn:(k + 1) * turn]
            assert (parts[k, :len(begin)] == begin).all()


@pytest.mark.parametrize("engines, batch", [(2, 1), (4, 1), (2, 2)])
def test_texts_are_the_same(engines, batch):
    """One image, dealt when it is loaded: the interpreter makes the golden model's text of it."""
    config = of(engines, batch=batch)
    packed = random_model(np.random.default_rng([seed(), engines]), Geometry(*SHAPE))
    data = build_image(packed, config, "{}", "test", 0)
    assert data == build_image(packed, of(1), "{}", "test", 0)
    image = Image(data)
    assert all((one == other).all() for (_, one), (_, other) in zip(
        image.regions(of(1)), [(0, dealt(name, image.section(name), image.layout, image.layout))
                               for name in ("embedding", "stream")], strict=True))
    program = build_program(config, image.geometry)
    memory = np.zeros(program.memory_map.end, np.uint8)
    for address, part in image.regions(config):
        memory[address:address + len(part)] = part
    machine = Machine(config, memory)
    machine.load(program)
    machine.ring[:2] = 3, 5
    machine.position = machine.start = 0
    machine.prompt_end, machine.limit = 2, 5
    machine.write_scalar(2, 0x3F8000)
    if batch > 1:
        machine.enabled = True
    tokens = [report.token for report in machine.run()]
    assert tokens == GoldenModel(image.unpack()).generate([3, 5], 4)


@pytest.mark.parametrize("changes, text", [
    ({"engines": 3}, "engines 3: use one of 1, 2, 4, 8, 16, 32"),
    ({"tree_rows": 8}, "engines 2: walks no trees: use tree_rows 0 or one engine"),
    ({"clock_hz": 24_000_000}, "engines 2: needs a clock above 40000000 Hz"),
    ({"port_bytes": 2, "rows": 1, "columns": 15, "lanes": 1, "strip": 36}, "engines 2: needs words of 4 bytes"),
    ({"axi_ports": 2, "port_bytes": 16}, "engines 2: axi_ports serve one engine so far"),
    ({"sdram": "AS4C32M16SB-7", "memory_hz": 80_000_000, "memory_bytes": 64 << 20}, "each of 2 engines one"),
])
def test_what_several_engines_need(changes, text):
    with pytest.raises(ConfigError, match=text):
        replace(of(2), **changes)


def test_trees_are_refused():
    with pytest.raises(ProgramError, match="trees: 2 engines share matrices alone: use a build with one engine"):
        where = build_program(BASE, Geometry(*SHAPE)).memory_map
        build_program(of(2), TreeGeometry(40, 1, 1, 0, 1, 64), where)


def test_a_device_tells_its_engines():
    words = {name: getattr(of(4), name) for name in DeviceInfo.__dataclass_fields__ if name != "build"}
    info = DeviceInfo(**words, build=1)
    assert DeviceInfo.parse(info.pack()) == info and info.word_bytes == 32
    with pytest.raises(ProtocolError, match="reports 3 engines: use a build with 1, 2, 4, 8, 16, 32"):
        DeviceInfo.parse(replace(info, engines=3).pack())
