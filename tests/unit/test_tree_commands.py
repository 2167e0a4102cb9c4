"""Models with trees on the command line: from a checkpoint folder to text, and a line where something has none."""

import json
import math

import numpy as np
import pytest
from safetensors.numpy import save_file
from small_model import byte_tokenizer
from sterna.host.model.image import Image
from sterna.host.model.model import Model
from sterna.host.runtime.statistics import useful_bytes
from sterna.models.synthetic.checkpoint import SyntheticError, geometry_of, make_checkpoint, weight_bytes
from sterna.sim.golden.geometry import Geometry, PackError, TreeGeometry, with_trees
from sterna.sim.golden.model import GoldenModel
from sterna.sim.golden.packed import pack_checkpoint, random_tensors

GEOMETRY = TreeGeometry(40, 3, 2, 4, 2, 264)
CONFIG = {"model_type": "hgrn_bit", "channel_mixer": "tree", "hidden_size": 40, "trees": 3, "tree_depth": 2,
          "tree_always": 4, "num_hidden_layers": 2, "vocab_size": 264, "rms_norm_eps": 1e-6, "eos_token_id": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("trees") / "model"
    place.mkdir()
    save_file(random_tensors(np.random.default_rng(1), GEOMETRY), place / "model.safetensors")
    (place / "config.json").write_text(json.dumps(CONFIG))
    (place / "tokenizer.json").write_text(byte_tokenizer())
    (place / "stories.txt").write_text("One day a cat saw a dog.\n<|endoftext|>\nThe end.\n")
    return place


def test_from_a_folder_to_text(folder, sterna, tmp_path):
    image = tmp_path / "m.sterna"
    code, _, err = sterna("convert", folder, "-o", image)
    assert code == 0, err
    loaded = Image.load(image)
    assert loaded.geometry == GEOMETRY and loaded.answer and loaded.source["weights"] == "F32"
    texts = []
    for model, device in ((folder, "golden"), (image, "golden"), (folder, "cpu"), (image, "cpu")):
        code, out, err = sterna("generate", "-m", model, "-p", "One day", "-n", 12, "--temp", 0, "--device", device)
        assert code == 0, err
        texts.append(out)
    vocabulary, golden = Model(folder).vocabulary, GoldenModel(pack_checkpoint(folder))
    made = golden.generate(vocabulary.encode("One day"), 12, stop=0)
    text = "One day" + b"".join(vocabulary.token_bytes(token) for token in made).decode(errors="replace")
    assert [one.rstrip("\n") for one in texts] == [text] * 4
    for run in loaded.answer.runs:
        assert list(run.tokens) == golden.generate(loaded.answer.prompt, len(run.tokens), run.seed, run.temperature,
                                                   top_k=run.top_k, top_p=run.top_p)
    other = tmp_path / "other.sterna"
    assert sterna("convert", image, "-o", other, "--preset", "lanes40")[0] == 0
    again = Image.load(other)
    assert (again.answer, again.source, again.statistics) == (loaded.answer, loaded.source, loaded.statistics)
    code, _, err = sterna("convert", folder, "-o", other, "--preset", "up5k")
    assert code == 1 and err.count("\n") == 1
    assert "trees: the model visits 13 neurons in a layer and this build 0: use a build with more tree_rows" in err


def test_more_neurons_than_any_preset_walks(folder, sterna, tmp_path, monkeypatch):
    monkeypatch.setattr("sterna.firmware.layout.most_visits", lambda build: 12)
    monkeypatch.setattr("sterna.host.commands.image.most_visits", lambda build: 12)
    code, _, err = sterna("convert", folder, "-o", tmp_path / "m.sterna", "--no-answer")
    assert code == 0 and Image.load(tmp_path / "m.sterna").geometry == GEOMETRY
    assert "no preset walks as many neurons as this model visits: tiled for kv260, it runs on models in" in err


def test_self_test_of_an_image(folder, sterna, tmp_path):
    image = tmp_path / "m.sterna"
    assert sterna("convert", folder, "-o", image)[0] == 0
    code, _, err = sterna("generate", "-m", image, "-p", "a", "-n", "1", "--device", "golden", "--self-test")
    assert code == 0 and "24 tokens as the image's known answer" in err


def test_eval_and_gate(folder, sterna):
    figures = {}
    for device in ("golden", "cpu", "float"):
        code, out, err = sterna("eval", folder / "stories.txt", "-m", folder, "--device", device, "--json")
        assert code == 0, err
        figures[device] = json.loads(out)[0]["perplexity"]
    assert 0 < abs(figures["golden"] / figures["float"] - 1) < 0.05
    assert figures["cpu"] == pytest.approx(figures["golden"], rel=1e-12)
    code, out, err = sterna("gate", folder, "--text", folder / "stories.txt", "--json")
    report = json.loads(out)
    assert code in (0, 1) and 0 < report["l1"]["kl_nats"] < 0.1 and report["tokens"] > 20
    assert "golden model" not in err


def test_plan_knows_models_with_trees(folder, sterna, tmp_path):
    image = tmp_path / "m.sterna"
    assert sterna("convert", folder, "-o", image, "--no-answer")[0] == 0
    texts = []
    for model in (folder, image):
        code, out, err = sterna("plan", model, "--config", "sim", "--config", "icebreaker")
        assert code == 0, err
        texts.append(out.partition(": ")[2])
        assert "3 trees of depth 2 and 4 neurons always on (13 of 25 neurons visited)" in " ".join(out.split())
        assert "trees: visits 13 neurons, walks 0" in " ".join(out.split())
        assert "against a gated linear unit (GLU) of 256: the mixer of a layer reads" in " ".join(out.split())
    assert texts[0] == texts[1]


def test_inspect_says_what_a_token_reads(folder, sterna, tmp_path, monkeypatch):
    image = tmp_path / "m.sterna"
    assert sterna("convert", folder, "-o", image, "--no-answer")[0] == 0
    code, out, err = sterna("inspect", image)
    assert code == 0, err
    shape = Image.load(image).layout
    # Both tables of a layer: 13 of 25 records each.
    read = shape.row_bytes + shape.stream_bytes + 2 * 2 * 13 * shape.record_bytes
    loaded = 264 * shape.row_bytes + shape.stream_bytes + 2 * 2 * 25 * shape.record_bytes
    assert ("trees:    3 of depth 2 and 4 neurons always on in a layer; a token visits 13 of its 25 neurons, and "
            f"reads {read:,} of {loaded:,} bytes\n") in out
    assert "geometry: hidden_size 40, trees 3, tree_depth 2, tree_always 4, num_hidden_layers 2, vocab_size" in out
    found = json.loads(sterna("inspect", image, "--json")[1])
    assert found["trees"] == {"trees": 3, "depth": 2, "always": 4, "neurons": 25, "visited": 13}
    assert found["token_bytes"] == read and len(found["matrices"]["1.tree_in"]) == 4
    boards = {board["name"]: board for board in found["boards"]}
    assert boards["icebreaker"]["reasons"][-1] == "trees: visits 13 neurons, walks 0"
    monkeypatch.setattr("sterna.host.plan.rows.most_visits", lambda config: 13 * (config.memory == "external"))
    boards = {board["name"]: board for board in json.loads(sterna("inspect", image, "--json")[1])["boards"]}
    assert boards["ulx3s-85f"]["fits"] and boards["ulx3s-85f"]["tokens_per_second"] > 0


def test_useful_bytes_are_those_of_the_visited_rows():
    geometry = TreeGeometry(40, 3, 2, 4, 2, 264)
    weights = 2 * (4 * 40 * 40 + 2 * 13 * 40)
    numbers = 2 * (9 * 40 + 6)
    assert useful_bytes(geometry, "trit5", output=False) == pytest.approx(weights / 5 + 3 * numbers + 43)
    assert useful_bytes(geometry, "bit2") == pytest.approx(
        (weights + 264 * 40) / 4 + 3 * (numbers + 81) + 43)
    # Rows are those of one token; all else is read once for all tokens of a run.
    four = useful_bytes(geometry, "trit5", tokens=4) - useful_bytes(geometry, "trit5")
    assert four == pytest.approx(3 * (43 + 2 * 2 * 13 * 40 / 5))


# ---- Made-up checkpoints ----


def test_names_of_trees():
    base = Geometry(2048, 5632, 24, 32000)
    assert with_trees(base, "1x11") == TreeGeometry(2048, 1, 11, 0, 24, 32000)
    assert with_trees(base, "32x4+160") == TreeGeometry(2048, 32, 4, 160, 24, 32000)
    assert geometry_of("1.3B", "8x0") == TreeGeometry(2048, 8, 0, 0, 24, 32000)
    for text in ("", "11", "1x", "x11", "1x11+", "1x-1", "1X11", "1x11+2+3", " 1x11", "1x1٣"):
        with pytest.raises(PackError, match="must be TREESxDEPTH or TREESxDEPTH.ALWAYS as in 1x11"):
            with_trees(base, text)
    with pytest.raises(SyntheticError, match="--tree 1x31: tree_depth is 31: must be a whole number from 0 to 30"):
        geometry_of("1.3b", "1x31")


def test_a_made_up_checkpoint_with_trees(tmp_path, sterna):
    geometry = geometry_of("64,1,2,300", "4x3+2")
    total = make_checkpoint(geometry, tmp_path / "made", shards=2)
    assert total == weight_bytes(geometry) == 2 * sum(
        math.prod(shape) for name, shape in geometry.tensors() if name != "model.lower_bounds") + 2 * 2 * 64
    model = Model(tmp_path / "made")
    assert model.geometry == geometry == TreeGeometry(64, 4, 3, 2, 2, 300)
    size = sum(file.stat().st_size for file in (tmp_path / "made").glob("*.safetensors"))
    assert total < size < total + 10_000 and len(model.packed.layers) == 2
    zeros = [np.mean(table == 0) for layer in model.packed.layers for table in (layer.tree_in, layer.tree_out)]
    assert all(0.2 < share < 0.5 for share in zeros)
    code, out, err = sterna("generate", "-m", tmp_path / "made", "-p", "a", "-n", "3", "--device", "golden")
    assert code == 0, err
    with pytest.raises(SyntheticError, match="34 shards: use 1 to 33"):
        make_checkpoint(geometry, tmp_path / "other", shards=34)
