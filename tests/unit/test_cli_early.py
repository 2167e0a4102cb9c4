"""What the commands refuse before anything takes long, and what they say of it."""

import json

import pytest
from small_model import GEOMETRY, write_folder
from sterna.firmware.layout import memory_map
from sterna.hw.presets import PRESETS
from sterna.sim.board.board import SimulatedBoard
from sterna.sim.golden.packed import Geometry, PackError, read_config

GIANT = {"model_type": "hgrn_bit", "hidden_size": 2560, "intermediate_size": 6912, "vocab_size": 32000,
         "num_hidden_layers": 32, "eos_token_id": 0}  # of 2.7 thousand million weights


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "model")


def refused(sterna, code, *command):
    """The one line of a command that is refused, behind what it may have said of its work."""
    found, out, err = sterna(*command)
    *before, line = err.splitlines()
    assert (found, out) == (code, "") and line.startswith("error: "), err
    assert all(said.startswith("packing ") for said in before), err
    return line


@pytest.mark.parametrize("name", ["sim", "lanes40", "ulx3s-85f", "lanes10,batch=2"])
def test_flash_refuses_what_has_none(sterna, folder, tmp_path, name):
    err = refused(sterna, 2, "flash", "-m", folder, "-o", tmp_path / "f", "--preset", name)
    assert f"--preset {name}: no board with it starts from a flash: use one of up5k, icebreaker" in err
    assert not (tmp_path / "f").exists()


def test_flash_checks_its_output_first(sterna, tmp_path):
    err = refused(sterna, 1, "flash", "-m", tmp_path / "no-model", "-o", tmp_path / "nowhere" / "f")
    assert f"-o {tmp_path}/nowhere/f: cannot be written there" in err


@pytest.mark.parametrize("name", ["up5k", "icebreaker", "icebreaker,program_words=300"])
def test_flash_takes_boards_that_have_one(sterna, folder, tmp_path, name):
    assert sterna("flash", "-m", folder, "-o", tmp_path / "f", "--preset", name)[0] == 0
    assert (tmp_path / "f").read_bytes()[:4] == b"STFL"


@pytest.mark.parametrize("flags, message", [
    (("--refresh", 780), "--refresh 780: every --refresh-interval 780 cycles, the memory would never deliver"),
    (("--refresh", 10, "--refresh-interval", 10), "use at most 9"),
    (("--refresh", 5, "--refresh-interval", 1), "use at most 0")])
def test_a_memory_that_never_delivers_is_refused(sterna, folder, flags, message):
    assert message in refused(sterna, 2, "generate", "-m", folder, "-p", "x", "--device", "sim", *flags)
    assert message in refused(sterna, 2, "bench", "-m", folder, "--device", "sim", *flags)


@pytest.mark.parametrize("device, flags, message", [
    ("sim:kv260", ("--dram", "fast"), "--dram fast: use one of ideal, ddr4, measured"),
    ("sim:lanes40", ("--dram", "ddr4"), "--dram ddr4: lanes40 has no AXI ports: leave --dram out, or use sim:kv260"),
    ("golden", ("--dram", "ddr4"), "--dram needs the simulated board"),
    ("sim:kv260", ("--latency", 3), "--latency 3: behind the AXI ports of kv260 is a DRAM: use --dram with one of")])
def test_a_dram_that_is_not_there_is_refused(sterna, folder, device, flags, message):
    assert message in refused(sterna, 2, "generate", "-m", folder, "-p", "x", "--device", device, *flags)
    assert message in refused(sterna, 2, "bench", "-m", folder, "--device", device, *flags)
    if device != "golden":
        assert message in refused(sterna, 2, "simulate", device, *flags)


@pytest.mark.parametrize("timing", [
    {"refresh_interval_cycles": 10, "refresh_cycles": 10}, {"refresh_cycles": -1}, {"latency_cycles": -1},
    {"bandwidth": 0}, {"bandwidth": 257}])
