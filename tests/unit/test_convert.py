"""sterna convert: in pieces as at once, what an image says about its model, and nothing half-written."""

import errno
import hashlib
import io
import json
import os
import struct
import tempfile
import threading
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import pytest
from crc32c import crc32c
from hostile import Memory
from safetensors.numpy import load_file, save_file
from small_model import GEOMETRY, byte_tokenizer, write_folder
from sterna.host.model import writing
from sterna.host.model.answer import Answer, Run, make_answer
from sterna.host.model.image import Image, ImageError, build_image
from sterna.host.model.model import Model
from sterna.host.runtime.known import known_answer
from sterna.hw.boards import BOARDS, preset
from sterna.sim.golden.compiler import ToolError
from sterna.sim.golden.fp24 import round24
from sterna.sim.golden.model import GoldenModel
from sterna.sim.golden.packed import Geometry, pack, random_model, random_tensors
from sterna.sim.golden.ternary import ternarise


class Speed(NamedTuple):
    stream_tokens_per_second: float


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("convert") / "model")


@pytest.fixture
def by_layers(monkeypatch):
    """Takes every model as a large one."""
    monkeypatch.setattr("sterna.sim.golden.packed.SMALL_WEIGHTS", 0)
    monkeypatch.setattr("sterna.sim.golden.packed.EMBEDDING_ROWS", 100)
    monkeypatch.setattr("sterna.host.model.writing.ROWS", 100)
    monkeypatch.setattr("sterna.host.model.image.PIECE_BYTES", 1000)


def written(model, name="sim", **more):
    file = io.BytesIO()
    assert model.write(file, preset(name), "m", **more) == len(file.getvalue())
    return file.getvalue()


def with_header(data, change):
    """An image whose header was changed by ``change(header)``."""
    length = struct.unpack_from("<I", data, 16)[0]
    header = json.loads(data[24:24 + length])
    change(header)
    text = json.dumps(header, separators=(",", ":")).encode().ljust(length)
    assert len(text) == length
    return data[:16] + struct.pack("<2I", length, crc32c(text)) + text + data[24 + length:]


def test_a_layer_at_a_time_gives_the_same_image(folder, by_layers, monkeypatch, tmp_path):
    done = []
    data = written(Model(folder), answer=known_answer, progress=lambda *at: done.append(at))
    path = tmp_path / "m.sterna"
    path.write_bytes(data)
    again = written(Model(path))  # of an image, with its answer
    monkeypatch.undo()
    assert written(Model(folder), answer=known_answer) == data == again
    total = (folder / "model.safetensors").stat().st_size
    assert done[-1][1] == total and total - done[-1][0] < 8000 and done == sorted(done)  # all but the header


def test_a_deep_model_takes_the_memory_of_few_layers(by_layers, tmp_path, monkeypatch):
    monkeypatch.setattr("lzma.compress", bytes)  # takes 97 MB for any text
    geometry = Geometry(128, 128, 40, 64)  # of 4.6 million trits
    tensors = random_tensors(np.random.default_rng(1), geometry)
    with open(tmp_path / "m.sterna", "w+b") as file, Memory() as memory:
        writing.write_image(file, pack(geometry, tensors), preset("sim"), "{}", "m", 0)
    assert memory.peak_bytes < 2_000_000
    with Memory() as memory:
        packed = Image.load(tmp_path / "m.sterna").unpack()
        sums = [int(layer.down.sum()) for layer in packed.layers]
    assert memory.peak_bytes < 1_000_000
    assert sums[-1] == ternarise(tensors["model.layers.39.mlp.down_proj.weight"])[0].sum()


