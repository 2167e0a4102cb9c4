"""The token program: limits of the presets, and one-line refusals."""

import hashlib
from dataclasses import replace

import pytest
from sterna.firmware import isa
from sterna.firmware.assembler import parse
from sterna.firmware.layout import layout, memory_map
from sterna.firmware.program import ProgramError, build_program, constants, inverse_temperature
from sterna.hw.boards import preset
from sterna.hw.config import ConfigError
from sterna.hw.presets import PRESETS
from sterna.sim.golden.fp24 import from_bits
from sterna.sim.golden.geometry import Geometry, TreeGeometry

SIZES = [("up5k", (80, 160, 4, 512)), ("lanes10", (256, 704, 6, 2048)), ("lanes40", (512, 1408, 8, 8192)),
         ("sim", (240, 800, 4, 1024)), ("lanes160", (1024, 2816, 4, 4096)),
         ("lanes320", (2560, 6912, 32, 32000)), ("ecpix5-85", (1024, 2816, 24, 32000)),
         ("kv260", (2560, 6912, 32, 32000))]


@pytest.mark.parametrize("name, shape", SIZES)
def test_fits_the_presets(name, shape):
    config = preset(name)
    program = build_program(config, Geometry(*shape))
    assert len(program.words) <= config.program_words <= 512
    assert max(program.vector_words) <= config.vector_words
    assert program.memory_map.end <= config.memory_bytes
    assert parse(program.listing, config.lanes).words(auto_wait=False) == program.words
    assert len(program.data) == 16 * len(program.words)


@pytest.mark.parametrize("changes", ["batch=2", "batch=4,top_k=16", "batch=8,top_k=64", "top_k=64"])
@pytest.mark.parametrize("name, shape", [one for one in SIZES if one[0] != "up5k"])
def test_slots_fit_the_presets(name, shape, changes):
    config = preset(f"{name},{changes}")
    plain, program = build_program(preset(name), Geometry(*shape)), build_program(config, Geometry(*shape))
    assert len(program.words) <= 300 < config.program_words
    assert program.vectors == plain.vectors
    assert (isa.SLOT in [isa.decode(word)[0] for word in program.words]) == (config.batch > 1)
    assert parse(program.listing, config.lanes).words(auto_wait=False) == program.words
    where = program.memory_map
    assert where.state_bytes == shape[2] * config.batch * where.layer_state_bytes and where.end <= config.memory_bytes


# Digests of the program memory for SIZES; on its instructions depend the cycles that docs/results.md quotes.
GLU_PROGRAMS = {
    "up5k": "5f1337934d977fe1",
    "lanes10": "7541fcee86598c6a",
    "lanes10,batch=4,top_k=0": "a1a316a3b74254f8",
    "lanes10,batch=2,top_k=16": "0c587c2d4343983f",
    "lanes40": "8e721fbb67f76856",
    "lanes40,batch=4,top_k=0": "77d3672ee2c0a3fe",
    "lanes40,batch=2,top_k=16": "24b21496bc797a81",
    "sim": "c3a1436454875817",
    "sim,batch=4,top_k=0": "3c677c96513d18f5",
    "sim,batch=2,top_k=16": "55bc4afec6a1da62",
    "lanes160": "daa3f62ee2f5ef98",
    "lanes160,batch=4,top_k=0": "753df756a34c5129",
    "lanes160,batch=2,top_k=16": "639146ac74617c16",
    "lanes320": "345047b7908796bb",
    "lanes320,batch=4,top_k=0": "8f4220bd19a590c8",
    "lanes320,batch=2,top_k=16": "df94d7d235fc3ed6",
}


@pytest.mark.parametrize("changes", sorted({name.partition(",")[2] for name in GLU_PROGRAMS}))
def test_programs_of_gated_linear_units_are_what_they_were(changes):
    """Another channel mixer changes no word of them; whoever changes them on purpose takes the digests anew."""
    shapes = dict(SIZES)
    for name in GLU_PROGRAMS:
        if name.partition(",")[2] == changes:
            program = build_program(preset(name), Geometry(*shapes[name.split(",")[0]]))
            assert hashlib.sha256(program.data).hexdigest()[:16] == GLU_PROGRAMS[name], name