def test_a_board_refuses_impossible_timing_before_it_is_built(timing):
    with pytest.raises(ValueError, match=next(iter(timing)) if len(timing) == 1 else "refresh_cycles 10: use 0 to"):
        SimulatedBoard(PRESETS["sim"], **timing)
    SimulatedBoard(PRESETS["sim"], refresh_interval_cycles=0, refresh_cycles=5)


@pytest.mark.parametrize("preset", ["up5k", "lanes10", "sim"])
def test_inspect_counts_weights_without_padding(sterna, folder, tmp_path, preset):
    assert sterna("convert", folder, "-o", tmp_path / "m.sterna", "--preset", preset)[0] == 0
    hidden, inner, layers, vocab = 40, 48, 2, 264
    wanted = layers * (4 * hidden * hidden + 3 * hidden * inner) + vocab * hidden
    assert json.loads(sterna("inspect", "--json", tmp_path / "m.sterna")[1])["ternary_weights"] == wanted
    assert GEOMETRY.ternary_weights == wanted


def test_a_model_that_is_too_large_is_refused_from_its_config_alone(sterna, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(GIANT))
    err = refused(sterna, 1, "convert", tmp_path, "-o", tmp_path / "m.sterna", "--preset", "lanes40")
    assert "memory: the model needs " in err and "(of the presets, lanes160, lanes320, kv260 can hold it)" in err
    (tmp_path / "config.json").write_text(json.dumps(GIANT | {"num_hidden_layers": 320}))
    err = refused(sterna, 1, "convert", tmp_path, "-o", tmp_path / "m.sterna", "--preset", "sim")
    assert "use a larger memory or a smaller model (no preset can hold it)" in err


def test_a_model_that_is_too_large_is_refused_before_the_conversion(sterna, folder, monkeypatch):
    def never(*arguments):
        raise AssertionError("converted")

    monkeypatch.setattr("sterna.host.model.model.pack", never)
    assert memory_map(PRESETS["up5k"], GEOMETRY)
    err = refused(sterna, 1, "generate", "-m", folder, "-p", "x", "--device", "sim:up5k,memory_bytes=8192")
    assert "memory: the model needs " in err and "up5k, lanes10, " in err


@pytest.mark.parametrize("name, message", [
    ("pytorch_model.bin", "holds 'pytorch_model.bin' and no model.safetensors: load it with transformers and save"),
    ("pytorch_model-00001-of-00002.bin", "and no model.safetensors: load it with transformers"),
    ("weights.pth", "holds 'weights.pth' and no model.safetensors"),
    ("notes.txt", "holds no model.safetensors: download the folder's weights")])
def test_a_folder_with_other_weights_gets_a_way_out(sterna, folder, tmp_path, name, message):
    (folder / "model.safetensors").rename(folder / name)
    err = refused(sterna, 1, "convert", folder, "-o", tmp_path / "m")
    assert str(folder) in err and message in err


def test_a_folder_without_a_tokenizer_gets_a_way_out(sterna, folder, tmp_path):
    (folder / "tokenizer.json").unlink()
    err = refused(sterna, 1, "convert", folder, "-o", tmp_path / "m")
    assert f"{folder} holds no tokenizer.json and no tokenizer.model: copy that of the model into the folder" in err


def test_hidden_ratio_null_means_four(tmp_path):
    raw = {key: GIANT[key] for key in GIANT if key != "intermediate_size"}
    for ratio in ({}, {"hidden_ratio": None}, {"hidden_ratio": 4}, {"hidden_ratio": None, "intermediate_size": None}):
        (tmp_path / "config.json").write_text(json.dumps(raw | ratio))
        assert read_config(tmp_path) == Geometry(2560, 6912, 32, 32000)
    (tmp_path / "config.json").write_text(json.dumps(raw | {"hidden_ratio": "4"}))
    with pytest.raises(PackError, match="hidden_ratio is '4': must be a positive number"):
        read_config(tmp_path)