def test_what_an_image_says_about_its_model(folder, sterna, tmp_path):
    paths = [tmp_path / f"{name}.sterna" for name in ("sim", "lanes40", "up5k")]
    assert sterna("convert", folder, "-o", paths[0])[0] == 0
    for before, path in zip(paths, paths[1:], strict=False):
        assert sterna("convert", before, "-o", path, "--preset", path.stem)[0] == 0
    first, *others = images = [Image.load(path) for path in paths]
    assert {image.tiling["rows"] for image in images} == {8, 3, 2}
    for image in others:
        assert (image.answer, image.source, image.statistics) == (first.answer, first.source, first.statistics)
    packed = first.unpack()
    golden = GoldenModel(packed)
    assert len({run.tokens for run in first.answer.runs}) == 3
    for run in first.answer.runs:
        assert list(run.tokens) == golden.generate(first.answer.prompt, len(run.tokens), run.seed, run.temperature,
                                                   top_k=run.top_k, top_p=run.top_p)
    assert first.answer == make_answer(golden, GEOMETRY.vocab_size, 0)
    trits, s = ternarise(load_file(folder / "model.safetensors")["model.layers.1.mlp.gate_proj.weight"])
    assert first.statistics["1.gate"] == [*(int((trits == k).sum()) for k in (-1, 0, 1)), round24(s / 127)]
    assert len(first.statistics) == 13


def test_inspect_shows_what_an_image_says(folder, sterna, tmp_path, monkeypatch):
    monkeypatch.setattr("sterna.host.commands.inspect.predict", lambda config, geometry: Speed(config.clock_hz / 1e5))
    images = {"new": written(Model(folder), answer=known_answer)}
    images["old"] = with_header(images["new"], lambda header: [header.pop(key) for key in (
        "statistics", "source", "answer")])
    found, texts = {}, {}
    for name, data in images.items():
        (tmp_path / name).write_bytes(data)
        code, out, err = sterna("inspect", tmp_path / name, "--json")
        assert code == 0 and err == "predicting speeds\n"
        found[name], texts[name] = json.loads(out), sterna("inspect", tmp_path / name)[1]
    new, old = found["new"], found["old"]
    for key in ("trits", "scales", "matrices", "boards"):  # counted where the header does not say it
        assert new[key] == old[key]
    image = Image(images["new"])
    assert (new["source"], new["answer"]) == (image.source, image.answer.to_json())
    assert sum(new["trits"].values()) == GEOMETRY.ternary_weights
    assert new["trits"]["-1"] == sum(entry[0] for entry in image.statistics.values())
    scales = sorted(entry[3] for entry in image.statistics.values())
    assert new["scales"] == {"min": scales[0], "median": scales[6], "max": scales[-1]}
    boards = {board["name"]: board for board in new["boards"]}
    assert set(boards) == set(BOARDS) and boards["ulx3s-85f"]["tokens_per_second"] == \
        BOARDS["ulx3s-85f"].config.clock_hz / 1e5
    assert all(board["fits"] for board in boards.values())
    assert f"sha256 {image.source['sha256']}" in texts["new"]
    assert "answer:   a prompt of 4 tokens, and 8 greedy, 8 sampled, 8 top-k/p" in texts["new"]
    assert "answer:   no known answer: " in texts["old"] and "source:   not known" in texts["old"]
    share = new["trits"]["0"] / GEOMETRY.ternary_weights
    assert f"trits  0: {share:6.1%} #" in texts["new"] and f"median {scales[6]:.3g}," in texts["new"]


def test_inspect_says_why_a_board_cannot(sterna, tmp_path):
    packed = random_model(np.random.default_rng(2), Geometry(40, 48, 1, 3000))
    (tmp_path / "m").write_bytes(build_image(packed, preset("sim"), byte_tokenizer(), "m", 0))
    boards = {row["name"]: row for row in json.loads(sterna("inspect", tmp_path / "m", "--json")[1])["boards"]}
    assert boards["icepi-zero"]["fits"] and boards["icepi-zero"]["tokens_per_second"] > 1000
    assert not boards["icebreaker"]["fits"] and boards["icebreaker"]["tokens_per_second"] is None
    assert boards["icebreaker"]["reasons"][0].startswith("memory: needs ")
    text = " ".join(sterna("inspect", tmp_path / "m")[1].split())
    assert "│ icebreaker │ no: memory: needs " in text


def source_of(folder):
    """The hash as the page says it, from the folder."""
    lines = []
    for name in ("config.json", "tokenizer.json"):
        lines.append(f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()} {name}\n")
    for path in folder.glob("*.safetensors"):
        for name, value in load_file(path).items():
            shape = "x".join(map(str, value.shape))
            lines.append(f"{hashlib.sha256(value.tobytes()).hexdigest()} {name} F32 {shape}\n")
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()