TREES = [("lanes10", (256, 32, 4, 16, 6, 2048)), ("lanes40", (512, 1, 11, 0, 8, 8192)),
         ("sim", (240, 8, 2, 0, 4, 1024)), ("lanes160", (1024, 32, 7, 64, 4, 4096)),
         ("lanes320", (2560, 8, 9, 100, 32, 32000))]


@pytest.mark.parametrize("changes", ["", ",batch=4,top_k=16"])
@pytest.mark.parametrize("name, shape", TREES)
def test_trees_fit_the_presets(name, shape, changes):
    config, geometry = preset(name + changes), TreeGeometry(*shape)
    program = build_program(config, geometry)
    assert len(program.words) <= 300 < config.program_words
    assert max(program.vector_words) <= config.vector_words
    assert parse(program.listing, config.lanes).words(auto_wait=False) == program.words
    assert "w_d" not in program.vectors and program.vectors["z"].words == -(-geometry.visits // config.lanes)
    assert program.vectors["t1"].words == -(-shape[0] // config.lanes)  # one strip behind the gather
    assert float(from_bits(program.scalars[4])) == pytest.approx(1 / geometry.visits, rel=2 ** -16)
    where, port, walks = program.memory_map, config.port_bytes, []
    for opcode, f in map(isa.decode, program.words):
        if opcode == isa.FETCH and f["kind"] in (isa.KIND_WALK, isa.KIND_GATHER):
            assert (f["trees"], f["levels"], f["always"]) == (shape[1], shape[2] + 1, shape[3])
            assert f["words"] * port == layout(config, geometry).record_bytes
        if opcode == isa.FETCH and f["kind"] == isa.KIND_SKIP:
            assert f["words"] * port * 2 * shape[4] == where.tree_bytes
        if opcode == isa.WALK:
            walks.append((f["out"], f["rows"], f["length"]))
    assert walks == [(0, geometry.visits, shape[0]), (1, geometry.visits, shape[0])]


def test_states_of_slots_lie_side_by_side():
    geometry = Geometry(80, 160, 4, 100)
    config = preset("lanes40,batch=4")
    where = memory_map(config, geometry)
    assert where.layer_state_bytes == 320 and where.state_bytes == 4 * 4 * 320
    assert where.end == -(-(where.state_address + where.state_bytes) // 64) * 64
    assert where.state_address == memory_map(preset("lanes40"), geometry).state_address
    loops = [f for op, f in map(isa.decode, build_program(config, geometry).words) if op == isa.STORE]
    assert [f["words"] * config.port_bytes for f in loops] == [where.layer_state_bytes]


@pytest.mark.parametrize("narrower", [{}, {"port_bytes": 32, "rows": 15}])
def test_13b_fits_4_gib(narrower):
    """Its tables reach over 2 GiB; nothing is said of it in fewer bits than it has."""
    config, geometry = preset("kv260,memory_bytes=4294967296,activation_words=864"), Geometry(5120, 13824, 40, 32000)
    config = replace(config, axi_ports=0, strip=600, **narrower)
    where = memory_map(config, geometry)
    assert 11 << 28 > where.end > 10 << 28 and where.state_address > 1 << 31
    program, at = build_program(config, geometry), {}
    assert max(program.vector_words) <= config.vector_words
    fetched = 0
    for opcode, f in map(isa.decode, program.words):
        if opcode == isa.SETA:
            at[f["areg"]] = f["value"] * config.port_bytes
        elif opcode == isa.FETCH and f["areg"] == 1:
            fetched = max(fetched, f["words"])
    assert {where.stream_address, where.state_address} <= set(at.values())
    assert fetched * config.port_bytes >= layout(config, geometry).part_bytes("head")


def test_every_preset_is_covered():
    assert {name for name, _ in SIZES} == set(PRESETS)


def test_vectors_do_not_overlap():
    program = build_program(preset("sim"), Geometry(240, 800, 4, 1024))
    for number in range(3):
        spans = sorted((v.address, v.address + v.words) for v in program.vectors.values() if number in v.banks)
        assert all(end <= start for (_, end), (start, _) in zip(spans, spans[1:], strict=False))


def test_fetches_cover_the_stream():
    config, geometry = preset("sim"), Geometry(240, 800, 4, 1024)
    program = build_program(config, geometry)
    fetches = [f["words"] for op, f in map(isa.decode, program.words) if op == isa.FETCH and f["areg"] == 1]
    block, first, unwanted, fresh, between, again, end, head = fetches
    layers = geometry.num_hidden_layers
    assert again == block and first == unwanted == fresh
    assert (first + layers * block + (layers - 1) * between + end + head) * config.port_bytes \
        == program.memory_map.stream_bytes


def test_fetches_of_memory_on_chip_cover_the_stream():
    config, geometry = preset("up5k"), Geometry(80, 160, 4, 512)
    program = build_program(config, geometry)
    first, head, block, between, end = [f["words"] for op, f in map(isa.decode, program.words)
                                        if op == isa.FETCH and f["areg"] == 1]
    layers = geometry.num_hidden_layers
    assert (first + layers * block + (layers - 1) * between + end + head) * config.port_bytes \
        == program.memory_map.stream_bytes


@pytest.mark.parametrize("name, shape, message", [
    ("up5k", (40, 165, 1, 64), "activation memory: the model needs 34 words of 5 codes and the device has 32"),
    ("up5k", (120, 160, 1, 64), "vector memory: bank 0 needs 552 words and has 512"),
    ("up5k", (80, 160, 20, 512), "memory: the model needs .* bytes and the device has 131072"),
])
def test_refusals_name_what_is_too_large(name, shape, message):
    with pytest.raises(ProgramError, match=message) as caught:
        build_program(preset(name), Geometry(*shape))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name, shape, message", [
    ("up5k", (40, 1, 2, 0, 1, 64), "trees: the model visits 3 neurons in a layer and this build 0: use a build with"),
    ("lanes40", (64, 256, 3, 1, 1, 64), "trees: the model visits 1,025 neurons in a layer and this build 1,024"),
    ("lanes40,activation_words=60", (1280, 4, 2, 0, 1, 64),
     "activation memory: the model needs 64 words of 20 codes and the device has 60"),
    ("lanes10,vector_words=500", (50, 60, 6, 0, 1, 64), "vector memory: bank 0 needs 602 words and has 500"),
    ("lanes10", (64, 1, 20, 0, 1, 64), "memory: the model needs .* bytes and the device has 33554432"),
    ("lanes10,memory_bytes=2147483648,vector_words=8192", (1024, 1, 17, 0, 1, 64),
     "trees: a table of 262143 neurons has 27262872 words and a skip passes 16777215: use a wider port"),
])
def test_refusals_of_trees(name, shape, message):
    with pytest.raises(ProgramError, match=message) as caught:
        build_program(preset(name), TreeGeometry(*shape))
    assert "\n" not in str(caught.value)


def test_the_widest_vectors_are_folded():
    with pytest.raises(ConfigError, match="lanes 64: use 1 to 32"):
        replace(preset("lanes320"), lanes=64, columns=320, rows=1, strip=64)
    for lanes in (16, 32):
        config = replace(preset("lanes320"), lanes=lanes, columns=5 * lanes, rows=2, strip=512)
        folds = [isa.unpack(f["c"], True, True)[3] for op, f in
                 map(isa.decode, build_program(config, Geometry(80, 160, 1, 100)).words)
                 if op == isa.VOP and f["one"] and f["c_kind"] == 2]
        assert {1 << k for k in range(lanes.bit_length() - 1)} == set(folds) - {0}


def test_constants():
    values = {k: float(from_bits(v)) for k, v in constants(Geometry(64, 128, 1, 3)).items()}
    assert values[3] == 1 / 64 and values[4] == 1 / 128 and values[9] == 0.5 and values[11] == 127
    assert abs(values[13] - 0.6931) < 1e-4 and sorted(values) == list(range(3, 14))
    assert from_bits(inverse_temperature(0.5)) == 2 and from_bits(inverse_temperature(0)) == 1