def test_the_source_is_that_of_the_checkpoint(write_checkpoint, rng):
    geometry = Geometry(40, 24, 2, 264)
    tensors, found = random_tensors(rng, geometry), []
    for shards in (1, 3):
        place, _ = write_checkpoint(geometry, tensors, shards=shards, eos_token_id=0)
        (place / "tokenizer.json").write_text(byte_tokenizer())
        image = Image(written(Model(place)))
        assert image.source["sha256"] == source_of(place) and image.source["weights"] == "F32"
        found.append(image.source)
    assert found[0] == found[1]
    (place / "tokenizer.json").write_text(byte_tokenizer() + "\n")
    assert Image(written(Model(place))).source["sha256"] != found[0]["sha256"]


@pytest.mark.parametrize("change, message", [
    (lambda h: h["answer"]["prompt"].__setitem__(1, 264), "the known answer is none: its prompt is .* below 264"),
    (lambda h: h["answer"].pop("prompt"), "the known answer is none: it is"),
    (lambda h: h["answer"].update(runs=[]), "its runs are"),
    (lambda h: h["answer"]["runs"][0]["tokens"].clear(), "its tokens is"),
    (lambda h: h["answer"]["runs"][1].update(temperature=-1), "its temperature is -1: no sampling"),
    (lambda h: h["answer"]["runs"][1].update(top_p=0.5), "its top_p is 0.5"),
    (lambda h: h["answer"]["runs"][1].pop("seed"), "a run is"),
    (lambda h: h["source"].update(sha256="A" * 64), "source is"),
    (lambda h: h["source"].pop("weights"), "source is"),
    (lambda h: h["statistics"]["0.f"].__setitem__(0, 0), "statistics of 0.f is .* 1600 together"),
    (lambda h: h["statistics"]["0.f"].__setitem__(3, 10**20 << 128), "statistics of 0.f is .* and a scale"),
    (lambda h: h["statistics"].pop("head"), "statistics is .* must have 13 matrices"),
])
def test_what_says_nothing_true_is_refused(folder, change, message):
    data = written(Model(folder), answer=known_answer)
    assert Image(with_header(data, lambda header: None)).answer
    with pytest.raises(ImageError, match=f"damaged section header: .*{message}"):
        Image(with_header(data, change))


def test_images_of_before_have_no_answer(folder, sterna, tmp_path):
    path = tmp_path / "old.sterna"
    path.write_bytes(with_header(written(Model(folder)), lambda header: [header.pop(key) for key in (
        "statistics", "source")]))
    model = Model(path)
    assert (model.answer, model.image.source, model.image.statistics) == (None, None, None)
    assert sterna("generate", "-m", path, "-p", "a", "-n", 2, "--device", "golden")[0] == 0
    code, _, err = sterna("generate", "-m", path, "-p", "a", "-n", 2, "--device", "golden", "--self-test")
    assert code == 2 and f"{path} is an image without a known answer: make one that has it" in err
    code, _, err = sterna("generate", "-m", folder, "-p", "a", "-n", 2, "--device", "golden", "--self-test")
    assert code == 2 and f"{folder} is no image: make one" in err
    assert sterna("convert", path, "-o", tmp_path / "new.sterna")[0] == 0
    assert Image.load(tmp_path / "new.sterna").answer == Image(written(Model(folder), answer=known_answer)).answer


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_nothing_is_left_of_what_fails_on_the_way(write_checkpoint, rng, sterna, tmp_path, by_layers, monkeypatch):
    geometry = Geometry(40, 24, 2, 264)
    tensors = random_tensors(rng, geometry)
    tensors["model.layers.1.mlp.down_proj.weight"][39, 23] = np.nan
    place, _ = write_checkpoint(geometry, tensors, kind="BF16", eos_token_id=0)
    (place / "tokenizer.json").write_text(byte_tokenizer())
    out = tmp_path / "out"
    out.mkdir()
    (out / "m.sterna").write_text("what was there")
    code, _, err = sterna("convert", place, "-o", out / "m.sterna")
    assert code == 1 and f"{place / 'model.safetensors'}: tensor 'model.layers.1.mlp.down_proj.weight' holds" in err
    tensors["model.layers.1.mlp.down_proj.weight"][39, 23] = 0
    save_file(tensors, place / "model.safetensors")

    def fails(error):
        def write(self, data, before=writing._Sections._write):
            if len(self.statistics) > 8:
                raise error
            before(self, data)
        monkeypatch.setattr(writing._Sections, "_write", write)
        return sterna("convert", place, "-o", out / "m.sterna")

    code, _, err = fails(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert code == 1 and f"cannot write {out / 'm.sterna'}: No space left on device" in err
    assert fails(KeyboardInterrupt())[0] == 130
    assert names(out) == ["m.sterna"] and (out / "m.sterna").read_text() == "what was there"
    assert threading.active_count() == 1


def test_what_cannot_seek_gets_the_whole_image(folder, sterna, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    got = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    assert sterna("convert", folder, "-o", tmp_path / "pipe")[0] == 0
    reader.join()
    assert Image(got[0]).answer and len(Image(got[0]).data) == len(got[0])


def test_a_tiling_is_chosen_that_holds_the_model(folder, sterna, tmp_path, monkeypatch):
    monkeypatch.setattr("sterna.host.commands.image.PRESETS", {
        name: preset(f"{name},memory_bytes={size}") for name, size in (("sim", 4096), ("lanes40", 1 << 20))})
    assert "for lanes40,memory" in sterna("convert", folder, "-o", tmp_path / "m.sterna")[2]
    assert Image.load(tmp_path / "m.sterna").tiling["rows"] == 3
    monkeypatch.setattr("sterna.host.commands.image.PRESETS", {"sim": preset("sim,memory_bytes=4096")})
    assert "no preset's memory holds this model" in sterna("convert", folder, "-o", tmp_path / "m.sterna")[2]
    assert sterna("generate", "-m", tmp_path / "m.sterna", "-p", "a", "-n", 1, "--device", "golden")[0] == 0


def test_a_large_image_is_tiled_anew_in_a_file(folder, monkeypatch):
    in_memory = Model(folder).image_for(preset("lanes40"), print)
    monkeypatch.setattr("sterna.host.model.model.MEMORY_BYTES", 0)
    in_a_file = Model(folder).image_for(preset("lanes40"), print)
    assert in_a_file._mapping and np.array_equal(in_a_file.data, in_memory.data)


def test_build_image_is_the_file_in_memory():
    packed = random_model(np.random.default_rng(2), Geometry(20, 30, 1, 9))
    assert Image(build_image(packed, preset("sim"), "{}", "x", 3, answer=known_answer)).answer.prompt == (3, 2, 5, 8)


def test_an_image_is_not_tiled_for_a_preset_that_cannot_hold_it(folder, sterna, tmp_path):
    path = tmp_path / "m.sterna"
    path.write_bytes(written(Model(folder)))
    for source in (path, folder):
        code, _, err = sterna("convert", source, "-o", tmp_path / "n.sterna", "--preset", "up5k,memory_bytes=8192")
        assert code == 1 and err.startswith(f"error: {source}: memory: the model needs ")
    assert names(tmp_path) == ["m.sterna"]


@pytest.mark.parametrize("command", ["convert", "flash"])
def test_a_checkpoint_is_not_written_over(sterna, tmp_path, command):
    place = write_folder(tmp_path / "model")
    model = ("-m", place) if command == "flash" else (place,)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        before = (place / name).read_bytes()
        (tmp_path / name).symlink_to(place / name)
        for output in (place / name, tmp_path / name):
            code, _, err = sterna(command, *model, "-o", output)
            assert code == 1 and f"-o {output}: this is a file of the checkpoint in {place}, which would be" in err
        assert (place / name).read_bytes() == before
    for _ in range(2):  # an image may lie there
        assert sterna("convert", place, "-o", place / "m.sterna", "--no-answer")[0] == 0


def test_only_errors_of_the_output_are_said_of_it(folder, sterna, tmp_path, monkeypatch):
    def fails(*arguments, **more):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "elsewhere")

    monkeypatch.setattr("sterna.host.model.model.write_image", fails)
    code, _, err = sterna("convert", folder, "-o", tmp_path / "m.sterna", "--no-answer")
    assert (code, err) == (1, "error: elsewhere: No such file or directory\n") and not names(tmp_path)


def test_what_can_be_written_only_gets_the_whole_image(folder, sterna, tmp_path):
    out = tmp_path / "out"
    with out.open("wb") as file:  # as the shell's > FILE behind /dev/stdout
        size = Model(folder).write(file, preset("sim"), "m")
    assert size == out.stat().st_size and out.read_bytes() == written(Model(folder))
    code, _, err = sterna("convert", folder, "-o", "/dev/null", "--no-answer")
    assert code == 0 and f"/dev/null: {size:,} bytes" in err


def test_a_full_temporary_folder_is_named(folder, monkeypatch):
    def full(*arguments, **more):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("sterna.host.model.model.MEMORY_BYTES", 0)
    monkeypatch.setattr(writing._Sections, "_write", full)
    with pytest.raises(OSError, match="No space left") as error:
        Model(folder).image_for(preset("lanes40"), print)
    assert error.value.filename == tempfile.gettempdir()
    with open("/dev/null", "wb") as file, pytest.raises(OSError, match="No space left") as error:
        Model(folder).write(file, preset("sim"))
    assert error.value.filename == tempfile.gettempdir()


def test_a_longer_answer_and_source_go_along(folder):
    run = {"seed": (1 << 32) - 1, "temperature": 0.123456789, "top_k": 255, "top_p": 0.123456789}
    answer = Answer((263,) * 64, tuple(Run(**run, tokens=(263,) * 256) for _ in range(16)))
    source = {"sha256": "1" * 64, "sterna": "\u1234" * 200, "numerics": 65535, "weights": "\u1234" * 200}
    packed = Model(folder).packed
    image = Image(build_image(packed, preset("sim"), byte_tokenizer(), "m", 0, answer=answer, source=source))
    assert (image.answer, image.source) == (answer, source)


def test_how_the_answer_is_made_is_settled_before_a_byte_is_written(folder, sterna, tmp_path, monkeypatch):
    def never(*arguments, **more):
        raise AssertionError("written")

    monkeypatch.setenv("STERNA_THREADS", "0")
    monkeypatch.setattr("sterna.host.model.model.write_image", never)
    code, _, err = sterna("convert", folder, "-o", tmp_path / "m.sterna")
    assert code == 1 and err == "error: STERNA_THREADS=0: use 1 to 256\n" and not names(tmp_path)


@pytest.mark.parametrize("error", [ToolError("none"), FileNotFoundError(2, "No such file", "kernels.so")])
def test_without_kernels_the_golden_model_is_named(folder, sterna, tmp_path, monkeypatch, error):
    def fails():
        raise error

    monkeypatch.setattr("sterna.host.runtime.known.kernels", fails)
    code, _, err = sterna("convert", folder, "-o", tmp_path / "m.sterna")
    assert code == 0 and "cannot be compiled here, so the golden model makes the known answer" in err
    assert Image.load(tmp_path / "m.sterna").answer == Image(written(Model(folder), answer=known_answer)).answer


def test_without_the_memory_there_is_no_answer(folder, sterna, tmp_path, monkeypatch):
    def full(*arguments, **more):
        raise MemoryError("no room")

    monkeypatch.setattr("sterna.host.runtime.known.CpuModel", full)
    code, _, err = sterna("convert", folder, "-o", tmp_path / "m.sterna")
    assert code == 0 and "the memory is too small to compute a known answer: the image has none" in err
    assert Image.load(tmp_path / "m.sterna").answer is None


def test_the_answer_is_a_step_of_its_own(folder, sterna, tmp_path, monkeypatch):
    said = []

    @contextmanager
    def moving():
        yield lambda *at: said.append(at)

    monkeypatch.setattr("sterna.host.commands.image.moving", moving)
    assert sterna("convert", folder, "-o", tmp_path / "m.sterna")[0] == 0
    steps = [at[1:] for at in said if at[0] == "known answer"]
    assert steps[0][0] == 0 and steps[-1] == (GEOMETRY.ternary_weights // 4,) * 2
